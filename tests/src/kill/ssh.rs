//! Machines with a real sshd, in namespaces: three for every run at a time.

use std::sync::{Mutex, PoisonError};

use super::{Host, Peer};
use crate::sshd::{Machine, Room};

/// A front end and two workers.
const MACHINES: usize = 3;

/// Rooms of machines that no run uses at the moment.
pub struct Ssh {
    free: Mutex<Vec<Desk>>,
}

/// The machines of a run.
struct Desk {
    // Before the room: they may not outlive it.
    machines: Vec<Machine>,
    room: Room,
}

impl Ssh {
    /// Machines for so many runs at a time.
    pub fn start(runs: usize) -> Self {
        let desk = |run| {
            let room = Room::new(&format!("kill{run}"));
            let machine = |n| room.machine(&format!("k{run}m{n}"));
            Desk {
                machines: (0..MACHINES).map(machine).collect(),
                room,
            }
        };
        Self {
            free: Mutex::new((0..runs).map(desk).collect()),
        }
    }
}

impl Peer for Ssh {
    fn host(&self) -> Box<dyn Host + '_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let desk = free.pop().expect("machines for as many runs as there are");
        Box::new(Seat {
            ssh: self,
            desk: Some(desk),
        })
    }

    fn check(&self, view: &[String], workers: u32) {
        for number in 0..MACHINES {
            let has = view.iter().any(|thing| {
                thing.starts_with(&format!("machine {number}: ")) && thing.contains("ipop")
            });
            assert_eq!(has, number <= workers as usize, "{number}: {view:?}");
        }
    }
}

struct Seat<'a> {
    ssh: &'a Ssh,
    desk: Option<Desk>,
}

impl Seat<'_> {
    fn desk(&self) -> &Desk {
        self.desk.as_ref().expect("until it is dropped")
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut free = self.ssh.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.desk.take());
    }
}

impl Host for Seat<'_> {
    fn site(&self) -> String {
        let Desk { machines, room } = self.desk();
        let hosts: Vec<_> = machines.iter().map(Machine::target).collect();
        let known = room.known_hosts(&machines.iter().collect::<Vec<_>>());
        format!(
            "kind = \"ssh\"\nhosts = {hosts:?}\nidentity = {:?}\nknown_hosts = {known:?}\n",
            room.identity()
        )
    }

    fn look(&self, _deployment: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for (number, machine) in self.desk().machines.iter().enumerate() {
            // A path, and neither size nor time: logs and sockets differ.
            let changes = machine.changes();
            let paths = changes.lines().filter_map(|line| line.split(' ').next());
            seen.extend(paths.map(|path| format!("machine {number}: {path}")));
            if machine.command_lines().contains("ipop-node") {
                seen.push(format!("machine {number}: ipop-node runs"));
            }
        }
        seen
    }
}
