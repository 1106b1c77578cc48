//! Machines that exist become members by SSH, and are afterwards as they were.
//!
//! No systemd runs on them, so what keeps the node running here is the small supervisor. The kernel
//! of the test machines has no NFS, so `share` is off.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipop_proto::status::LinkState;
use ipop_tests::ejabberd::{DOMAIN, Ejabberd, Options};
use ipop_tests::netns::Netns;
use ipop_tests::node::{NET4, NET6, Node};
use ipop_tests::sshd::{Login, Machine, MachineOptions, Room, Sudo};
use ipop_tests::wait_until;
use provisioner::bundle::{self, Bundle};
use provisioner::deploy::interrupt::Interrupt;
use provisioner::error::{CliError, Retry};
use provisioner::event::Event;
use provisioner::image::BuildOptions;
use provisioner::name::NodeName;
use provisioner::provider::ssh::SshProvider;
use provisioner::provider::ssh::config::SshSite;
use provisioner::provider::{
    Health, Image, MachineSpec, MachineState, Made, Making, Provider, Removing, SitePlan, Step,
    Tags, WantedMachine,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// What must be seen on no command line.
const PASSWORD: &str = "a-password-that-nobody-may-see";

/// The static program.
fn node_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("IPOP_NODE_BINARY") {
        return path.into();
    }
    let test = std::env::current_exe().expect("own path");
    let target = test.ancestors().nth(3).expect("target directory");
    let path = target.join("x86_64-unknown-linux-gnu/release/ipop-node");
    assert!(path.exists(), "run `scripts/build-node` first");
    path
}

fn provider(room: &Room, machines: &[&Machine]) -> SshProvider {
    let settings = SshSite {
        hosts: machines.iter().map(|m| m.target()).collect(),
        identity: Some(room.identity()),
        known_hosts: Some(room.known_hosts(machines)),
        share: false,
        install_packages: false,
    };
    let build = BuildOptions {
        node_binary: Some(node_binary()),
        ..BuildOptions::default()
    };
    SshProvider::new("lab", &settings, build).expect("settings")
}

/// A deployment of workers, `node-1` on the first host and so on.
struct Deployment {
    tags: Tags,
    specs: Vec<MachineSpec>,
    steps: Vec<Step>,
}

impl Deployment {
    fn new(provider: &SshProvider, name: &str, servers: &[String], ca: &str, count: u32) -> Self {
        let tags = Tags {
            owner: "00112233445566aa".to_owned(),
            deployment: name.to_owned(),
            uid: format!(
                "{:016x}",
                name.bytes().fold(1, |n: u64, b| n * 31 + u64::from(b))
            ),
        };
        let machines: Vec<_> = (0..count)
            .map(|slot| WantedMachine {
                node: NodeName(format!("node-{}", slot + 1)),
                role: "worker".to_owned(),
                image: "worker".to_owned(),
                memory_mib: 512,
                cpus: 1,
                disk_gib: 4,
                data_gib: None,
                slot,
            })
            .collect();
        let images = BTreeMap::new();
        let plan = SitePlan {
            tags: &tags,
            machines: &machines,
            members: &[],
            images: &images,
        };
        let steps = provider.plan(&plan).expect("planned");
        let specs = (1..=count).map(|n| spec(name, n, servers, ca)).collect();
        Self { tags, specs, steps }
    }

    fn make(&self, provider: &SshProvider, step: &Step, limit: Duration) -> Result<Made, CliError> {
        let provisioner::provider::Scope::Node(node) = &step.scope else {
            panic!("{step:?} is of no node");
        };
        let machine = self.specs.iter().find(|spec| spec.node == *node);
        provider.make(
            step,
            &Making {
                tags: &self.tags,
                token: "0123456789abcdef0123456789abcdef",
                machine,
                images: &BTreeMap::new(),
                handles: &|_| None,
                deadline: Instant::now() + limit,
                interrupt: &Interrupt::default(),
                events: &|_: Event| {},
            },
        )
    }

    fn make_all(&self, provider: &SshProvider) {
        for step in &self.steps {
            let made = self.make(provider, step, step.deadline);
            let made = made.unwrap_or_else(|e| panic!("{step:?}: {e}"));
            assert!(made.handle.is_some());
        }
    }

    fn remove(&self, provider: &SshProvider, step: &Step, limit: Duration) -> Result<(), CliError> {
        provider.remove(&Removing {
            tags: &self.tags,
            resource: &step.resource,
            handle: None,
            deadline: Instant::now() + limit,
            interrupt: &Interrupt::default(),
        })
    }

    fn remove_all(&self, provider: &SshProvider) {
        for step in self.steps.iter().rev() {
            let removed = self.remove(provider, step, PATIENCE);
            removed.unwrap_or_else(|e| panic!("{step:?}: {e}"));
        }
    }
}

fn spec(deployment: &str, number: u32, servers: &[String], ca: &str) -> MachineSpec {
    let end = number + 1;
    let config = format!(
        r#"
[node]
name = "node-{number}"
control = "/run/ipop-node/control.sock"
[overlay]
name = "test"
ipv4 = "{NET4}.{end}/24"
ipv6 = "{NET6}{end}/64"
[xmpp]
jid = "node-{number}@{DOMAIN}"
servers = {servers:?}
password_file = "ipop.password"
ca_file = "ipop.ca"
"#
    );
    let mut bundle = Bundle::default();
    bundle.set(bundle::NODE_CONFIG, config);
    bundle.set(bundle::XMPP_PASSWORD, PASSWORD);
    bundle.set(bundle::CA, ca);
    bundle.set(
        bundle::ROLE_ENV,
        format!("IPOP_DEPLOYMENT={deployment}\nIPOP_ROLE=worker\nIPOP_FRONTEND4={NET4}.1\n"),
    );
    MachineSpec {
        deployment: deployment.to_owned(),
        node: NodeName(format!("node-{number}")),
        image: Image {
            role: "worker".to_owned(),
            hash: String::new(),
            disk: PathBuf::new(),
            kernel: PathBuf::new(),
            initrd: None,
            cmdline: String::new(),
            whole: None,
        },
        memory_mib: 512,
        cpus: 1,
        disk_gib: 4,
        data_gib: None,
        bundle,
    }
}

/// A rendezvous with accounts for `node-0` to `node-2`, on the segment.
fn rendezvous(room: &Room) -> (Ejabberd, Netns) {
    let netns = Netns::new("server");
    let address = room.plug(&netns).parse().expect("an address");
    let prefix = ["ip", "netns", "exec", netns.name()];
    let server = Ejabberd::start_with(Options {
        listen: vec![address],
        prefix: prefix.map(str::to_owned).to_vec(),
        tls13: true,
    });
    for number in 0..3 {
        server.register(&format!("node-{number}"), PASSWORD);
        server.join(&format!("node-{number}"));
    }
    (server, netns)
}

/// A host that never answers, and words that are no secret but look like a certificate.
fn nowhere() -> (Vec<String>, String) {
    let pair = rcgen::generate_simple_self_signed(vec!["nowhere".to_owned()]).expect("made");
    (vec!["192.0.2.1:5222".to_owned()], pair.cert.pem())
}

/// Every command line of this machine, those of the others included.
fn command_lines() -> String {
    let processes = fs::read_dir("/proc").expect("proc");
    let lines = processes.filter_map(|p| fs::read(p.ok()?.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n")
        .collect()
}

fn assert_nothing_runs(machine: &Machine) {
    wait_until("the end of every process of ours", PATIENCE, || {
        let lines = machine.command_lines();
        (!lines.contains("ipop-node")).then_some(())
    });
}

#[test]
fn two_machines_become_workers_and_are_left_as_they_were() {
    let room = Room::new("site");
    let (server, _netns) = rendezvous(&room);
    let front = Netns::new("front");
    room.plug(&front);
    let mut front = Node::new(front, 0, &server, PASSWORD);
    front.start();
    let options = MachineOptions {
        login: Login::User(Sudo::Free),
        ..MachineOptions::default()
    };
    let (a, b) = (room.machine("first"), room.machine_with("second", options));
    let before = [a.changes(), b.changes()];
    let provider = provider(&room, &[&a, &b]);
    let deployment = Deployment::new(&provider, "demo", &server.servers(), server.ca_pem(), 2);

    let done = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut looks, mut ssh) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let lines = command_lines();
                assert!(
                    !lines.contains(PASSWORD),
                    "the password is on a command line"
                );
                ssh += lines.matches("/opt/ipop-node/bin").count();
                looks += 1;
            }
            assert!(
                ssh > 0,
                "nothing of the installation was seen in {looks} looks"
            );
            looks
        });
        deployment.make_all(&provider);
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("no secret seen")
    });
    println!("{looks} looks at all command lines");

    for (number, machine) in [(1, &a), (2, &b)] {
        let name = format!("node-{number}");
        wait_until(&format!("{name} linked"), PATIENCE, || {
            let peers = front.try_status()?.peers;
            let up = |p: &ipop_proto::status::PeerStatus| p.name == name && p.link == LinkState::Up;
            peers.iter().any(up).then_some(())
        });
        wait_until(&format!("{name} ready"), PATIENCE, || {
            let status = machine.run("/opt/ipop-node/bin/ipop-node status");
            status.contains("role        ready").then_some(())
        });
        wait_until("ping", PATIENCE, || {
            let address = format!("{NET4}.{}", number + 1);
            front.netns.reaches(&address).then_some(())
        });
    }
    assert_eq!(
        a.run("stat -c '%a %U' /etc/ipop-node/demo /etc/ipop-node/demo/ipop.password"),
        "700 root\n600 root\n"
    );

    let found = provider.find(Some(&deployment.tags)).expect("found");
    let names: Vec<_> = found.iter().map(|f| f.resource.clone()).collect();
    let planned: Vec<_> = deployment
        .steps
        .iter()
        .map(|s| s.resource.clone())
        .collect();
    assert_eq!(names, planned);
    assert_eq!(provider.find(None).expect("found"), found);
    let machines = provider.machines(&deployment.tags).expect("machines");
    assert_eq!(machines.len(), 2);
    for (machine, host) in machines.values().zip([&a, &b]) {
        assert_eq!(machine.state, MachineState::Running);
        assert_eq!(machine.underlay, host.address.parse().ok());
    }
    let node = NodeName("node-2".to_owned());
    let log = provider
        .console(&deployment.tags, &node, 300)
        .expect("a log");
    assert!(!log.is_empty() && log.len() <= 300);

    // Again: the same, and nothing is started anew.
    let running = || a.run("pidof ipop-node");
    let pids = running();
    deployment.make_all(&provider);
    assert_eq!(running(), pids);
    // The node is started again when it ends.
    a.run("kill -9 $(pidof ipop-node)");
    wait_until("another ipop-node", PATIENCE, || {
        a.output("/opt/ipop-node/bin/ipop-node status")
            .status
            .success()
            .then_some(())
    });

    // A supervisor that was killed is seen, and made again.
    b.run("kill -9 $(cat /run/ipop-node/supervisor.pid)");
    let machines = provider.machines(&deployment.tags).expect("machines");
    assert_eq!(machines[&node].state, MachineState::Stopped);
    assert_eq!(
        machines[&node].why.as_deref(),
        Some("its service is not running")
    );
    let broken = provider.find(Some(&deployment.tags)).expect("found");
    let broken: Vec<_> = broken
        .iter()
        .filter(|f| f.health == Health::Broken)
        .collect();
    let member = deployment.steps.last().expect("a step");
    assert_eq!(
        broken.iter().map(|f| &f.resource).collect::<Vec<_>>(),
        [&member.resource]
    );
    deployment
        .make(&provider, member, PATIENCE)
        .expect("made again");
    assert_eq!(b.run("pidof ipop-node | wc -w"), "1\n");
    let machines = provider.machines(&deployment.tags).expect("machines");
    assert_eq!(machines[&node].state, MachineState::Running);

    // A host that is down is missing, and only that one.
    b.cable(false);
    let began = Instant::now();
    let machines = provider.machines(&deployment.tags).expect("machines");
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        machines.into_keys().collect::<Vec<_>>(),
        [NodeName("node-1".to_owned())]
    );
    let error = provider
        .find(Some(&deployment.tags))
        .expect_err("not known");
    assert_eq!(error.retry, Retry::Soon, "{error}");
    b.cable(true);

    deployment.remove_all(&provider);
    deployment.remove_all(&provider);
    assert_eq!([a.changes(), b.changes()], before);
    assert_nothing_runs(&a);
    assert_nothing_runs(&b);
    assert_eq!(provider.find(None).expect("found"), []);
    assert_eq!(
        provider.machines(&deployment.tags).expect("machines"),
        BTreeMap::new()
    );
}

#[test]
fn making_and_removing_may_be_cut_at_any_time_and_are_repeated() {
    let room = Room::new("again");
    let machine = room.machine("host");
    let before = machine.changes();
    let (servers, ca) = nowhere();
    let limits = [20, 60, 110, 170, 240, 320].map(Duration::from_millis);
    let mut cut = 0;
    for round in 0..2 {
        // Each try is by another process of ours, as far as the host can tell.
        let fresh = || provider(&room, &[&machine]);
        let deployment = Deployment::new(&fresh(), "cut", &servers, &ca, 1);
        for step in &deployment.steps {
            for limit in limits {
                cut += usize::from(deployment.make(&fresh(), step, limit).is_err());
            }
            if round == 0 {
                // Sessions that were cut may still run on the host while this one does.
                deployment.make(&fresh(), step, PATIENCE).expect("made");
            }
        }
        for step in deployment.steps.iter().rev() {
            for limit in limits {
                cut += usize::from(deployment.remove(&fresh(), step, limit).is_err());
            }
            deployment
                .remove(&fresh(), step, PATIENCE)
                .expect("removed");
        }
        wait_until("the host as it was", PATIENCE, || {
            // What a cut session made after all is removed by the next try.
            deployment.remove_all(&fresh());
            (machine.changes() == before).then_some(())
        });
    }
    assert_nothing_runs(&machine);
    assert!(cut > 10, "only {cut} were cut");
}

#[test]
fn what_a_killed_installation_left_goes_with_the_claim_to_the_host() {
    let room = Room::new("half");
    let machine = room.machine("host");
    let before = machine.changes();
    let provider = provider(&room, &[&machine]);
    let (servers, ca) = nowhere();
    let deployment = Deployment::new(&provider, "half", &servers, &ca, 1);
    let claim = deployment.steps.first().expect("a step");
    deployment.make(&provider, claim, PATIENCE).expect("made");
    machine.run(
        "mkdir -p /opt/ipop-node/bin /etc/ipop-node/half && \
         touch /opt/ipop-node/bin/health /opt/ipop-node/bin/ipop-node.part.123456 \
         /etc/systemd/system/ipop-member-health.service",
    );
    let found = provider.find(None).expect("found");
    let found: Vec<_> = found.into_iter().map(|f| f.resource).collect();
    assert_eq!(
        found,
        std::slice::from_ref(&claim.resource),
        "no part is whole"
    );
    let removed = deployment.remove(&provider, claim, PATIENCE);
    removed.expect("removed");
    assert_eq!(machine.changes(), before);
    assert_nothing_runs(&machine);
}

/// Without the numbers before `unit`: how much is free is the file system's business.
fn without_numbers(text: &str, unit: &str) -> String {
    let parts: Vec<_> = text.split(unit).collect();
    let (last, others) = parts.split_last().expect("a part");
    let others = others
        .iter()
        .map(|part| part.trim_end_matches(|c: char| c.is_ascii_digit()));
    others
        .map(|part| format!("{part}N{unit}"))
        .collect::<String>()
        + last
}

#[test]
fn hosts_that_do_not_serve_are_refused_and_left_alone() {
    let room = Room::new("refuse");
    let small = MachineOptions {
        disk_mib: 32,
        ..MachineOptions::default()
    };
    let locked = MachineOptions {
        login: Login::User(Sudo::Password),
        ..MachineOptions::default()
    };
    let machines = [
        room.machine("good"),
        room.machine("arm"),
        room.machine_with("small", small),
        room.machine_with("locked", locked),
        room.machine("down"),
        room.machine("taken"),
    ];
    let [_, arm, _, _, down, taken] = &machines;
    arm.write(
        "/usr/local/bin/uname",
        0o755,
        "#!/bin/sh\n[ \"$1\" = -m ] || exec /bin/uname \"$@\"\necho aarch64\n",
    );
    down.cable(false);
    let provider = provider(&room, &machines.each_ref());
    let (servers, ca) = nowhere();
    let other = Deployment::new(&provider, "other", &servers, &ca, 6);
    let claim = other.steps.iter().rev().find(|s| s.resource.kind == "host");
    other
        .make(&provider, claim.expect("a claim"), PATIENCE)
        .expect("claimed");

    let before: Vec<_> = machines.iter().map(Machine::changes).collect();
    let shown = |text: String| {
        machines
            .iter()
            .enumerate()
            .fold(text, |text, (n, machine)| {
                // Which of the two it is depends on what the kernel remembers of the neighbour.
                text.replace("No route to host", "Connection timed out")
                    .replace(&format!("{} ", machine.address), &format!("HOST-{n} "))
                    .replace(&format!("{}:", machine.address), &format!("HOST-{n}:"))
                    .replace(&format!("{};", machine.address), &format!("HOST-{n};"))
                    .replace(&format!("{}`", machine.address), &format!("HOST-{n}`"))
            })
    };
    let began = Instant::now();
    let lines = provider.check().expect("checked");
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    let mut text = String::new();
    for line in lines.iter().filter(|l| !l.ok || l.what.ends_with("free")) {
        let mark = if line.ok { "ok " } else { "BAD" };
        text += &format!("{mark} {}: {}\n", line.what, line.found);
    }
    let deployment = Deployment::new(&provider, "demo", &servers, &ca, 6);
    for step in deployment
        .steps
        .iter()
        .filter(|s| s.resource.kind == "host")
        .skip(1)
    {
        let error = deployment
            .make(&provider, step, PATIENCE)
            .expect_err("refused");
        text += &format!("---\n{error}\n");
    }
    insta::assert_snapshot!(without_numbers(&shown(text), " MiB free"));
    for (machine, before) in machines.iter().zip(&before) {
        assert_eq!(machine.changes(), *before);
    }
    // What is another deployment's is not removed.
    for step in deployment.steps.iter().rev().take(4) {
        deployment
            .remove(&provider, step, PATIENCE)
            .expect("nothing of ours");
    }
    assert!(
        taken
            .run("cat /var/lib/ipop-node/member.json")
            .contains("other")
    );
}
