//! How the system's resolver is told whom to ask for members' names.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipop_proto::config::ResolverKind;
use tokio::process::Command;

use super::resolv_conf;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The server that systemd-resolved writes into it.
const STUB: &str = "nameserver 127.0.0.53";
/// What it is called in the node's status.
const RESOLVED: &str = "systemd-resolved";
const BUS: &str = "/run/dbus/system_bus_socket";
/// How long `resolvectl` may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The system's resolver, and for what it is to ask here.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    kind: ResolverKind,
    interface: String,
    /// What it is to ask here for; the names' first.
    domains: Vec<String>,
    file: PathBuf,
}

/// It cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolverError {
    /// The file cannot be changed.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// There is no `resolvectl`, for one.
    #[error("cannot run resolvectl: {0}")]
    Run(io::Error),
    /// systemd-resolved does not do it.
    #[error("`resolvectl {command}` failed: {said}")]
    Refused { command: String, said: String },
    /// It hangs.
    #[error("systemd-resolved does not answer")]
    Silent,
    /// A defect.
    #[error("the task has ended")]
    Task(#[from] tokio::task::JoinError),
}

impl Resolver {
    pub(super) fn new(kind: ResolverKind, interface: &str, domains: Vec<String>) -> Self {
        Self {
            kind,
            interface: interface.to_owned(),
            domains,
            file: RESOLV_CONF.into(),
        }
    }

    /// Has it ask `server` for names of the overlay. The value names who was told, if somebody was.
    /// Whoever was `told` before is told again only if somebody else may have changed it.
    pub(super) async fn tell(
        &self,
        server: SocketAddr,
        told: Option<&String>,
    ) -> Result<Option<String>, ResolverError> {
        match self.kind() {
            ResolverKind::Resolved => {
                if told.is_none_or(|told| told != RESOLVED) {
                    self.tell_resolved(server).await?;
                }
                Ok(Some(RESOLVED.to_owned()))
            }
            ResolverKind::ResolvConf => {
                let (file, domain) = (self.file.clone(), self.domain());
                let edit = move |text: &str| resolv_conf::with(text, &domain, server.ip());
                tokio::task::spawn_blocking(move || change(&file, edit)).await??;
                Ok(Some(self.file.display().to_string()))
            }
            ResolverKind::Auto | ResolverKind::Volatile | ResolverKind::None => Ok(None),
        }
    }

    /// Takes it back. systemd-resolved forgets by itself what it was told of a device that is gone.
    pub(super) async fn forget(&self) -> Result<(), ResolverError> {
        if self.kind() != ResolverKind::ResolvConf {
            return Ok(());
        }
        let (file, domain) = (self.file.clone(), self.domain());
        let edit = move |text: &str| resolv_conf::without(text, &domain);
        tokio::task::spawn_blocking(move || change(&file, edit)).await?
    }

    /// The names' domain.
    fn domain(&self) -> String {
        self.domains.first().cloned().unwrap_or_default()
    }

    /// Which of the two it is on this machine.
    fn kind(&self) -> ResolverKind {
        match self.kind {
            ResolverKind::Auto | ResolverKind::Volatile => {
                let text = std::fs::read_to_string(&self.file).unwrap_or_default();
                let asks_stub = text.lines().any(|line| line.trim() == STUB);
                match (asks_stub, Path::new(BUS).exists()) {
                    (true, true) => ResolverKind::Resolved,
                    // The file is its own, and what it shall know is in its configuration: so are the
                    // machines that we make.
                    (true, false) => ResolverKind::None,
                    (false, _) if self.kind == ResolverKind::Volatile => ResolverKind::None,
                    (false, _) => ResolverKind::ResolvConf,
                }
            }
            told => told,
        }
    }

    async fn tell_resolved(&self, server: SocketAddr) -> Result<(), ResolverError> {
        let address = server.ip().to_string();
        let domains: Vec<_> = self.domains.iter().map(|name| format!("~{name}")).collect();
        let domains: Vec<_> = domains.iter().map(String::as_str).collect();
        // Names of the overlay are asked for here and nowhere else, and no others are.
        for (verb, values) in [
            ("dns", &[address.as_str()][..]),
            ("domain", &domains),
            ("default-route", &["no"]),
            ("dnssec", &["no"]),
            ("dnsovertls", &["no"]),
            ("llmnr", &["no"]),
            ("mdns", &["no"]),
        ] {
            resolvectl(&[&[verb, &self.interface], values].concat()).await?;
        }
        Ok(())
    }
}

async fn resolvectl(args: &[&str]) -> Result<(), ResolverError> {
    let mut command = Command::new("resolvectl");
    command.args(args).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output())
        .await
        .map_err(|_| ResolverError::Silent)?
        .map_err(ResolverError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    Err(ResolverError::Refused {
        command: args.join(" "),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Changes the file, unless it is already as wanted.
fn change(path: &Path, edit: impl FnOnce(&str) -> String) -> Result<(), ResolverError> {
    let failed = |what| {
        move |source| ResolverError::File {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(failed("read"))?,
    };
    let wanted = edit(&text);
    if wanted == text {
        return Ok(());
    }
    resolv_conf::write(path, &wanted).map_err(failed("write"))
}
