//! A share on a member's own machine: from where it is mounted, and by which units of systemd. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipop_proto::status::{LinkState, NodeStatus};

use super::SHARE;
use super::share::FOLDER;
use crate::error::{CliError, ExitCode};
use crate::name::suggestion;

/// Where shares are mounted unless it is said otherwise, each by its name; as on workers.
pub const SHARES: &str = "/shares";
/// What a share's folder is mounted with (nfs(5), mount(8)). A client waits for the server however long it
/// takes: with `soft` a program would be told of errors that are over in a minute.
pub const OPTIONS: &str = "vers=4.2,nosuid,nodev";
/// What members' names end in, after their overlay's.
const DOMAIN: &str = "ipop";
/// Seconds without use after which a share that is mounted when it is touched is let go of.
const IDLE_SECONDS: u32 = 300;

/// A folder to mount something on: an absolute path of characters that mean nothing to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    /// The usual one of a share.
    pub fn of(share: &str) -> Self {
        Self(format!("{SHARES}/{share}"))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its unit of this kind (systemd.unit(5), "String escaping for inclusion in unit names").
    pub fn unit(&self, kind: &str) -> String {
        let mut name = String::new();
        for (at, byte) in self.0.trim_start_matches('/').bytes().enumerate() {
            match byte {
                b'/' => name.push('-'),
                b'.' if at == 0 => name += "\\x2e",
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                    name.push(char::from(byte));
                }
                other => name += &format!("\\x{other:02x}"),
            }
        }
        format!("{name}.{kind}")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._:@+-".contains(c);
        let Some(inner) = path.strip_prefix('/').filter(|_| path.chars().all(plain)) else {
            return Err(
                "write a folder as an absolute path of letters, digits and . _ : @ + -, like \
                 /srv/lake-data"
                    .to_owned(),
            );
        };
        match inner.split('/').any(|part| matches!(part, "" | "." | "..")) {
            true => Err("write the folder without `.`, `..` and empty parts".to_owned()),
            false => Ok(Self(path.to_owned())),
        }
    }
}

/// A share that is to be mounted on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its overlay.
    pub overlay: String,
    /// Its name, and its node's.
    pub share: String,
    /// Its server in the overlay.
    pub addr: Ipv4Addr,
    /// From where it is mounted: the server by name where this machine finds members by name, else by
    /// address, and the folder there.
    pub source: String,
    /// On what.
    pub place: Place,
}

impl Mount {
    /// Plans to mount a share, by what this machine's node in its overlay says.
    pub fn planned(status: &NodeStatus, share: &str, place: Place) -> Result<Self, CliError> {
        let overlay = &status.overlay;
        let Some(peer) = status.peers.iter().find(|p| p.name == share) else {
            let message = format!("this machine's node knows no `{share}` in `{overlay}`");
            let error = CliError::new(ExitCode::Name, message);
            let is_share = |role: &Option<String>| role.as_deref() == Some(SHARE);
            let shares = status.peers.iter().filter(|p| is_share(&p.role));
            let names: Vec<_> = shares.map(|p| &p.name).collect();
            return Err(match suggestion(share, names.iter().copied()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(
                    "a share is there while its machine runs; `ipop-node status` shows who is",
                ),
            });
        };
        if peer.role.as_deref().is_some_and(|role| role != SHARE) {
            let role = peer.role.as_deref().unwrap_or_default();
            let message = format!("`{share}` of `{overlay}` is no share: its role is {role}");
            return Err(CliError::new(ExitCode::Name, message)
                .hint("`provision share list`, on the owner's machine, shows the shares"));
        }
        if peer.link != LinkState::Up {
            let why = match &peer.link {
                LinkState::Down { why } => why.clone(),
                _ => "it is being set up".to_owned(),
            };
            let message = format!("this machine has no link to `{share}` of `{overlay}`");
            return Err(CliError::new(ExitCode::Unavailable, message)
                .caused_by(why)
                .hint("`ipop-node status` shows the links; try again when this one is up"));
        }
        let addr = peer.addrs.ipv4.addr;
        let names = status.names.as_ref().filter(|n| n.resolver.is_some());
        let server = match names {
            Some(names) => format!("{share}.{}", names.domain),
            None => addr.to_string(),
        };
        Ok(Self {
            overlay: overlay.clone(),
            share: share.to_owned(),
            addr,
            source: format!("{server}:{FOLDER}"),
            place,
        })
    }

    /// How mount(8) is called: once, since somebody waits.
    pub fn arguments(&self) -> [&str; 6] {
        let (source, place) = (self.source.as_str(), self.place.as_str());
        [
            "-t",
            "nfs4",
            "-o",
            "vers=4.2,nosuid,nodev,retry=0",
            source,
            place,
        ]
    }

    /// The units by which it is mounted when somebody touches it: `.mount` and `.automount`, each with its
    /// name and text.
    pub fn units(&self) -> [(String, String); 2] {
        let Self {
            overlay,
            share,
            source,
            place,
            ..
        } = self;
        let mark = mark(overlay, share);
        // Let go of before the node ends, and without waiting for a server that is away.
        let mount = format!(
            "{mark}\n[Unit]\nDescription=Share {share} of the overlay {overlay}\n\
             Wants=ipop-node@{overlay}.service\nAfter=ipop-node@{overlay}.service\n\n\
             [Mount]\nWhat={source}\nWhere={place}\nType=nfs4\nOptions={OPTIONS},retry=0\n\
             LazyUnmount=yes\nTimeoutSec=60\n"
        );
        let automount = format!(
            "{mark}\n[Unit]\nDescription=Share {share} of the overlay {overlay}, when it is touched\n\n\
             [Automount]\nWhere={place}\nTimeoutIdleSec={IDLE_SECONDS}\n\n\
             [Install]\nWantedBy=multi-user.target\n"
        );
        [
            (place.unit("mount"), mount),
            (place.unit("automount"), automount),
        ]
    }
}

/// The first line of a unit, which says whose it is.
pub fn mark(overlay: &str, share: &str) -> String {
    format!(
        "# By `provision share mount {overlay}/{share}`, which `provision share unmount` undoes."
    )
}

/// What is mounted at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    /// Nothing, or what mounts something when it is touched.
    Nothing,
    /// This share.
    Share,
    /// Something else, from there.
    Other(String),
}

/// What is mounted at `place`, by the text of /proc/self/mounts (proc_pid_mounts(5)). A server that goes by an
/// address is taken for the share's, for the node that knows better may be gone.
pub fn mounted(mounts: &str, place: &Place, overlay: &str, share: &str) -> Mounted {
    let at = mounts.lines().rev().find_map(|line| {
        let mut words = line.split(' ');
        let (source, at, kind) = (words.next()?, words.next()?, words.next()?);
        (at == place.as_str() && kind != "autofs").then_some((source, kind))
    });
    let Some((source, kind)) = at else {
        return Mounted::Nothing;
    };
    let name = format!("{share}.{overlay}.{DOMAIN}");
    let server = source.strip_suffix(FOLDER);
    let server = server.and_then(|server| server.strip_suffix(':'));
    let is_addr = |server: &str| {
        let bare = server.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok()
    };
    let is_share = server.is_some_and(|server| server == name || is_addr(server));
    match is_share && kind == "nfs4" {
        true => Mounted::Share,
        false => Mounted::Other(source.to_owned()),
    }
}

#[cfg(test)]
mod tests;
