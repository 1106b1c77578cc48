//! Overlays that this machine is a member of by invitation: their files, and the service that runs
//! each (`ipop-node@NAME.service`).
//!
//! | path | mode | what |
//! |---|---|---|
//! | `/etc/ipop-node/NAME/node.toml` | 0644 | configuration |
//! | `/etc/ipop-node/NAME/ca.pem` | 0644 | CA of the rendezvous |
//! | `/etc/ipop-node/NAME/token` | 0600 | what the node exchanges for a password of its own |
//! | `/etc/ipop-node/NAME/authority.pem` | 0644 | the overlay's authority, where there is one |
//! | `/etc/ipop-node/NAME/certificate-token` | 0600 | what the node proves its first request to it with |
//! | `/var/lib/ipop-node/NAME/identity.pem` | 0600 | its key, which it makes, and its certificate |
//! | `/var/lib/ipop-node/NAME/password` | 0600 | that password, which the node writes |

mod service;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ipop_proto::invitation::{
    ADMISSION_FILE, AUTHORITY_FILE, CA_FILE, Invitation, Places, TOKEN_FILE,
};

pub use service::{Service, ServiceError};

/// Name of the configuration in a membership's folder.
const CONFIG_FILE: &str = "node.toml";
/// Longest name of a device (IFNAMSIZ without the final zero).
const INTERFACE_LIMIT: usize = 15;

/// The machine's memberships, below a root that is `/` but in tests.
#[derive(Debug, Clone)]
pub struct Memberships {
    root: PathBuf,
}

/// A membership cannot be written, or there is none.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The machine is a member already.
    #[error("this machine is a member of `{0}` already")]
    Member(String),
    /// It is not.
    #[error("this machine is no member of `{name}`{}", known(others))]
    NoMember {
        /// What was asked for.
        name: String,
        /// What it is a member of.
        others: Vec<String>,
    },
    /// A file or folder.
    #[error("cannot {verb} {}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The invitation's terms make no configuration.
    #[error("the invitation cannot be used: {0}")]
    Terms(String),
}

fn known(others: &[String]) -> String {
    match others {
        [] => ", nor of any other".to_owned(),
        _ => format!(", but of {}", others.join(", ")),
    }
}

fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MembershipError {
    let path = path.to_owned();
    move |source| MembershipError::File { verb, path, source }
}

impl Memberships {
    /// Those of the machine whose root file system is at `root`.
    pub fn of(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    fn etc(&self) -> PathBuf {
        self.root.join("etc/ipop-node")
    }

    fn state(&self, name: &str) -> PathBuf {
        self.root.join("var/lib/ipop-node").join(name)
    }

    /// Names of the overlays, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.etc()).into_iter().flatten().flatten();
        let of = |entry: fs::DirEntry| {
            let is_one = entry.path().join(CONFIG_FILE).is_file();
            entry.file_name().into_string().ok().filter(|_| is_one)
        };
        let mut names: Vec<_> = entries.filter_map(of).collect();
        names.sort();
        names
    }

    /// The configuration file of a membership.
    pub fn config(&self, name: &str) -> PathBuf {
        self.etc().join(name).join(CONFIG_FILE)
    }

    /// Where a new member's things go: as a machine's only node has them by default, or by its own
    /// name beside others.
    pub fn places(&self, name: &str, first: bool) -> Places {
        let first = first && self.names().is_empty();
        let mut interface = match first {
            true => "ipop0".to_owned(),
            false => format!("ipop-{name}"),
        };
        interface.truncate(INTERFACE_LIMIT);
        Places {
            control: match first {
                true => crate::control::default_path(),
                false => PathBuf::from(format!("/run/ipop-node/{name}.sock")),
            },
            interface,
            password: self.state(name).join("password"),
            identity: self.state(name).join("identity.pem"),
        }
    }

    /// Writes a membership; it appears whole or not at all.
    pub fn add(&self, invitation: &Invitation, places: &Places) -> Result<(), MembershipError> {
        let name = &invitation.terms.overlay;
        if self.config(name).exists() {
            return Err(MembershipError::Member(name.clone()));
        }
        let defect = |e: &dyn std::fmt::Display| MembershipError::Terms(e.to_string());
        let config = invitation.config(places).map_err(|e| defect(&e))?;
        let config = toml::to_string(&config).map_err(|e| defect(&e))?;
        let (dir, part) = (
            self.etc().join(name),
            self.etc().join(format!(".{name}.part")),
        );
        // What a join left that was killed, or a password of an earlier membership.
        for old in [&part, &dir, &self.state(name)] {
            remove(old)?;
        }
        for new in [&part, &self.state(name)] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(new);
            made.map_err(file("make the folder", new))?;
        }
        write(&part.join(TOKEN_FILE), 0o600, &invitation.terms.token)?;
        write(&part.join(CA_FILE), 0o644, &invitation.ca_pem())?;
        if let Some(authority) = invitation.authority_pem() {
            write(&part.join(AUTHORITY_FILE), 0o644, &authority)?;
        }
        if let Some(admission) = &invitation.terms.admission {
            write(&part.join(ADMISSION_FILE), 0o600, &admission.token)?;
        }
        write(&part.join(CONFIG_FILE), 0o644, &config)?;
        fs::rename(&part, &dir).map_err(file("make", &dir))
    }

    /// Removes a membership's files.
    pub fn remove(&self, name: &str) -> Result<(), MembershipError> {
        let dir = self.etc().join(name);
        let is_label = ipop_proto::config::is_dns_label(name);
        if !is_label || !(dir.exists() || self.state(name).exists()) {
            return Err(MembershipError::NoMember {
                name: name.to_owned(),
                others: self.names(),
            });
        }
        remove(&dir)?;
        remove(&self.state(name))
    }
}

fn remove(dir: &Path) -> Result<(), MembershipError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file("remove", dir)(e)),
        _ => Ok(()),
    }
}

fn write(path: &Path, mode: u32, content: &str) -> Result<(), MembershipError> {
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let written = opened.and_then(|mut to| {
        to.write_all(content.as_bytes())?;
        to.sync_all()
    });
    written.map_err(file("write", path))
}

#[cfg(test)]
mod tests;
