//! A share under real libvirt and NFS: who may mount it does, nobody else does, and its data outlives its
//! machine and its deployment. Its clients are at two sites, which are one libvirt under two names.
//!
//! Needs root, a running libvirt, and the binaries `scripts/test` builds.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ipop_tests::outside::{Outside, virsh};

/// The share in [`Outside::name`].
const SHARE: &str = "lake-data";

/// Where workers have it.
const WORKERS: &str = "/shares/lake-data";

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
    let cluster = ["cluster", "--name", name, "--frontend", "local"];
    outside
        .provision(&[&cluster[..], &["--workers", "1@annex"]].concat())
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
    // A worker would mount it by itself: what it may not have, and what is not there, is an error and no
    // hang, nor is a node that serves nothing.
    let tried = outside.on(
        "worker-0",
        &format!(
            "began=$(date +%s); for name in {SHARE} nothing worker-0; do \
             ! ls -d /shares/$name/. || exit 1; done 2>&1; echo $(($(date +%s) - began))"
        ),
    );
    let seconds = tried.lines().last().and_then(|s| s.parse::<u32>().ok());
    assert!(seconds.is_some_and(|s| s < 45), "{tried}");

    // --- A member mounts it, and is one user there with all others.
    let members = |args: &[&str]| {
        let all = [&["share", "members", &target], args].concat();
        outside.provision(&all).expect_code(0);
    };
    members(&["--add", "group:cluster"]);
    outside.on("frontend-0", &mount);
    outside.on(
        "frontend-0",
        "echo 'lake data' >/mnt/lake/from-the-front-end && sync -f /mnt/lake",
    );
    let owner = outside.on(SHARE, "stat --format %u /srv/share/from-the-front-end");
    assert_eq!(owner.trim(), "65534", "root of a client is nobody there");
    // The worker need not be told of the share, which is younger.
    let read = outside.on(
        "worker-0",
        &format!("cat {WORKERS}/from-the-front-end && findmnt -n -t nfs4 -o OPTIONS {WORKERS}"),
    );
    assert!(read.starts_with("lake data\n"), "{read}");
    for option in ["vers=4.2", "nosuid", "nodev", "hard"] {
        assert!(read.contains(option), "no {option}: {read}");
    }
    let status = || {
        let run = outside.provision(&["share", "status", &target, "--json"]);
        run.expect_code(0).json_lines().pop().expect("a result")
    };
    let now = status();
    assert_eq!(now["machine"], "running", "{now}");
    let both = serde_json::json!(["frontend-0", "worker-0"]);
    assert_eq!(now["mounted"], both, "{now}");
    let room = now["space"]["size_bytes"].as_u64().expect("a size");
    assert!((900 << 20..=1 << 30).contains(&room), "{now}");

    // --- It grows and is copied while it serves.
    grows_under_one_who_writes(&outside, &target);
    let room = status()["space"]["size_bytes"].as_u64().expect("a size");
    assert!((1900 << 20..=2 << 30).contains(&room), "{room}");
    outside
        .provision(&["share", "grow", &target, "--size", "1G"])
        .expect_code(2);

    snapshots_what_there_is(&outside, &target);

    // --- Its machine is killed under two sites that wait for it.
    outside.on("frontend-0", "umount /mnt/lake");
    survives_its_servers_end(&outside, &addr);
    outside.on("frontend-0", "umount /mnt/lake");
    outside.on("frontend-0", &mount);

    // --- One who is a member no more loses what is mounted.
    members(&["--remove", "group:cluster"]);
    let late = outside.try_on("frontend-0", "cat /mnt/lake/from-the-front-end");
    assert_ne!(late.code, Some(0), "{}", late.stdout);
    outside.on("frontend-0", "umount -f -l /mnt/lake");

    // --- The machine goes, the data stays, and another machine has it.
    let run = outside.provision(&["share", "destroy", &target, "--json"]);
    let ended = run.expect_code(0).json_lines().pop().expect("a result");
    // The data, and a snapshot of it with the mark that it is whole.
    assert_eq!(ended["kept"].as_array().map(Vec::len), Some(2), "{ended}");
    assert!(!virsh(&["list", "--all", "--name"]).contains(SHARE));
    let kept = volumes(name);
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert_eq!(create("frontend-0"), addr, "the address is free again");
    outside.on("frontend-0", &mount);
    let read = outside.on("frontend-0", "cat /mnt/lake/from-the-front-end");
    assert_eq!(read.trim(), "lake data");
    outside.on("frontend-0", "umount /mnt/lake");

    // --- So it is with the deployment; only who says so deletes it.
    let run = outside.provision(&["destroy", name, "--json"]);
    let removal = run.expect_code(0).json_lines().pop().expect("a result");
    let named = removal["kept"].as_array().expect("a list").iter();
    let named: Vec<_> = named.filter_map(|k| k["id"].as_str()).collect();
    let is_named = |name: &&String| named.contains(&format!("ipop/{name}").as_str());
    assert_eq!(kept.iter().filter(is_named).count(), 2, "{removal}");
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

/// Fills the share, has a client try to write until it can, and gives the share more room.
fn grows_under_one_who_writes(outside: &Outside, target: &str) {
    outside.on(
        SHARE,
        "cd /srv/share && fallocate -l $((($(stat -f -c %a .) - 2048) * $(stat -f -c %S .))) most && \
         { dd if=/dev/zero of=rest bs=64k 2>/dev/null || true; } && sync -f . && \
         [ \"$(stat -f -c %a .)\" -lt 256 ]",
    );
    outside.on(
        "frontend-0",
        "nohup sh -c 'until dd if=/dev/zero of=/mnt/lake/more bs=1M count=8 conv=fsync; do sleep 1; done; \
         echo written' >/run/more.log 2>&1 </dev/null &",
    );
    let log = |word: &str| {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let log = outside.on("frontend-0", "cat /run/more.log");
            if log.contains(word) {
                return log;
            }
            assert!(Instant::now() < deadline, "no `{word}` in: {log}");
            std::thread::sleep(Duration::from_secs(1));
        }
    };
    let full = log("No space left");
    assert!(!full.contains("written"), "{full}");
    let run = outside.provision(&["share", "grow", target, "--size", "2G", "--json"]);
    let grown = run.expect_code(0).json_lines().pop().expect("a result");
    assert_eq!(grown["size_gib"], 2, "{grown}");
    log("written");
    // Nothing is left to do, and nothing is done.
    outside
        .provision(&["share", "grow", target, "--size", "2G"])
        .expect_code(0);
    outside.on(SHARE, "rm /srv/share/most /srv/share/rest");
}

/// Copies the data while the share serves, and looks into the copies.
fn snapshots_what_there_is(outside: &Outside, target: &str) {
    let snapshot = |args: &[&str]| {
        let all = [&["share", "snapshot", target, "--json"], args].concat();
        let run = outside.provision(&all);
        run.expect_code(0).json_lines().pop().expect("a result")
    };
    outside.on(
        "frontend-0",
        "echo one >/mnt/lake/state && sync /mnt/lake/state",
    );
    let made = snapshot(&["before"]);
    assert_eq!(made["snapshots"][0]["whole"], true, "{made}");
    outside.on(
        "frontend-0",
        "echo two >/mnt/lake/state && sync /mnt/lake/state",
    );
    assert_eq!(snapshot(&[])["made"], "1");
    let all = snapshot(&["--list"]);
    let volume = |label: &str| {
        let all = all["snapshots"].as_array().expect("a list");
        let own = all.iter().find(|s| s["label"] == label);
        let id = own.expect(label)["volume"].as_str().expect("a name");
        id.split_once('/').expect("a pool").1.to_owned()
    };
    for (label, state) in [("before", "one"), ("1", "two")] {
        assert_eq!(file_in(&volume(label), "/state").trim(), state, "{label}");
    }
    outside
        .provision(&["share", "snapshot", target, "before"])
        .expect_code(4);
    let left = snapshot(&["--delete", "1"]);
    assert_eq!(
        left["snapshots"].as_array().map(Vec::len),
        Some(1),
        "{left}"
    );
}

/// What a file has in a volume's ext4 file system, that no machine uses.
fn file_in(volume: &str, file: &str) -> String {
    let path = virsh(&["vol-path", "--pool", "ipop", volume]);
    let raw = tempfile::NamedTempFile::new().expect("a temporary file");
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().expect(program);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {why}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let to = raw.path().to_str().expect("a path");
    run("qemu-img", &["convert", "-O", "raw", path.trim(), to]);
    // What was in the journal only is put in its place, as a mount does.
    let _ = Command::new("e2fsck")
        .args(["-p", to])
        .output()
        .expect("e2fsck");
    run("debugfs", &["-R", &format!("cat {file}"), to])
}

/// The server's machine loses its power while clients at two sites write: what was said to be on the disk is
/// there after, and both go on where they were.
fn survives_its_servers_end(outside: &Outside, addr: &str) {
    // As `share create` says it: a client waits for the server however long it takes. So does a worker.
    outside.on(
        "frontend-0",
        &format!("mount -t nfs4 -o vers=4.2,nosuid,nodev {addr}:/srv/share /mnt/lake"),
    );
    let clients = [
        Writer::start(outside, "frontend-0", "/mnt/lake"),
        Writer::start(outside, "worker-0", WORKERS),
    ];
    for client in &clients {
        client.until(3);
    }
    let machine = format!("ipop-{}-{SHARE}", outside.name);
    virsh(&["destroy", &machine]);
    let before = clients.each_ref().map(Writer::last);
    virsh(&["start", &machine]);
    for (client, before) in clients.iter().zip(before) {
        client.until(before + 1);
    }
    for client in &clients {
        client.is_written_once_and_in_order();
    }
    // The journal was replayed and nothing had to be repaired.
    let how = outside.on(SHARE, "journalctl --unit ipop-volume --boot --output cat");
    assert!(
        how.contains("recovering journal") && how.contains("clean"),
        "{how}"
    );
    let times = "cd /proc/fs/nfsd && cat nfsv4gracetime nfsv4leasetime";
    assert_eq!(outside.on(SHARE, times), "15\n15\n");
    let grace = outside.on(SHARE, "dmesg | grep -i grace");
    eprintln!("the server's grace, in seconds of its uptime:\n{grace}");
}

/// A client that writes lines to a file of its own on the share, each said to be on the disk before the next.
struct Writer<'a> {
    outside: &'a Outside,
    node: &'a str,
}

impl<'a> Writer<'a> {
    fn start(outside: &'a Outside, node: &'a str, folder: &str) -> Self {
        outside.on(
            node,
            &format!(
                "nohup sh -c 'i=0; until [ -e /run/enough ]; do i=$((i + 1)); \
                 echo $i | dd of={folder}/lines-{node} oflag=append conv=notrunc,fsync status=none || exit 1; \
                 read now rest </proc/uptime; echo $i $now >>/run/written; done; \
                 echo ended >>/run/written' >/run/lines.log 2>&1 </dev/null &"
            ),
        );
        Self { outside, node }
    }

    /// The number of the last line that is on the disk.
    fn last(&self) -> u32 {
        let last = self.outside.on(
            self.node,
            "tail -n 1 /run/written 2>/dev/null | cut -d \" \" -f 1",
        );
        last.trim().parse().unwrap_or(0)
    }

    /// Waits for more lines than that.
    fn until(&self, more: u32) {
        let deadline = Instant::now() + Duration::from_secs(600);
        loop {
            let now = self.last();
            if now > more {
                return;
            }
            let log = self.outside.on(self.node, "cat /run/lines.log");
            assert!(
                Instant::now() < deadline,
                "{} at line {now}: {log}",
                self.node
            );
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Ends it, compares what the server has with what was said, and says how long it stood still.
    fn is_written_once_and_in_order(&self) {
        let (outside, node) = (self.outside, self.node);
        let ended = "touch /run/enough; i=0; until grep -q ended /run/written; do i=$((i + 1)); \
                     [ $i -lt 60 ] || { cat /run/lines.log; exit 1; }; sleep 1; done; \
                     grep -v ended /run/written";
        let written = outside.on(node, ended);
        let said = written.lines().map(|line| {
            let (number, at) = line.split_once(' ').expect("a number and a time");
            (number, at.parse::<f64>().expect("seconds"))
        });
        let (numbers, times): (Vec<_>, Vec<_>) = said.unzip();
        let there = outside.on(SHARE, &format!("cat /srv/share/lines-{node}"));
        let there: Vec<_> = there.lines().collect();
        assert_eq!(there, numbers, "each line once, in their order");
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = pauses.fold(0.0, f64::max);
        eprintln!("{node} stood still for {longest:.0} s while the server's machine started");
    }
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
