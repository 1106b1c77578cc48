//! A Rocks front end and workers elsewhere become one cluster, whose workers Rocks serves as if they
//! were plugged into its switch; and afterwards the front end is as it was.
//!
//! The front end's `rocks` is a stand-in, and no systemd runs there. The workers are SSH machines.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ipop_tests::kill::bench::{Ended, finish};
use ipop_tests::rocks::database::Mode;
use ipop_tests::rocks::{Frontend, PRIVATE};
use ipop_tests::sshd::{Login, Machine, MachineOptions, Room, Sudo};
use ipop_tests::wait_until;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
/// The compute node beside the front end.
const COMPUTE: &str = "10.1.255.254";

/// A front end, two machines for workers, and `provision` with a state directory of its own.
struct Lab {
    // Before the room: they may not outlive it.
    frontend: Frontend,
    workers: [Machine; 2],
    room: Room,
    dir: tempfile::TempDir,
    name: String,
}

impl Lab {
    fn new(label: &str, options: MachineOptions, keys: &str) -> Self {
        let room = Room::new(label);
        let double = Path::new(env!("CARGO_BIN_EXE_rocks-double"));
        let frontend = Frontend::new(&room, double, options);
        let workers = ["w0", "w1"].map(|name| room.machine(name));
        // Below a directory that ejabberd's user may pass.
        let dir = tempfile::Builder::new()
            .prefix("ipop-rocks-")
            .tempdir_in("/var/tmp")
            .expect("a temporary directory");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(dir.path(), open).expect("our directory");
        let known = room.known_hosts(&[&frontend.machine, &workers[0], &workers[1]]);
        let ssh = format!(
            "identity = {:?}\nknown_hosts = {known:?}\n",
            room.identity()
        );
        let hosts: Vec<_> = workers.iter().map(Machine::target).collect();
        let sites = format!(
            "[site.ucsd]\nkind = \"rocks\"\nhost = {:?}\nbridge = \"br0\"\n{keys}{ssh}\
             [site.lab]\nkind = \"ssh\"\nhosts = {hosts:?}\nshare = false\n\
             install_packages = false\n{ssh}\
             [rendezvous]\nkind = \"embedded\"\nlisten = [{:?}]\n",
            frontend.machine.target(),
            room.host_address(),
        );
        let lab = Self {
            name: format!("{label}{:x}", std::process::id()),
            frontend,
            workers,
            room,
            dir,
        };
        std::fs::write(lab.sites(), sites).expect("written");
        lab
    }

    fn sites(&self) -> PathBuf {
        self.dir.path().join("sites.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(provision());
        command
            .args(args)
            .arg("--sites")
            .arg(self.sites())
            .env("IPOP_STATE_DIR", self.dir.path().join("state"))
            .env("IPOP_CACHE_DIR", self.dir.path().join("cache"))
            .stdin(Stdio::null());
        command
    }

    fn provision(&self, args: &[&str]) -> Ended {
        finish(self.command(args))
    }

    fn ok(&self, args: &[&str]) -> String {
        let ended = self.provision(args);
        ended.ok().unwrap_or_else(|why| panic!("{why}"));
        ended.output
    }

    fn cluster(&self, workers: &str) -> Ended {
        let name = self.name.as_str();
        self.provision(&[
            "cluster",
            "--name",
            name,
            "--frontend",
            "ucsd",
            "--workers",
            workers,
        ])
    }

    fn changes(&self) -> Vec<String> {
        let machines = std::iter::once(&self.frontend.machine).chain(&self.workers);
        machines.map(Machine::changes).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Its ejabberd ends with it.
        if self
            .dir
            .path()
            .join("state/deployments")
            .join(&self.name)
            .exists()
        {
            let _ = self.command(&["destroy", &self.name]).status();
        }
        let _ = &self.room;
    }
}

/// The debug build of `provision`.
fn provision() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let path = test
        .ancestors()
        .nth(2)
        .expect("target directory")
        .join("provision");
    assert!(path.exists(), "run `cargo build -p provisioner` first");
    path
}

fn reaches(from: &ipop_tests::netns::Netns, address: &str) {
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
    let lab = Lab::new("rocks", options, "mtu = 1400\n");
    let checked = lab.ok(&["site", "check", "ucsd"]);
    assert!(checked.contains("compute-90-0, compute-90-1"), "{checked}");
    let (before, tables) = (lab.changes(), lab.frontend.tables());
    let calls = lab.frontend.calls();

    lab.cluster("1@lab").ok().expect("a cluster");
    let [front, first, second] = [&lab.frontend.machine, &lab.workers[0], &lab.workers[1]];
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
    let lab = Lab::new("batch", MachineOptions::default(), "");
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
    let lab = Lab::new("fails", MachineOptions::default(), "");
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
        let whole = |i: &ipop_tests::rocks::database::Interface| i.ip.is_some() && i.mac.is_some();
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
    let lab = Lab::new("taken", MachineOptions::default(), "");
    lab.frontend
        .machine
        .run("/opt/rocks/bin/rocks add host compute-90-0");
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
    let lab = Lab::new("check", MachineOptions::default(), "");
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
