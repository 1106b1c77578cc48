//! Machines with a real sshd, in namespaces, which a run has for itself.

use std::collections::BTreeSet;

use crate::sshd::{Machine, Room};

/// As many as there are workers at most.
pub const MACHINES: usize = 2;

/// The machines of a run.
pub struct Machines {
    /// What was on each disk at first.
    fresh: Vec<BTreeSet<String>>,
    // Before the room: they may not outlive it.
    /// Themselves.
    pub machines: Vec<Machine>,
    /// Their network.
    pub room: Room,
}

impl Machines {
    /// Starts them.
    pub fn start() -> Self {
        let room = Room::new("kill");
        let machine = |n| room.machine(&format!("kill-m{n}"));
        let machines: Vec<_> = (0..MACHINES).map(machine).collect();
        Self {
            fresh: machines.iter().map(changes).collect(),
            machines,
            room,
        }
    }

    /// What was installed on a machine and runs there.
    pub fn look(&self, number: usize) -> Vec<String> {
        let machine = &self.machines[number];
        let changes = changes(machine);
        let new = changes.difference(&self.fresh[number]);
        // The path only: the size of a log differs.
        let path = |line: &String| line.rsplit(' ').next().unwrap_or_default().to_owned();
        let mut seen: Vec<_> = new
            .map(|line| format!("machine {number}: {}", path(line)))
            .collect();
        if machine.command_lines().contains("ipop-node") {
            seen.push(runs(number));
        }
        seen
    }
}

/// Fails unless `ipop-node` runs on the first machines of this number, and on no other.
pub fn check(view: &[String], workers: u32) {
    for number in 0..MACHINES {
        assert_eq!(
            view.contains(&runs(number)),
            number < workers as usize,
            "{number}: {view:?}"
        );
    }
}

fn runs(number: usize) -> String {
    format!("machine {number}: ipop-node runs")
}

fn changes(machine: &Machine) -> BTreeSet<String> {
    machine.changes().lines().map(str::to_owned).collect()
}
