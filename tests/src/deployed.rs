//! An overlay as `provision` makes one: its own registrar signs, and nodes with the personal data that it
//! renders run in namespaces.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use ipop_proto::audit::Record;
use ipop_proto::config::AllowSection;
use ipop_proto::status::{LinkState, NodeStatus, SignIn};
use provisioner::audit::{Audit, By};
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
use provisioner::site::{Site, Sites};
use provisioner::state::Database;
use provisioner::state::record::NewDeployment;
use serde_json::Value;
use tempfile::TempDir;

use crate::ejabberd::{DOMAIN, Ejabberd, Options};
use crate::netns::Netns;
use crate::{node, scale, wait_until};

/// What takes longer does not come.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A deployment on somebody else's server, all on one segment. Nodes come first: they go before their
/// server and their network.
pub struct Lab {
    /// The machines that were placed.
    pub nodes: Vec<Node>,
    registrar: Option<Child>,
    /// What is recorded at first.
    pub plan: ClusterPlan,
    /// The owner's side of the server.
    pub rendezvous: Rendezvous,
    /// The owner's files.
    pub layout: Layout,
    /// Where the server and the owner's processes are.
    pub place: Netns,
    segment: Netns,
    /// The server.
    pub server: Ejabberd,
    _dir: TempDir,
}

impl Lab {
    /// A deployment on libvirt, whose machines nobody makes.
    ///
    /// # Panics
    ///
    /// When something cannot be made, here and below.
    pub fn of_machines() -> Self {
        Self::with(demo(), Sites::default().iter().cloned().collect())
    }

    /// A deployment all of whose machines are people's, so that commands of `provision` find nothing
    /// else to do than what they do of accounts and certificates.
    pub fn of_people() -> Self {
        Self::of_people_with(Vec::new())
    }

    /// The same with rules of who may reach what.
    pub fn of_people_with(rules: Vec<AllowSection>) -> Self {
        let mut plan = ClusterPlan { rules, ..demo() };
        let elsewhere = Site::elsewhere();
        for node in &mut plan.nodes {
            node.site = elsewhere.name.clone();
        }
        Self::with(plan, vec![elsewhere])
    }

    fn with(plan: ClusterPlan, sites: Vec<Site>) -> Self {
        let segment = Netns::new("segment");
        segment.run(&["ip", "link", "add", "br0", "type", "bridge"]);
        segment.run(&["ip", "link", "set", "br0", "up"]);
        let place = Netns::new("server");
        plug(&segment, &place, 1);
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
            shares: Vec::new(),
            sites,
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
            rules: plan.rules.clone(),
            lan: false,
        };
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
            server,
            _dir: dir,
        }
    }

    /// Runs what always runs beside the rendezvous.
    pub fn start_registrar(&mut self) {
        let program = scale::provision().display().to_string();
        let mut command = self.place.command(&program);
        command
            .args(["rendezvous", "run", "demo"])
            .env("IPOP_STATE_DIR", &self.layout.state)
            .env("IPOP_CACHE_DIR", &self.layout.cache)
            .stdin(Stdio::null());
        self.registrar = Some(command.spawn().expect("`ip` runs"));
        let own = self.layout.rendezvous("demo").join("attendant.json");
        wait_until("the registrar", PATIENCE, || own.exists().then_some(()));
    }

    /// Runs `provision` on the owner's machine.
    pub fn provision(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("`ip` runs")
    }

    /// The same, still to be run.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self
            .place
            .command(&scale::provision().display().to_string());
        command
            .args(words)
            .env("IPOP_STATE_DIR", &self.layout.state)
            .env("IPOP_CACHE_DIR", &self.layout.cache)
            .stdin(Stdio::null());
        command
    }

    /// What `provision audit` has of it.
    pub fn audit(&self, words: &[&str]) -> Vec<Record> {
        let words = [&["audit", "demo", "--json"], words].concat();
        let output = self.provision(&words);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        records(&output)
    }

    /// Invites a machine of a person's; gives its number.
    pub fn invite(&mut self, person: &str) -> usize {
        self.invite_with(person, &[])
    }

    /// The same with more words for the command.
    pub fn invite_with(&mut self, person: &str, words: &[&str]) -> usize {
        let output = self.provision(&[&["user", "invite", "demo", person], words].concat());
        assert!(output.status.success(), "{output:?}");
        let database = Database::open(&self.layout.database()).expect("opens");
        let deployment = database.deployment("demo").expect("read").expect("there");
        let nodes = database.nodes(deployment.id).expect("read");
        self.plan = ClusterPlan::recorded(&deployment, &nodes).expect("whole");
        let of_person = |node: &NodePlan| node.name.0 == person;
        let number = self.plan.nodes.iter().position(of_person);
        number.expect("invited")
    }

    /// The deployment's authority.
    pub fn authority(&self) -> Authority {
        let dir = self.layout.authority("demo");
        let audit = Audit::new(&self.layout, "demo", By::Owner, &[]);
        Authority::open(&dir, "demo", audit, SystemTime::now()).expect("an authority")
    }

    /// What a node of the plan is told when its machine is made.
    pub fn keys(&self, node: &NodePlan, delivery: Delivery) -> Keys {
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
                let entry = authority.token(node, &account.password, SystemTime::now());
                (account, First::Asked(entry.expect("made").secret))
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
    pub fn place(&mut self, number: usize, keys: &Keys, delivery: Delivery) -> &mut Node {
        let node = &self.plan.nodes[number];
        let endpoint = self.rendezvous.endpoint().expect("known");
        let bundle = personal::bundle(&self.plan, node, &endpoint, keys, delivery);
        let netns = Netns::new(&format!("node{number}"));
        let host = u8::try_from(10 + number).expect("few");
        plug(&self.segment, &netns, host);
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
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its IPv4 address in the overlay.
    pub addr: String,
    /// Where it runs.
    pub netns: Netns,
    dir: TempDir,
    child: Option<Child>,
}

impl Node {
    /// A file of its machine's.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Changes its configuration.
    pub fn edit(&self, change: impl FnOnce(String) -> String) {
        let path = self.path("ipop.config");
        let text = fs::read_to_string(&path).expect("there");
        fs::write(path, change(text)).expect("written");
    }

    /// Starts its node.
    pub fn start(&mut self) {
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

    /// Has its node read again what may have changed.
    pub fn hang_up(&self) {
        let child = self.child.as_ref().expect("it runs");
        let pid = child.id().to_string();
        let status = Command::new("kill").args(["-HUP", &pid]).status();
        assert!(status.expect("`kill` runs").success());
    }

    /// Ends its node at once, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Errors here mean that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What its node says of itself; nothing if it does not run.
    pub fn status(&self) -> Option<NodeStatus> {
        let output = Command::new(node::binary())
            .args(["status", "--json", "--control"])
            .arg(self.path("control.sock"))
            .output()
            .expect("it runs");
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes).expect("status as JSON");
        output.status.success().then(|| parse(&output.stdout))
    }

    /// Whether it has a link to the node `peer`.
    pub fn is_linked_to(&self, peer: &str) -> bool {
        let peers = self.status().map(|status| status.peers).unwrap_or_default();
        peers
            .iter()
            .any(|p| p.name == peer && p.link == LinkState::Up)
    }

    /// Waits until it is a peer's, and the other way round.
    pub fn meets(&self, peer: &Node) {
        let what = format!("link between {} and {}", self.name, peer.name);
        wait_until(&what, PATIENCE, || {
            (self.is_linked_to(&peer.name) && peer.is_linked_to(&self.name)).then_some(())
        });
        assert!(self.netns.reaches(&peer.addr), "{} is silent", peer.addr);
    }

    /// Waits until it says why it is not online.
    pub fn trouble(&self, what: &str) {
        wait_until(what, PATIENCE, || match self.status()?.sign_in {
            SignIn::Connecting { last_error } => {
                last_error.filter(|error| error.contains(what)).map(drop)
            }
            _ => None,
        });
    }

    /// Waits until it has refused somebody for this reason.
    pub fn refuses(&self, account: &str, why: &str) {
        wait_until("a refusal", PATIENCE, || {
            let refused = self.status()?.refused;
            let of = |alarm: &&ipop_proto::status::AlarmStatus| {
                alarm.origin == account && alarm.trouble == why
            };
            refused.iter().find(of).map(drop)
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

/// The result of a command that succeeded, which with `--json` is the last line that it says.
pub fn said(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text
        .lines()
        .last()
        .expect("a line for each event, and one for the result");
    serde_json::from_str(last).expect("JSON")
}

/// The records that `provision audit --json` printed.
pub fn records(output: &Output) -> Vec<Record> {
    let text = std::str::from_utf8(&output.stdout).expect("UTF-8");
    let read = |line| Record::from_line(line).expect("a record");
    text.lines().map(read).collect()
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

/// Puts a machine on the segment, at a port of a name that none had before: that of a machine which was
/// removed is there for a moment longer.
fn plug(segment: &Netns, netns: &Netns, host: u8) {
    static PORTS: AtomicU32 = AtomicU32::new(0);
    let port = format!("port{}", PORTS.fetch_add(1, Ordering::Relaxed));
    netns.cable("eth0", segment, &port);
    segment.run(&["ip", "link", "set", &port, "master", "br0"]);
    netns.address("eth0", &format!("192.0.2.{host}/24"));
}
