//! What the stand-in's `rocks` keeps: a small JSON file where the real one has MySQL.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Below the front end's root: the tables.
const TABLES: &str = "opt/rocks/stand-in.json";
/// How it is to misbehave; may be missing.
const MODE: &str = "opt/rocks/stand-in-mode.json";
/// Each call's arguments, one line a call.
const CALLS: &str = "var/log/rocks-calls";

/// The tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tables {
    /// As `rocks report version` prints it.
    pub version: String,
    /// Memberships.
    pub memberships: Vec<Membership>,
    /// Networks, `subnets` in the real one.
    pub networks: Vec<Network>,
    /// What machines boot, by the name that hosts have it by.
    pub bootactions: Vec<BootAction>,
    /// Hosts, the front end first.
    pub hosts: Vec<Host>,
}

/// What hosts may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// `Compute`.
    pub name: String,
    /// `compute`: what its hosts' names begin with.
    pub appliance: String,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `private`.
    pub name: String,
    /// Its first address.
    pub subnet: String,
    /// Its netmask.
    pub netmask: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Its domain.
    pub zone: String,
}

/// What pxelinux is told. What was not given is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootAction {
    /// `install`.
    pub action: String,
    /// `vmlinuz-7.0-x86_64`, or a line of pxelinux' own, `localboot 0`.
    pub kernel: String,
    /// One or more files, separated by commas.
    pub ramdisk: String,
    /// The kernel's command line.
    pub args: String,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `compute-0-0`.
    pub name: String,
    /// Name of its membership.
    pub membership: String,
    /// Processors.
    pub cpus: u32,
    /// Rack.
    pub rack: u32,
    /// Place in the rack.
    pub rank: u32,
    /// What it does when it boots next: `os`, `run` or `install`.
    pub boot: Option<String>,
    /// The boot action that `os` and `run` stand for.
    pub run_action: String,
    /// Interfaces.
    pub interfaces: Vec<Interface>,
}

/// An interface. What was not given is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eth0`.
    pub device: String,
    /// MAC address.
    pub mac: Option<String>,
    /// IPv4 address.
    pub ip: Option<String>,
    /// Network.
    pub subnet: Option<String>,
    /// Name on that network.
    pub name: Option<String>,
}

/// How the stand-in misbehaves. Commands are named by their words, `add host interface`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mode {
    /// Commands that fail before they did anything.
    pub refuse: Vec<String>,
    /// Commands that fail after the first of the things they do.
    pub halfway: Vec<String>,
    /// How long each of these things takes, in milliseconds.
    pub slow_ms: u64,
    /// Commands while which somebody else takes all room that a folder's file system has, and the folder
    /// with its path on the machine.
    pub crowd: Vec<(String, String)>,
}

/// The files of one front end.
#[derive(Debug, Clone)]
pub struct Database {
    root: PathBuf,
}

impl Database {
    /// Those below `root`.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where the front end's files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Locks it for one command, until the file is dropped.
    pub fn lock(&self) -> io::Result<fs::File> {
        let file = fs::File::create(self.root.join("opt/rocks/stand-in-lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// The tables.
    pub fn tables(&self) -> io::Result<Tables> {
        let text = fs::read(self.root.join(TABLES))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Replaces the tables: as good as at once, whoever is killed.
    pub fn write(&self, tables: &Tables) -> io::Result<()> {
        let path = self.root.join(TABLES);
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(tables)?)?;
        fs::rename(part, path)
    }

    /// How to misbehave.
    pub fn mode(&self) -> io::Result<Mode> {
        match fs::read(self.root.join(MODE)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Mode::default()),
            Err(e) => Err(e),
        }
    }

    /// Misbehaves from now on, or behaves, which leaves no file.
    pub fn set_mode(&self, mode: &Mode) -> io::Result<()> {
        let path = self.root.join(MODE);
        if *mode != Mode::default() {
            return fs::write(path, serde_json::to_vec(mode)?);
        }
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Notes a call.
    pub fn note(&self, line: &str) -> io::Result<()> {
        use std::io::Write as _;
        let path = self.root.join(CALLS);
        let mut file = fs::File::options().append(true).create(true).open(path)?;
        writeln!(file, "{line}")
    }

    /// The calls so far.
    pub fn calls(&self) -> io::Result<Vec<String>> {
        match fs::read_to_string(self.root.join(CALLS)) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

impl Tables {
    /// A front end as its installer leaves it, with one compute node beside.
    pub fn fresh(private_interface: &str) -> Self {
        let membership = |name: &str, appliance: &str| Membership {
            name: name.to_owned(),
            appliance: appliance.to_owned(),
        };
        let network = |name: &str, subnet: &str, netmask: &str, zone: &str| Network {
            name: name.to_owned(),
            subnet: subnet.to_owned(),
            netmask: netmask.to_owned(),
            mtu: 1500,
            zone: zone.to_owned(),
        };
        let bootaction = |action: &str, kernel: &str, ramdisk: &str, args: &str| BootAction {
            action: action.to_owned(),
            kernel: kernel.to_owned(),
            ramdisk: ramdisk.to_owned(),
            args: args.to_owned(),
        };
        let interface = |device: &str, mac: &str, ip: &str, subnet: &str, name: &str| Interface {
            device: device.to_owned(),
            mac: Some(mac.to_owned()),
            ip: Some(ip.to_owned()),
            subnet: Some(subnet.to_owned()),
            name: Some(name.to_owned()),
        };
        Self {
            version: "7.0".to_owned(),
            memberships: vec![
                membership("Frontend", "frontend"),
                membership("Compute", "compute"),
                membership("Ethernet Switch", "network"),
            ],
            networks: vec![
                network("private", "10.1.0.0", "255.255.0.0", "local"),
                network("public", "192.0.2.0", "255.255.255.0", "example.org"),
            ],
            bootactions: vec![
                bootaction(
                    "install",
                    "vmlinuz-7.0-x86_64",
                    "initrd.img-7.0-x86_64",
                    "ks ramdisk_size=150000 lang= devfs=nomount ksdevice=bootif noipv6",
                ),
                bootaction("os", "localboot 0", "", ""),
            ],
            hosts: vec![
                Host {
                    name: "cluster".to_owned(),
                    membership: "Frontend".to_owned(),
                    cpus: 2,
                    rack: 0,
                    rank: 0,
                    boot: Some("os".to_owned()),
                    run_action: "os".to_owned(),
                    interfaces: vec![
                        interface(
                            private_interface,
                            // Higher than the address that a new device gets at random.
                            "f8:bc:12:00:00:01",
                            "10.1.1.1",
                            "private",
                            "cluster",
                        ),
                        interface(
                            "eth1",
                            "00:16:3e:00:00:02",
                            "192.0.2.10",
                            "public",
                            "cluster",
                        ),
                    ],
                },
                Host {
                    name: "compute-0-0".to_owned(),
                    membership: "Compute".to_owned(),
                    cpus: 8,
                    rack: 0,
                    rank: 0,
                    boot: Some("os".to_owned()),
                    run_action: "os".to_owned(),
                    interfaces: vec![interface(
                        "eth0",
                        "00:16:3e:00:01:00",
                        "10.1.255.254",
                        "private",
                        "compute-0-0",
                    )],
                },
            ],
        }
    }

    /// A host.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|h| h.name == name)
    }

    /// A boot action.
    pub fn bootaction(&self, action: &str) -> Option<&BootAction> {
        self.bootactions.iter().find(|b| b.action == action)
    }

    /// The front end.
    pub fn frontend(&self) -> Option<&Host> {
        self.hosts.iter().find(|h| h.membership == "Frontend")
    }
}
