//! A running `ipop-node` in a namespace.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use ipop_proto::status::{LinkState, NodeStatus, PeerStatus};
use tempfile::TempDir;

use crate::ejabberd::{DOMAIN, Ejabberd};
use crate::netns::Netns;
use crate::wait_until;

/// How long a node may take to do what is asked of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Prefix of the overlay's IPv4 addresses, a network of 24 bits.
pub const NET4: &str = "10.73.0";
/// Prefix of the overlay's IPv6 addresses, a network of 64 bits.
pub const NET6: &str = "fd73:5a::";

/// The SSH host key that a node which enrols reports.
pub const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB5TbN0LbV6Tn2mPZ0mB6FJ4sT0V1";

/// A node, with the account `node-N` and the overlay addresses that end in N + 1.
#[derive(Debug)]
pub struct Node {
    /// The namespace it lives in.
    pub netns: Netns,
    /// Its number.
    pub number: u8,
    dir: TempDir,
    child: Option<Child>,
    fault: Option<&'static str>,
}

impl Node {
    /// Writes the configuration of a node that signs in with `password`; does not start it.
    pub fn new(netns: Netns, number: u8, server: &Ejabberd, password: &str) -> Self {
        Self::with_password(netns, number, server, |dir| {
            fs::write(dir.join("ipop.password"), password).expect("written");
            "password_file = \"ipop.password\"".to_owned()
        })
    }

    /// Writes the configuration of a node that exchanges `token` for a password of its own and
    /// reports the SSH host key [`HOST_KEY`]; does not start it.
    pub fn enrolling(netns: Netns, number: u8, server: &Ejabberd, token: &str) -> Self {
        Self::with_password(netns, number, server, |dir| {
            fs::write(dir.join("ipop.enrol-token"), token).expect("written");
            fs::write(dir.join("key.pub"), format!("{HOST_KEY} root@test\n")).expect("written");
            let password = dir.join("password");
            format!("password_file = {password:?}\nenrol_token_file = \"ipop.enrol-token\"")
        })
    }

    fn with_password(
        netns: Netns,
        number: u8,
        server: &Ejabberd,
        write: impl FnOnce(&Path) -> String,
    ) -> Self {
        let dir = TempDir::with_prefix("ipop-node-").expect("temporary directory");
        let password = write(dir.path());
        let key = dir.path().join("key.pub");
        let host_key = if key.exists() {
            format!("ssh_host_key = {key:?}")
        } else {
            String::new()
        };
        let file = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).expect("written");
        };
        let control = dir.path().join("control.sock").display().to_string();
        let end = number + 1;
        file("ipop.ca", server.ca_pem());
        file(
            "ipop.config",
            &format!(
                r#"
[node]
name = "node-{number}"
control = "{control}"
{host_key}
[overlay]
name = "test"
ipv4 = "{NET4}.{end}/24"
ipv6 = "{NET6}{end}/64"
[xmpp]
jid = "node-{number}@{DOMAIN}"
servers = {servers:?}
{password}
ca_file = "ipop.ca"
"#,
                servers = server.servers()
            ),
        );
        Self {
            netns,
            number,
            dir,
            child: None,
            fault: None,
        }
    }

    /// Puts it in mode `switch`, with the MTU of an Ethernet. Before it starts.
    pub fn carry_frames(&self) {
        let path = self.dir.path().join("ipop.config");
        let text = fs::read_to_string(&path).expect("written by us");
        let text = text.replace("[overlay]\n", "[overlay]\nmode = \"switch\"\nmtu = 1500\n");
        fs::write(path, text).expect("written");
    }

    /// The password that it made when it enrolled, once the server has taken it.
    pub fn own_password(&self) -> Option<String> {
        fs::read_to_string(self.dir.path().join("password")).ok()
    }

    /// Starts it so that it kills itself at a place in its code, and waits until it has. Faults
    /// are in debug builds alone, so it is one of these that runs.
    pub fn start_and_die(&mut self, fault: &'static str) {
        self.fault = Some(fault);
        self.spawn();
        let mut child = self.child.take().expect("just started");
        let status = wait_until("a node to die by its fault", PATIENCE * 2, || {
            child.try_wait().expect("our child")
        });
        self.fault = None;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "{status}\n{}", self.log());
    }

    /// Node name.
    pub fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Both overlay addresses, IPv4 first.
    pub fn addrs(&self) -> [String; 2] {
        [
            format!("{NET4}.{}", self.number + 1),
            format!("{NET6}{}", self.number + 1),
        ]
    }

    /// Starts it, the way systemd does: secrets by credentials directory.
    pub fn start(&mut self) {
        self.spawn();
        wait_until("the control socket of a started node", PATIENCE, || {
            let ended = self.child.as_mut()?.try_wait().expect("our child");
            assert!(
                ended.is_none(),
                "{} ended: {ended:?}\n{}",
                self.name(),
                self.log()
            );
            self.try_status()
        });
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name());
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("log file");
        let program = match self.fault {
            Some(_) => debug_binary(),
            None => binary(),
        };
        let mut command = self.netns.command(&program.display().to_string());
        command.envs(self.fault.map(|fault| ("IPOP_NODE_FAULT", fault)));
        let filter = std::env::var("IPOP_TEST_LOG").unwrap_or_else(|_| "debug".to_owned());
        command
            .args(["run", "--config", "ipop.config", "--log", &filter])
            .env("CREDENTIALS_DIRECTORY", self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log);
        self.child = Some(command.spawn().expect("`ip` runs"));
    }

    /// Process id; `ip netns exec` has become the node.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running node").id()
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running node");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// Sends SIGTERM and waits for the end, at most `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        let pid = self.pid().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("`kill` runs");
        assert!(sent.success());
        let mut child = self.child.take().expect("a running node");
        wait_until("the end of a node after SIGTERM", limit, || {
            child.try_wait().expect("our child")
        })
    }

    /// Runs a subcommand against this node's control socket.
    pub fn control(&self, words: &[&str]) -> std::process::Output {
        let socket = self.dir.path().join("control.sock");
        Command::new(binary())
            .args(words)
            .arg("--control")
            .arg(socket)
            .output()
            .expect("it runs")
    }

    /// Its status.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub fn status(&self) -> NodeStatus {
        self.try_status()
            .unwrap_or_else(|| panic!("{} does not answer\n{}", self.name(), self.log()))
    }

    /// Its status, if it answers.
    pub fn try_status(&self) -> Option<NodeStatus> {
        let output = self.control(&["status", "--json"]);
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes).expect("status as JSON");
        output.status.success().then(|| parse(&output.stdout))
    }

    /// What it says of the peer `other`.
    pub fn peer(&self, other: &Node) -> Option<PeerStatus> {
        self.status()
            .peers
            .into_iter()
            .find(|peer| peer.name == other.name())
    }

    /// The peer `other` if the link to it is up.
    pub fn link(&self, other: &Node) -> Option<PeerStatus> {
        self.peer(other).filter(|peer| peer.link == LinkState::Up)
    }

    /// Pings both overlay addresses of `other` until each has answered.
    pub fn ping(&self, other: &Node, limit: Duration) {
        for addr in other.addrs() {
            let what = format!("ping from {} to {} {addr}", self.name(), other.name());
            wait_until(&what, limit, || self.netns.reaches(&addr).then_some(()));
        }
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let all = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = all.lines().collect();
        format!(
            "--- {} ---\n{}",
            self.name(),
            lines[lines.len().saturating_sub(60)..].join("\n")
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = self
                .child
                .as_ref()
                .map(|_| self.control(&["status"]).stdout);
            eprintln!("{}", String::from_utf8_lossy(&status.unwrap_or_default()));
            eprintln!("{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            // Errors here mean that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The debug build beside this test, the only one that has faults.
fn debug_binary() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let profile = test.parent().and_then(Path::parent);
    let built = profile.expect("profile directory").join("ipop-node");
    assert!(
        built.exists(),
        "no {}: run `cargo build -p ipop-node` first",
        built.display()
    );
    built
}

/// The program under test; see the crate's documentation.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("IPOP_NODE_BINARY") {
        return path.into();
    }
    let test = std::env::current_exe().expect("own path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("profile directory");
    let target = profile.parent().expect("target directory");
    let built = |path: &PathBuf| -> Option<SystemTime> { fs::metadata(path).ok()?.modified().ok() };
    [
        target.join("x86_64-unknown-linux-gnu/release/ipop-node"),
        profile.join("ipop-node"),
    ]
    .into_iter()
    .filter(|path| built(path).is_some())
    .max_by_key(built)
    .expect("an ipop-node: run `scripts/build-node` or `cargo build -p ipop-node` first")
}
