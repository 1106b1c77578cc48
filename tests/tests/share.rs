//! A share under real libvirt and NFS: who may mount it does, nobody else does, and its data outlives its
//! machine and its deployment.
//!
//! Needs root, a running libvirt, and the binaries `scripts/test` builds.

use std::net::IpAddr;

use ipop_tests::outside::{Outside, virsh};

/// The share in [`Outside::name`].
const SHARE: &str = "lake-data";

#[test]
fn a_share_is_for_its_members_alone_and_its_data_outlives_machine_and_deployment() {
    let outside = Outside::new("share");
    let name = outside.name.as_str();
    let target = format!("{name}/{SHARE}");
    let create = |members: &str| {
        let run = outside.provision(&[
            "share",
            "create",
            &target,
            "--on",
            "local",
            "--size",
            "1G",
            "--members",
            members,
            "--json",
        ]);
        let created = run.expect_code(0).json_lines().pop().expect("a result");
        assert_eq!(created["joined"], true, "{created}");
        created["ipv4"].as_str().expect("an address").to_owned()
    };
    outside
        .provision(&["cluster", "--name", name, "--frontend", "local"])
        .expect_code(0);
    outside
        .provision(&["user", "invite", name, "alice"])
        .expect_code(0);

    // --- Nobody but its members: the front end reaches the server, and is refused by it.
    let addr = create("alice");
    let mount = format!(
        "mkdir -p /mnt/lake && mount -t nfs4 -o vers=4.2,soft,timeo=100,retrans=2,retry=0,nosuid,nodev \
         {addr}:/srv/share /mnt/lake"
    );
    assert_eq!(volumes(name).len(), 1, "{:?}", volumes(name));
    listens_on_the_overlay_alone(&outside, &addr);
    let refused = outside.try_on("frontend-0", &mount);
    assert_ne!(refused.code, Some(0), "the front end is no member");
    let told = "access denied by server";
    let why = format!("{}{}", refused.stdout, refused.stderr);
    assert!(why.contains(told) || why.contains("No such file"), "{why}");

    // --- A member mounts it, and is one user there with all others.
    let members = |args: &[&str]| {
        let all = [&["share", "members", &target], args].concat();
        outside.provision(&all).expect_code(0);
    };
    members(&["--add", "frontend-0"]);
    outside.on("frontend-0", &mount);
    outside.on(
        "frontend-0",
        "echo 'lake data' >/mnt/lake/from-the-front-end && sync -f /mnt/lake",
    );
    let owner = outside.on(SHARE, "stat --format %u /srv/share/from-the-front-end");
    assert_eq!(owner.trim(), "65534", "root of a client is nobody there");
    let status = || {
        let run = outside.provision(&["share", "status", &target, "--json"]);
        run.expect_code(0).json_lines().pop().expect("a result")
    };
    let now = status();
    assert_eq!(now["machine"], "running", "{now}");
    assert_eq!(now["mounted"], serde_json::json!(["frontend-0"]), "{now}");
    let room = now["space"]["size_bytes"].as_u64().expect("a size");
    assert!((900 << 20..=1 << 30).contains(&room), "{now}");

    // --- One who is a member no more loses what is mounted.
    members(&["--remove", "frontend-0"]);
    let late = outside.try_on("frontend-0", "cat /mnt/lake/from-the-front-end");
    assert_ne!(late.code, Some(0), "{}", late.stdout);
    outside.on("frontend-0", "umount -f -l /mnt/lake");

    // --- The machine goes, the data stays, and another machine has it.
    let run = outside.provision(&["share", "destroy", &target, "--json"]);
    let ended = run.expect_code(0).json_lines().pop().expect("a result");
    assert_eq!(ended["kept"].as_array().map(Vec::len), Some(1), "{ended}");
    assert!(!virsh(&["list", "--all", "--name"]).contains(SHARE));
    let kept = volumes(name);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(create("frontend-0"), addr, "the address is free again");
    outside.on("frontend-0", &mount);
    let read = outside.on("frontend-0", "cat /mnt/lake/from-the-front-end");
    assert_eq!(read.trim(), "lake data");
    outside.on("frontend-0", "umount /mnt/lake");

    // --- So it is with the deployment; only who says so deletes it.
    let run = outside.provision(&["destroy", name, "--json"]);
    let removal = run.expect_code(0).json_lines().pop().expect("a result");
    let id = removal["kept"][0]["id"].as_str().expect("a volume");
    assert!(id.ends_with(&kept[0]), "{removal}");
    assert_eq!(volumes(name), kept);
    let run = outside.provision(&["gc", "--site", "local", "--dry-run"]);
    let listed = format!("data of `{target}` is kept");
    assert!(
        run.expect_code(0).stdout.contains(&listed),
        "{}",
        run.stdout
    );
    outside
        .provision(&["share", "destroy", &target, "--delete-data"])
        .expect_code(0);
    outside.assert_nothing_left();
}

/// Names of the volumes with the deployment's data.
fn volumes(name: &str) -> Vec<String> {
    let mark = format!("ipop-{name}.");
    let listed = virsh(&["vol-list", "ipop"]);
    let names = listed.split_whitespace().filter(|w| w.starts_with(&mark));
    names.map(str::to_owned).collect()
}

fn listens_on_the_overlay_alone(outside: &Outside, addr: &str) {
    let underlay: IpAddr = outside.underlay_address(SHARE);
    for port in [22, 111, 2049] {
        let open = outside.tcp_open(&underlay, port);
        assert!(!open, "port {port} answers on the site's network");
    }
    let listeners = outside.on(SHARE, "ss -Hltn \"sport = :2049\"");
    assert!(listeners.contains(&format!("{addr}:2049")), "{listeners}");
    for line in listeners.lines() {
        assert!(
            line.contains(&format!("{addr}:2049")) || line.contains("[fd"),
            "nfsd listens beyond the overlay: {line}"
        );
    }
}
