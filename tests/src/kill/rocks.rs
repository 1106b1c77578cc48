//! A Rocks front end, and machines that exist as workers.

use std::path::{Path, PathBuf};

use super::machines::{self, Machines};
use super::{Host, Peer};
use crate::rocks::Frontend;
use crate::sshd::{Machine, MachineOptions};

/// Makes front ends, and machines beside them.
pub struct Rocks {
    double: PathBuf,
}

impl Rocks {
    /// `double` is the program `rocks-double`.
    pub fn new(double: &Path) -> Self {
        Self {
            double: double.to_owned(),
        }
    }
}

impl Peer for Rocks {
    fn host(&self) -> Box<dyn Host + '_> {
        let workers = Machines::start();
        let options = MachineOptions::default();
        let front = Frontend::new(&workers.room, &self.double, options);
        let fresh = files(&front.machine);
        Box::new(Desk {
            fresh,
            front,
            workers,
        })
    }

    fn check(&self, view: &[String], workers: u32) {
        machines::check(view, workers);
        assert!(view.contains(&RUNS.to_owned()), "{view:?}");
        for number in 0..machines::MACHINES {
            let name = format!("host compute-90-{number} ");
            let there = view.iter().any(|line| line.starts_with(&name));
            assert_eq!(there, number < workers as usize, "{number}: {view:?}");
        }
    }
}

/// That the front end's node runs.
const RUNS: &str = "front end: ipop-node runs";

/// The hosts of a run.
struct Desk {
    /// What was on the front end's disk at first.
    fresh: Vec<String>,
    // Before the room that is in it: it may not outlive that.
    front: Frontend,
    workers: Machines,
}

impl Host for Desk {
    fn site(&self) -> String {
        let Machines { machines, room, .. } = &self.workers;
        let hosts: Vec<_> = machines.iter().map(Machine::target).collect();
        let mut all: Vec<_> = machines.iter().collect();
        all.push(&self.front.machine);
        let known = room.known_hosts(&all);
        let ssh = format!(
            "identity = {:?}\nknown_hosts = {known:?}\n",
            room.identity()
        );
        // The kernel of the machines has no NFS.
        format!(
            "kind = \"ssh\"\nhosts = {hosts:?}\nshare = false\ninstall_packages = false\n{ssh}\
             [site.front]\nkind = \"rocks\"\nhost = {:?}\nbridge = \"br0\"\nmtu = 1400\n{ssh}",
            self.front.machine.target()
        )
    }

    fn front(&self) -> &'static str {
        "front"
    }

    fn look(&self, _deployment: &str) -> Vec<String> {
        let mut seen: Vec<_> = (0..machines::MACHINES)
            .flat_map(|number| self.workers.look(number))
            .collect();
        let new = files(&self.front.machine).into_iter();
        let new = new.filter(|line| !self.fresh.contains(line));
        seen.extend(new.map(|path| format!("front end: {path}")));
        if self.front.machine.command_lines().contains("ipop-node") {
            seen.push(RUNS.to_owned());
        }
        let tables = self.front.tables();
        let ours = tables.hosts.iter().filter(|h| h.name.contains("-90-"));
        seen.extend(ours.map(|host| {
            let boot = host.boot.as_deref().unwrap_or("nothing");
            let interfaces = host.interfaces.iter();
            let ips: Vec<_> = interfaces.filter_map(|i| i.ip.as_deref()).collect();
            format!("host {} at {} boots {boot}", host.name, ips.join(" "))
        }));
        let mtu = tables.networks.iter().find(|n| n.name == "private");
        if let Some(network) = mtu.filter(|n| n.mtu != 1500) {
            seen.push(format!("MTU {}", network.mtu));
        }
        let dhcpd = self.front.file("etc/dhcp/dhcpd.conf");
        let served = dhcpd.lines().filter(|l| l.contains("host compute-90-"));
        seen.extend(served.map(|line| format!("dhcpd: {}", line.trim())));
        seen
    }
}

/// Paths of what is on a machine's disk and not on this one's.
fn files(machine: &Machine) -> Vec<String> {
    let path = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
    machine.changes().lines().map(path).collect()
}
