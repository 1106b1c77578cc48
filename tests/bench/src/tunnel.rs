//! What is compared: one file for each program, each with the configuration that its report row
//! stands for.

mod bare;
mod ipop;
mod n2n;
mod nebula;
mod openvpn;
mod tinc;
mod vpncloud;
mod vxlan;
mod wireguard;

pub use ipop::{SIGNED_IN, STATIC, SWITCH};

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::daemon::Daemon;
use crate::failure::Result;
use crate::peers::Peers;
use crate::stage::Stage;

/// Names of the overlay's interface on each side. They differ, because WireGuard's control sockets
/// are named by them in one directory.
pub const INTERFACES: [&str; 2] = ["bench-a", "bench-b"];
/// Overlay addresses, of a network of 24 bits.
pub const OVERLAY: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::new(10, 99, 0, 2)];

/// What a tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// IP packets (TUN).
    L3,
    /// Ethernet frames (TAP).
    L2,
}

/// What a row of the report stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the kernel does without encryption: the most there can be.
    Ceiling,
    /// `ipop-node`.
    Ours,
    /// Another overlay in user space.
    Peer,
}

/// What is known of a tunnel before it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subject {
    /// Unique name, as `--only` takes it.
    pub name: String,
    /// The tables that it belongs into.
    pub layers: Vec<Layer>,
    /// What it stands for.
    pub role: Role,
    /// How it is configured, for the report.
    pub configuration: String,
    /// Version, or none when it is not installed.
    pub version: Option<String>,
}

/// A running tunnel.
pub struct Ends {
    /// Interfaces to measure through.
    pub interfaces: [&'static str; 2],
    /// Addresses of both sides.
    pub addresses: [Ipv4Addr; 2],
    /// The daemons, one each side; none when the kernel does it.
    pub daemons: Option<[Daemon; 2]>,
}

impl Ends {
    /// The interfaces and addresses that all daemons are given.
    fn of(daemons: [Daemon; 2]) -> Self {
        Self {
            interfaces: INTERFACES,
            addresses: OVERLAY,
            daemons: Some(daemons),
        }
    }

    /// CPU time of both daemons up to now.
    pub fn cpu(&self) -> Result<Option<[Duration; 2]>> {
        self.daemons
            .as_ref()
            .map(|[a, b]| Ok([a.cpu()?, b.cpu()?]))
            .transpose()
    }

    /// Resident memory of both daemons in bytes, now and at most.
    pub fn memory(&self) -> Result<Option<[(u64, u64); 2]>> {
        self.daemons
            .as_ref()
            .map(|[a, b]| Ok([a.memory()?, b.memory()?]))
            .transpose()
    }

    /// How a daemon ended that should still run.
    pub fn ended(&mut self) -> Option<String> {
        self.daemons.as_mut()?.iter_mut().find_map(Daemon::ended)
    }
}

/// A way to join two namespaces. Made anew for every round.
pub trait Tunnel {
    /// The interfaces that it will make and their addresses.
    fn place(&self) -> ([&'static str; 2], [Ipv4Addr; 2]) {
        (INTERFACES, OVERLAY)
    }

    /// Does what a user has done long before: keys, files, servers. Not timed.
    fn prepare(&mut self, stage: &Stage) -> Result<()>;

    /// Starts both sides. Timed from here to the first echo reply.
    fn start(&mut self, stage: &Stage) -> Result<Ends>;
}

/// A subject and how to make it.
pub struct Entry {
    /// What is known of it.
    pub subject: Subject,
    /// Makes it.
    pub make: Box<dyn Fn() -> Box<dyn Tunnel>>,
}

impl Entry {
    fn new<T: Tunnel + 'static>(subject: Subject, make: impl Fn() -> T + 'static) -> Self {
        Self {
            subject,
            make: Box::new(move || Box::new(make())),
        }
    }
}

/// Everything that can be compared, in the order of the report.
pub fn all(peers: &Peers) -> Vec<Entry> {
    let mut all = Vec::new();
    all.extend(bare::entries());
    all.extend(vxlan::entries());
    all.extend(ipop::entries(peers));
    all.extend(wireguard::entries(peers));
    all.extend(nebula::entries(peers));
    all.extend(tinc::entries(peers));
    all.extend(openvpn::entries(peers));
    all.extend(n2n::entries(peers));
    all.extend(vpncloud::entries(peers));
    all
}
