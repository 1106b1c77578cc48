//! An overlay with an authority as `provision` makes one: its own registrar signs, and nodes with the
//! personal data that it renders run in namespaces. Needs root; see the crate's documentation.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use ipop_proto::authority::Validity;
use ipop_proto::authority::issue::{Issuer, Subject};
use ipop_proto::link::Identity;
use ipop_proto::status::{LinkState, NodeStatus, SignIn};
use ipop_tests::ejabberd::{DOMAIN, Ejabberd, Options};
use ipop_tests::netns::Netns;
use ipop_tests::{node, scale, wait_until};
use provisioner::authority::Authority;
use provisioner::authority::registrar::issuer;
use provisioner::deploy::settings::Settings;
use provisioner::layout::Layout;
use provisioner::plan::personal::{self, First, Keys, Membership};
use provisioner::plan::{ClusterPlan, NodePlan, Request, World, plan};
use provisioner::provider::Delivery;
use provisioner::rendezvous::Rendezvous;
use provisioner::rendezvous::config::{ExternalConfig, RendezvousConfig};
use provisioner::secret::Secret;
use provisioner::site::Sites;
use provisioner::state::Database;
use provisioner::state::record::NewDeployment;
use rcgen::PublicKeyData as _;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(90);
const REFUSED: &str = "the peer is refused: the certificate is not of this overlay's authority";

/// A deployment on somebody else's server, all on one segment. Nodes come first: they go before their
/// server and their network.
struct Lab {
    nodes: Vec<Node>,
    registrar: Option<Child>,
    plan: ClusterPlan,
    rendezvous: Rendezvous,
    layout: Layout,
    place: Netns,
    segment: Netns,
    _server: Ejabberd,
    _dir: TempDir,
}

impl Lab {
    fn new() -> Self {
        let segment = Netns::new("segment");
        segment.run(&["ip", "link", "add", "br0", "type", "bridge"]);
        segment.run(&["ip", "link", "set", "br0", "up"]);
        let place = Netns::new("server");
        plug(&segment, &place, "server", 1);
        let prefix = ["ip", "netns", "exec", place.name()].map(str::to_owned);
        let server = Ejabberd::start_with(Options {
            listen: vec![[192, 0, 2, 1].into()],
            prefix: prefix.to_vec(),
            tls13: true,
        });
        let dir = TempDir::with_prefix("ipop-authority-").expect("temporary directory");
        let layout = Layout {
            state: dir.path().join("state"),
            cache: dir.path().join("cache"),
        };
        layout.create().expect("directories");
        let ca = dir.path().join("server.pem");
        fs::write(&ca, server.ca_pem()).expect("written");
        let settings = Settings {
            elastic: Default::default(),
            sites: Sites::default().iter().cloned().collect(),
            rendezvous: RendezvousConfig::External(ExternalConfig {
                api: format!("unix:{}", server.socket().display()),
                domain: DOMAIN.to_owned(),
                servers: server.servers(),
                ca_file: ca,
                admin: None,
                password_env: None,
                password_file: None,
            }),
            tag: "0000002a".to_owned(),
            scheduler: Default::default(),
            authority: true,
        };
        let plan = demo();
        record(&layout, &plan, &settings);
        let rendezvous = Rendezvous::open(&layout, "demo", &settings.tag, &settings.rendezvous);
        let rendezvous = rendezvous.expect("opens");
        rendezvous.start(&[]).expect("it answers");
        rendezvous.create_group().expect("made");
        Self {
            nodes: Vec::new(),
            registrar: None,
            plan,
            rendezvous,
            layout,
            place,
            segment,
            _server: server,
            _dir: dir,
        }
    }

    /// Runs what always runs beside the rendezvous.
    fn start_registrar(&mut self) {
        let program = scale::provision().display().to_string();
        let mut command = self.place.command(&program);
        command
            .args(["rendezvous", "run", "demo"])
            .env("IPOP_STATE_DIR", &self.layout.state)
            .env("IPOP_CACHE_DIR", &self.layout.cache)
            .stdin(Stdio::null());
        self.registrar = Some(command.spawn().expect("`ip` runs"));
    }

    fn authority(&self) -> Authority {
        let dir = self.layout.authority("demo");
        Authority::open(&dir, "demo", SystemTime::now()).expect("an authority")
    }

    /// What a node of the plan is told when its machine is made.
    fn keys(&self, node: &NodePlan, delivery: Delivery) -> Keys {
        let authority = self.authority();
        let (account, first) = match delivery {
            Delivery::Private => (
                self.rendezvous.account(&node.name, 1).expect("made"),
                First::Given(authority.identity(node, SystemTime::now()).expect("signed")),
            ),
            Delivery::Enrolment => {
                let expires = SystemTime::now() + Duration::from_secs(3600);
                let account = self.rendezvous.create_enrolment(&node.name, expires);
                let account = account.expect("made");
                let token = authority.token(&node.name, &account.password);
                (account, First::Asked(token.expect("made")))
            }
        };
        Keys {
            account,
            host_key: Some(Secret::new(b"host".to_vec())),
            authorized_key: String::new(),
            membership: Some(Membership {
                authority_pem: authority.certificate_pem().to_owned(),
                issuer: issuer(&self.rendezvous),
                first,
            }),
        }
    }

    /// Puts the machine of a node of the plan there, with these keys; its node does not run.
    fn place(&mut self, number: usize, keys: &Keys, delivery: Delivery) -> &mut Node {
        let node = &self.plan.nodes[number];
        let endpoint = self.rendezvous.endpoint().expect("known");
        let bundle = personal::bundle(&self.plan, node, &endpoint, keys, delivery);
        let netns = Netns::new(&format!("node{number}"));
        let host = u8::try_from(10 + number).expect("few");
        plug(&self.segment, &netns, &format!("node{number}"), host);
        let dir = TempDir::with_prefix("ipop-node-").expect("temporary directory");
        for (name, content) in &bundle.expect("complete").credentials {
            fs::write(dir.path().join(name), content.expose()).expect("written");
        }
        fs::write(dir.path().join("host.pub"), "ssh-ed25519 AAAA").expect("written");
        let machine = Node {
            name: node.name.0.clone(),
            addr: node.addrs.ipv4.addr.to_string(),
            netns,
            dir,
            child: None,
        };
        // The paths of a machine of its own.
        let own = machine.dir.path().display().to_string();
        machine.edit(|config| {
            config
                .replace("/run/ipop-node", &own)
                .replace("/var/lib/ipop-node", &own)
                .replace(
                    "/etc/ssh/ipop_host_ed25519_key.pub",
                    &format!("{own}/host.pub"),
                )
        });
        self.nodes.push(machine);
        self.nodes.last_mut().expect("just put there")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut registrar) = self.registrar.take() {
            // Errors here mean that it is gone already.
            let _ = registrar.kill();
            let _ = registrar.wait();
        }
    }
}

/// A machine with a node of its own.
struct Node {
    name: String,
    addr: String,
    netns: Netns,
    dir: TempDir,
    child: Option<Child>,
}

impl Node {
    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn edit(&self, change: impl FnOnce(String) -> String) {
        let path = self.path("ipop.config");
        let text = fs::read_to_string(&path).expect("there");
        fs::write(path, change(text)).expect("written");
    }

    fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"));
        let log = log.expect("log file");
        let mut command = self.netns.command(&node::binary().display().to_string());
        command
            .args(["run", "--config", "ipop.config", "--log", "debug"])
            .env("CREDENTIALS_DIRECTORY", self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log);
        self.child = Some(command.spawn().expect("`ip` runs"));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Errors here mean that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn status(&self) -> Option<NodeStatus> {
        let output = Command::new(node::binary())
            .args(["status", "--json", "--control"])
            .arg(self.path("control.sock"))
            .output()
            .expect("it runs");
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes).expect("status as JSON");
        output.status.success().then(|| parse(&output.stdout))
    }

    fn is_linked_to(&self, peer: &str) -> bool {
        let peers = self.status().map(|status| status.peers).unwrap_or_default();
        peers
            .iter()
            .any(|p| p.name == peer && p.link == LinkState::Up)
    }

    /// Waits until it is a peer's, and the other way round.
    fn meets(&self, peer: &Node) {
        let what = format!("link between {} and {}", self.name, peer.name);
        wait_until(&what, PATIENCE, || {
            (self.is_linked_to(&peer.name) && peer.is_linked_to(&self.name)).then_some(())
        });
        assert!(self.netns.reaches(&peer.addr), "{} is silent", peer.addr);
    }

    /// Waits until it says why it is not online.
    fn trouble(&self, what: &str) {
        wait_until(what, PATIENCE, || match self.status()?.sign_in {
            SignIn::Connecting { last_error } => {
                last_error.filter(|error| error.contains(what)).map(drop)
            }
            _ => None,
        });
    }

    /// Waits until it has refused somebody for want of a certificate.
    fn refuses(&self, account: &str) {
        wait_until("a refusal", PATIENCE, || {
            let refused = self.status()?.refused;
            let of = |alarm: &&ipop_proto::status::AlarmStatus| alarm.origin == account;
            refused
                .iter()
                .find(of)
                .map(|alarm| assert_eq!(alarm.trouble, REFUSED))
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- {} ---\n{}", self.name, end.join("\n"));
        }
        self.kill();
    }
}

/// A front end and two workers.
fn demo() -> ClusterPlan {
    let request = Request {
        name: Some("demo".to_owned()),
        frontend: vec!["1@local".parse().expect("valid")],
        workers: vec!["2@local".parse().expect("valid")],
        ..Request::default()
    };
    plan(&request, &Sites::default(), &World::default()).expect("planned")
}

fn record(layout: &Layout, plan: &ClusterPlan, settings: &Settings) {
    let database = Database::open(&layout.database()).expect("opens");
    let new = NewDeployment {
        name: plan.name.clone(),
        uid: "00112233445566ff".to_owned(),
        quorum: None,
        domain: plan.domain.clone(),
        net4: plan.nets.ipv4.to_string(),
        net6: plan.nets.net6(),
        settings: settings.to_json().expect("JSON"),
        nodes: plan.nodes.iter().map(NodePlan::record).collect(),
    };
    database.create(&new, SystemTime::now()).expect("recorded");
}

fn plug(segment: &Netns, netns: &Netns, port: &str, host: u8) {
    netns.cable("eth0", segment, port);
    segment.run(&["ip", "link", "set", port, "master", "br0"]);
    netns.address("eth0", &format!("192.0.2.{host}/24"));
}

fn fingerprint(path: &Path) -> String {
    let pem = fs::read_to_string(path).expect("there");
    let identity = Identity::from_pem(&pem).expect("a key and its certificate");
    identity.fingerprint().to_string()
}

#[test]
fn a_machine_gets_its_certificate_once_and_a_stolen_account_gets_neither_that_nor_a_link() {
    let mut lab = Lab::new();
    let front = lab.keys(&lab.plan.nodes[0], Delivery::Private);
    lab.place(0, &front, Delivery::Private).start();
    // Its machine comes up while nobody signs.
    let worker = lab.keys(&lab.plan.nodes[1], Delivery::Enrolment);
    lab.place(1, &worker, Delivery::Enrolment).start();
    lab.nodes[1].trouble("no certificate yet");
    lab.start_registrar();
    lab.nodes[1].meets(&lab.nodes[0]);
    let certificate = lab.nodes[1].status().and_then(|status| status.certificate);
    let certificate = certificate.expect("one");
    assert_eq!(certificate.name, "worker-0.demo.ipop");
    // Started again it has what it needs, and asks nobody.
    let own = fingerprint(&lab.nodes[1].path("identity.pem"));
    lab.nodes[1].kill();
    fs::remove_file(lab.nodes[1].path("log")).expect("there");
    lab.nodes[1].start();
    lab.nodes[1].meets(&lab.nodes[0]);
    assert_eq!(fingerprint(&lab.nodes[1].path("identity.pem")), own);
    let log = fs::read_to_string(lab.nodes[1].path("log")).expect("there");
    assert!(!log.contains("certificate obtained"), "{log}");

    // Somebody has the account of the other worker, before it is used, and not its secret.
    let mut stolen = lab.keys(&lab.plan.nodes[2], Delivery::Enrolment);
    let account = stolen.account.jid.clone();
    let membership = stolen.membership.as_mut().expect("a member");
    membership.first = First::Asked(Secret::new("a guess".to_owned()));
    lab.place(2, &stolen, Delivery::Enrolment).start();
    lab.nodes[2].trouble("answered `forbidden`");
    // Nor does it help to believe anybody oneself.
    lab.nodes[2].kill();
    let thief = &lab.nodes[2];
    thief.edit(|config| {
        let from = config.find("[authority]").expect("there");
        let to = config.find("[xmpp]").expect("there");
        format!("{}{}", &config[..from], &config[to..])
    });
    lab.nodes[2].start();
    for honest in 0..2 {
        lab.nodes[honest].refuses(&account);
        assert!(!lab.nodes[honest].is_linked_to("worker-1"));
        let addr = lab.nodes[honest].addr.clone();
        assert!(!lab.nodes[2].netns.reaches(&addr), "{addr} answers");
    }
    assert!(lab.nodes[0].is_linked_to("worker-0"), "the others stay");
}

#[test]
fn a_certificate_that_ends_is_renewed_for_the_same_key() {
    let mut lab = Lab::new();
    let node = lab.plan.nodes[0].clone();
    let mut keys = lab.keys(&node, Delivery::Private);
    // What the machine was given is old by now.
    let membership = keys.membership.as_mut().expect("a member");
    let First::Given(given) = &membership.first else {
        panic!("it is given its key");
    };
    let identity = Identity::from_pem(given.expose()).expect("a key and its certificate");
    let office = lab.layout.authority("demo");
    let read = |name: &str| fs::read_to_string(office.join(name)).expect("there");
    let authority = Issuer::from_pem(&read("ca.key"), &read("ca.pem")).expect("an authority");
    let subject = Subject {
        name: node.name.0.clone(),
        overlay: "demo".to_owned(),
        addrs: vec![node.addrs.ipv4.addr.into(), node.addrs.ipv6.addr.into()],
        role: None,
    };
    let request = subject.request(&identity).expect("a request");
    let (subject, key) = Subject::of_request(&request).expect("the same");
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let validity = Validity {
        not_before: now - 20 * hour,
        not_after: now + hour,
    };
    let (old, _) = authority
        .sign(&subject, &key, validity, [1; 16])
        .expect("signed");
    let old = identity.certified(&old).expect("its key");
    membership.first = First::Given(Secret::new(old.to_pem().expect("PEM")));
    lab.start_registrar();
    lab.place(0, &keys, Delivery::Private).start();
    let certificate = || lab.nodes[0].status()?.certificate;
    let left = wait_until("another certificate", PATIENCE, || {
        certificate().filter(|c| !c.is_due).map(|c| c.left_s)
    });
    assert!(left > 300 * 86_400, "{left} s");
    let pem = fs::read_to_string(lab.nodes[0].path("identity.pem")).expect("there");
    let renewed = Identity::from_pem(&pem).expect("a key and its certificate");
    let key = |identity: &Identity| {
        let request = subject.request(identity).expect("a request");
        let (_, key) = Subject::of_request(&request).expect("the same");
        key.der_bytes().to_vec()
    };
    assert_eq!(key(&renewed), key(&identity));
}
