//! An overlay with an authority, over a real ejabberd. Needs root, `/dev/net/tun`, `iproute2`,
//! `iputils-ping` and Debian's `ejabberd` package.

#[path = "running/mod.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod running;

use std::fs;
use std::path::Path;
use std::process::Command;

use ipop_proto::status::{LinkState, PeerStatus};
use ipop_testbed::ejabberd::{DOMAIN, Ejabberd, Options};
use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;
use running::{Node, PATIENCE, program};
use tempfile::TempDir;

const PASSWORD: &str = "correct horse battery staple";
/// Days for which nodes' certificates are valid.
const DAYS: u64 = 90;

/// Nodes on one segment with a server, and an authority; they go in this order.
struct Lab {
    nodes: Vec<Node>,
    office: TempDir,
    server: Ejabberd,
    _networks: [Netns; 2],
}

impl Lab {
    /// Every node is a member of the server's group, with a certificate of the authority.
    fn new(count: u8) -> Self {
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
    fn config(&self, number: u8, end: u8) -> String {
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
    fn certify(&self, number: u8, days: u64) {
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
    fn start(&mut self, number: u8) {
        let config = self.config(number, number + 1);
        let config = format!("{config}[authority]\ncertificate = \"authority.pem\"\n");
        self.nodes[usize::from(number)].start(&config);
    }

    /// What a node says of the account of another.
    fn peer(&self, node: usize, account: u8) -> Option<PeerStatus> {
        let jid = format!("node-{account}@{DOMAIN}/");
        let mut peers = self.nodes[node].status().peers.into_iter();
        peers.find(|peer| peer.jid.starts_with(&jid))
    }

    /// Waits until a node has refused an account, and gives what it says of that.
    fn refusal(&self, node: usize, account: u8) -> String {
        let origin = format!("node-{account}@{DOMAIN}");
        wait_until("a refusal", PATIENCE, || {
            let refused = self.nodes[node].status().refused.into_iter();
            let mut refused = refused.filter(|alarm| alarm.origin == origin);
            refused.next().map(|alarm| alarm.trouble)
        })
    }
}

/// Where an authority has its files.
fn office() -> TempDir {
    let office = TempDir::with_prefix("ipop-office-").expect("temporary directory");
    run(program()
        .args(["authority", "init"])
        .args(files(office.path())));
    office
}

fn files(office: &Path) -> [String; 4] {
    let path = |name: &str| office.join(name).display().to_string();
    [
        "--key".to_owned(),
        path("authority.key"),
        "--certificate".to_owned(),
        path("authority.pem"),
    ]
}

/// Runs a command that must succeed, and gives what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn an_account_with_the_right_password_and_no_certificate_gets_no_link_and_is_named() {
    let mut lab = Lab::new(3);
    lab.start(0);
    lab.start(1);
    // Somebody who has the password, and a key of his own.
    let thief = &lab.nodes[2];
    fs::remove_file(thief.file("identity.pem")).expect("there");
    run(program()
        .args(["identity", "--create"])
        .arg(thief.file("identity.pem")));
    let config = lab.config(2, 3);
    lab.nodes[2].start(&config);
    lab.nodes[0].reach(&lab.nodes[1]);
    lab.nodes[1].reach(&lab.nodes[0]);
    for honest in 0..2 {
        assert_eq!(
            lab.refusal(honest, 2),
            "the peer is refused: the certificate is not of this overlay's authority"
        );
        let peer = lab.peer(honest, 2).expect("present");
        assert_ne!(peer.link, LinkState::Up);
        let addr = &lab.nodes[honest].addrs()[0];
        assert!(!lab.nodes[2].netns.reaches(addr), "{addr} answers");
    }
    let socket = lab.nodes[0].file("control.sock");
    let people = run(program().args(["status", "--control"]).arg(socket));
    let alarm = format!("    node-2@{DOMAIN}: the peer is refused: ");
    assert!(
        people.lines().any(|line| line.starts_with(&alarm)),
        "{people}"
    );
    let own = people.lines().find(|line| line.starts_with("certificate"));
    assert_eq!(own, Some("certificate node-0.test.ipop, 89 d left"));
}

#[test]
fn a_member_that_claims_the_address_of_another_is_refused_and_the_other_has_it() {
    let mut lab = Lab::new(3);
    // Its certificate is the authority's, for address 3; it says that it has address 2.
    let config = lab.config(2, 2);
    lab.nodes[2].start(&config);
    lab.start(0);
    assert_eq!(
        lab.refusal(0, 2),
        "the peer is refused: it claims the addresses of node-2 (10.73.0.2, fd73:5a::2), and the \
         certificate says node-2 (10.73.0.3, fd73:5a::3)"
    );
    // Who has it comes later.
    lab.start(1);
    lab.nodes[0].reach(&lab.nodes[1]);
    assert_eq!(lab.peer(0, 1).expect("present").link, LinkState::Up);
    assert_ne!(lab.peer(0, 2).expect("present").link, LinkState::Up);
    let own = lab.refusal(1, 2);
    assert_eq!(own, "it advertises this node's own address 10.73.0.2");
}

#[test]
fn a_certificate_is_renewed_while_the_node_runs() {
    let mut lab = Lab::new(2);
    lab.certify(0, 1);
    // Another authority follows.
    let next = office();
    let next_pem = fs::read_to_string(next.path().join("authority.pem")).expect("there");
    let both = lab.nodes[0].file("authority.pem");
    let old_pem = fs::read_to_string(&both).expect("there");
    fs::write(&both, old_pem + &next_pem).expect("written");
    lab.start(0);
    lab.start(1);
    lab.nodes[0].reach(&lab.nodes[1]);
    let left = |lab: &Lab| lab.nodes[0].status().certificate.expect("one").left_s;
    assert!(left(&lab) <= 86_400);
    let hang_up = |lab: &Lab| {
        let pid = lab.nodes[0].pid().to_string();
        run(Command::new("kill").args(["-HUP", &pid]));
    };
    // What peers would refuse is not taken.
    let identity = lab.nodes[0].file("identity.pem");
    let old = fs::read(&identity).expect("there");
    fs::copy(lab.nodes[1].file("identity.pem"), &identity).expect("copied");
    hang_up(&lab);
    wait_until("a complaint", PATIENCE, || {
        let log = lab.nodes[0].log();
        log.contains("certificate not renewed").then_some(())
    });
    assert!(left(&lab) <= 86_400);
    fs::write(&identity, old).expect("written");
    lab.office = next;
    lab.certify(0, DAYS);
    hang_up(&lab);
    wait_until("the new certificate", PATIENCE, || {
        (left(&lab) > 86_400).then_some(())
    });
    assert_eq!(lab.peer(0, 1).expect("present").link, LinkState::Up);
    assert_eq!(lab.peer(1, 0).expect("present").link, LinkState::Up);
    // New links are made with it: nothing else would be believed.
    lab.nodes[1].kill();
    lab.certify(1, DAYS);
    fs::write(lab.nodes[1].file("authority.pem"), next_pem).expect("written");
    lab.start(1);
    lab.nodes[1].reach(&lab.nodes[0]);
    assert!(lab.nodes[1].status().refused.is_empty());
    assert!(lab.nodes[0].status().refused.is_empty());
}
