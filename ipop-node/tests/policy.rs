//! Who reaches what, tried from outside: nodes with rules and without, in namespaces on one segment. Needs
//! root, `/dev/net/tun`, `iproute2` and `iputils-ping`.

#[path = "running/mod.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod running;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ipop_proto::config::NodeConfig;
use ipop_proto::status::{DropReason, LinkState, PeerStatus};
use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;
use running::{DEVICE, Node, PATIENCE, program};
use tempfile::TempDir;

/// Who is there, in the order of their addresses, each with its groups.
const NODES: [(&str, &[&str]); 4] = [
    ("lake-data", &["storage"]),
    ("alice", &["lake"]),
    ("bob", &["crew"]),
    ("backup", &["storage"]),
];
const DATA: usize = 0;
const ALICE: usize = 1;
const BOB: usize = 2;
const BACKUP: usize = 3;

const RULES: &str = r#"
[[allow]]
from = "group:lake"
to = "node:lake-data"
protocol = "tcp"
port = 2049
[[allow]]
from = "group:lake"
to = "node:lake-data"
protocol = "udp"
port = "5000-5001"
[[allow]]
from = "node:bob"
to = "group:lake"
protocol = "icmp"
"#;

/// The underlay port of all.
const PORT: u16 = 4915;
/// Ports that everybody serves.
const SERVED: [u16; 2] = [2049, 22];
const UDP_SERVED: [u16; 2] = [5000, 53];
/// How long an answer may take within one machine. A check that something does not arrive takes so long.
const ANSWER: Duration = Duration::from_millis(700);

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Try {
    Tcp(u16),
    Udp(u16),
    /// More than one packet each way.
    LargeUdp(u16),
    Ping,
}

const TRIES: [Try; 6] = [
    Try::Tcp(2049),
    Try::Tcp(22),
    Try::Udp(5000),
    Try::Udp(53),
    Try::LargeUdp(5000),
    Try::Ping,
];

/// Nodes that know each other by configuration, and an authority that says who is in which group.
struct Lab {
    nodes: Vec<Node>,
    servers: Vec<Server>,
    office: TempDir,
    _segment: Netns,
}

impl Lab {
    fn new() -> Self {
        let segment = Netns::new("segment");
        segment.run(&["ip", "link", "add", "br0", "type", "bridge"]);
        segment.run(&["ip", "link", "set", "br0", "up"]);
        let office = TempDir::with_prefix("ipop-office-").expect("temporary directory");
        run(program()
            .args(["authority", "init"])
            .args(files(office.path())));
        let nodes = (0..NODES.len()).map(|i| {
            let netns = Netns::new(&format!("policy{i}"));
            let port = format!("port{i}");
            netns.cable("eth0", &segment, &port);
            segment.run(&["ip", "link", "set", &port, "master", "br0"]);
            netns.address("eth0", &format!("192.0.2.{}/24", i + 1));
            Node::new(netns, i as u8)
        });
        let lab = Self {
            nodes: nodes.collect(),
            servers: Vec::new(),
            office,
            _segment: segment,
        };
        for (i, (_, groups)) in NODES.iter().enumerate() {
            lab.certify(i, groups);
        }
        lab
    }

    /// Has the authority sign for a node, as a member of these groups.
    fn certify(&self, i: usize, groups: &[&str]) {
        let node = &self.nodes[i];
        let authority = self.office.path().join("authority.pem");
        fs::copy(authority, node.file("authority.pem")).expect("copied");
        let own =
            head(i) + "[[peer]]\nname = \"x\"\nipv4 = \"10.73.0.99\"\nipv6 = \"fd73:5a::99\"\n";
        let own = own + &format!("fingerprint = \"{}\"\n", vec!["AB"; 32].join(":"));
        fs::write(node.file("own.config"), own).expect("written");
        let request = run(program()
            .args(["identity", "--request"])
            .arg(node.file("own.config"))
            .arg(node.file("identity.pem")));
        fs::write(node.file("request"), request).expect("written");
        let groups = groups.iter().flat_map(|group| ["--group", group]);
        let signed = run(program()
            .args(["authority", "sign"])
            .args(groups)
            .args(files(self.office.path()))
            .arg(node.file("request")));
        fs::write(node.file("signed"), signed).expect("written");
        run(program()
            .args(["identity", "--install"])
            .arg(node.file("signed"))
            .arg(node.file("identity.pem")));
    }

    /// The configuration of a node with these rules.
    fn config(&self, i: usize, rules: &str) -> String {
        let mut config = head(i);
        for (other, (name, _)) in NODES.iter().enumerate().filter(|(other, _)| *other != i) {
            let fingerprint = run(program()
                .arg("identity")
                .arg(self.nodes[other].file("identity.pem")));
            config += &format!(
                "[[peer]]\nname = \"{name}\"\nipv4 = \"10.73.0.{n}\"\nipv6 = \"fd73:5a::{n}\"\n\
                 fingerprint = \"{fingerprint}\"\nendpoints = [\"192.0.2.{n}:{PORT}\"]\n",
                n = other + 1,
                fingerprint = fingerprint.trim(),
            );
        }
        config + "[authority]\ncertificate = \"authority.pem\"\n" + rules
    }

    /// Starts all, of which these have the rules, and servers on each; waits for the links.
    fn start(&mut self, with_rules: [bool; NODES.len()]) {
        let configs = [0, 1, 2, 3].map(|i: usize| {
            let rules = if with_rules[i] { RULES } else { "" };
            self.config(i, rules)
        });
        for (node, config) in self.nodes.iter_mut().zip(configs) {
            node.start(&config);
        }
        for node in &self.nodes {
            wait_until("links", PATIENCE, || {
                let peers = node.status().peers;
                let is_up = |peer: &PeerStatus| peer.link == LinkState::Up;
                (peers.len() == NODES.len() - 1 && peers.iter().all(is_up)).then_some(())
            });
            self.servers.push(Server::start(node));
        }
    }

    /// Whether what is tried from one node gets an answer of another, by this family.
    fn gets(&self, from: usize, to: usize, what: Try, family: usize) -> bool {
        let addr: IpAddr = self.nodes[to].addrs()[family].parse().expect("an address");
        let netns = &self.nodes[from].netns;
        match what {
            Try::Tcp(port) => netns.inside(|| tcp((addr, port).into())),
            Try::Udp(port) => netns.inside(|| udp((addr, port).into(), 8)),
            Try::LargeUdp(port) => netns.inside(|| udp((addr, port).into(), 4000)),
            Try::Ping => netns.reaches(&addr.to_string()),
        }
    }

    /// Everything between everybody, where `expected` says what gets an answer.
    fn check(&self, expected: impl Fn(usize, usize, Try) -> bool) {
        let all = 0..NODES.len();
        let pairs = all
            .clone()
            .flat_map(|from| all.clone().map(move |to| (from, to)));
        let mut wrong = Vec::new();
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            for what in TRIES {
                for family in 0..2 {
                    let gets = self.gets(from, to, what, family);
                    if gets != expected(from, to, what) {
                        let (from, to) = (NODES[from].0, NODES[to].0);
                        wrong.push(format!("{from} -> {to} {what:?} by {family}: {gets}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Packets of one node, or for it, that another has dropped for a reason.
    fn dropped(&self, at: usize, of: usize, reason: DropReason) -> u64 {
        let peers = self.nodes[at].status().peers;
        let peer = peers.iter().find(|peer| peer.name == NODES[of].0);
        let drops = &peer.expect("known").drops;
        drops.get(&reason).copied().unwrap_or_default()
    }

    fn policy(&self, at: usize, words: &[&str]) -> String {
        run(program()
            .arg("policy")
            .args(words)
            .arg("--control")
            .arg(self.nodes[at].file("control.sock")))
    }
}

fn head(i: usize) -> String {
    let n = i + 1;
    format!(
        r#"
[node]
name = "{name}"
control = "control.sock"
identity = "identity.pem"
[overlay]
name = "test"
ipv4 = "10.73.0.{n}/24"
ipv6 = "fd73:5a::{n}/64"
[ice]
port = {PORT}
"#,
        name = NODES[i].0
    )
}

/// What the rules say, and that those of one group reach each other.
fn allowed(from: usize, to: usize, what: Try) -> bool {
    let is_common = [DATA, BACKUP].contains(&from) && [DATA, BACKUP].contains(&to);
    is_common
        || match what {
            Try::Tcp(2049) | Try::Udp(5000) | Try::LargeUdp(5000) => (from, to) == (ALICE, DATA),
            Try::Ping => (from, to) == (BOB, ALICE),
            _ => false,
        }
}

/// Answers on every served port of a node, with what it got.
struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn start(node: &Node) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let addrs = node
            .addrs()
            .map(|addr| addr.parse::<IpAddr>().expect("one"));
        let (listeners, sockets) = node.netns.inside(|| {
            let pairs = |ports: [u16; 2]| {
                addrs
                    .into_iter()
                    .flat_map(move |addr| ports.map(|port| SocketAddr::new(addr, port)))
            };
            let listeners: Vec<_> = pairs(SERVED)
                .map(|addr| TcpListener::bind(addr).expect("bound"))
                .collect();
            let sockets: Vec<_> = pairs(UDP_SERVED)
                .map(|addr| UdpSocket::bind(addr).expect("bound"))
                .collect();
            (listeners, sockets)
        });
        const PAUSE: Duration = Duration::from_millis(10);
        for listener in listeners {
            let stop = stop.clone();
            listener.set_nonblocking(true).expect("set");
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((mut stream, _)) => drop(stream.write_all(b"here")),
                        Err(_) => std::thread::sleep(PAUSE),
                    }
                }
            }));
        }
        for socket in sockets {
            let stop = stop.clone();
            socket.set_read_timeout(Some(5 * PAUSE)).expect("set");
            threads.push(std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(&buffer[..len], from);
                    }
                }
            }));
        }
        Self { stop, threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Whether somebody answers a connection.
fn tcp(to: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&to, ANSWER) else {
        return false;
    };
    stream.set_read_timeout(Some(ANSWER)).expect("set");
    let mut got = [0; 4];
    stream.read_exact(&mut got).is_ok() && got == *b"here"
}

/// Whether a datagram comes back.
fn udp(to: SocketAddr, len: usize) -> bool {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let socket = UdpSocket::bind((any, 0)).expect("bound");
    socket.connect(to).expect("connected");
    socket.set_read_timeout(Some(ANSWER)).expect("set");
    let sent: Vec<_> = (0..len).map(|at| at as u8).collect();
    // A sender that is not allowed is told at once.
    if socket.send(&sent).is_err() {
        return false;
    }
    let mut got = [0; 8192];
    matches!(socket.recv(&mut got), Ok(got_len) if got[..got_len] == sent)
}

#[test]
fn everybody_reaches_what_the_rules_say_and_nothing_else() {
    let mut lab = Lab::new();
    lab.start([true; 4]);
    lab.check(allowed);
    let text = lab.policy(DATA, &[]);
    assert!(
        text.contains("  1  members of group lake may reach lake-data on TCP port 2049\n"),
        "{text}"
    );
    let row = text.lines().find(|line| line.starts_with("alice"));
    let words = row.expect("a row").split_whitespace().collect::<Vec<_>>();
    assert_eq!(
        words,
        ["alice", "lake", "tcp/2049,", "udp/5000-5001", "nothing"]
    );
    let explain = |from: &str, to: &str, what: &str| lab.policy(DATA, &["explain", from, to, what]);
    assert_eq!(
        explain("alice", "lake-data", "tcp/2049"),
        "yes: by rule 1, members of group lake may reach lake-data on TCP port 2049\n"
    );
    assert_eq!(
        explain("bob", "lake-data", "2049"),
        "no: no rule allows it, and they have no group in common\n"
    );
    // A packet in the name of another, who may.
    let bob = &lab.nodes[BOB].netns;
    bob.run(&["ip", "address", "add", "10.73.0.2/32", "dev", DEVICE]);
    let to: SocketAddr = "10.73.0.1:5000".parse().expect("valid");
    let before = lab.dropped(BOB, DATA, DropReason::NotAllowed);
    assert!(!bob.inside(|| {
        let socket = UdpSocket::bind("10.73.0.2:0").expect("bound");
        socket.set_read_timeout(Some(ANSWER)).expect("set");
        let sent = socket.send_to(b"spoofed", to);
        sent.is_ok() && socket.recv(&mut [0; 16]).is_ok()
    }));
    assert!(lab.dropped(BOB, DATA, DropReason::NotAllowed) > before);
}

#[test]
fn a_node_with_rules_needs_nobody_elses() {
    let mut lab = Lab::new();
    // One end has them: what it may not get it does not get, and what it may not send it does not send.
    lab.start([true, false, false, false]);
    lab.check(|from, to, what| allowed(from, to, what) || ![from, to].contains(&DATA));
    // Bob, whose node keeps to no rules, knocks at many doors.
    let bob = &lab.nodes[BOB].netns;
    let addrs = lab.nodes[DATA].addrs();
    bob.inside(|| {
        for addr in &addrs {
            let addr: IpAddr = addr.parse().expect("an address");
            let any: IpAddr = if addr.is_ipv4() {
                [0; 4].into()
            } else {
                [0; 16].into()
            };
            let socket = UdpSocket::bind((any, 0)).expect("bound");
            // As many as a device has room for at once.
            for port in 1..=50_u16 {
                socket.send_to(b"?", (addr, port)).expect("sent");
            }
            let tried = TcpStream::connect_timeout(&(addr, 22).into(), 4 * ANSWER);
            let kind = tried.expect_err("not allowed").kind();
            assert_eq!(kind, ErrorKind::TimedOut);
        }
    });
    let alarm = wait_until("an alarm", PATIENCE, || {
        let denied = lab.nodes[DATA].status().policy.expect("rules").denied;
        denied
            .into_iter()
            .find(|alarm| alarm.origin == "bob" && alarm.count >= 100)
    });
    assert_eq!(alarm.trouble, "sends what no rule allows, tcp/22 last");
    assert!(lab.dropped(DATA, BOB, DropReason::NotAllowed) >= 100);
    wait_until("a line in the log", PATIENCE, || {
        let log = lab.nodes[DATA].log();
        let is_it =
            |line: &str| line.contains("peer sends what no rule allows") && line.contains("bob");
        log.lines().any(is_it).then_some(())
    });
    let people = run(program()
        .args(["status", "--control"])
        .arg(lab.nodes[DATA].file("control.sock")));
    assert!(
        people.contains("    bob: sends what no rule allows, tcp/22 last ("),
        "{people}"
    );
    // In the name of another, who may.
    bob.run(&["ip", "address", "add", "10.73.0.2/32", "dev", DEVICE]);
    bob.inside(|| {
        let socket = UdpSocket::bind("10.73.0.2:0").expect("bound");
        socket.send_to(b"spoofed", "10.73.0.1:5000").expect("sent");
    });
    wait_until("a spoofed packet dropped", PATIENCE, || {
        (lab.dropped(DATA, BOB, DropReason::WrongSource) > 0).then_some(())
    });
}

#[test]
fn rules_and_groups_change_while_links_and_connections_last() {
    let mut lab = Lab::new();
    lab.start([true; 4]);
    let addr = SocketAddr::new(lab.nodes[DATA].addrs()[0].parse().expect("valid"), 2050);
    let (mut here, mut there) = {
        let listener = lab.nodes[DATA]
            .netns
            .inside(|| TcpListener::bind(addr).expect("bound"));
        // Not allowed yet: the rules have another port.
        assert!(
            !lab.nodes[ALICE]
                .netns
                .inside(|| TcpStream::connect_timeout(&addr, ANSWER).is_ok())
        );
        let wider = RULES.replace("port = 2049", "port = [2049, 2050]");
        for i in [DATA, ALICE] {
            lab.change_to(i, &wider);
        }
        let here = lab.nodes[ALICE]
            .netns
            .inside(|| TcpStream::connect_timeout(&addr, PATIENCE));
        (
            here.expect("connected"),
            listener.accept().expect("accepted").0,
        )
    };
    let mut passes = |text: &[u8]| {
        here.write_all(text).expect("written");
        there.set_read_timeout(Some(ANSWER)).expect("set");
        let mut got = vec![0; text.len()];
        there.read_exact(&mut got).is_ok() && got == text
    };
    assert!(passes(b"allowed"));
    // What is not allowed any more stands still, and goes on when it is again.
    lab.change_to(DATA, RULES);
    assert!(!passes(b"denied"));
    lab.change_to(DATA, &RULES.replace("port = 2049", "port = [2049, 2050]"));
    let mut got = [0; 6];
    there.set_read_timeout(Some(PATIENCE)).expect("set");
    there.read_exact(&mut got).expect("sent again by then");
    assert_eq!(got, *b"denied");
    // A file that cannot be used changes nothing.
    lab.change(DATA, "[[allow]]\nfrom = \"lake\"\nto = \"any\"\n");
    wait_until("a complaint", PATIENCE, || {
        let log = lab.nodes[DATA].log();
        log.contains("rules not read, the old ones stay")
            .then_some(())
    });
    assert!(lab.gets(ALICE, DATA, Try::Tcp(2049), 0));
    assert!(!lab.gets(BOB, DATA, Try::Tcp(2049), 0));
    // Another certificate, other groups.
    lab.certify(DATA, &["storage", "crew"]);
    lab.hang_up(DATA);
    wait_until("the new group", PATIENCE, || {
        let policy = lab.nodes[DATA].status().policy.expect("rules");
        policy.groups.contains("crew").then_some(())
    });
    for node in &lab.nodes {
        assert!(!node.log().contains("link down"), "{}", node.log());
    }
}

impl Lab {
    /// Gives a running node another file, with these rules.
    fn change(&self, i: usize, rules: &str) {
        fs::write(self.nodes[i].file("ipop.config"), self.config(i, rules)).expect("written");
        self.hang_up(i);
    }

    /// The same, and waits until they are in force.
    fn change_to(&self, i: usize, rules: &str) {
        self.change(i, rules);
        let config = NodeConfig::parse(&self.config(i, rules)).expect("a configuration");
        wait_until("other rules", PATIENCE, || {
            let policy = self.nodes[i].status().policy.expect("rules");
            (policy.rules == config.allow).then_some(())
        });
    }

    fn hang_up(&self, i: usize) {
        let pid = self.nodes[i].pid().to_string();
        run(Command::new("kill").args(["-HUP", &pid]));
    }
}

/// How the authority with its files there is named on a command line.
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
