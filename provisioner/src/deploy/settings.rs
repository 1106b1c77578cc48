//! What a deployment was made with, kept so that it can be removed when `sites.toml` has changed.

use ipop_proto::config::AllowSection;
use serde::{Deserialize, Serialize};

use crate::error::{CliError, ExitCode};
use crate::plan::elastic::Elastic;
use crate::plan::scheduler::Scheduler;
use crate::plan::share::Share;
use crate::rendezvous::config::RendezvousConfig;
use crate::site::Site;
use crate::state::record::Deployment;

/// Length of [`Settings::tag`].
pub const TAG_DIGITS: usize = 8;

/// Sites and rendezvous of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The sites its nodes are on.
    pub sites: Vec<Site>,
    /// Its rendezvous.
    pub rendezvous: RendezvousConfig,
    /// Random hexadecimal digits that tell this deployment from others of its name where
    /// they meet: on an external rendezvous.
    #[serde(default)]
    pub tag: String,
    /// Its scheduler. Deployments from before there were any have none.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// Whether its overlay has an authority. Those of deployments from before there were any have
    /// none.
    #[serde(default)]
    pub authority: bool,
    /// The workers that come when jobs wait.
    #[serde(default)]
    pub elastic: Elastic,
    /// Who may reach what; none where everybody reaches everybody.
    #[serde(default)]
    pub rules: Vec<AllowSection>,
    /// Whether its front end was launched with a LAN.
    #[serde(default)]
    pub lan: bool,
    /// Its shares; each has a node of its name, as long as it is wanted.
    #[serde(default)]
    pub shares: Vec<Share>,
}

impl Settings {
    /// For the state database.
    pub fn to_json(&self) -> Result<String, CliError> {
        serde_json::to_string(self).map_err(|e| {
            CliError::new(ExitCode::Internal, "cannot write a deployment's settings").caused_by(e)
        })
    }

    /// As the state database has them.
    pub fn of(deployment: &Deployment) -> Result<Self, CliError> {
        serde_json::from_str(&deployment.settings).map_err(|e| {
            let message = format!("the recorded settings of `{}` are damaged", deployment.name);
            CliError::new(ExitCode::Internal, message).caused_by(e)
        })
    }

    /// One of its sites.
    pub fn site(&self, name: &str) -> Result<&Site, CliError> {
        self.sites.iter().find(|s| s.name == name).ok_or_else(|| {
            CliError::new(
                ExitCode::Internal,
                format!("site `{name}` was not recorded"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_from_before_there_were_schedulers_and_authorities_have_none() {
        let settings = Settings {
            sites: Vec::new(),
            rendezvous: RendezvousConfig::default(),
            tag: "0000002a".to_owned(),
            scheduler: Scheduler::Slurm,
            authority: true,
            elastic: Elastic::default(),
            rules: crate::plan::tests::rules(),
            lan: true,
            shares: Vec::new(),
        };
        let text = settings.to_json().expect("written");
        let read: Settings = serde_json::from_str(&text).expect("read");
        assert_eq!(read, settings);
        let at = text.find(r#","scheduler""#).expect("its place");
        let older = text[..at].to_owned() + "}";
        let read: Settings = serde_json::from_str(&older).expect("read");
        assert_eq!((read.scheduler, read.authority), (Scheduler::None, false));
        assert!(!read.lan);
        assert!(read.elastic.is_empty() && read.rules.is_empty() && read.shares.is_empty());
    }
}
