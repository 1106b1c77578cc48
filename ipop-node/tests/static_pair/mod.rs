//! Two running nodes that know each other by configuration, in namespaces joined by a cable.
//! Needs root, `/dev/net/tun`, `iproute2` and `iputils-ping`.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use ipop_proto::status::{DropReason, LinkState, NodeStatus, PeerStatus};
use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;
use tempfile::TempDir;

/// How long anything may take on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The underlay port of both.
pub const PORT: u16 = 4915;
/// The device's name.
pub const DEVICE: &str = "ipop0";

/// A node.
pub struct Node {
    /// Where it lives.
    pub netns: Netns,
    number: u8,
    dir: TempDir,
    child: Child,
}

/// Both, linked. `extra` is what each has in its configuration besides.
pub fn linked(extra: [&str; 2]) -> [Node; 2] {
    let netns = [0, 1].map(|number| Netns::new(&format!("static{number}")));
    netns[0].cable("eth0", &netns[1], "eth0");
    let dirs = [0, 1].map(|_| TempDir::with_prefix("ipop-static-").expect("temporary directory"));
    let fingerprints = [0, 1].map(|at: usize| identity(dirs[at].path()));
    let mut number = 0;
    let nodes = netns.map(|netns| {
        let (own, other) = (number, 1 - number);
        netns.address("eth0", &format!("192.0.2.{}/24", own + 1));
        let dir = &dirs[usize::from(own)];
        let config = config(own, &fingerprints[usize::from(other)]);
        let extra = extra[usize::from(own)];
        fs::write(dir.path().join("ipop.config"), config + extra).expect("written");
        number += 1;
        (netns, own)
    });
    let mut dirs = dirs.into_iter();
    let nodes = nodes.map(|(netns, number)| {
        let dir = dirs.next().expect("one for each");
        Node::start(netns, number, dir)
    });
    for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        node.reach(other);
    }
    nodes
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ipop-node"))
}

/// Makes one and gives its fingerprint.
fn identity(dir: &Path) -> String {
    let made = program()
        .args(["identity", "--create"])
        .arg(dir.join("identity.pem"))
        .output()
        .expect("it runs");
    assert!(made.status.success(), "{made:?}");
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

fn config(own: u8, fingerprint: &str) -> String {
    let [a, b] = [own + 1, 2 - own];
    format!(
        r#"
[node]
name = "node-{own}"
control = "control.sock"
identity = "identity.pem"
[ice]
port = {PORT}
[[peer]]
name = "node-{other}"
ipv4 = "10.73.0.{b}"
ipv6 = "fd73:5a::{b}"
fingerprint = "{fingerprint}"
endpoints = ["192.0.2.{b}:{PORT}"]
[overlay]
name = "test"
ipv4 = "10.73.0.{a}/24"
ipv6 = "fd73:5a::{a}/64"
"#,
        other = 1 - own
    )
}

impl Node {
    fn start(netns: Netns, number: u8, dir: TempDir) -> Self {
        let log = File::create(dir.path().join("log")).expect("log file");
        let child = netns
            .command(env!("CARGO_BIN_EXE_ipop-node"))
            .args(["run", "--config", "ipop.config", "--log", "debug"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("`ip` runs");
        Self {
            netns,
            number,
            dir,
            child,
        }
    }

    /// Its overlay addresses.
    pub fn addrs(&self) -> [String; 2] {
        let end = self.number + 1;
        [format!("10.73.0.{end}"), format!("fd73:5a::{end}")]
    }

    /// Pings both addresses of `other` until each has answered.
    pub fn reach(&self, other: &Self) {
        for addr in other.addrs() {
            let what = format!("ping of {addr}\n{}", self.log());
            wait_until(&what, PATIENCE, || self.netns.reaches(&addr).then_some(()));
        }
    }

    /// Its status.
    pub fn status(&self) -> NodeStatus {
        wait_until("status", PATIENCE, || {
            let output = program()
                .args(["status", "--json", "--control"])
                .arg(self.dir.path().join("control.sock"))
                .output()
                .expect("it runs");
            let parse = |bytes: &[u8]| serde_json::from_slice(bytes).expect("status as JSON");
            output.status.success().then(|| parse(&output.stdout))
        })
    }

    /// What it says of the other node.
    pub fn peer(&self) -> PeerStatus {
        let mut peers = self.status().peers;
        assert_eq!(peers.len(), 1);
        peers.remove(0)
    }

    /// Packets of, and for, the other node that were dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.peer().drops.get(&reason).copied().unwrap_or_default()
    }

    /// Whether the link is up.
    pub fn is_linked(&self) -> bool {
        self.peer().link == LinkState::Up
    }

    /// Runs `ping` with more words.
    pub fn ping(&self, words: &[&str]) -> Output {
        let command = [&["ping", "-n", "-c", "1", "-W", "1"], words].concat();
        self.netns.output(&command)
    }

    /// Waits until it ends by itself; its status and what it said.
    pub fn ended(&mut self) -> (ExitStatus, String) {
        let status = wait_until("the end of a node", PATIENCE, || {
            self.child.try_wait().expect("our child")
        });
        (status, self.log())
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- node-{} ---\n{}", self.number, self.log());
        }
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
