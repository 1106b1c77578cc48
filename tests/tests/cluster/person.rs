//! Somebody who is invited, and removed again.

use std::time::Duration;

use ipop_tests::outside::Outside;
use ipop_tests::wait_until;

/// What a person's machine does: `worker-0`, whose own node stops meanwhile, and with it the way by
/// which it is reached.
const PERSON: &str = r#"
exec >/run/person.log 2>&1
systemctl stop ipop-role-check ipop-share ipop-node
ipop-node join - </run/invitation && ipop-node status
mount -t nfs4 -o vers=4.2 FRONTEND:/export /mnt && echo "from alice" >/mnt/from-alice && umount /mnt
until ! ipop-node status --json | grep -q '"state": "up"'; do sleep 1; done
echo removed
ipop-node leave NAME
systemctl start ipop-node ipop-share ipop-role-check
"#;

pub fn a_person_joins_uses_the_share_and_is_removed(outside: &Outside) {
    let name = outside.name.as_str();
    let frontend4 = outside.on("frontend-0", ". /run/ipop/env; echo $IPOP_ADDR4");
    let user = |args: &[&str]| {
        let run = outside.provision(&[&["user"], args, &["--json"]].concat());
        run.expect_code(0).json_lines().pop().expect("a result")
    };
    let invited = user(&["invite", name, "alice", "--machine", "laptop"]);
    let twice = outside.provision(&["user", "invite", name, "alice", "--machine", "laptop"]);
    twice.expect_code(4);
    assert!(twice.stderr.contains("--again"), "{}", twice.stderr);
    let token = invited["token"].as_str().expect("an invitation");
    outside.write_on("worker-0", "/run/invitation", token);
    let script = PERSON
        .replace("FRONTEND", frontend4.trim())
        .replace("NAME", name);
    outside.write_on("worker-0", "/run/person", &script);
    outside.on("worker-0", "systemd-run --quiet sh /run/person");

    wait_until(
        "alice's file on the share",
        Duration::from_secs(240),
        || {
            let run = outside.try_on("frontend-0", "cat /export/from-alice");
            (run.stdout.trim() == "from alice").then_some(())
        },
    );
    let members = user(&["list", name]);
    let member = &members["members"][0];
    assert_eq!(
        (&member["machine"], &member["state"]),
        (&"alice-laptop".into(), &"online".into()),
        "{members}"
    );
    let addr = member["ipv4"].as_str().expect("an address").to_owned();
    outside.on("frontend-0", &format!("ping -c 1 -W 5 {addr}"));

    // Out at once, and forgotten by everybody.
    user(&["remove", name, "alice"]);
    let listed = user(&["list", name]);
    assert_eq!(listed["members"].as_array().map(Vec::len), Some(0));
    let log = wait_until(
        "worker-0 to be itself again",
        Duration::from_secs(240),
        || {
            let run = outside.try_on("worker-0", "cat /run/person.log && findmnt /share");
            (run.code == Some(0)).then_some(run.stdout)
        },
    );
    for said in [
        format!("this machine is `alice-laptop` in `{name}`"),
        "\nremoved\n".to_owned(),
        format!("this machine is no member of `{name}` any more"),
    ] {
        assert!(log.contains(&said), "no {said:?} in: {log}");
    }
    // It may have tried again before it knew, and is named for that.
    let status = outside.node_status("frontend-0");
    let peers = status["peers"].as_array().expect("peers");
    let names: Vec<_> = peers.iter().map(|peer| &peer["name"]).collect();
    assert_eq!(names, ["worker-0"]);
    let used = outside.try_on("frontend-0", &format!("ping -c 1 -W 2 {addr}"));
    assert_ne!(used.code, Some(0), "what alice had still answers");
}
