//! Looks after a deployment when no command does: destroys it when its time is over, and extends
//! what its sites lend before that ends.
//!
//! `provision keep NAME` does what is due and ends. Who runs it, and again, is its [`Keeper`]: a
//! timer of systemd where systemd is, otherwise the supervisor of the embedded rendezvous, or a
//! process of its own where the rendezvous is somebody else's. Whatever it is, the supervisor also
//! stops serving members whose time is over.

pub mod plan;
pub mod units;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde::Serialize;

use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::layout::Layout;
use crate::rendezvous::ProcessId;
use crate::rendezvous::files;
use crate::site::{Site, SiteKind};
use crate::state::Database;
use crate::state::record::{Deployment, Phase};

/// Who looks after a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Keeper {
    /// A timer of systemd.
    Systemd {
        /// Its name, without suffix.
        unit: String,
        /// Whether it also runs while its user is not logged in.
        lingers: bool,
    },
    /// The supervisor of the embedded rendezvous.
    Supervisor {
        /// Its process id.
        pid: u32,
    },
    /// A process of its own.
    Process {
        /// Its process id.
        pid: u32,
    },
    /// Nobody, until `provision` is run.
    Nobody,
}

impl Keeper {
    /// What is in force, and what it does not survive, in a sentence's end.
    pub fn words(&self, name: &str) -> String {
        match self {
            Self::Systemd {
                unit,
                lingers: true,
            } => format!("by the systemd timer {unit}"),
            Self::Systemd { unit, .. } => format!(
                "by the systemd timer {unit}, while you are logged in: \
                 `loginctl enable-linger` makes it run always"
            ),
            Self::Supervisor { pid } => format!(
                "by the rendezvous's supervisor (pid {pid}): there is no systemd, so after a \
                 restart of this machine only once `provision status {name}` was run"
            ),
            Self::Process { pid } => format!(
                "by process {pid}: there is no systemd, so after a restart of this machine only \
                 once `provision status {name}` was run"
            ),
            Self::Nobody => {
                format!("by nobody at the moment: `provision status {name}` starts what does it")
            }
        }
    }
}

/// The keeper of one deployment.
#[derive(Debug)]
pub struct Keep<'a> {
    /// Directories.
    pub layout: &'a Layout,
    /// Sites file that was asked for.
    pub sites: Option<&'a Path>,
    /// The deployment.
    pub deployment: &'a str,
    /// This installation.
    pub owner: String,
    /// Whether the rendezvous is the deployment's own.
    pub embedded: bool,
}

impl Keep<'_> {
    /// Sees to it that somebody looks after the deployment from now on.
    pub fn start(&self, expires: Option<SystemTime>) -> Result<Keeper, CliError> {
        if let Some(manager) = Manager::find() {
            self.write_units(&manager, expires)?;
        } else if !self.embedded && self.running().is_none() {
            self.spawn()?;
        }
        Ok(self.find())
    }

    /// The same where there is something to look after: an end, or a site that lends.
    pub fn start_if_needed(&self, deployment: &Deployment) -> Result<(), CliError> {
        let settings = Settings::of(deployment)?;
        let lends = |site: &Site| matches!(site.kind, SiteKind::Cloudlab(_));
        if deployment.expires.is_some() || settings.sites.iter().any(lends) {
            self.start(deployment.expires)?;
        }
        Ok(())
    }

    /// Who looks after the deployment now.
    pub fn find(&self) -> Keeper {
        if let Some(manager) = Manager::find() {
            let unit = units::name(&self.owner, self.deployment);
            if manager.file(&unit, "timer").exists() {
                let lingers = manager.lingers();
                return Keeper::Systemd { unit, lingers };
            }
        }
        if let Some(id) = self.running() {
            return Keeper::Process { pid: id.pid };
        }
        let supervisor = crate::rendezvous::supervisor_of(self.layout, self.deployment);
        supervisor.map_or(Keeper::Nobody, |id| Keeper::Supervisor { pid: id.pid })
    }

    /// Nobody looks after the deployment any more. May be called by who does.
    pub fn stop(&self) -> Result<(), CliError> {
        if let Some(manager) = Manager::find() {
            let unit = units::name(&self.owner, self.deployment);
            let timer = manager.file(&unit, "timer");
            if timer.exists() {
                manager.run(&["disable", "--now", &format!("{unit}.timer")])?;
            }
            for file in [timer, manager.file(&unit, "service")] {
                match std::fs::remove_file(&file) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(CliError::file("remove", &file, e));
                    }
                    _ => {}
                }
            }
        }
        // A process of its own sees that there is nothing more to look after.
        Ok(())
    }

    fn write_units(&self, manager: &Manager, expires: Option<SystemTime>) -> Result<(), CliError> {
        let program = own_program()?;
        let units = units::Units {
            program: &program,
            state: &self.layout.state,
            cache: &self.layout.cache,
            sites: self.sites,
            deployment: self.deployment,
            expires,
        };
        let name = units::name(&self.owner, self.deployment);
        std::fs::create_dir_all(&manager.dir)
            .map_err(|e| CliError::file("create", &manager.dir, e))?;
        for (suffix, text) in [("service", units.service()), ("timer", units.timer())] {
            let path = manager.file(&name, suffix);
            files::write(&path, text.as_bytes(), 0o644)
                .map_err(|e| CliError::file("write", &path, e))?;
        }
        manager.run(&["daemon-reload"])?;
        manager.run(&["enable", &format!("{name}.timer")])?;
        // A changed time comes into force by a restart only.
        manager.run(&["restart", &format!("{name}.timer")])
    }

    fn dir(&self) -> PathBuf {
        self.layout.deployment(self.deployment)
    }

    fn id(&self) -> PathBuf {
        self.dir().join("keeper.json")
    }

    fn running(&self) -> Option<ProcessId> {
        ProcessId::read(&self.id()).filter(ProcessId::alive)
    }

    /// Starts `provision keep --stay`, which outlives this process.
    fn spawn(&self) -> Result<(), CliError> {
        let log = self.dir().join("keeper.log");
        let open = || {
            files::write(&log, b"", 0o600)?;
            File::options().append(true).open(&log)
        };
        let output = open().map_err(|e| CliError::file("write", &log, e))?;
        let failed =
            |e| CliError::new(ExitCode::Internal, "cannot start `provision keep`").caused_by(e);
        let errors = output.try_clone().map_err(failed)?;
        let mut command = keep_command(self.layout, self.deployment)?;
        command.arg("--stay").stdout(output).stderr(errors);
        if let Some(sites) = self.sites {
            command.arg("--sites").arg(sites);
        }
        let mut child = command.spawn().map_err(failed)?;
        let id = ProcessId::of(child.id()).and_then(|id| id.write(&self.id()));
        if let Err(e) = id {
            // One that nobody knows of could not be seen to run.
            let _ = child.kill();
            let _ = child.wait();
            return Err(CliError::file("write", &self.id(), e));
        }
        // Do not leave it a zombie if it ends while this process lives on.
        std::thread::spawn(move || child.wait());
        Ok(())
    }
}

/// `provision keep NAME`, as [`own_command`].
pub fn keep_command(layout: &Layout, deployment: &str) -> Result<Command, CliError> {
    own_command(layout, &["keep", deployment])
}

/// This program in a process group of its own, so that Ctrl-C does not reach it.
pub fn own_command(layout: &Layout, args: &[&str]) -> Result<Command, CliError> {
    let mut command = Command::new(own_program()?);
    command
        .args(args)
        .env("IPOP_STATE_DIR", &layout.state)
        .env("IPOP_CACHE_DIR", &layout.cache)
        .current_dir("/")
        .stdin(Stdio::null())
        .process_group(0);
    Ok(command)
}

/// What the database says of a deployment's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// It is to be destroyed then.
    Expires(SystemTime),
    /// It has no end.
    Endless,
    /// There is no such deployment.
    Gone,
}

impl Time {
    /// Reads it. An error means that nothing is known now.
    pub fn read(layout: &Layout, deployment: &str) -> Result<Self, CliError> {
        let path = layout.database();
        if !path.exists() {
            // Opening would make one.
            let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(CliError::file("open", &path, gone));
        }
        let found = Database::open(&path)?.deployment(deployment)?;
        Ok(match found {
            None => Self::Gone,
            Some(found) => found.expires.map_or(Self::Endless, Self::Expires),
        })
    }

    /// The end, if there is one.
    pub fn end(self) -> Option<SystemTime> {
        match self {
            Self::Expires(end) => Some(end),
            Self::Endless | Self::Gone => None,
        }
    }
}

/// The error for a deployment whose time is over.
pub fn over(name: &str, phase: Phase) -> CliError {
    let doing = if phase == Phase::Destroying {
        "is being destroyed"
    } else {
        "is over its time"
    };
    CliError::new(ExitCode::Name, format!("`{name}` {doing}")).hint(format!(
        "`provision destroy {name}` removes what is left of it"
    ))
}

/// This program.
pub fn own_program() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|e| {
        CliError::new(ExitCode::Internal, "cannot find this program's own file").caused_by(e)
    })
}

/// The instance of systemd that runs a user's timers: the system's for root, else the user's own.
#[derive(Debug)]
struct Manager {
    user: bool,
    dir: PathBuf,
}

impl Manager {
    /// None where systemd does not run (sd_booted(3)).
    fn find() -> Option<Self> {
        if !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        if rustix::process::geteuid().is_root() {
            let dir = PathBuf::from("/etc/systemd/system");
            return Some(Self { user: false, dir });
        }
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let runs = variable("XDG_RUNTIME_DIR").is_some_and(|dir| dir.join("systemd").is_dir());
        let config =
            variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
        let dir = config.join("systemd/user");
        runs.then_some(Self { user: true, dir })
    }

    fn file(&self, unit: &str, suffix: &str) -> PathBuf {
        self.dir.join(format!("{unit}.{suffix}"))
    }

    fn run(&self, words: &[&str]) -> Result<(), CliError> {
        let mut command = Command::new("systemctl");
        command.args(self.user.then_some("--user")).args(words);
        let output = command
            .output()
            .map_err(|e| CliError::program("systemctl", "systemd", e))?;
        if output.status.success() {
            return Ok(());
        }
        Err(CliError::child(ExitCode::Unavailable, &command, &output))
    }

    fn lingers(&self) -> bool {
        if !self.user {
            return true;
        }
        let mut command = Command::new("loginctl");
        command.args(["show-user", "--property=Linger", "--value"]);
        command.arg(rustix::process::getuid().as_raw().to_string());
        let output = command.output();
        output.is_ok_and(|o| o.stdout.starts_with(b"yes"))
    }
}
