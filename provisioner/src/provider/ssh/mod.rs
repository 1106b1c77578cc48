//! Machines that exist already and are reached by SSH: the static `ipop-node` is installed on them.
//!
//! The node of slot n is on the n-th host of the site, and a host is a member of one deployment at
//! a time: interface, control socket and services have fixed names. Of a node there are four parts,
//! made in this order and removed in the other:
//!
//! | Kind | On the host | Found by |
//! |---|---|---|
//! | `host` | `/var/lib/ipop-node/member.json`: whose it is ([`marker`]) | itself |
//! | `binary` | `/opt/ipop-node/bin`: `ipop-node` and a few scripts | the marker |
//! | `credentials` | `/etc/ipop-node/DEPLOYMENT`, for root alone | the marker |
//! | `member` | units of systemd, or a small supervisor where that does not run | the marker |
//!
//! Identifiers are `[user@]host[:port]/DEPLOYMENT`, so that a part can be removed when its host is
//! no longer in the sites file. No port is opened, and nothing else of the host is changed but its
//! packages, if the site says so. Everything run on a host is a script below `files/`.

pub(super) mod check;
pub mod config;
pub(super) mod facts;
mod install;
pub mod marker;
pub(super) mod plan;
mod survey;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::config::SshSite;
use super::{
    CheckLine, Found, ImageForm, Machine, Made, Making, Provider, Removing, SitePlan, Step, Tags,
};
use crate::error::{CliError, ExitCode};
use crate::image::BuildOptions;
use crate::name::NodeName;
use crate::ssh::target::Target;
use crate::ssh::transport::{Access, Transport};

/// How long a node may take from start to joined: no system has to come up.
const JOIN_LIMIT: Duration = Duration::from_secs(180);
/// Hosts asked at once.
const PARALLEL: usize = 16;

/// One SSH site.
#[derive(Debug)]
pub struct SshProvider {
    site: String,
    settings: SshSite,
    hosts: Vec<Target>,
    access: Access,
    build: BuildOptions,
    transports: Mutex<BTreeMap<Target, Arc<Transport>>>,
}

impl SshProvider {
    /// The site called `site`; `build` says where the static `ipop-node` is.
    pub fn new(site: &str, settings: &SshSite, build: BuildOptions) -> Result<Self, CliError> {
        let host = |text: &String| {
            text.parse::<Target>().map_err(|e| {
                CliError::new(
                    ExitCode::Config,
                    format!("a host of site `{site}` is defective"),
                )
                .caused_by(e)
                .hint("write `hosts = [\"root@lake.example\", \"ann@10.0.0.7:2222\"]`")
            })
        };
        let hosts = settings
            .hosts
            .iter()
            .map(host)
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(twice) = (1..hosts.len()).find(|n| hosts[..*n].contains(&hosts[*n])) {
            let message = format!("site `{site}` names the host {} twice", hosts[twice]);
            return Err(CliError::new(ExitCode::Config, message).hint("a host is one machine"));
        }
        Ok(Self {
            site: site.to_owned(),
            hosts,
            access: Access {
                identity: settings.identity.clone(),
                known_hosts: settings.known_hosts.clone(),
                ..Access::default()
            },
            settings: settings.clone(),
            build,
            transports: Mutex::default(),
        })
    }

    pub(super) fn transport(&self, target: &Target) -> Result<Arc<Transport>, CliError> {
        let mut transports = self
            .transports
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(transport) = transports.get(target) {
            return Ok(Arc::clone(transport));
        }
        let transport = Arc::new(Transport::new(target.clone(), &self.access)?);
        transports.insert(target.clone(), Arc::clone(&transport));
        Ok(transport)
    }

    /// Asks all hosts at once, [`PARALLEL`] at most; answers are in the order of the hosts.
    fn ask_all<T: Send>(
        &self,
        ask: impl Fn(&Target) -> Result<T, CliError> + Sync,
    ) -> Vec<(&Target, Result<T, CliError>)> {
        let next = Mutex::new(self.hosts.iter().enumerate());
        let answers = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(self.hosts.len()) {
                scope.spawn(|| {
                    loop {
                        let turn = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((number, host)) = turn else { break };
                        let answer = ask(host);
                        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                        answers.push((number, host, answer));
                    }
                });
            }
        });
        let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        answers.sort_by_key(|(number, ..)| *number);
        answers
            .into_iter()
            .map(|(_, host, answer)| (host, answer))
            .collect()
    }
}

impl Provider for SshProvider {
    fn image_form(&self) -> Option<ImageForm> {
        None
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }

    fn plan(&self, plan: &SitePlan<'_>) -> Result<Vec<Step>, CliError> {
        plan::steps(&self.site, &self.hosts, plan)
    }

    fn make(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        self.install(step, making)
    }

    fn remove(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        self.uninstall(removing)
    }

    fn find(&self, tags: Option<&Tags>) -> Result<Vec<Found>, CliError> {
        self.found(tags)
    }

    fn machines(&self, tags: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError> {
        self.states(tags)
    }

    fn console(&self, tags: &Tags, node: &NodeName, limit: usize) -> Result<Vec<u8>, CliError> {
        self.log(tags, node, limit)
    }

    fn check(&self) -> Result<Vec<CheckLine>, CliError> {
        Ok(self.checked())
    }

    fn join_limit(&self) -> Result<Duration, CliError> {
        Ok(JOIN_LIMIT)
    }
}
