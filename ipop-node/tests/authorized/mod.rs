//! Nodes of an overlay with an authority, over a real ejabberd, in namespaces on one segment. Needs root,
//! `/dev/net/tun`, `iproute2`, `iputils-ping` and Debian's `ejabberd` package.

#[path = "../running/mod.rs"]
#[expect(dead_code, reason = "shared with other tests")]
pub mod running;

use std::fs;
use std::path::Path;
use std::process::Command;

use ipop_node::audit::Trail;
use ipop_proto::audit::{Event, Record, key_id};
use ipop_proto::status::PeerStatus;
pub use ipop_testbed::ejabberd::DOMAIN;
use ipop_testbed::ejabberd::{Ejabberd, Options};
use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;
pub use running::{Node, PATIENCE, program};
use tempfile::TempDir;

const PASSWORD: &str = "correct horse battery staple";
/// Days for which nodes' certificates are valid.
pub const DAYS: u64 = 90;

/// Nodes on one segment with a server, and an authority; they go in this order.
pub struct Lab {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Where the authority has its files.
    pub office: TempDir,
    /// The server.
    pub server: Ejabberd,
    _networks: [Netns; 2],
}

impl Lab {
    /// Every node is a member of the server's group, with a certificate of the authority.
    pub fn new(count: u8) -> Self {
        let segment = Netns::new("segment");
        segment.run(&["ip", "link", "add", "br0", "type", "bridge"]);
        segment.run(&["ip", "link", "set", "br0", "up"]);
        let plug = |netns: &Netns, port: &str, host: u8| {
            netns.cable("eth0", &segment, port);
            segment.run(&["ip", "link", "set", port, "master", "br0"]);
            netns.address("eth0", &format!("192.0.2.{host}/24"));
        };
        let place = Netns::new("server");
        plug(&place, "server", 1);
        let prefix = ["ip", "netns", "exec", place.name()].map(str::to_owned);
        let server = Ejabberd::start_with(Options {
            listen: vec![[192, 0, 2, 1].into()],
            prefix: prefix.to_vec(),
            tls13: true,
        });
        let office = office();
        let nodes = (0..count).map(|number| {
            let netns = Netns::new(&format!("node{number}"));
            plug(&netns, &format!("node{number}"), 10 + number);
            let user = format!("node-{number}");
            server.register(&user, PASSWORD);
            server.join(&user);
            Node::new(netns, number)
        });
        let lab = Self {
            nodes: nodes.collect(),
            office,
            server,
            _networks: [segment, place],
        };
        for number in 0..count {
            lab.prepare(number);
            lab.certify(number, DAYS);
        }
        lab
    }

    /// Puts beside a node's configuration what that names.
    fn prepare(&self, number: u8) {
        let node = &self.nodes[usize::from(number)];
        fs::write(node.file("password"), PASSWORD).expect("written");
        fs::write(node.file("server.pem"), self.server.ca_pem()).expect("written");
        let authority = self.office.path().join("authority.pem");
        fs::copy(authority, node.file("authority.pem")).expect("copied");
    }

    /// The configuration of a node with the overlay addresses that end in `end`.
    pub fn config(&self, number: u8, end: u8) -> String {
        format!(
            r#"
[node]
name = "node-{number}"
control = "control.sock"
identity = "identity.pem"
[overlay]
name = "test"
ipv4 = "10.73.0.{end}/24"
ipv6 = "fd73:5a::{end}/64"
[xmpp]
jid = "node-{number}@{DOMAIN}"
servers = {servers:?}
password_file = "password"
ca_file = "server.pem"
"#,
            servers = self.server.servers()
        )
    }

    /// Has the authority sign for what the node asks, which is what its configuration says.
    pub fn certify(&self, number: u8, days: u64) {
        let node = &self.nodes[usize::from(number)];
        fs::write(node.file("ipop.config"), self.config(number, number + 1)).expect("written");
        let identity = node.file("identity.pem");
        let request = run(program()
            .args(["identity", "--request"])
            .arg(node.file("ipop.config"))
            .arg(&identity));
        assert!(!request.contains("PRIVATE KEY"), "{request}");
        fs::write(node.file("request"), request).expect("written");
        let signed = run(program()
            .args(["authority", "sign", "--days", &days.to_string()])
            .args(files(self.office.path()))
            .arg(node.file("request")));
        fs::write(node.file("signed"), signed).expect("written");
        run(program()
            .args(["identity", "--install"])
            .arg(node.file("signed"))
            .arg(&identity));
    }

    /// Starts a node that believes the authority.
    pub fn start(&mut self, number: u8) {
        self.start_with(number, "");
    }

    /// The same, with more in `[overlay]`.
    pub fn start_with(&mut self, number: u8, extra: &str) {
        let config = self.config(number, number + 1);
        let config = config.replace("[overlay]\n", &format!("[overlay]\n{extra}"));
        let authority =
            "[authority]\ncertificate = \"authority.pem\"\nrevoked = \"authority.crl\"\n";
        let audit = self.audit_section(number);
        self.nodes[usize::from(number)].start(&format!("{config}{authority}{audit}"));
    }

    /// Has it keep records.
    fn audit_section(&self, number: u8) -> String {
        let file = self.nodes[usize::from(number)].file("audit.jsonl");
        format!("[audit]\nfile = {file:?}\n")
    }

    /// Waits until a node has kept a record of this event about another one, and gives the last one.
    pub fn record(&self, node: usize, event: &Event, about: &str) -> Record {
        wait_until(&format!("a record of {event} of {about}"), PATIENCE, || {
            let records = self.records(node).into_iter().rev();
            let mut records = records.filter(|record| record.event == *event);
            records.find(|record| record.node.as_deref() == Some(about))
        })
    }

    /// What a node has kept, as it is on the disk.
    pub fn records(&self, node: usize) -> Vec<Record> {
        let file = self.nodes[node].file("audit.jsonl");
        let kept = Trail::new(file, u64::MAX, false).read().expect("readable");
        assert_eq!(kept.damaged, 0);
        let name = format!("node-{node}");
        assert!(kept.records.iter().all(|record| record.by == name));
        kept.records
    }

    /// What the key of a node is known by in records, as OpenSSL sees it.
    pub fn key(&self, number: u8) -> String {
        let identity = self.nodes[usize::from(number)].file("identity.pem");
        let der = Command::new("openssl")
            .args(["pkey", "-pubout", "-outform", "DER", "-in"])
            .arg(identity)
            .output()
            .expect("it runs");
        assert!(der.status.success(), "{der:?}");
        key_id(&der.stdout)
    }

    /// Has a node read its files again.
    pub fn hang_up(&self, number: usize) {
        let pid = self.nodes[number].pid().to_string();
        run(Command::new("kill").args(["-HUP", &pid]));
    }

    /// What a node says of the account of another.
    pub fn peer(&self, node: usize, account: u8) -> Option<PeerStatus> {
        let jid = format!("node-{account}@{DOMAIN}/");
        let mut peers = self.nodes[node].status().peers.into_iter();
        peers.find(|peer| peer.jid.starts_with(&jid))
    }

    /// Waits until a node has refused an account, and gives what it says of that.
    pub fn refusal(&self, node: usize, account: u8) -> String {
        let origin = format!("node-{account}@{DOMAIN}");
        wait_until("a refusal", PATIENCE, || {
            let refused = self.nodes[node].status().refused.into_iter();
            let mut refused = refused.filter(|alarm| alarm.origin == origin);
            refused.next().map(|alarm| alarm.trouble)
        })
    }
}

/// Where an authority has its files.
pub fn office() -> TempDir {
    let office = TempDir::with_prefix("ipop-office-").expect("temporary directory");
    run(program()
        .args(["authority", "init"])
        .args(files(office.path())));
    office
}

/// How the authority with its files there is named on a command line.
pub fn files(office: &Path) -> [String; 4] {
    let path = |name: &str| office.join(name).display().to_string();
    [
        "--key".to_owned(),
        path("authority.key"),
        "--certificate".to_owned(),
        path("authority.pem"),
    ]
}

/// Runs a command that must succeed, and gives what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
