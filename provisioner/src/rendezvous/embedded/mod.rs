//! An ejabberd of our own: prepared, started, stopped.

mod erlang;
mod owner;
mod process;
mod spec;
mod strays;
mod supervisor;
mod time;

use std::fs::File;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::api::{Api, ApiError};
use super::ca::Ca;
use super::config::EmbeddedConfig;
use super::{Endpoint, RendezvousError, State, files};
use crate::layout::Layout;
use owner::Owner;
pub use process::ProcessId;
use spec::Spec;
pub use strays::{Stray, strays};
pub use supervisor::supervise;

/// Longest wait for the server's first answer. It takes 1 to 3 s alone, many more beside emulated
/// machines.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for the supervisor, which itself gives ejabberd [`supervisor::STOP_LIMIT`].
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Interval at which something awaited is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How much of a log an error shows, in bytes.
const TAIL: u64 = 3000;

/// The embedded server of one deployment.
pub struct Embedded {
    deployment: String,
    domain: String,
    state_dir: PathBuf,
    paths: Paths,
    config: EmbeddedConfig,
}

/// The server's files. All are below [`Layout::rendezvous`].
#[derive(Debug, Clone)]
struct Paths {
    dir: PathBuf,
}

impl Paths {
    fn new(layout: &Layout, deployment: &str) -> Self {
        Self {
            dir: layout.rendezvous(deployment),
        }
    }
    fn spec(&self) -> PathBuf {
        self.dir.join("spec.json")
    }
    fn ca_pem(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }
    fn server_pem(&self) -> PathBuf {
        self.dir.join("server.pem")
    }
    fn ejabberd_yml(&self) -> PathBuf {
        self.dir.join("ejabberd.yml")
    }
    fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }
    fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }
    fn ejabberd_log(&self) -> PathBuf {
        self.log_dir().join("ejabberd.log")
    }
    fn api_socket(&self) -> PathBuf {
        self.spool().join(spec::API_SOCKET)
    }
    fn api(&self, domain: &str) -> Result<Api, RendezvousError> {
        let url = format!("unix:{}", self.api_socket().display());
        Ok(Api::new(&url, domain, "", None).map_err(ApiError::Target)?)
    }
    fn supervisor_log(&self) -> PathBuf {
        self.dir.join("supervisor.log")
    }
    fn supervisor_id(&self) -> PathBuf {
        self.dir.join("supervisor.json")
    }
    fn server_id(&self) -> PathBuf {
        self.dir.join("server.json")
    }
    fn start_lock(&self) -> PathBuf {
        self.dir.join("start.lock")
    }
    fn lock(&self) -> PathBuf {
        self.dir.join("supervisor.lock")
    }
}

impl Embedded {
    /// The server of `deployment`; nothing is made.
    pub fn new(layout: &Layout, deployment: &str, config: EmbeddedConfig) -> Self {
        Self {
            deployment: deployment.to_owned(),
            domain: domain_of(deployment),
            state_dir: layout.state.clone(),
            paths: Paths::new(layout, deployment),
            config,
        }
    }

    /// Its XMPP domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Its API.
    pub fn api(&self) -> Result<Api, RendezvousError> {
        self.paths.api(&self.domain)
    }

    /// Where its clients connect.
    pub fn endpoint(&self) -> Result<Endpoint, RendezvousError> {
        let spec = Spec::read(&self.paths.spec())?
            .ok_or_else(|| RendezvousError::Absent(self.deployment.clone()))?;
        let path = self.paths.ca_pem();
        let ca_pem = std::fs::read_to_string(&path)
            .map_err(|source| RendezvousError::file(&path, source))?;
        Ok(Endpoint {
            domain: spec.domain.clone(),
            servers: spec.servers(),
            ca_pem,
        })
    }

    /// Whether it serves.
    pub fn state(&self) -> State {
        if !self.paths.spec().exists() {
            return State::Absent;
        }
        match ProcessId::read(&self.paths.supervisor_id()).filter(ProcessId::alive) {
            None => State::Stopped,
            Some(id) => match self.api().map(|api| api.ping()) {
                Ok(Ok(())) => State::Running { pid: Some(id.pid) },
                _ => State::Starting { pid: id.pid },
            },
        }
    }

    /// Starts the supervisor and waits until the API answers.
    pub fn start(
        &self,
        listen: &[IpAddr],
        supervisor: Option<Command>,
    ) -> Result<Endpoint, RendezvousError> {
        let _one_at_a_time = self.start_lock()?;
        match self.state() {
            State::Running { .. } if self.listens(listen)? => return self.endpoint(),
            // A site was added: clients of the others sign in again, links outlive that.
            State::Running { .. } => self.stop()?,
            State::Starting { pid } => {
                let id = ProcessId::read(&self.paths.supervisor_id()).filter(|id| id.pid == pid);
                self.wait_until_up(|| id.as_ref().is_some_and(ProcessId::alive))?;
                return self.endpoint();
            }
            State::Stopped | State::Absent => {}
        }
        // A server whose supervisor was killed is still running: end it before its successor.
        self.end(&self.paths.server_id())?;
        let spec = self.prepare(listen)?;
        spec.check_ports()?;
        self.spawn(supervisor)?;
        self.endpoint()
    }

    /// Whether it was prepared to listen on all of these.
    fn listens(&self, addresses: &[IpAddr]) -> Result<bool, RendezvousError> {
        let spec = Spec::read(&self.paths.spec())?;
        Ok(spec.is_none_or(|spec| addresses.iter().all(|a| spec.listen.contains(a))))
    }

    /// Stops the supervisor and its ejabberd.
    pub fn stop(&self) -> Result<(), RendezvousError> {
        self.end(&self.paths.supervisor_id())?;
        // Only when the supervisor could not do it itself.
        self.end(&self.paths.server_id())?;
        match std::fs::remove_file(self.paths.api_socket()) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(RendezvousError::file(&self.paths.api_socket(), source))
            }
            _ => Ok(()),
        }
    }

    fn start_lock(&self) -> Result<File, RendezvousError> {
        let path = self.paths.start_lock();
        files::private_dir(&self.paths.dir)
            .and_then(|()| File::create(&path))
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|source| RendezvousError::file(&path, source))
    }

    /// Writes everything the server needs, keeping what must stay: ports, CA, spool.
    fn prepare(&self, listen: &[IpAddr]) -> Result<Spec, RendezvousError> {
        erlang::Installation::find()?;
        let owner = Owner::find()?;
        let dir = &self.paths.dir;
        let file = |source| RendezvousError::file(dir, source);
        files::private_dir(dir).map_err(file)?;
        owner.let_through(&self.state_dir, dir).map_err(file)?;
        for path in [self.paths.spool(), self.paths.log_dir()] {
            files::private_dir(&path)
                .and_then(|()| owner.give(&path))
                .map_err(|source| RendezvousError::file(&path, source))?;
        }

        let addresses: Vec<IpAddr> = listen.iter().chain(&self.config.listen).copied().collect();
        let old = Spec::read(&self.paths.spec())?;
        let spec = Spec::choose(
            &self.deployment,
            &self.domain,
            &addresses,
            &self.config,
            old,
        )?;
        spec.write(&self.paths.spec())?;

        let now = SystemTime::now();
        let ca = Ca::open(dir, &self.domain, now)?;
        let identity = ca.issue_server(now)?;
        let both = format!("{}{}", identity.certificate_pem, identity.key_pem.expose());
        self.hand_over(&owner, &self.paths.server_pem(), &both)?;
        let yml = spec
            .render(&self.deployment, &self.paths)
            .map_err(RendezvousError::Render)?;
        self.hand_over(&owner, &self.paths.ejabberd_yml(), &yml)?;
        Ok(spec)
    }

    /// Writes a file that the server may read and not change.
    fn hand_over(&self, owner: &Owner, path: &Path, text: &str) -> Result<(), RendezvousError> {
        files::write(path, text.as_bytes(), 0o600)
            .and_then(|()| owner.let_read(path))
            .map_err(|source| RendezvousError::file(path, source))
    }

    fn spawn(&self, supervisor: Option<Command>) -> Result<(), RendezvousError> {
        let log = self.paths.supervisor_log();
        let file = |source| RendezvousError::file(&log, source);
        files::write(&log, b"", 0o600).map_err(file)?;
        let output = std::fs::OpenOptions::new()
            .append(true)
            .open(&log)
            .map_err(file)?;
        let errors = output.try_clone().map_err(file)?;
        let mut command = match supervisor {
            Some(command) => command,
            None => own_command(&self.deployment)?,
        };
        // The supervisor makes itself a session of its own and outlives this process.
        let mut child = command
            .env("IPOP_STATE_DIR", &self.state_dir)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|source| RendezvousError::process("start the supervisor", source))?;
        let started = self.wait_until_up(|| matches!(child.try_wait(), Ok(None)));
        if started.is_err() {
            // The first error is the one to tell; what is left is found again by its id.
            let _ = self.stop();
            let _ = child.wait();
        } else {
            // Whoever starts it lives on for a while: do not leave it a zombie if it ends.
            std::thread::spawn(move || child.wait());
        }
        started
    }

    /// Waits until the API answers, as long as `alive` says that there is something to wait for.
    fn wait_until_up(&self, mut alive: impl FnMut() -> bool) -> Result<(), RendezvousError> {
        let (api, began) = (self.api()?, Instant::now());
        loop {
            // Asked before the API: the last answer of a process that just ended counts.
            let lives = alive();
            if api.ping().is_ok() {
                return Ok(());
            }
            if !lives {
                let (log, tail) = self.log_tail();
                return Err(RendezvousError::Ended {
                    deployment: self.deployment.clone(),
                    log,
                    tail,
                });
            }
            if began.elapsed() > START_LIMIT {
                let (log, tail) = self.log_tail();
                return Err(RendezvousError::NoAnswer {
                    deployment: self.deployment.clone(),
                    waited: START_LIMIT,
                    log,
                    tail,
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// The end of ejabberd's log, or of the supervisor's when ejabberd did not get that far.
    fn log_tail(&self) -> (PathBuf, String) {
        let log = self.paths.ejabberd_log();
        let tail = files::tail(&log, TAIL);
        if tail.contains("[critical]") || tail.contains("[error]") {
            return (log, tail.trim_end().to_owned());
        }
        let log = self.paths.supervisor_log();
        let tail = files::tail(&log, TAIL);
        (log, tail.trim_end().to_owned())
    }

    /// Ends the process recorded in `path`, and forgets it.
    fn end(&self, path: &Path) -> Result<(), RendezvousError> {
        if let Some(id) = ProcessId::read(path) {
            let failed = |source| {
                RendezvousError::process(
                    format!("stop process {} of the rendezvous", id.pid),
                    source,
                )
            };
            if !id.end(STOP_LIMIT).map_err(failed)? {
                return Err(RendezvousError::WillNotStop {
                    deployment: self.deployment.clone(),
                    pid: id.pid,
                });
            }
        }
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(RendezvousError::file(path, source))
            }
            _ => Ok(()),
        }
    }
}

/// The supervisor of a deployment's server, if it runs.
pub fn supervisor_of(layout: &Layout, deployment: &str) -> Option<ProcessId> {
    let paths = Paths::new(layout, deployment);
    ProcessId::read(&paths.supervisor_id()).filter(ProcessId::alive)
}

/// XMPP domain of the server of `deployment`.
fn domain_of(deployment: &str) -> String {
    format!("{deployment}.ipop")
}

/// This program as what runs beside a rendezvous.
pub fn own_command(deployment: &str) -> Result<Command, RendezvousError> {
    let program = std::env::current_exe()
        .map_err(|source| RendezvousError::process("find this program's own file", source))?;
    let mut command = Command::new(program);
    command.args(["rendezvous", "run", deployment]);
    Ok(command)
}

/// Adds permission bits to a path's mode.
fn add_mode(path: &Path, bits: u32) -> std::io::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & bits == bits {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | bits))
}
