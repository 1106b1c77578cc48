//! A Rocks front end and workers elsewhere become one cluster, whose workers Rocks serves as if they
//! were plugged into its switch; and afterwards the front end is as it was.
//!
//! The front end's `rocks` is a stand-in, and no systemd runs there. The workers are SSH machines.

use std::path::Path;
use std::time::Duration;

use ipop_tests::netns::Netns;
use ipop_tests::rocks::database::{Interface, Mode};
use ipop_tests::rocks::{Lab, PRIVATE};
use ipop_tests::sshd::{Login, MachineOptions, Sudo};
use ipop_tests::wait_until;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
/// The compute node beside the front end.
const COMPUTE: &str = "10.1.255.254";

fn lab(label: &str, options: MachineOptions, keys: &str) -> Lab {
    let double = Path::new(env!("CARGO_BIN_EXE_rocks-double"));
    Lab::new(double, label, options, keys)
}

fn reaches(from: &Netns, address: &str) {
    wait_until(
        &format!("{} reaches {address}", from.name()),
        PATIENCE,
        || from.reaches(address).then_some(()),
    );
}

#[test]
fn workers_join_the_private_network_of_a_front_end_and_leave_no_trace() {
    let options = MachineOptions {
        login: Login::User(Sudo::Free),
        ..MachineOptions::default()
    };
    let lab = lab("rocks", options, "mtu = 1400\n");
    let checked = lab.ok(&["site", "check", "ucsd"]);
    assert!(checked.contains("compute-90-0, compute-90-1"), "{checked}");
    let (before, tables) = (lab.changes(), lab.frontend.tables());
    let calls = lab.frontend.calls();
    let [front, first, second] = [&lab.frontend.machine, &lab.workers[0], &lab.workers[1]];
    let mac = || front.netns().run(&["cat", "/sys/class/net/br0/address"]);
    let own_mac = mac();

    lab.cluster("1@lab").ok().expect("a cluster");
    assert_eq!(
        lab.frontend.changes_since(calls),
        [
            "set network mtu private 1400",
            "add host compute-90-0 membership=Compute cpus=1 rack=90 rank=0 os=linux",
            "add host interface compute-90-0 eth0 ip=10.1.128.2 subnet=private \
             mac=02:49:0a:01:80:02 name=compute-90-0",
            "set host boot compute-90-0 action=os",
            "sync config",
        ]
    );
    // What Rocks tells of the worker is what it is.
    let shown = first.netns().run(&["ip", "address", "show", "ipop0"]);
    assert!(
        shown.contains("mtu 1400") && shown.contains("02:49:0a:01:80:02"),
        "{shown}"
    );
    assert!(shown.contains("inet 10.1.128.2/16"), "{shown}");
    let dhcpd = lab.frontend.file("etc/dhcp/dhcpd.conf");
    assert!(
        dhcpd.contains("hardware ethernet 02:49:0a:01:80:02;"),
        "{dhcpd}"
    );
    assert!(dhcpd.contains("option interface-mtu 1400;"), "{dhcpd}");
    // The device is a port, and no more.
    let port = wait_until("the device is a port of br0", PATIENCE, || {
        let port = front.netns().run(&["ip", "address", "show", "ipop0"]);
        port.contains("master br0").then_some(port)
    });
    assert!(!port.contains("inet"), "{port}");
    let bridge = front.netns().run(&["ip", "link", "show", "br0"]);
    assert!(bridge.contains("mtu 1500"), "{bridge}");
    // What the LAN knows the front end by.
    assert_eq!(mac(), own_mac);
    assert_eq!(
        front.run("stat -c '%a %U' /etc/ipop-node/*/ipop.password"),
        "600 root\n"
    );
    // One Ethernet: the worker, the front end, and the node that stands beside it.
    reaches(first.netns(), PRIVATE);
    reaches(first.netns(), COMPUTE);
    reaches(&lab.frontend.compute, "10.1.128.2");

    // The node is started again when it ends, and is a port again.
    front.run("kill -9 $(pidof ipop-node)");
    reaches(first.netns(), COMPUTE);
    let port = front.netns().run(&["ip", "link", "show", "ipop0"]);
    assert!(port.contains("master br0"), "{port}");

    let calls = lab.frontend.calls();
    lab.ok(&["scale", &lab.name, "--workers", "+1@lab"]);
    reaches(second.netns(), "10.1.128.2");
    let changed = lab.frontend.changes_since(calls);
    assert_eq!(changed.len(), 4, "{changed:?}");
    assert!(
        changed
            .iter()
            .all(|c| c.contains("compute-90-1") || c == "sync config"),
        "{changed:?}"
    );
    lab.ok(&["scale", &lab.name, "--workers=-1@lab"]);
    assert!(lab.frontend.tables().host("compute-90-1").is_none());
    assert!(lab.frontend.tables().host("compute-90-0").is_some());
    assert_eq!(second.changes(), before[2]);

    lab.ok(&["destroy", &lab.name]);
    assert_eq!(lab.frontend.tables(), tables);
    assert_eq!(lab.changes(), before);
}

#[test]
fn several_workers_are_registered_before_the_files_are_written_once_for_all() {
    let lab = lab("batch", MachineOptions::default(), "");
    let calls = lab.frontend.calls();
    lab.cluster("2@lab").ok().expect("a cluster");
    let changed = lab.frontend.changes_since(calls);
    assert_eq!(
        changed.iter().filter(|c| *c == "sync config").count(),
        1,
        "{changed:?}"
    );
    assert_eq!(changed.last().map(String::as_str), Some("sync config"));
    assert_eq!(changed.len(), 7, "{changed:?}");
}

#[test]
fn a_command_of_rocks_that_fails_leaves_nothing_half_and_is_made_good_later() {
    let lab = lab("fails", MachineOptions::default(), "");
    let (before, tables) = (lab.changes(), lab.frontend.tables());
    for (mode, host) in [
        ("refuse add host", false),
        ("halfway add host", false),
        ("refuse add host interface", true),
        ("halfway add host interface", true),
        ("refuse set host boot", true),
        ("halfway sync config", true),
    ] {
        let (manner, command) = mode.split_once(' ').expect("two words");
        let commands = vec![command.to_owned()];
        lab.frontend.misbehave(&match manner {
            "refuse" => Mode {
                refuse: commands,
                ..Mode::default()
            },
            _ => Mode {
                halfway: commands,
                ..Mode::default()
            },
        });
        let ended = lab.cluster("1@lab");
        assert_ne!(ended.code, Some(0), "{mode}");
        assert!(
            ended.output.contains("command \""),
            "{mode}: {}",
            ended.output
        );
        let now = lab.frontend.tables();
        let node = now.host("compute-90-0");
        assert_eq!(node.is_some(), host, "{mode}: {node:?}");
        let whole = |i: &Interface| i.ip.is_some() && i.mac.is_some();
        assert!(
            node.is_none_or(|n| n.interfaces.iter().all(whole)),
            "{mode}: {node:?}"
        );
        // No machine is made for a worker that Rocks does not know.
        assert_eq!(lab.workers[0].changes(), before[1], "{mode}");
        if mode.ends_with("config") {
            lab.frontend.misbehave(&Mode::default());
            lab.ok(&["resume", &lab.name]);
            assert!(lab.frontend.file("etc/hosts").contains("compute-90-0"));
        }
        // What cannot be told to be gone is not taken for gone.
        lab.frontend.misbehave(&Mode {
            refuse: vec!["list host".to_owned()],
            ..Mode::default()
        });
        let removal = lab.provision(&["destroy", &lab.name]);
        assert_eq!(removal.code == Some(0), !host, "{mode}: {}", removal.output);
        lab.frontend.misbehave(&Mode::default());
        if host {
            lab.ok(&["destroy", &lab.name]);
        }
        assert_eq!(lab.frontend.tables(), tables, "{mode}");
        assert_eq!(lab.changes(), before, "{mode}");
    }
}

#[test]
fn what_is_somebody_elses_is_named_and_left_alone() {
    let lab = lab("taken", MachineOptions::default(), "");
    lab.frontend.rocks("add host compute-90-0");
    let (before, tables) = (lab.changes(), lab.frontend.tables());
    let ended = lab.cluster("1@lab");
    assert!(
        ended.output.contains("compute-90-0 is another node's"),
        "{}",
        ended.output
    );
    lab.ok(&["destroy", &lab.name]);
    assert_eq!((lab.changes(), lab.frontend.tables()), (before, tables));
}

#[test]
fn site_check_names_what_is_wrong_with_a_front_end() {
    let lab = lab("check", MachineOptions::default(), "");
    let netns = lab.frontend.machine.netns();
    let check = || {
        let ended = lab.provision(&["site", "check", "ucsd", "--json"]);
        let report = ended.output.lines().next().expect("a line");
        let report: Value = serde_json::from_str(report).expect("JSON");
        let lines = report["lines"].as_array().expect("lines").clone();
        let about_rocks = lines
            .iter()
            .skip_while(|l| !l["what"].as_str().expect("text").ends_with("Rocks"));
        let host = lab.frontend.machine.target();
        about_rocks
            .map(|l| {
                let mark = if l["ok"] == true { "ok " } else { "BAD" };
                let what = l["what"].as_str().expect("text").replace(&host, "FRONTEND");
                format!("{mark} {what}: {}\n", l["found"].as_str().expect("text"))
            })
            .collect::<String>()
    };
    let mut all = check();
    let database = lab.frontend.database();
    let fresh = lab.frontend.tables();
    let mut tables = fresh.clone();
    tables.memberships.retain(|m| m.name != "Compute");
    tables.networks[0].mtu = 9000;
    tables.hosts[1].rack = 90;
    tables.hosts[1].interfaces[0].ip = Some("10.1.128.9".to_owned());
    database.write(&tables).expect("written");
    netns.run(&["ip", "link", "del", "br0"]);
    all += "---\n";
    all += &check();
    database.write(&fresh).expect("written");
    netns.run(&[
        "ip", "link", "add", "br0", "type", "veth", "peer", "name", "end",
    ]);
    all += "---\n";
    all += &check();
    lab.frontend.machine.run("rm /opt/rocks/bin/rocks");
    all += "---\n";
    all += &check();
    let glibc = all.split("glibc ").nth(1).expect("glibc");
    let glibc = glibc.lines().next().expect("a version").to_owned();
    insta::assert_snapshot!(all.replace(&format!("glibc {glibc}"), "glibc 2.N"));
}
