//! The double of CloudLab's portal, a process of its own for every run, whose machines become
//! workers; the front end is a virtual machine.

use std::path::{Path, PathBuf};

use super::libvirt::Libvirt;
use super::machines::{self, Machines};
use super::{Host, KEPT, Peer};
use crate::portal::{Options, PoolMachine, PortalProcess};

/// Between two looks of `provision` at its experiment, in milliseconds.
const POLL_MS: &str = "100";

/// Starts portals.
pub struct Cloudlab {
    binary: PathBuf,
    front: Libvirt,
}

impl Cloudlab {
    /// `binary` is `env!("CARGO_BIN_EXE_portal-double")`. Front ends are made by the machine's own
    /// libvirt.
    pub fn start(binary: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            front: Libvirt::start(),
        }
    }
}

impl Peer for Cloudlab {
    fn host(&self) -> Box<dyn Host + '_> {
        let all = Machines::start();
        let machine = |m: &crate::sshd::Machine| PoolMachine {
            ipv4: m.address.clone(),
            hardware: "m510".into(),
        };
        let options = Options {
            machines: all.machines.iter().map(machine).collect(),
            ..Options::default()
        };
        Box::new(Testbed {
            front: &self.front,
            portal: PortalProcess::start(&self.binary, &options),
            all,
            options,
        })
    }

    fn check(&self, view: &[String], workers: u32) {
        let experiments = view.iter().filter(|t| t.starts_with("experiment ")).count();
        assert_eq!(experiments, 1, "{view:?}");
        machines::check(view, workers);
    }
}

/// The testbed of a run.
struct Testbed<'a> {
    front: &'a Libvirt,
    portal: PortalProcess,
    all: Machines,
    options: Options,
}

impl Host for Testbed<'_> {
    fn site(&self) -> String {
        let Testbed {
            portal, options, ..
        } = self;
        let (profile, _) = options.profiles.first_key_value().expect("a profile");
        // The kernel of the machines has no NFS, and their network leads nowhere.
        format!(
            "kind = \"cloudlab\"\napi = {:?}\nca_file = {:?}\ntoken_file = {:?}\n\
             project = {:?}\nprofile = {profile:?}\nhardware = \"m510\"\nuser = \"root\"\n\
             identity = {:?}\nshare = false\ninstall_packages = false\n[site.front]\n{}",
            portal.url(),
            portal.ca_file(),
            portal.token_file(),
            options.project,
            self.all.room.identity(),
            self.front.site()
        )
    }

    fn front(&self) -> &'static str {
        "front"
    }

    fn env(&self) -> Vec<(String, String)> {
        vec![("IPOP_CLOUDLAB_POLL_MS".to_owned(), POLL_MS.to_owned())]
    }

    /// What is on a machine goes with its experiment.
    fn look(&self, deployment: &str) -> Vec<String> {
        let mut seen = self.front.look(deployment);
        for holding in self.portal.holdings() {
            seen.push(format!("experiment {}", holding.experiment));
            for number in holding.machines {
                // A machine that has no worker any more is the experiment's until that ends.
                seen.push(format!("{KEPT}machine {number} of the experiment"));
                seen.extend(self.all.look(number));
            }
        }
        seen
    }
}
