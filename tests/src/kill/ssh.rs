//! Machines with a real sshd, in namespaces, two for every run; the front end, which cannot be one
//! of these, is a virtual machine.

use std::collections::BTreeSet;

use super::libvirt::Libvirt;
use super::{Host, Peer};
use crate::sshd::{Machine, Room};

/// As many as there are workers at most.
const MACHINES: usize = 2;

/// Makes machines.
pub struct Ssh {
    front: Libvirt,
}

impl Ssh {
    /// Front ends are made by the machine's own libvirt.
    pub fn start() -> Self {
        Self {
            front: Libvirt::start(),
        }
    }
}

impl Peer for Ssh {
    fn host(&self) -> Box<dyn Host + '_> {
        let room = Room::new("kill");
        let machine = |n| room.machine(&format!("kill-m{n}"));
        let machines: Vec<_> = (0..MACHINES).map(machine).collect();
        Box::new(Desk {
            front: &self.front,
            fresh: machines.iter().map(changes).collect(),
            machines,
            room,
        })
    }

    fn check(&self, view: &[String], workers: u32) {
        for number in 0..MACHINES {
            let runs = format!("machine {number}: ipop-node runs");
            assert_eq!(
                view.contains(&runs),
                number < workers as usize,
                "{number}: {view:?}"
            );
        }
    }
}

/// The machines of a run.
struct Desk<'a> {
    front: &'a Libvirt,
    /// What was on each disk at first.
    fresh: Vec<BTreeSet<String>>,
    // Before the room: they may not outlive it.
    machines: Vec<Machine>,
    room: Room,
}

impl Host for Desk<'_> {
    fn site(&self) -> String {
        let Desk {
            front,
            machines,
            room,
            ..
        } = self;
        let hosts: Vec<_> = machines.iter().map(Machine::target).collect();
        let known = room.known_hosts(&machines.iter().collect::<Vec<_>>());
        // The kernel of the machines has no NFS.
        format!(
            "kind = \"ssh\"\nhosts = {hosts:?}\nidentity = {:?}\nknown_hosts = {known:?}\n\
             share = false\ninstall_packages = false\n[site.front]\n{}",
            room.identity(),
            front.site()
        )
    }

    fn front(&self) -> &'static str {
        "front"
    }

    fn look(&self, deployment: &str) -> Vec<String> {
        let mut seen = self.front.look(deployment);
        for (number, machine) in self.machines.iter().enumerate() {
            let changes = changes(machine);
            let new = changes.difference(&self.fresh[number]);
            // The path only: the size of a log differs.
            seen.extend(new.map(|line| {
                let path = line.rsplit(' ').next().unwrap_or_default();
                format!("machine {number}: {path}")
            }));
            if machine.command_lines().contains("ipop-node") {
                seen.push(format!("machine {number}: ipop-node runs"));
            }
        }
        seen
    }
}

fn changes(machine: &Machine) -> BTreeSet<String> {
    machine.changes().lines().map(str::to_owned).collect()
}
