//! A running node in a namespace of its own. Needs root, `/dev/net/tun`, `iproute2` and
//! `iputils-ping`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use ipop_proto::status::{DropReason, LinkState, NodeStatus, PeerStatus};
use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;
use tempfile::TempDir;

/// How long anything may take on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The device's name.
pub const DEVICE: &str = "ipop0";

/// A node, with the overlay addresses that end in its number and one.
pub struct Node {
    /// Where it lives.
    pub netns: Netns,
    number: u8,
    dir: TempDir,
    fingerprint: String,
    env: Vec<(String, PathBuf)>,
    child: Option<Child>,
}

impl Node {
    /// One that has an identity; it is not started.
    pub fn new(netns: Netns, number: u8) -> Self {
        let dir = TempDir::with_prefix("ipop-test-").expect("temporary directory");
        let fingerprint = identity(dir.path());
        Self {
            netns,
            number,
            dir,
            fingerprint,
            env: Vec::new(),
            child: None,
        }
    }

    /// By what its peers know it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// A file beside its configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A variable that it is started with.
    pub fn set_env(&mut self, key: &str, value: &Path) {
        self.env.push((key.to_owned(), value.to_owned()));
    }

    /// Starts it with this configuration. What it logs is added to what it logged before.
    pub fn start(&mut self, config: &str) {
        assert!(self.child.is_none(), "it runs already");
        fs::write(self.dir.path().join("ipop.config"), config).expect("written");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("log file");
        let child = self
            .netns
            .command(env!("CARGO_BIN_EXE_ipop-node"))
            .args(["run", "--config", "ipop.config", "--log", "debug"])
            .current_dir(self.dir.path())
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("`ip` runs");
        self.child = Some(child);
    }

    /// Kills it, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Errors here mean that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it as its administrator would.
    pub fn end(&mut self) {
        let pid = self.pid().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.is_ok_and(|status| status.success()));
        let (status, log) = self.ended();
        assert!(status.success(), "{status}\n{log}");
        self.child = None;
    }

    /// Process id; `ip netns exec` has become the node.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running node").id()
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
        let child = self.child.as_mut().expect("a running node");
        let status = wait_until("the end of a node", PATIENCE, || {
            child.try_wait().expect("our child")
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
        self.kill();
    }
}

/// The program.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ipop-node"))
}

/// Makes an identity and gives its fingerprint.
fn identity(dir: &Path) -> String {
    let made = program()
        .args(["identity", "--create"])
        .arg(dir.join("identity.pem"))
        .output()
        .expect("it runs");
    assert!(made.status.success(), "{made:?}");
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}
