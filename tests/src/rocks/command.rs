//! The commands of the stand-in's `rocks`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::database::{Database, Host, Interface, Mode, Tables};
use super::{files, servers};

/// Why a command failed: what stands behind `error - `.
#[derive(Debug)]
pub struct Abort(pub String);

impl From<io::Error> for Abort {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The commands there are, the longest names first.
const NAMES: [&str; 19] = [
    "list host interface",
    "list host boot",
    "add host interface",
    "remove host interface",
    "remove host boot",
    "set network mtu",
    "sync host network",
    "set host boot",
    "set host runaction",
    "remove bootaction",
    "list membership",
    "list bootaction",
    "add bootaction",
    "report version",
    "list network",
    "remove host",
    "sync config",
    "list host",
    "add host",
];

/// Runs a command with these words and gives what it prints.
pub fn run(database: &Database, words: &[String]) -> Result<String, Abort> {
    database.note(&words.join(" "))?;
    let line = words.join(" ");
    let is = |name: &&&str| line == **name || line.starts_with(&format!("{name} "));
    let name = *NAMES
        .iter()
        .find(is)
        .ok_or_else(|| Abort(format!("invalid rocks command \"{line}\"")))?;
    let (params, args) = split(&words[name.split(' ').count()..]);
    let _lock = database.lock()?;
    let mut call = Call {
        name,
        mode: database.mode()?,
        tables: database.tables()?,
        database,
        params,
        args,
    };
    if call.mode.refuse.iter().any(|refused| refused == name) {
        return Err(Abort(format!("command \"{name}\" is refused by the test")));
    }
    for (_, folder) in call.mode.crowd.iter().filter(|(at, _)| at == name) {
        if name == "sync config" {
            // Its file is open and empty by then, and what that had is taken, too.
            fs::File::create(database.root().join(files::DHCPD))?;
        }
        fill(&database.root().join(folder.trim_start_matches('/')))?;
    }
    call.dispatch()
}

/// Writes a file `crowd` to a folder until there is no more room.
fn fill(folder: &Path) -> io::Result<()> {
    let mut file = fs::File::create(folder.join("crowd"))?;
    loop {
        match file.write_all(&[0; 4096]) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Parameters (`rack=0`) and arguments.
fn split(words: &[String]) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut params, mut args) = (BTreeMap::new(), Vec::new());
    for word in words {
        match word.split_once('=') {
            Some((key, value)) => drop(params.insert(key.to_owned(), value.to_owned())),
            None => args.push(word.clone()),
        }
    }
    (params, args)
}

/// One call of the command.
pub(super) struct Call<'a> {
    name: &'static str,
    mode: Mode,
    pub(super) tables: Tables,
    pub(super) database: &'a Database,
    pub(super) params: BTreeMap<String, String>,
    pub(super) args: Vec<String>,
}

impl Call<'_> {
    fn dispatch(&mut self) -> Result<String, Abort> {
        match self.name {
            "report version" => return Ok(format!("{}\n", self.tables.version)),
            "list host" => return self.list_hosts(),
            "list host interface" => return self.list_interfaces(),
            "list host boot" => return self.list_boot(),
            "list network" => return Ok(self.list_networks()),
            "list membership" => return Ok(self.list_memberships()),
            "list bootaction" => return Ok(self.list_bootactions()),
            "add host" => self.add_host()?,
            "add host interface" => self.add_interface()?,
            "set host boot" => self.set_boot()?,
            "set host runaction" => self.set_runaction()?,
            "add bootaction" => self.add_bootaction()?,
            "remove bootaction" => self.remove_bootaction()?,
            "set network mtu" => self.set_mtu()?,
            "sync config" => self.sync()?,
            "sync host network" => drop(self.hosts()?),
            "remove host" => self.remove_hosts()?,
            "remove host interface" => self.remove_interface()?,
            "remove host boot" => self.remove_boot()?,
            other => return Err(Abort(format!("invalid rocks command \"{other}\""))),
        }
        Ok(String::new())
    }

    /// One of the things a command does is done.
    pub(super) fn step(&self) -> Result<(), Abort> {
        self.database.write(&self.tables)?;
        std::thread::sleep(Duration::from_millis(self.mode.slow_ms));
        if self.mode.halfway.iter().any(|name| name == self.name) {
            return Err(Abort(format!("command \"{}\" broke off", self.name)));
        }
        Ok(())
    }

    /// The hosts that are named, or all.
    pub(super) fn hosts(&self) -> Result<Vec<String>, Abort> {
        if self.args.is_empty() {
            return Ok(self.tables.hosts.iter().map(|h| h.name.clone()).collect());
        }
        for name in &self.args {
            if self.tables.host(name).is_none() {
                return Err(Abort(format!("cannot resolve host \"{name}\"")));
            }
        }
        Ok(self.args.clone())
    }

    pub(super) fn host(&mut self, name: &str) -> Result<&mut Host, Abort> {
        let found = self.tables.hosts.iter_mut().find(|h| h.name == name);
        found.ok_or_else(|| Abort(format!("cannot resolve host \"{name}\"")))
    }

    /// A positional argument that may be given as a parameter too: the last one.
    pub(super) fn last(&mut self, key: &str) -> Option<String> {
        self.params.get(key).cloned().or_else(|| self.args.pop())
    }

    fn add_host(&mut self) -> Result<(), Abort> {
        let [name] = &self.args[..] else {
            return Err(Abort("must supply one host".to_owned()));
        };
        let name = name.clone();
        self.check_name(&name)?;
        // `appliance-rack-rank` says all three.
        let words: Vec<_> = name.split('-').collect();
        let told = match words[..] {
            [appliance, rack, rank] => {
                let mut known = self.tables.memberships.iter();
                let known = known.find(|m| m.appliance == appliance);
                known
                    .map(|m| m.name.clone())
                    .zip(rack.parse().ok().zip(rank.parse().ok()))
            }
            _ => None,
        };
        let number = |key: &str| -> Result<Option<u32>, Abort> {
            let text = self.params.get(key);
            let parse = |text: &String| {
                let message = || format!("invalid literal for int() with base 10: '{text}'");
                text.parse().map_err(|_| Abort(message()))
            };
            text.map(parse).transpose()
        };
        let (rack, rank) = (number("rack")?, number("rank")?);
        let (rack, rank) = match told {
            Some((_, (told_rack, told_rank))) => {
                (rack.or(Some(told_rack)), rank.or(Some(told_rank)))
            }
            None => (rack, rank),
        };
        let membership = match told {
            Some((membership, _)) => membership,
            None => {
                let asked = self.params.get("membership").cloned();
                asked.ok_or_else(|| Abort("membership not specified".to_owned()))?
            }
        };
        let rack = rack.ok_or_else(|| Abort("rack not specified".to_owned()))?;
        let rank = rank.ok_or_else(|| Abort("rank not specified".to_owned()))?;
        if !self.tables.memberships.iter().any(|m| m.name == membership) {
            let message =
                format!("Membership {membership} is not valid.\nPlease select a valid membership");
            return Err(Abort(message));
        }
        if let Some(os) = self.params.get("os").filter(|os| *os != "linux") {
            return Err(Abort(format!("{membership} does not support {os}")));
        }
        let cpus = number("cpus")?.unwrap_or(1);
        self.tables.hosts.push(Host {
            name,
            membership,
            cpus,
            rack,
            rank,
            boot: None,
            run_action: "os".to_owned(),
            interfaces: Vec::new(),
        });
        self.step()
    }

    fn check_name(&self, name: &str) -> Result<(), Abort> {
        if name.contains('.') {
            return Err(Abort(format!("Hostname {name} can not contains any dot.")));
        }
        if name
            .strip_prefix("rack")
            .is_some_and(|n| n.parse::<u32>().is_ok())
        {
            return Err(Abort(format!(
                "Hostname {name} can not be in the form of rack<number>.\nSelect a different hostname."
            )));
        }
        if self.tables.memberships.iter().any(|m| m.appliance == name) {
            return Err(Abort(format!(
                "Hostname {name} can not be equal to an appliance name.\nSelect a different hostname."
            )));
        }
        if self.tables.host(name).is_some() {
            return Err(Abort(format!(
                "Node {name} already exists.\nSelect a different hostname, cabinet and/or rank value."
            )));
        }
        Ok(())
    }

    fn add_interface(&mut self) -> Result<(), Abort> {
        let has_two = self.args.len() == 2 || self.params.contains_key("iface");
        let iface = if has_two { self.last("iface") } else { None };
        let iface = iface.ok_or_else(|| Abort("missing iface".to_owned()))?;
        let [name] = &self.hosts()?[..] else {
            return Err(Abort("must supply one host".to_owned()));
        };
        let host = self.host(name)?;
        let same = |i: &Interface| i.device == iface || i.mac.as_ref() == Some(&iface);
        if host.interfaces.iter().any(same) {
            return Err(Abort(format!("interface \"{iface}\" exists")));
        }
        host.interfaces.push(Interface {
            device: iface,
            ..Interface::default()
        });
        self.step()?;
        // Each by a `set host interface` of its own.
        let (name, params) = (name.clone(), self.params.clone());
        for key in ["ip", "mac", "name", "subnet"] {
            let Some(value) = params.get(key) else {
                continue;
            };
            self.check_value(key, value)?;
            let host = self.host(&name)?;
            if let Some(interface) = host.interfaces.last_mut() {
                let place = match key {
                    "ip" => &mut interface.ip,
                    "mac" => &mut interface.mac,
                    "name" => &mut interface.name,
                    _ => &mut interface.subnet,
                };
                *place = Some(value.clone());
            }
            self.database.write(&self.tables)?;
        }
        Ok(())
    }

    fn check_value(&self, key: &str, value: &str) -> Result<(), Abort> {
        let good = match key {
            "ip" => value.parse::<Ipv4Addr>().is_ok(),
            "mac" => {
                let bytes: Vec<_> = value.split(':').collect();
                let hex = |b: &&str| b.len() == 2 && u8::from_str_radix(b, 16).is_ok();
                bytes.len() == 6 && bytes.iter().all(hex)
            }
            "subnet" => self.tables.networks.iter().any(|n| n.name == value),
            _ => true,
        };
        match (good, key) {
            (true, _) => Ok(()),
            (false, "subnet") => Err(Abort(format!("subnet \"{value}\" not found"))),
            (false, _) => Err(Abort(format!("invalid {key} \"{value}\""))),
        }
    }

    fn set_mtu(&mut self) -> Result<(), Abort> {
        let mtu = self.last("mtu");
        if self.args.is_empty() {
            return Err(Abort("must supply network".to_owned()));
        }
        let mtu = mtu.ok_or_else(|| Abort("must supply mtu".to_owned()))?;
        let mtu: u32 = mtu
            .parse()
            .map_err(|_| Abort(format!("Unknown column '{mtu}' in 'field list'")))?;
        // A name that there is not is passed over in silence.
        let named = |n: &&mut super::database::Network| self.args.contains(&n.name);
        for network in self.tables.networks.iter_mut().filter(named) {
            network.mtu = mtu;
        }
        self.step()
    }

    fn sync(&self) -> Result<(), Abort> {
        let root = self.database.root();
        write(root, files::DHCPD, &files::dhcpd(&self.tables))?;
        self.step()?;
        write(root, files::DHCPD_ARGS, &files::dhcpd_args(&self.tables))?;
        write(root, files::HOSTS, &files::hosts(&self.tables))?;
        servers::restart_dhcpd(root)
    }

    fn remove_hosts(&mut self) -> Result<(), Abort> {
        if self.args.is_empty() {
            return Err(Abort("must supply at least one host".to_owned()));
        }
        for name in self.hosts()? {
            self.unboot(&name)?;
            self.host(&name)?.interfaces.clear();
            self.step()?;
            self.tables.hosts.retain(|h| h.name != name);
            self.step()?;
        }
        // As the real one does.
        self.sync()
    }

    fn remove_interface(&mut self) -> Result<(), Abort> {
        let has_two = self.args.len() > 1 || self.params.contains_key("iface");
        let iface = if has_two { self.last("iface") } else { None };
        if self.args.is_empty() {
            return Err(Abort("must supply host".to_owned()));
        }
        let iface = iface.ok_or_else(|| Abort("must supply iface".to_owned()))?;
        for name in self.hosts()? {
            let host = self.host(&name)?;
            host.interfaces
                .retain(|i| i.device != iface && i.mac.as_ref() != Some(&iface));
        }
        self.step()
    }
}

pub(super) fn write(root: &Path, path: &str, text: &str) -> io::Result<()> {
    let path = root.join(path);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, text)
}

pub(super) fn remove(root: &Path, path: &str) -> io::Result<()> {
    match fs::remove_file(root.join(path)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
