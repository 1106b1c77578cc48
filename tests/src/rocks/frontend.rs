//! A machine that is a Rocks front end, with its private network.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use super::database::{Database, Host, Mode, Tables};
use super::servers;
use crate::netns::Netns;
use crate::sshd::{Machine, MachineOptions, Room};

/// The bridge that the private network is on.
pub const BRIDGE: &str = "br0";
/// The front end's address on the private network.
pub const PRIVATE: &str = "10.1.1.1";

/// A machine that root, or whoever the options say, signs in to, and whose `rocks` is the stand-in.
/// ISC dhcpd and a TFTP server run there and serve what that writes. One compute node stands beside
/// it on the private network.
#[derive(Debug)]
pub struct Frontend {
    /// The machine.
    pub machine: Machine,
    /// The compute node, at 10.1.255.254.
    pub compute: Netns,
    /// The Ethernet switch of the private network.
    switch: Netns,
    plugged: AtomicU8,
}

impl Frontend {
    /// Starts one; `double` is the program `rocks-double`.
    pub fn new(room: &Room, double: &Path, options: MachineOptions) -> Self {
        let tables = Tables::fresh(BRIDGE);
        let switch = Netns::new("rocks-switch");
        switch.run(&["ip", "link", "add", BRIDGE, "type", "bridge"]);
        switch.run(&["ip", "link", "set", BRIDGE, "up"]);
        let plugged = AtomicU8::new(0);
        let mac = |name: &str| mac(tables.host(name).expect("a host"));

        let machine = room.machine_with("rocks", options);
        let netns = machine.netns();
        netns.run(&["ip", "link", "add", BRIDGE, "type", "bridge"]);
        plug(&switch, &plugged, netns, "lan0", mac("cluster"));
        netns.run(&["ip", "link", "set", "lan0", "master", BRIDGE]);
        netns.address(BRIDGE, &format!("{PRIVATE}/16"));
        netns.run(&["ip", "link", "set", BRIDGE, "up"]);

        let compute = Netns::new("compute-0-0");
        plug(&switch, &plugged, &compute, "eth0", mac("compute-0-0"));
        compute.address("eth0", "10.1.255.254/16");
        let frontend = Self {
            machine,
            compute,
            switch,
            plugged,
        };
        frontend.install(double, &tables);
        frontend
    }

    /// Everything as after the installation.
    fn install(&self, double: &Path, tables: &Tables) {
        self.machine.run(
            "mkdir -p /opt/rocks/bin /etc/sysconfig /etc/dhcp /tftpboot/pxelinux/pxelinux.cfg \
             /tftpboot/pxelinux/uefi.cfg",
        );
        fs::copy(double, self.root().join("opt/rocks/bin/rocks")).expect("the stand-in is copied");
        let release = "Rocks release 7.0 (Manzanita)\n";
        self.machine.write("/etc/rocks-release", 0o644, release);
        let database = self.database();
        database.write(tables).expect("written");
        drop(database.lock().expect("locked"));
        servers::install(&self.machine);
        self.rocks("set host boot compute-0-0 action=os");
        self.rocks("sync config");
    }

    /// Plugs a machine into the private network's switch, by an `eth0` with this MAC address and no
    /// address else.
    pub fn plug(&self, netns: &Netns, mac: &str) {
        plug(&self.switch, &self.plugged, netns, "eth0", mac);
    }

    /// Takes its power away: whatever ran there is gone, and both its cables are dead.
    pub fn power_off(&self) {
        self.cables("down");
        self.machine.run(POWER_OFF);
    }

    /// Switches it on again: its servers, sshd, and `ipop-node` as systemd would start it.
    pub fn power_on(&self) {
        self.cables("up");
        servers::start(&self.machine);
        self.machine.run(START_NODE);
        self.machine.start_sshd();
    }

    fn cables(&self, state: &str) {
        for cable in ["eth0", "lan0"] {
            let words = ["ip", "link", "set", cable, state];
            self.machine.netns().run(&words);
        }
    }

    /// Runs a command of `rocks` that must succeed, as root, and gives what it prints.
    pub fn rocks(&self, line: &str) -> String {
        self.machine.run(&format!("/opt/rocks/bin/rocks {line}"))
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

/// Kills all but the machine's first process, and the one by which that ends with the test.
const POWER_OFF: &str = r#"
touch /run/no-sshd
first=$(tr '\0' ' ' </proc/1/cmdline)
for path in /proc/[0-9]*; do
    pid=${path#/proc/}
    [ "$pid" != $$ ] && [ "$(tr '\0' ' ' <"$path/cmdline")" != "$first" ] || continue
    kill -9 "$pid"
done 2>/dev/null
rm -rf /run/ipop-node /run/dhcpd.* /run/tftpd.pid
"#;

/// What was enabled to be started.
const START_NODE: &str = r#"
[ -e /var/lib/ipop-node/started ] || exit 0
for folder in /etc/ipop-node/*/; do /opt/ipop-node/bin/supervise start "$(basename "$folder")"; done
"#;

/// The MAC address of a host's first interface.
fn mac(host: &Host) -> &str {
    let mac = host.interfaces.first().and_then(|i| i.mac.as_deref());
    mac.expect("a MAC address")
}

fn plug(switch: &Netns, plugged: &AtomicU8, netns: &Netns, interface: &str, mac: &str) {
    let port = format!("port{}", plugged.fetch_add(1, Ordering::Relaxed));
    netns.cable(interface, switch, &port);
    netns.run(&["ip", "link", "set", interface, "address", mac]);
    switch.run(&["ip", "link", "set", &port, "master", BRIDGE]);
}
