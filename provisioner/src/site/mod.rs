//! The sites that machines can be launched on, and the rendezvous they meet at: `sites.toml`.

mod file;
pub mod lan;
mod schema;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{CliError, ExitCode};
use crate::name::suggestion;
use crate::plan::lan::Lan;
use crate::provider::cloudlab::config::CloudlabSite;
use crate::provider::ec2::config::Ec2Site;
use crate::provider::libvirt::LibvirtSite;
use crate::provider::members::ELSEWHERE;
use crate::provider::rocks::config::RocksSite;
use crate::provider::ssh::config::SshSite;
use crate::rendezvous::config::RendezvousConfig;

pub use schema::schema;

/// The site that exists without any file.
pub const LOCAL: &str = "local";

/// One site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Name.
    pub name: String,
    /// How its machines are launched.
    pub kind: SiteKind,
    /// Memory of its guests in MiB, unless the command says otherwise.
    pub memory_mib: Option<u32>,
    /// Virtual CPUs of its guests, unless the command says otherwise.
    pub cpus: Option<u32>,
    /// Most machines of one deployment.
    pub max: Option<u32>,
    /// Most things made or removed on it at once, unless the kind's own number serves.
    #[serde(default)]
    pub parallel: Option<u32>,
}

impl Site {
    /// Where members' machines are.
    pub fn elsewhere() -> Self {
        Self {
            name: ELSEWHERE.to_owned(),
            kind: SiteKind::Members,
            memory_mib: None,
            cpus: None,
            max: None,
            parallel: None,
        }
    }

    /// The LAN that the overlay of a deployment with its front end here extends, if one does: that of a
    /// front end which stands already always, that of one which is launched where it was `asked` for.
    pub fn lan(&self, asked: bool) -> Option<Lan> {
        match &self.kind {
            // That it is defective is told where the sites file is read.
            SiteKind::Rocks(rocks) => rocks.lan().ok(),
            SiteKind::Libvirt(libvirt) if asked => libvirt.lan.as_ref()?.frontend().ok()?,
            _ => None,
        }
    }

    /// The host's bridge that the LAN of its machines is on, if it says.
    pub fn lan_bridge(&self) -> Option<&str> {
        match &self.kind {
            SiteKind::Libvirt(libvirt) => libvirt.lan.as_ref().map(|lan| lan.bridge.as_str()),
            _ => None,
        }
    }
}

/// Kinds of site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteKind {
    /// A host with libvirt.
    Libvirt(LibvirtSite),
    /// Machines that exist and are reached by SSH.
    Ssh(SshSite),
    /// A Rocks front end that stands already.
    Rocks(RocksSite),
    /// CloudLab, by the Portal API.
    Cloudlab(CloudlabSite),
    /// Amazon EC2.
    Ec2(Ec2Site),
    /// Where the machines of people are that were invited; in no sites file.
    Members,
}

impl SiteKind {
    /// Whether it is a host with libvirt, whose machines can have a card on a LAN of it.
    pub fn is_libvirt(&self) -> bool {
        matches!(self, Self::Libvirt(_))
    }

    /// Whether its machines start from the images of their roles; others have a system of their own.
    pub fn starts_from_images(&self) -> bool {
        match self {
            Self::Libvirt(_) | Self::Ec2(_) => true,
            Self::Cloudlab(site) => site.vms_per_machine.is_some(),
            Self::Ssh(_) | Self::Rocks(_) | Self::Members => false,
        }
    }
}

/// Everything `sites.toml` says.
#[derive(Debug, Clone)]
pub struct Sites {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The sites, `local` first.
    sites: Vec<Site>,
    /// The rendezvous of new deployments.
    pub rendezvous: RendezvousConfig,
}

impl Default for Sites {
    fn default() -> Self {
        let local = Site {
            name: LOCAL.to_owned(),
            kind: SiteKind::Libvirt(LibvirtSite::default()),
            memory_mib: None,
            cpus: None,
            max: None,
            parallel: None,
        };
        Self {
            file: None,
            sites: vec![local],
            rendezvous: RendezvousConfig::default(),
        }
    }
}

impl Sites {
    /// Reads `asked`, or the first of the usual files that exists; without any, there is `local`.
    pub fn load(
        asked: Option<&Path>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, CliError> {
        let candidates = match asked {
            Some(path) => vec![path.to_owned()],
            None => crate::layout::configuration("sites.toml", env),
        };
        for path in candidates {
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let sites = Self::parse(&text, &path.display().to_string())?;
                    return Ok(Self {
                        file: Some(path),
                        ..sites
                    });
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && asked.is_none() => {}
                Err(e) => {
                    let message = format!("cannot read the sites file `{}`", path.display());
                    return Err(CliError::new(ExitCode::Config, message).caused_by(e));
                }
            }
        }
        Ok(Self::default())
    }

    /// Reads the text of a sites file; `name` is for messages.
    pub fn parse(text: &str, name: &str) -> Result<Self, CliError> {
        let parsed = file::parse(text, name)?;
        let mut sites = Self::default();
        for site in parsed.sites {
            match sites.sites.iter_mut().find(|s| s.name == site.name) {
                Some(known) => *known = site,
                None => sites.sites.push(site),
            }
        }
        Ok(Self {
            rendezvous: parsed.rendezvous.unwrap_or_default(),
            ..sites
        })
    }

    /// All sites.
    pub fn iter(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter()
    }

    /// The site of this name, or which it might have been.
    pub fn find(&self, name: &str) -> Result<&Site, CliError> {
        if let Some(site) = self.sites.iter().find(|s| s.name == name) {
            return Ok(site);
        }
        let names: Vec<_> = self.sites.iter().map(|s| &s.name).collect();
        let error = CliError::new(ExitCode::Name, format!("there is no site `{name}`"));
        Err(match suggestion(name, names.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("`provision site list` shows the sites; sites.toml defines them"),
        })
    }
}

#[cfg(test)]
mod tests;
