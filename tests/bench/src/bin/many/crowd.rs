//! A hub and its peers.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;
use serde_json::Value;
use tempfile::TempDir;

/// How long linking may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Port of the hub on the underlay.
const PORT: u16 = 4915;

/// The namespaces, and the peers once they are started.
pub struct Crowd {
    /// Where the hub lives.
    pub hub_netns: Netns,
    /// Where the peers live.
    pub members: Vec<Netns>,
    running: Vec<Running>,
    dir: TempDir,
    binary: PathBuf,
    /// The hub's first, then those of the peers in its configuration.
    fingerprints: Vec<String>,
    _switch: Netns,
}

/// What a node gives the kernel in one call for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// Up to 64 datagrams, where there are so many.
    Batches,
    /// One datagram.
    Datagrams,
}

/// A running hub; ended when dropped.
pub struct Hub(Running);

struct Running {
    child: Child,
    binary: PathBuf,
    control: PathBuf,
}

/// The overlay address of a peer, the hub being number 0.
pub fn overlay(number: usize) -> Ipv4Addr {
    address(73, number)
}

fn address(network: u8, number: usize) -> Ipv4Addr {
    let [.., high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(10, network, high, low)
}

fn overlay6(number: usize) -> String {
    format!("fd73::1:{:x}", number + 1)
}

impl Crowd {
    /// Makes namespaces and identities for `active` peers; starts none of them.
    pub fn new(binary: &Path, configured: u16, active: u16) -> Self {
        let dir = TempDir::with_prefix("ipop-many-").expect("temporary directory");
        let switch = Netns::new("switch");
        switch.run(&["ip", "link", "add", "br0", "type", "bridge"]);
        switch.run(&["ip", "link", "set", "br0", "up"]);
        let attached = |number: usize| {
            let netns = Netns::new(&format!("many{number}"));
            let port = format!("port{number}");
            netns.cable("eth0", &switch, &port);
            switch.run(&["ip", "link", "set", &port, "master", "br0"]);
            netns.address("eth0", &format!("{}/16", address(99, number)));
            netns
        };
        let hub_netns = attached(0);
        let members = (1..=usize::from(active)).map(attached).collect();
        let fingerprints = (0..=usize::from(configured))
            .map(|number| match number <= usize::from(active) {
                true => identity(binary, &dir.path().join(format!("{number}.pem"))),
                // Of nobody.
                false => vec![format!("{:02X}:{:02X}", number / 256, number % 256); 16].join(":"),
            })
            .collect();
        Self {
            hub_netns,
            members,
            running: Vec::new(),
            dir,
            binary: binary.to_owned(),
            fingerprints,
            _switch: switch,
        }
    }

    /// Starts a hub with the first `configured` peers in its configuration.
    pub fn hub(&self, configured: usize, sending: Sending) -> Hub {
        let mut peers = match sending {
            Sending::Batches => String::new(),
            Sending::Datagrams => "[offload]\nsegmentation = false\n".to_owned(),
        };
        for number in 1..=configured {
            self.write_peer(&mut peers, number, "");
        }
        Hub(self.spawn(&self.hub_netns, 0, &peers))
    }

    /// Starts the peers.
    pub fn start(&mut self) {
        let endpoint = format!("endpoints = [\"{}:{PORT}\"]", address(99, 0));
        let mut hub = String::new();
        self.write_peer(&mut hub, 0, &endpoint);
        let members = self.members.iter().enumerate();
        self.running = members
            .map(|(at, netns)| self.spawn(netns, at + 1, &hub))
            .collect();
    }

    fn write_peer(&self, text: &mut String, number: usize, endpoint: &str) {
        let _ = writeln!(
            text,
            "[[peer]]\nname = \"node-{number}\"\nipv4 = \"{}\"\nipv6 = \"{}\"\nfingerprint = \"{}\"\n{endpoint}",
            overlay(number),
            overlay6(number),
            self.fingerprints[number]
        );
    }

    fn spawn(&self, netns: &Netns, number: usize, peers: &str) -> Running {
        let dir = self.dir.path();
        let control = dir.join(format!("{number}.sock"));
        let config = dir.join(format!("{number}.toml"));
        let identity = dir.join(format!("{number}.pem"));
        let text = format!(
            "[node]\nname = \"node-{number}\"\ncontrol = {control:?}\nidentity = {identity:?}\n\
             [overlay]\nname = \"many\"\nipv4 = \"{}/16\"\nipv6 = \"{}/64\"\n\
             [ice]\nport = {PORT}\n{peers}",
            overlay(number),
            overlay6(number),
        );
        fs::write(&config, text).expect("written");
        let log = fs::File::create(dir.join(format!("{number}.log"))).expect("log file");
        let mut command = netns.command(&self.binary.display().to_string());
        command
            .args(["run", "--log", "warn", "--config"])
            .arg(&config);
        let running = Running {
            child: command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("`ip` runs"),
            binary: self.binary.clone(),
            control,
        };
        wait_until(&format!("node-{number}"), PATIENCE, || running.status());
        running
    }
}

impl Hub {
    /// Waits until so many links are up.
    pub fn wait_linked(&self, count: usize) {
        wait_until(&format!("{count} links"), PATIENCE, || {
            let status = self.0.status()?;
            let peers = status["peers"].as_array()?;
            let up = peers
                .iter()
                .filter(|peer| peer["link"]["state"] == "up")
                .count();
            (up >= count).then_some(())
        });
    }

    /// Packets of all peers, both ways.
    pub fn packets(&self) -> u64 {
        let status = self.0.status().expect("a hub that answers");
        let peers = status["peers"].as_array().expect("a list of peers");
        let counters = ["tx_packets", "rx_packets"];
        let of = |peer: &Value| -> u64 { counters.iter().filter_map(|c| peer[c].as_u64()).sum() };
        peers.iter().map(of).sum()
    }

    /// Processor time of all its threads.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.child.id())).expect("it runs");
        let nanoseconds = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("a number of KiB") * 1024
    }
}

impl Running {
    fn status(&self) -> Option<Value> {
        let mut command = Command::new(&self.binary);
        command
            .args(["status", "--json", "--control"])
            .arg(&self.control);
        let output = command.output().expect("it runs");
        serde_json::from_slice(&output.stdout).ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that peers are told. Errors mean that it is gone already.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// Makes an identity; its fingerprint.
fn identity(binary: &Path, file: &Path) -> String {
    let mut command = Command::new(binary);
    let output = command.args(["identity", "--create"]).arg(file).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
