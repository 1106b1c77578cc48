//! CloudLab sites, against a double of the portal whose machines are namespaces with a real sshd.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use ipop_proto::status::LinkState;
use ipop_tests::ejabberd::{DOMAIN, Ejabberd, Options as ServerOptions};
use ipop_tests::netns::Netns;
use ipop_tests::node::{NET4, NET6, Node};
use ipop_tests::portal::{Options, PoolMachine, Portal};
use ipop_tests::sshd::{MachineOptions, Room};
use ipop_tests::wait_until;
use provisioner::bundle::{self, Bundle};
use provisioner::deploy::interrupt::Interrupt;
use provisioner::error::{CliError, Retry};
use provisioner::event::Event;
use provisioner::image::BuildOptions;
use provisioner::layout::Layout;
use provisioner::name::NodeName;
use provisioner::provider::cloudlab::config::CloudlabSite;
use provisioner::provider::cloudlab::{Cloudlab, EXPERIMENT, MACHINE, PLACE};
use provisioner::provider::{
    Found, Health, Image, MachineSpec, MachineState, Made, Making, Provider, Removing, Resource,
    Scope, SitePlan, Step, Tags, WantedMachine,
};
use tempfile::TempDir;

#[path = "../../provisioner/tests/libvirt_support/mod.rs"]
#[expect(dead_code, reason = "only the guests' material is used here")]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod libvirt_support;

const PATIENCE: Duration = Duration::from_secs(90);
const PASSWORD: &str = "a-password-that-nobody-may-see";

/// A portal with so many machines that nobody connects to.
fn portal(machines: u8) -> Portal {
    portal_of((1..=machines).map(|n| format!("192.0.2.{n}")))
}

/// A portal with machines at these addresses.
fn portal_of(addresses: impl Iterator<Item = String>) -> Portal {
    let machine = |ipv4| PoolMachine {
        ipv4,
        hardware: "m510".into(),
    };
    Portal::start(Options {
        machines: addresses.map(machine).collect(),
        ..Options::default()
    })
}

fn site(portal: &Portal) -> CloudlabSite {
    let site = serde_json::json!({
        "api": portal.url, "ca_file": portal.ca_file(), "token_file": portal.token_file(),
        "project": "lake", "profile": "ipop", "hardware": "m510",
        // The kernel of the machines has no NFS, and their network leads nowhere.
        "share": false, "install_packages": false,
    });
    serde_json::from_value(site).expect("settings")
}

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

/// A deployment and what is recorded of it, as the engine would.
struct Deployment {
    provider: Cloudlab,
    layout: Layout,
    site: CloudlabSite,
    tags: Tags,
    specs: BTreeMap<NodeName, MachineSpec>,
    images: BTreeMap<String, Image>,
    /// What is made, with its handle.
    made: Mutex<HashMap<Resource, Option<String>>>,
    events: Mutex<Vec<Event>>,
    _dir: TempDir,
}

impl Deployment {
    fn new(site: CloudlabSite) -> Self {
        let dir = TempDir::with_prefix("ipop-cloudlab-").expect("temporary directory");
        let layout = Layout {
            state: dir.path().join("state"),
            cache: dir.path().join("cache"),
        };
        layout.create().expect("directories");
        Self {
            provider: open(&site, &layout),
            layout,
            site,
            tags: Tags {
                owner: "00112233445566aa".into(),
                deployment: "demo".into(),
                uid: "0123456789abcdef".into(),
            },
            specs: BTreeMap::new(),
            images: BTreeMap::new(),
            made: Mutex::default(),
            events: Mutex::default(),
            _dir: dir,
        }
    }

    /// `provision`, started again: nothing but the records is remembered.
    fn restart(&mut self) {
        self.provider = open(&self.site, &self.layout);
    }

    fn plan(&self, count: u32) -> Vec<Step> {
        let machines: Vec<_> = (0..count).map(wanted).collect();
        let plan = SitePlan {
            tags: &self.tags,
            machines: &machines,
            members: &[],
            images: &self.images,
        };
        self.provider.plan(&plan).expect("planned")
    }

    fn make(&self, step: &Step, limit: Duration) -> Result<Made, CliError> {
        let machine = match &step.scope {
            Scope::Node(node) => self.specs.get(node),
            _ => None,
        };
        let handles = |resource: &Resource| {
            let records = self.made.lock().expect("alone");
            records.get(resource).cloned().flatten()
        };
        let made = self.provider.make(
            step,
            &Making {
                tags: &self.tags,
                token: "0123456789abcdef0123456789abcdef",
                machine,
                images: &self.images,
                handles: &handles,
                deadline: Instant::now() + limit,
                interrupt: &Interrupt::default(),
                events: &|event| self.events.lock().expect("alone").push(event),
            },
        )?;
        let mut records = self.made.lock().expect("alone");
        records.insert(step.resource.clone(), made.handle.clone());
        Ok(made)
    }

    /// Makes what is not made yet, in the order of the plan.
    fn make_all(&self, steps: &[Step]) {
        for step in steps {
            let made = self
                .made
                .lock()
                .expect("alone")
                .contains_key(&step.resource);
            if !made {
                let made = self.make(step, PATIENCE);
                made.unwrap_or_else(|e| panic!("{step:?}: {e}"));
            }
        }
    }

    /// Makes the places and tries the experiment.
    fn order(&self, count: u32) -> Result<Made, CliError> {
        let steps = self.plan(count);
        for step in steps.iter().filter(|s| s.resource.kind == PLACE) {
            self.make(step, PATIENCE).expect("recorded");
        }
        self.make(of_kind(&steps, EXPERIMENT), PATIENCE)
    }

    fn remove(&self, resource: &Resource) -> Result<(), CliError> {
        self.provider.remove(&Removing {
            tags: &self.tags,
            resource,
            handle: None,
            deadline: Instant::now() + PATIENCE,
            interrupt: &Interrupt::default(),
        })
    }

    fn remove_all(&self, steps: &[Step]) {
        for step in steps.iter().rev() {
            let removed = self.remove(&step.resource);
            removed.unwrap_or_else(|e| panic!("{step:?}: {e}"));
        }
    }

    fn find(&self) -> Vec<Found> {
        self.provider.find(Some(&self.tags)).expect("found")
    }
}

fn open(site: &CloudlabSite, layout: &Layout) -> Cloudlab {
    Cloudlab::new("cloudlab", site.clone(), layout)
        .polling(Duration::from_millis(100))
        .installing(BuildOptions {
            node_binary: Some(node_binary()),
            ..BuildOptions::default()
        })
}

fn of_kind<'a>(steps: &'a [Step], kind: &str) -> &'a Step {
    let found = steps.iter().find(|s| s.resource.kind == kind);
    found.expect("a step of the kind")
}

fn wanted(slot: u32) -> WantedMachine {
    WantedMachine {
        node: NodeName(format!("node-{}", slot + 1)),
        role: "worker".into(),
        image: "worker".into(),
        memory_mib: 512,
        cpus: 1,
        disk_gib: 4,
        data_gib: None,
        slot,
    }
}

/// Messages without what differs from run to run.
fn shown(error: &CliError, portal: &Portal) -> String {
    let dir = portal.ca_file();
    let dir = dir.parent().expect("a directory").display().to_string();
    let text = error.to_string().replace(&portal.url, "PORTAL");
    format!(
        "{}\n[{:?}, {:?}]",
        text.replace(&dir, "DIR"),
        error.code,
        error.retry
    )
}

fn creations(portal: &Portal) -> usize {
    let log = portal.log();
    log.iter()
        .filter(|call| call.starts_with("POST /experiments/ 201"))
        .count()
}

#[test]
fn an_experiment_is_made_once_even_when_the_answer_is_lost() {
    let portal = portal(3);
    let mut deployment = Deployment::new(site(&portal));
    portal.faults(|f| f.lose_creations = 1);
    let lost = deployment.order(3).expect_err("the answer is lost");
    assert_eq!(lost.retry, Retry::Soon, "{lost}");
    assert_eq!(portal.experiments(), ["ip-0123456789"]);

    // Killed here, and started again.
    deployment.restart();
    let made = deployment.order(3).expect("adopted");
    assert_eq!(creations(&portal), 1, "{:?}", portal.log());
    let found = deployment.find();
    let count = |kind| found.iter().filter(|f| f.resource.kind == kind).count();
    assert_eq!((count(EXPERIMENT), count(PLACE)), (1, 3));
    assert_eq!(found[0].handle, made.handle);

    // With the database lost, tags alone tell whose it is.
    let stranger = Deployment::new(site(&portal));
    let all = stranger.provider.find(None).expect("listed");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].tags.as_ref(), Some(&deployment.tags));
    assert_eq!(all[0].health, Health::Present);
    stranger.remove(&all[0].resource).expect("terminated");
    assert!(portal.experiments().is_empty());
    assert!(deployment.find().is_empty());
    stranger.remove(&all[0].resource).expect("gone is no error");
}

#[test]
fn another_deployments_experiment_is_left_alone() {
    let portal = portal(2);
    let deployment = Deployment::new(site(&portal));
    deployment.order(1).expect("made");
    let mut other = Deployment::new(site(&portal));
    // The names of experiments have ten of its sixteen digits.
    other.tags.uid = "0123456789ffffff".into();
    let error = other.order(1).expect_err("the name is taken");
    let steps = other.plan(1);
    let kept = other.remove(&of_kind(&steps, EXPERIMENT).resource);
    insta::assert_snapshot!(shown(&error, &portal));
    assert!(kept.is_err());
    assert_eq!(portal.experiments(), ["ip-0123456789"]);
}

#[test]
fn every_refusal_is_a_message_with_a_hint() {
    let portal = portal(1);
    let deployment = Deployment::new(site(&portal));
    let mut all = Vec::new();
    for (status, text) in [
        (401, "Invalid token"),
        (403, "You do not have permission in this project"),
        (403, "Reservation required for 1 node of type m510"),
        (429, "Load average too high or too many experiments waiting"),
        (500, "Internal error"),
    ] {
        portal.faults(|f| f.refuse = Some((1, status, text.to_owned())));
        let error = deployment.order(1).expect_err(text);
        all.push(shown(&error, &portal));
    }
    let none = deployment.order(2).expect_err("two of one machine");
    all.push(shown(&none, &portal));

    let changed = |change: fn(&mut CloudlabSite)| {
        let mut site = site(&portal);
        change(&mut site);
        let error = Deployment::new(site).order(1).expect_err("refused");
        shown(&error, &portal)
    };
    all.push(changed(|site| site.profile = "ipopp".into()));
    all.push(changed(|site| {
        site.token_command = Some("echo eyJ.another".into());
    }));
    all.push(changed(|site| site.ca_file = None));
    all.push(changed(|site| site.api = "https://localhost:1".into()));
    insta::assert_snapshot!(all.join("\n\n"));
    assert!(portal.experiments().is_empty());
}

#[test]
fn a_machine_that_fails_keeps_back_only_its_own_node() {
    let room = Room::new("nobody");
    let portal = portal_of((0..3).map(|n| room.nobody(n)));
    portal.faults(|f| {
        f.fail_node = Some("node1".into());
        f.fail_startup = Some("node2".into());
    });
    let deployment = Deployment::new(site(&portal));
    let steps = deployment.plan(3);
    deployment.order(3).expect("made");
    let machines = steps.iter().filter(|s| s.resource.kind == MACHINE);
    let mut all = Vec::new();
    for step in machines {
        let error = deployment
            .make(step, Duration::from_secs(8))
            .expect_err("fails");
        all.push(shown(&error, &portal));
    }
    // The first came up, and cannot be reached by SSH: it is none of the portal's failures.
    insta::assert_snapshot!(all[1..].join("\n\n"));
    assert!(all[0].contains(&room.nobody(0)), "{}", all[0]);
}

#[test]
fn an_experiment_without_machines_fails_and_is_made_anew_by_the_next_try() {
    let portal = portal(1);
    portal.faults(|f| f.late_capacity = true);
    let deployment = Deployment::new(site(&portal));
    let steps = deployment.plan(1);
    deployment.order(1).expect("accepted");
    let error = deployment.make(of_kind(&steps, MACHINE), PATIENCE);
    let error = error.expect_err("there are no machines");
    insta::assert_snapshot!(shown(&error, &portal));
    assert_eq!(deployment.find()[0].health, Health::Broken);
    portal.faults(|f| f.late_capacity = false);
    deployment.order(1).expect("made anew");
    assert_eq!(creations(&portal), 2);
    assert_eq!(portal.experiments().len(), 1);
}

#[test]
fn a_lease_is_extended_and_a_refusal_is_reported() {
    let portal = portal(1);
    let deployment = Deployment::new(site(&portal));
    let hours = |n: u64| SystemTime::now() + Duration::from_secs(n * 3600);
    let extend = |wanted| deployment.provider.extend(&deployment.tags, wanted);
    assert_eq!(extend(hours(1)).expect("asked"), None);
    deployment.order(1).expect("made");

    let now = extend(hours(1)).expect("asked").expect("a lease");
    assert!(!now.refused && now.ends > hours(15) && now.ends < hours(17));
    assert!(!portal.log().iter().any(|call| call.starts_with("PUT")));

    let later = extend(hours(40)).expect("asked").expect("a lease");
    assert!(!later.refused && later.ends >= hours(40) - Duration::from_secs(60));

    portal.options(|o| o.longest = 48);
    let refused = extend(hours(72)).expect("asked").expect("a lease");
    assert!(refused.refused);
    assert_eq!(refused.ends, later.ends);

    portal.expire();
    assert_eq!(extend(hours(1)).expect("asked"), None);
    assert!(deployment.find().is_empty());
}

#[test]
fn a_portal_that_asks_to_slow_down_is_asked_again() {
    let portal = portal(1);
    portal.options(|o| o.rate = Some(2));
    let deployment = Deployment::new(site(&portal));
    let mut throttled = 0;
    wait_until("the experiment is made", PATIENCE, || {
        match deployment.order(1) {
            Ok(made) => Some(made),
            Err(error) => {
                assert_eq!(error.retry, Retry::Throttled, "{error}");
                throttled += 1;
                None
            }
        }
    });
    for _ in 0..3 {
        throttled += usize::from(deployment.provider.find(None).is_err());
    }
    assert!(throttled > 0);
}

#[test]
fn a_site_is_checked_in_seconds_and_says_what_to_do() {
    let portal = portal(1);
    let check = |change: &dyn Fn(&mut CloudlabSite)| {
        let mut site = site(&portal);
        change(&mut site);
        let lines = Deployment::new(site).provider.check().expect("checked");
        let line = |l: &provisioner::provider::CheckLine| {
            let mark = if l.ok { "ok" } else { "FAIL" };
            format!("{mark} {}: {}", l.what, l.found)
        };
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let began = Instant::now();
    let good = check(&|_| {});
    assert!(!good.contains("FAIL"), "{good}");
    assert!(
        good.contains("ok profile lake/ipop: there, with all parameters"),
        "{good}"
    );
    assert!(good.contains("ok clock: "), "{good}");
    let no_profile = check(&|s| s.profile = "other".into());
    assert!(
        no_profile.contains("FAIL profile lake/other: there is none"),
        "{no_profile}"
    );
    let no_token = check(&|s| s.token_command = Some("echo eyJ.another".into()));
    assert!(no_token.contains("FAIL portal"), "{no_token}");
    assert!(no_token.contains("Portal API Token"), "{no_token}");
    let no_project = check(&|s| s.project = "sea".into());
    assert!(no_project.contains("FAIL project sea"), "{no_project}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

fn spec(number: u32, server: &Ejabberd) -> MachineSpec {
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
"#,
        servers = server.servers()
    );
    let mut bundle = Bundle::default();
    bundle.set(bundle::NODE_CONFIG, config);
    bundle.set(bundle::XMPP_PASSWORD, PASSWORD);
    bundle.set(bundle::CA, server.ca_pem());
    let env = format!("IPOP_DEPLOYMENT=demo\nIPOP_ROLE=worker\nIPOP_FRONTEND4={NET4}.1\n");
    bundle.set(bundle::ROLE_ENV, env);
    MachineSpec {
        deployment: "demo".into(),
        node: NodeName(format!("node-{number}")),
        image: Image {
            role: "worker".into(),
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
    let server = Ejabberd::start_with(ServerOptions {
        listen: vec![address],
        prefix: prefix.map(str::to_owned).to_vec(),
        tls13: true,
    });
    for number in 0..3 {
        let user = format!("node-{number}");
        server.register(&user, PASSWORD);
        server.join(&user);
    }
    (server, netns)
}

#[test]
fn machines_of_an_experiment_become_workers_also_when_more_are_wanted_later() {
    let room = Room::new("lab");
    let (server, _netns) = rendezvous(&room);
    let front = Netns::new("front");
    room.plug(&front);
    let mut front = Node::new(front, 0, &server, PASSWORD);
    front.start();
    let hosts = [room.machine("first"), room.machine("second")];
    let portal = portal_of(hosts.iter().map(|host| host.address.clone()));
    let mut site = site(&portal);
    site.user = Some("root".into());
    site.identity = Some(room.identity());
    let mut deployment = Deployment::new(site);
    for number in 1..=2 {
        let spec = spec(number, &server);
        deployment.specs.insert(spec.node.clone(), spec);
    }
    deployment.make_all(&deployment.plan(1));
    // Scaled up by a `provision` that knows nothing but the records.
    deployment.restart();
    let steps = deployment.plan(2);
    deployment.make_all(&steps);
    assert_eq!(creations(&portal), 1);
    let log = portal.log();
    assert_eq!(
        log.iter().filter(|c| c.starts_with("PATCH")).count(),
        1,
        "{log:?}"
    );

    for number in [1, 2] {
        let name = format!("node-{number}");
        wait_until(&format!("{name} linked"), PATIENCE, || {
            let peers = front.try_status()?.peers;
            let up = |p: &ipop_proto::status::PeerStatus| p.name == name && p.link == LinkState::Up;
            peers.iter().any(up).then_some(())
        });
    }
    let machines = deployment
        .provider
        .machines(&deployment.tags)
        .expect("machines");
    for ((node, machine), host) in machines.iter().zip(&hosts) {
        assert_eq!(machine.state, MachineState::Running, "{node}");
        assert_eq!(machine.underlay, host.address.parse().ok(), "{node}");
        assert!(
            machine
                .place
                .as_deref()
                .is_some_and(|p| p.ends_with(".lab.example"))
        );
    }
    assert_eq!(machines.len(), 2);
    let mut found: Vec<_> = deployment.find().into_iter().map(|f| f.resource).collect();
    let mut planned: Vec<_> = steps.iter().map(|s| s.resource.clone()).collect();
    found.sort();
    planned.sort();
    assert_eq!(found, planned);
    let node = NodeName("node-2".into());
    let console = deployment
        .provider
        .console(&deployment.tags, &node, 1 << 16);
    assert!(!console.expect("a log").is_empty());

    // One that is dead holds nothing up.
    hosts[1].cable(false);
    deployment.remove_all(&steps);
    assert!(portal.experiments().is_empty());
    assert_eq!(
        hosts[0].output("ls /etc/ipop-node/demo").status.code(),
        Some(2)
    );
    let dir = deployment
        .layout
        .deployment("demo")
        .join("cloudlab/0123456789abcdef");
    assert!(!dir.exists(), "host keys of machines that are no more");
}

#[test]
fn machines_of_an_experiment_become_hosts_of_several_workers_each() {
    let room = Room::new("hv");
    let options = MachineOptions {
        disk_mib: 1024,
        ..MachineOptions::default()
    };
    let hosts = ["hv0", "hv1"].map(|label| room.machine_with(label, options));
    for host in &hosts {
        // libvirt makes a /dev of its own for each guest, which it cannot within a namespace's.
        host.write("/etc/libvirt/qemu.conf", 0o600, "namespaces = []\n");
    }
    let portal = portal_of(hosts.iter().map(|host| host.address.clone()));
    let mut site = site(&portal);
    site.user = Some("root".into());
    site.identity = Some(room.identity());
    site.machines = Some(2);
    site.vms_per_machine = Some(2);
    let mut deployment = Deployment::new(site);
    let material = libvirt_support::material();
    let image = Image {
        role: "worker".into(),
        hash: "0123456789abcdef".repeat(4),
        disk: material.disk.clone(),
        kernel: material.kernel.clone(),
        initrd: Some(material.initrd.clone()),
        cmdline: "console=ttyS0 port=1".into(),
        whole: None,
    };
    deployment.images.insert("worker".into(), image.clone());
    for slot in 0..4 {
        let WantedMachine { node, cpus, .. } = wanted(slot);
        let spec = MachineSpec {
            deployment: "demo".into(),
            node: node.clone(),
            image: image.clone(),
            memory_mib: 256,
            cpus,
            disk_gib: 1,
            data_gib: None,
            bundle: Bundle::default(),
        };
        deployment.specs.insert(node, spec);
    }
    let steps = deployment.plan(4);
    deployment.make_all(&steps);

    let machines = deployment
        .provider
        .machines(&deployment.tags)
        .expect("machines");
    let places: Vec<_> = machines
        .iter()
        .map(|(node, m)| {
            (
                node.0.as_str(),
                m.place.as_deref().expect("a place"),
                m.state,
            )
        })
        .collect();
    let runs = MachineState::Running;
    assert_eq!(
        places,
        [
            ("node-1", "m000.lab.example", runs),
            ("node-2", "m000.lab.example", runs),
            ("node-3", "m001.lab.example", runs),
            ("node-4", "m001.lab.example", runs),
        ]
    );
    for (host, nodes) in hosts
        .iter()
        .zip([["node-1", "node-2"], ["node-3", "node-4"]])
    {
        let list = host.run("virsh -q -c qemu:///system list --name");
        for node in nodes {
            assert!(list.contains(node), "{list}");
        }
        assert_eq!(
            list.lines().filter(|l| l.contains("demo")).count(),
            2,
            "{list}"
        );
    }
    let found: Vec<_> = deployment.find().into_iter().map(|f| f.resource).collect();
    for step in &steps {
        assert!(
            found.contains(&step.resource),
            "{:?} of {found:#?}",
            step.resource
        );
    }
    let node = NodeName("node-3".into());
    wait_until("the guest says something", PATIENCE * 3, || {
        let text = deployment
            .provider
            .console(&deployment.tags, &node, 1 << 16);
        String::from_utf8_lossy(&text.expect("a console"))
            .contains("guest-disks:")
            .then_some(())
    });
    deployment.remove_all(&steps);
    assert!(portal.experiments().is_empty());
    for host in &hosts {
        let list = host.run("virsh -q -c qemu:///system list --all --name");
        assert!(!list.contains("demo"), "{list}");
    }
}
