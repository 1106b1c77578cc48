//! Machines that exist as workers; the front end, which cannot be one of these, is a virtual
//! machine.

use super::libvirt::Libvirt;
use super::machines::{self, Machines};
use super::{Host, Peer};
use crate::sshd::Machine;

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
        Box::new(Desk {
            front: &self.front,
            all: Machines::start(),
        })
    }

    fn check(&self, view: &[String], workers: u32) {
        machines::check(view, workers);
    }
}

/// The hosts of a run.
struct Desk<'a> {
    front: &'a Libvirt,
    all: Machines,
}

impl Host for Desk<'_> {
    fn site(&self) -> String {
        let Machines { machines, room, .. } = &self.all;
        let hosts: Vec<_> = machines.iter().map(Machine::target).collect();
        let known = room.known_hosts(&machines.iter().collect::<Vec<_>>());
        // The kernel of the machines has no NFS.
        format!(
            "kind = \"ssh\"\nhosts = {hosts:?}\nidentity = {:?}\nknown_hosts = {known:?}\n\
             share = false\ninstall_packages = false\n[site.front]\n{}",
            room.identity(),
            self.front.site()
        )
    }

    fn front(&self) -> &'static str {
        "front"
    }

    fn look(&self, deployment: &str) -> Vec<String> {
        let mut seen = self.front.look(deployment);
        seen.extend((0..machines::MACHINES).flat_map(|number| self.all.look(number)));
        seen
    }
}
