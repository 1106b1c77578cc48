//! What every subcommand needs: directories, sites, the database, and how to report.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use clap::ColorChoice;
use tracing_subscriber::util::SubscriberInitExt;

use crate::authority::custody::KeyFile;
use crate::cli::Global;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::keep::Keep;
use crate::layout::Layout;
use crate::name::suggestion;
use crate::provider::{self, Provider};
use crate::rendezvous::config::RendezvousConfig;
use crate::report::Mode;
use crate::site::{Site, Sites};
use crate::state::Database;
use crate::state::lock::Lock;
use crate::state::record::{Deployment, Phase};

/// What every subcommand needs.
#[derive(Debug)]
pub struct Context {
    /// Directories.
    pub layout: Layout,
    /// Options of every subcommand.
    pub global: Global,
}

impl Context {
    /// Chooses the directories and starts logging.
    pub fn new(global: &Global) -> Result<Self, CliError> {
        start_logging(global);
        let layout = Layout::choose(is_root(), global.state_dir.clone(), |n| std::env::var_os(n))?;
        Ok(Self {
            layout,
            global: global.clone(),
        })
    }

    /// Reads `sites.toml`.
    pub fn sites(&self) -> Result<Sites, CliError> {
        Sites::load(self.global.sites.as_deref(), |n| std::env::var_os(n))
    }

    /// Opens the database, making it on first use.
    pub fn database(&self) -> Result<Database, CliError> {
        self.layout
            .create()
            .map_err(|e| CliError::file("create", &self.layout.state, e))?;
        Database::open(&self.layout.database())
    }

    /// This installation's mark on what it makes ([`Tags::owner`](crate::provider::Tags::owner)).
    pub fn owner(&self) -> String {
        crate::state::owner::mark(&self.layout.state)
    }

    /// The provider of a site.
    pub fn provider(&self, site: &Site) -> Result<Arc<dyn Provider>, CliError> {
        provider::open(&self.layout, site)
    }

    /// What looks after a deployment when no command does.
    pub fn keep<'a>(&'a self, deployment: &'a Deployment) -> Result<Keep<'a>, CliError> {
        let settings = Settings::of(deployment)?;
        Ok(Keep {
            layout: &self.layout,
            sites: self.global.sites.as_deref(),
            deployment: &deployment.name,
            owner: self.owner(),
            embedded: matches!(settings.rendezvous, RendezvousConfig::Embedded(_)),
        })
    }

    /// How events are shown.
    pub fn mode(&self) -> Mode {
        let fancy = match self.global.color {
            ColorChoice::Auto => {
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
            }
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        match (self.global.json, fancy) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Terminal,
            (false, false) => Mode::Plain,
        }
    }

    /// Finds a deployment that has not been destroyed, or says which there are.
    pub fn deployment(&self, database: &Database, name: &str) -> Result<Deployment, CliError> {
        if let Some(deployment) = database.deployment(name)? {
            return Ok(deployment);
        }
        let names: BTreeSet<_> = database
            .deployments()?
            .into_iter()
            .map(|d| d.name)
            .collect();
        Err(no_such_deployment(name, &names))
    }

    /// Locks a deployment that is to be changed: one that is there and not on its way out, and whose
    /// authority can sign what comes of it.
    pub fn locked_to_change(
        &self,
        database: &Database,
        name: &str,
    ) -> Result<(Lock, Deployment), CliError> {
        self.deployment(database, name)?;
        let Some((lock, deployment)) = self.locked(database, name)? else {
            return Err(no_such_deployment(name, &BTreeSet::new()));
        };
        if deployment.phase == Phase::Destroying {
            let message = format!("`{name}` is being destroyed");
            return Err(CliError::new(ExitCode::Name, message)
                .hint(format!("`provision destroy {name}` finishes that")));
        }
        if let Some(key) = KeyFile::of(&self.layout.authority(name))? {
            key.usable()?;
        }
        Ok((lock, deployment))
    }

    /// Locks a deployment; none when it is not there or no more.
    pub fn locked(
        &self,
        database: &Database,
        name: &str,
    ) -> Result<Option<(Lock, Deployment)>, CliError> {
        let dir = self.layout.deployment(name);
        let lock = Lock::take(&dir, name)?;
        // Another command may have removed it before its turn ended and ours began.
        if let Some(deployment) = database.deployment(name)? {
            return Ok(Some((lock, deployment)));
        }
        // Nobody else would: taking the lock made it.
        std::fs::remove_dir_all(&dir).map_err(|e| CliError::file("remove", &dir, e))?;
        Ok(None)
    }
}

/// The error for a name that nothing has, with the nearest name there is.
pub fn no_such_deployment(name: &str, names: &BTreeSet<String>) -> CliError {
    let error = CliError::new(ExitCode::Name, format!("there is no deployment `{name}`"));
    match suggestion(name, names) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None if names.is_empty() => {
            error.hint("there are no deployments; `provision cluster` makes one")
        }
        None => error.hint("`provision list` shows the deployments there are"),
    }
}

/// Whether this process may do everything.
fn is_root() -> bool {
    std::fs::metadata(Path::new("/proc/self")).is_ok_and(|m| m.uid() == 0)
}

fn start_logging(global: &Global) {
    let level = match global.verbose {
        0 => "warn,ipop_node=error,aws_config=off",
        1 => "provisioner=info,warn,aws_config=off",
        2 => "provisioner=debug,info",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("IPOP_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // A second initialisation happens in tests only and keeps the first.
    let _ = ipop_node::log::subscriber(filter, std::io::stderr, false).try_init();
}
