//! A machine that is a Rocks front end, with its private network.

use std::fs;
use std::path::{Path, PathBuf};

use super::command::run;
use super::database::{Database, Mode, Tables};
use crate::netns::Netns;
use crate::sshd::{Machine, MachineOptions, Room};

/// The bridge that the private network is on.
pub const BRIDGE: &str = "br0";
/// The front end's address on the private network.
pub const PRIVATE: &str = "10.1.1.1";

/// A machine that root, or whoever the options say, signs in to, and whose `rocks` is the stand-in.
/// One compute node stands beside it on the private network.
#[derive(Debug)]
pub struct Frontend {
    /// The machine.
    pub machine: Machine,
    /// The compute node, at 10.1.255.254.
    pub compute: Netns,
}

impl Frontend {
    /// Starts one; `double` is the program `rocks-double`.
    pub fn new(room: &Room, double: &Path, options: MachineOptions) -> Self {
        let machine = room.machine_with("rocks", options);
        let compute = Netns::new("compute-0-0");
        let netns = machine.netns();
        netns.run(&["ip", "link", "add", BRIDGE, "type", "bridge"]);
        netns.address(BRIDGE, &format!("{PRIVATE}/16"));
        netns.run(&["ip", "link", "set", BRIDGE, "up"]);
        compute.cable("eth0", netns, "lan0");
        netns.run(&["ip", "link", "set", "lan0", "master", BRIDGE]);
        compute.address("eth0", "10.1.255.254/16");
        let frontend = Self { machine, compute };
        let files = frontend.root();
        for dir in [
            "opt/rocks/bin",
            "etc/sysconfig",
            "etc/dhcp",
            "tftpboot/pxelinux/pxelinux.cfg",
        ] {
            fs::create_dir_all(files.join(dir)).expect("made");
        }
        let program = files.join("opt/rocks/bin/rocks");
        fs::copy(double, &program).expect("the stand-in is copied");
        fs::write(
            files.join("etc/rocks-release"),
            "Rocks release 7.0 (Manzanita)\n",
        )
        .expect("written");
        let database = frontend.database();
        database.write(&Tables::fresh(BRIDGE)).expect("written");
        drop(database.lock().expect("locked"));
        // As after the installation, with everything in order.
        for line in ["set host boot compute-0-0 action=os", "sync config"] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            run(&database, &words).unwrap_or_else(|e| panic!("{line}: {}", e.0));
        }
        frontend
    }

    /// Its files, as this process reaches them.
    fn root(&self) -> PathBuf {
        self.machine.root()
    }

    /// Its database.
    pub fn database(&self) -> Database {
        Database::at(&self.root())
    }

    /// Its tables.
    pub fn tables(&self) -> Tables {
        self.database().tables().expect("tables")
    }

    /// Misbehaves from now on.
    pub fn misbehave(&self, mode: &Mode) {
        self.database().set_mode(mode).expect("written");
    }

    /// A file of it, empty when it is not there.
    pub fn file(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap_or_default()
    }

    /// Calls of `rocks` that changed something, since `from` calls.
    pub fn changes_since(&self, from: usize) -> Vec<String> {
        let calls = self.database().calls().expect("calls");
        let new = calls.into_iter().skip(from);
        new.filter(|c| !c.starts_with("list ") && !c.starts_with("report "))
            .collect()
    }

    /// How many calls of `rocks` there were.
    pub fn calls(&self) -> usize {
        self.database().calls().expect("calls").len()
    }
}
