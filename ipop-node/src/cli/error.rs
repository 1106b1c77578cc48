//! Errors as a person sees them.

use std::error::Error as StdError;
use std::fmt;

use crate::control::{ClientError, ServerError};
use crate::node::NodeError;
use crate::settings::SettingsError;

/// Exit codes; stable, listed in the long help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// An operating system error, or a defect.
    System = 1,
    /// Wrong arguments (clap's own code).
    Usage = 2,
    /// The configuration, or a file it names.
    Config = 3,
    /// Another node has the control socket.
    InUse = 4,
    /// No node answers.
    NoNode = 5,
    /// The TUN device cannot be made.
    Tun = 6,
    /// The rendezvous refuses the machine.
    Refused = 7,
    /// The machine is not linked in time.
    NotIn = 8,
    /// The peer is not the one to approve or to forget.
    Pinning = 9,
}

/// One sentence, its causes, and what to do.
#[derive(Debug)]
pub struct CliError {
    /// Process exit code.
    pub exit: Exit,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<String>,
}

impl CliError {
    /// An error without a cause.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            source: None,
            hint: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error's own text is the message, its source the cause.
    pub(super) fn of(exit: Exit, error: impl StdError + Send + Sync + 'static) -> Self {
        Self {
            exit,
            message: String::new(),
            source: Some(Box::new(error)),
            hint: None,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause = self.source.as_deref().map(|e| e as &dyn StdError);
        match (self.message.is_empty(), cause) {
            (true, Some(error)) => {
                write!(f, "error: {error}")?;
                cause = error.source();
            }
            _ => write!(f, "error: {}", self.message)?,
        }
        while let Some(error) = cause {
            // The TOML parser's text spans lines and ends with one.
            write!(f, "\ncaused by: {}", error.to_string().trim_end())?;
            cause = error.source();
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl StdError for CliError {}

impl From<SettingsError> for CliError {
    fn from(error: SettingsError) -> Self {
        let hint = match &error {
            SettingsError::Read { .. } => {
                "relative paths are looked up in $CREDENTIALS_DIRECTORY, then in the working directory"
            }
            SettingsError::Config { .. } => {
                "`ipop-node check --config FILE` reads it without running"
            }
            SettingsError::Identity { .. } => {
                "`ipop-node identity --create FILE` makes one: a PKCS#8 key (ECDSA P-256) and its \
                 certificate, as PEM"
            }
            SettingsError::RevocationList { .. } => {
                "authority.revoked names a PEM file with the list that `ipop-node authority revoke` \
                 makes; authority.keep is the node's own, and is made anew if you remove it, but what \
                 it knew is forgotten then"
            }
            SettingsError::Pins { .. } => {
                "take it from a backup; without the file nobody is approved, and all have to be again"
            }
            SettingsError::Rules { .. } => {
                "write the rules that shall be in force into it, as [[allow]] and nothing else; without \
                 the file those of the configuration are"
            }
            SettingsError::Authority { .. } => {
                "authority.certificate names a PEM file with the certificate of the overlay's authority"
            }
            SettingsError::Certificate { .. } => {
                "`ipop-node identity FILE --request CONFIG` asks the authority for one, and \
                 `--install CERTIFICATE` takes what it signed"
            }
            SettingsError::Key { .. } => {
                "the folder of node.identity must be there, and writable for the node"
            }
            SettingsError::OwnFingerprint(_) => {
                "write what `ipop-node identity FILE` prints on the peer"
            }
            SettingsError::NoPassword { .. } => {
                "write the XMPP account's password, or its token, into it, on one line"
            }
        };
        Self::of(Exit::Config, error).hint(hint)
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::Connect { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                "run this as root"
            }
            ClientError::Connect { .. } => {
                "start the node (`systemctl start ipop-node`), or name its socket with --control"
            }
            _ => "see the node's log (`journalctl -u ipop-node`)",
        };
        Self::of(Exit::NoNode, error).hint(hint)
    }
}

impl From<NodeError> for CliError {
    fn from(error: NodeError) -> Self {
        match &error {
            NodeError::Control(ServerError::InUse(_)) => Self::of(Exit::InUse, error)
                .hint("stop it first, or give this node another node.control in its configuration"),
            NodeError::Control(_) => Self::of(Exit::System, error)
                .hint("node.control in the configuration sets its path"),
            NodeError::Tun(tun) => {
                let hint = match tun.source.raw_os_error() {
                    Some(libc::EBUSY) => {
                        "another program has a device of this name; set another overlay.interface"
                    }
                    Some(libc::EPERM | libc::EACCES) => "run as root or with CAP_NET_ADMIN",
                    _ => "the kernel needs the tun module (`modprobe tun`)",
                };
                Self::of(Exit::Tun, error).hint(hint)
            }
            NodeError::Account(_) => Self::of(Exit::Config, error)
                .hint("see xmpp.jid, xmpp.servers and xmpp.ca_file in the configuration"),
            NodeError::TunLost { .. } => Self::of(Exit::System, error)
                .hint("somebody removed the device; start the node again"),
            NodeError::Ended(_) => Self::of(Exit::System, error)
                .hint("this is a defect of ipop-node; start the node again"),
            NodeError::Identity(_) | NodeError::System { .. } => Self::of(Exit::System, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_its_causes_and_a_hint() {
        let error = SettingsError::Read {
            what: "CA file",
            path: "ca.pem".into(),
            source: std::io::Error::from_raw_os_error(libc::ENOENT),
        };
        assert_eq!(
            CliError::from(error).to_string(),
            "error: cannot read the CA file ca.pem\n\
             caused by: No such file or directory (os error 2)\n\
             hint: relative paths are looked up in $CREDENTIALS_DIRECTORY, then in the working directory"
        );
    }

    #[test]
    fn a_second_node_has_an_exit_code_of_its_own() {
        let error = CliError::from(NodeError::from(ServerError::InUse("/run/x.sock".into())));
        assert_eq!(error.exit, Exit::InUse);
        assert!(error.to_string().starts_with(
            "error: another ipop-node already runs on the control socket /run/x.sock\nhint: "
        ));
    }
}
