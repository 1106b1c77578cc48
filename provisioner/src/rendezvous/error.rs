//! What can go wrong with a rendezvous.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::api::ApiError;
use super::ca::CaError;
use crate::error::{CliError, ExitCode};

/// The rendezvous cannot be prepared, started, stopped or used.
#[derive(Debug, thiserror::Error)]
pub enum RendezvousError {
    /// ejabberd or Erlang is not installed.
    #[error("ejabberd is not installed: {0} not found")]
    NotInstalled(String),
    /// The machine has no user to run ejabberd as.
    #[error("this machine has no user `ejabberd` to run the rendezvous as")]
    NoUser,
    /// Another program has the port.
    #[error("the rendezvous cannot listen on {proto} {address}")]
    Port {
        /// `TCP` or `UDP`.
        proto: &'static str,
        /// The address and port.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No address to listen on.
    #[error("the rendezvous of `{0}` has no address to listen on")]
    NoAddress(String),
    /// An external server's name has no address.
    #[error("the address of the XMPP server `{server}` cannot be found")]
    Resolve {
        /// `host:port` as configured.
        server: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It was never prepared.
    #[error("`{0}` has no rendezvous on this machine")]
    Absent(String),
    /// ejabberd ended before it ever answered.
    #[error("the rendezvous of `{deployment}` ended while starting; the end of {}:\n{tail}", .log.display())]
    Ended {
        /// The deployment.
        deployment: String,
        /// Its log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// It does not answer in time.
    #[error("the rendezvous of `{deployment}` did not answer within {waited:?}; the end of {}:\n{tail}", .log.display())]
    NoAnswer {
        /// The deployment.
        deployment: String,
        /// How long was waited.
        waited: Duration,
        /// Its log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// A process does not end.
    #[error("process {pid} of the rendezvous of `{deployment}` does not end")]
    WillNotStop {
        /// The deployment.
        deployment: String,
        /// The process.
        pid: u32,
    },
    /// A process could not be started, signalled or waited for.
    #[error("cannot {what}")]
    Process {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error("cannot use {}", .path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file of ours does not hold what we wrote.
    #[error("{} is damaged", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The configuration template failed: a defect of this program.
    #[error("cannot render the rendezvous's configuration")]
    Render(#[source] minijinja::Error),
    /// The operating system gives no randomness.
    #[error("cannot get randomness for a password")]
    Entropy(#[source] std::io::Error),
    /// An external server's password is not there.
    #[error("the password of `{admin}` on the external rendezvous is not to be had from {place}")]
    NoPassword {
        /// The administrator's JID.
        admin: String,
        /// Variable or file.
        place: String,
    },
    /// The certification authority failed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A call to the server's API failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Not a resource of a rendezvous.
    #[error("`{0}` is no resource of a rendezvous")]
    UnknownResource(String),
}

impl RendezvousError {
    pub(super) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn process(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Process {
            what: what.into(),
            source,
        }
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::NotInstalled(_) | Self::NoUser => ExitCode::Missing,
            Self::Port { .. } | Self::Ended { .. } | Self::NoAnswer { .. } | Self::Api(_) => {
                ExitCode::Unavailable
            }
            Self::NoAddress(_) | Self::NoPassword { .. } | Self::Resolve { .. } => ExitCode::Config,
            Self::File { source, .. }
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::PermissionDenied
                ) =>
            {
                ExitCode::Missing
            }
            Self::Absent(_) => ExitCode::Name,
            Self::WillNotStop { .. } => ExitCode::Leftover,
            _ => ExitCode::Internal,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotInstalled(_) | Self::NoUser => {
                "install it with: apt-get install --no-install-recommends ejabberd"
            }
            Self::Port { source, .. } => match source.kind() {
                std::io::ErrorKind::AddrInUse => {
                    "another program has this port: stop it, or set c2s_port or stun_port in \
                     [rendezvous]"
                }
                std::io::ErrorKind::AddrNotAvailable => {
                    "this machine does not have that address now: bring its network or bridge up"
                }
                _ => "choose another port or address in [rendezvous]",
            },
            Self::NoAddress(_) => "set `listen` in [rendezvous] to addresses of this machine",
            Self::Resolve { .. } => {
                "write `servers` in [rendezvous] as host:port, and check the name"
            }
            Self::NoPassword { .. } => "set password_env or password_file in [rendezvous]",
            Self::Api(ApiError::Forbidden { .. }) => {
                "check admin and its password in [rendezvous], and api_permissions on the server"
            }
            Self::Api(ApiError::Unreachable { .. }) => "check that the rendezvous runs",
            _ => return None,
        })
    }
}

impl From<RendezvousError> for CliError {
    fn from(error: RendezvousError) -> Self {
        let mut cli = Self::new(error.code(), error.to_string());
        if let Some(hint) = error.hint() {
            cli = cli.hint(hint);
        }
        cli.source = cause(error);
        cli
    }
}

/// The cause of an error whose own text is already said.
fn cause(error: RendezvousError) -> Option<Box<dyn std::error::Error + Send + Sync>> {
    match error {
        RendezvousError::Port { source, .. }
        | RendezvousError::Resolve { source, .. }
        | RendezvousError::Process { source, .. }
        | RendezvousError::File { source, .. }
        | RendezvousError::Entropy(source) => Some(source.into()),
        RendezvousError::Damaged { source, .. } => Some(source.into()),
        RendezvousError::Render(source) => Some(source.into()),
        RendezvousError::Ca(CaError::Certificate { source, .. }) => Some(source.into()),
        RendezvousError::Ca(CaError::File { source, .. }) => Some(source.into()),
        RendezvousError::Api(ApiError::Unreachable { source, .. }) => Some(source.into()),
        RendezvousError::Api(ApiError::Target(source)) => Some(source.into()),
        _ => None,
    }
}
