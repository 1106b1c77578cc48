//! What of ours runs beside somebody else's ejabberd: it signs nodes' certificates and has elastic
//! workers come and go while no command does anything. The supervisor of a server of our own does that too.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::embedded::{ProcessId, own_command};
use super::{RendezvousError, files};
use crate::authority::registrar::Registrar;
use crate::layout::Layout;
use crate::power;

/// How long it may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Between looks whether there is a deployment.
const LOOK: Duration = Duration::from_secs(10);

/// The process of one deployment.
#[derive(Debug, Clone)]
pub struct Attendant {
    deployment: String,
    state_dir: PathBuf,
    dir: PathBuf,
}

impl Attendant {
    /// That of `deployment`; nothing is started.
    pub fn new(layout: &Layout, deployment: &str) -> Self {
        Self {
            deployment: deployment.to_owned(),
            state_dir: layout.state.clone(),
            dir: layout.rendezvous(deployment),
        }
    }

    /// Starts it, if it does not run. It outlives this process.
    pub fn start(&self) -> Result<(), RendezvousError> {
        if self.running().is_some() {
            return Ok(());
        }
        let log = self.dir.join("attendant.log");
        let file = |source| RendezvousError::file(&log, source);
        files::private_dir(&self.dir)
            .and_then(|()| files::write(&log, b"", 0o600))
            .map_err(file)?;
        let open = || File::options().append(true).open(&log).map_err(file);
        let child = own_command(&self.deployment)?
            .env("IPOP_STATE_DIR", &self.state_dir)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .spawn();
        let mut child =
            child.map_err(|source| RendezvousError::process("start the attendant", source))?;
        // Whoever starts it lives on for a while: do not leave it a zombie if it ends.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// Ends it.
    pub fn stop(&self) -> Result<(), RendezvousError> {
        if let Some(id) = self.running() {
            id.end(STOP_LIMIT)
                .map_err(|source| RendezvousError::process("stop the attendant", source))?;
        }
        Ok(())
    }

    fn running(&self) -> Option<ProcessId> {
        ProcessId::read(&self.id()).filter(ProcessId::alive)
    }

    fn id(&self) -> PathBuf {
        self.dir.join("attendant.json")
    }
}

/// Does the attendant's work in the foreground, until SIGTERM or SIGINT or the deployment's end.
pub fn attend(layout: &Layout, deployment: &str) -> Result<(), RendezvousError> {
    // Fails for a process group's leader, such as a service of systemd: that is apart already.
    let _ = rustix::process::setsid();
    let attendant = Attendant::new(layout, deployment);
    let path = attendant.dir.join("attendant.lock");
    let lock = File::create(&path).map_err(|source| RendezvousError::file(&path, source))?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    let id = attendant.id();
    ProcessId::of(std::process::id())
        .and_then(|own| own.write(&id))
        .map_err(|source| RendezvousError::file(&id, source))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RendezvousError::process("start a runtime", source))?;
    runtime.block_on(async {
        let handler = |source| RendezvousError::process("handle signals", source);
        let mut term = signal(SignalKind::terminate()).map_err(handler)?;
        let mut int = signal(SignalKind::interrupt()).map_err(handler)?;
        let registrar = Registrar::new(layout, deployment);
        tokio::select! {
            never = registrar.serve() => match never {},
            never = power::keeper::keep(layout.clone(), deployment.to_owned()) => match never {},
            () = gone(&attendant.dir) => {}
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    })
}

/// Returns when the directory is removed.
async fn gone(dir: &Path) {
    while !matches!(dir.metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        tokio::time::sleep(LOOK).await;
    }
}
