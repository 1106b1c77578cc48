//! A Rocks front end that stands already: the static `ipop-node` is installed on it, with its
//! device as a port of the bridge that the private network is on, and every worker of the
//! deployment, wherever its machine is, is made known to Rocks.
//!
//! The node's own parts are those of an SSH site ([`super::ssh`]). Beside them there are
//!
//! | Kind | In Rocks | Undone by |
//! |---|---|---|
//! | `mtu` | `rocks set network mtu`, where the site says one | the value there was |
//! | `registration` | `rocks add host` | `rocks remove host` |
//! | `interface` | `rocks add host interface` | `rocks remove host interface` |
//! | `boot` | `rocks set host boot action=os` | `rocks remove host boot` |
//! | `configuration` | `rocks sync config`, unless it was written since | `rocks remove host` writes it |
//!
//! Rocks has no transactions, and no place to say whose a host is. So each change is noted first in
//! a file below `/var/lib/ipop-node/rocks` (`files/ledger`): what is not noted there is somebody
//! else's and is left alone; a command that fails is undone at once; and what was begun and not
//! ended is seen to be missing, and made whole by the next try. Its commands are run one at a time.

mod check;
pub mod config;
mod facts;
mod plan;
mod register;
mod survey;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use self::config::RocksSite;
use super::ssh::SshProvider;
use super::ssh::config::SshSite;
use super::{
    CheckLine, Found, ImageForm, Machine, Made, Making, Provider, Removing, SitePlan, Step, Tags,
};
use crate::error::{CliError, ExitCode};
use crate::image::BuildOptions;
use crate::name::NodeName;
use crate::plan::lan::Lan;
use crate::ssh::target::Target;

/// One Rocks site.
#[derive(Debug)]
pub struct RocksProvider {
    site: String,
    settings: RocksSite,
    lan: Lan,
    host: Target,
    /// The node on it.
    ssh: SshProvider,
}

impl RocksProvider {
    /// The site called `site`; `build` says where the static `ipop-node` is.
    pub fn new(site: &str, settings: &RocksSite, build: BuildOptions) -> Result<Self, CliError> {
        let defective = |why: String| {
            CliError::new(ExitCode::Config, format!("site `{site}` is defective")).caused_by(why)
        };
        let host = settings.host.parse();
        let ssh = SshSite {
            hosts: vec![settings.host.clone()],
            identity: settings.identity.clone(),
            known_hosts: settings.known_hosts.clone(),
            share: false,
            install_packages: false,
        };
        Ok(Self {
            site: site.to_owned(),
            lan: settings.lan().map_err(defective)?,
            host: host.map_err(|e: crate::ssh::target::BadTarget| defective(e.to_string()))?,
            ssh: SshProvider::new(site, &ssh, build)?,
            settings: settings.clone(),
        })
    }
}

impl Provider for RocksProvider {
    fn image_form(&self) -> Option<ImageForm> {
        None
    }

    /// Rocks does not lock its files.
    fn parallel(&self) -> usize {
        1
    }

    fn keeps_members(&self) -> bool {
        true
    }

    fn plan(&self, plan: &SitePlan<'_>) -> Result<Vec<Step>, CliError> {
        plan::steps(&self.site, &self.host, &self.settings, plan)
    }

    fn make(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        self.make_part(step, making)
    }

    fn remove(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        self.remove_part(removing)
    }

    fn find(&self, tags: Option<&Tags>) -> Result<Vec<Found>, CliError> {
        self.found(tags)
    }

    fn machines(&self, tags: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError> {
        self.ssh.machines(tags)
    }

    fn console(&self, tags: &Tags, node: &NodeName, limit: usize) -> Result<Vec<u8>, CliError> {
        self.ssh.console(tags, node, limit)
    }

    fn check(&self) -> Result<Vec<CheckLine>, CliError> {
        Ok(self.checked())
    }

    fn join_limit(&self) -> Result<Duration, CliError> {
        self.ssh.join_limit()
    }
}
