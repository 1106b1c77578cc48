//! The two nodes of an overlay that joins a front end's LAN and another site's: who they are, and
//! those that run in namespaces, as the other site's gateway does.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use ipop_proto::status::{LinkState, NodeStatus};
use ipop_tests::netns::Netns;
use ipop_tests::node::binary;
use tempfile::TempDir;

/// The bridges beside both nodes.
pub const BRIDGE: &str = "br0";
const PORT: u16 = 4915;

/// One of the two.
pub struct Identity {
    pub name: &'static str,
    /// Last part of its addresses, on the underlay too.
    pub end: u8,
    /// Key and certificate, PEM.
    pub pem: String,
    fingerprint: String,
}

impl Identity {
    pub fn new(name: &'static str, end: u8) -> Self {
        let dir = TempDir::with_prefix("ipop-identity-").expect("temporary directory");
        let file = dir.path().join("identity.pem");
        let made = Command::new(binary())
            .args(["identity", "--create"])
            .arg(&file)
            .output()
            .expect("it runs");
        assert!(made.status.success(), "{made:?}");
        Self {
            name,
            end,
            pem: fs::read_to_string(file).expect("an identity"),
            fingerprint: String::from_utf8_lossy(&made.stdout).trim().to_owned(),
        }
    }

    /// The configuration that docs/pxe.md shows, of the node that knows the other.
    pub fn config(&self, other: &Self, control: &str) -> String {
        format!(
            r#"
[node]
name = "{name}"
control = "{control}"
identity = "ipop.identity"
[ice]
port = {PORT}
ignore_interfaces = ["{BRIDGE}"]
[overlay]
name = "cluster"
ipv4 = "10.73.0.{end}/24"
ipv6 = "fd73:5a::{end}/64"
mode = "switch"
mtu = 1500
[switch]
bridge = "{BRIDGE}"
[switch.dhcp]
node = "frontend"
[switch.router]
node = "frontend"
[[peer]]
name = "{peer}"
ipv4 = "10.73.0.{peer_end}"
ipv6 = "fd73:5a::{peer_end}"
fingerprint = "{fingerprint}"
endpoints = ["192.0.2.{peer_end}:{PORT}"]
"#,
            name = self.name,
            end = self.end,
            peer = other.name,
            peer_end = other.end,
            fingerprint = other.fingerprint,
        )
    }
}

/// The gateway: a namespace with a node and the site's LAN.
pub struct Gateway {
    /// Its node.
    pub node: Node,
    /// Where it lives.
    pub netns: Netns,
}

impl Gateway {
    /// Starts the node in a namespace that has an `eth0` on the underlay.
    pub fn start(netns: Netns, own: &Identity, other: &Identity) -> Self {
        let mac = format!("02:00:00:00:02:{:02x}", own.end);
        let bridge = ["ip", "link", "add", BRIDGE, "address", &mac];
        netns.run(&[&bridge[..], &["type", "bridge"]].concat());
        netns.run(&["ip", "link", "set", BRIDGE, "up"]);
        let node = Node::start(&netns, "eth0", own, other);
        Self { node, netns }
    }
}

/// A node that runs in a namespace.
pub struct Node {
    name: &'static str,
    dir: TempDir,
    child: Child,
}

impl Node {
    /// Starts it where there is a bridge, and `underlay`, which it gives its address.
    pub fn start(netns: &Netns, underlay: &str, own: &Identity, other: &Identity) -> Self {
        netns.address(underlay, &format!("192.0.2.{}/24", own.end));
        let dir = TempDir::with_prefix("ipop-diskless-").expect("temporary directory");
        let control = dir.path().join("control.sock");
        let config = own.config(other, &control.display().to_string());
        for (name, text) in [("ipop.config", &config), ("ipop.identity", &own.pem)] {
            fs::write(dir.path().join(name), text).expect("written");
        }
        let log = File::create(dir.path().join("log")).expect("log file");
        let child = netns
            .command(&binary().display().to_string())
            .args(["run", "--config", "ipop.config"])
            .env("CREDENTIALS_DIRECTORY", dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("`ip` runs");
        let name = own.name;
        Self { name, dir, child }
    }

    /// What it says of itself, once it answers.
    pub fn status(&self) -> Option<NodeStatus> {
        let output = Command::new(binary())
            .args(["status", "--json", "--control"])
            .arg(self.control())
            .output()
            .expect("it runs");
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Whether frames pass between the two LANs.
    pub fn is_linked(&self) -> bool {
        self.status().is_some_and(|status| {
            let is_up = status.peers.iter().any(|peer| peer.link == LinkState::Up);
            is_up && status.switch.is_some_and(|switch| switch.is_forwarding)
        })
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("--- {} ---\n{log}", self.name);
        }
    }
}
