//! The connection to libvirt, and its errors in our words.

use std::sync::Mutex;

use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorNumber};

use crate::error::{CliError, ExitCode};

/// What libvirt said. Its own `Display` adds numbers that help nobody.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

/// Libvirt results that get the name of the object and a hint.
pub trait Context<T> {
    /// `what` is a sentence fragment naming the object: `cannot start domain "x"`.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, CliError>;

    /// `None` where libvirt says that there is no such object.
    fn if_exists(self) -> Result<Option<T>, VirtError>;
}

impl<T> Context<T> for Result<T, VirtError> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, CliError> {
        self.map_err(|e| explain(what(), &e))
    }

    fn if_exists(self) -> Result<Option<T>, VirtError> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The versions that decide what is done how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Of the daemon, `major * 1_000_000 + minor * 1000 + release`.
    pub libvirt: u32,
    /// Of QEMU, likewise.
    pub hypervisor: u32,
}

impl Versions {
    /// Asks the daemon.
    pub fn of(conn: &Connect) -> Result<Self, CliError> {
        let libvirt = conn
            .lib_version()
            .context(|| "cannot ask libvirt's version".into())?;
        let hypervisor = conn
            .hyp_version()
            .context(|| "cannot ask QEMU's version".into())?;
        Ok(Self {
            libvirt,
            hypervisor,
        })
    }

    /// QEMU 7.2 with more than one TCG thread panics Debian 13's kernel; QEMU 8 and later do not.
    pub fn tcg_is_parallel(self) -> bool {
        self.hypervisor >= 8_000_000
    }
}

/// `11003000` as `11.3.0`.
pub fn version_text(version: u32) -> String {
    format!(
        "{}.{}.{}",
        version / 1_000_000,
        version / 1000 % 1000,
        version % 1000
    )
}

/// A connection that is opened when first needed and again when it was lost. libvirt's connections
/// may be used by many threads at once.
#[derive(Debug)]
pub struct Connection {
    uri: String,
    open: Mutex<Option<Connect>>,
}

impl Connection {
    /// Opens nothing yet.
    pub fn new(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
            open: Mutex::new(None),
        }
    }

    /// The URI asked for.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Whether the daemon runs on this host, so that its files and addresses are ours.
    pub fn is_local(&self) -> bool {
        self.uri.split_once("://").is_some_and(|(scheme, rest)| {
            let here = !scheme.contains('+') || scheme.ends_with("+unix");
            here && (rest.starts_with('/') || rest.is_empty())
        })
    }

    /// The connection.
    pub fn open(&self) -> Result<Connect, CliError> {
        let mut open = self
            .open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(conn) = open.as_ref().filter(|c| c.is_alive().unwrap_or(false)) {
            return Ok(conn.clone());
        }
        // Without this libvirt writes every error to standard error, the expected ones too.
        virt::error::clear_error_callback();
        let conn = Connect::open(Some(&self.uri)).map_err(|e| self.unreachable(&e))?;
        *open = Some(conn.clone());
        Ok(conn)
    }

    fn unreachable(&self, e: &VirtError) -> CliError {
        let error = CliError::new(
            ExitCode::Unavailable,
            format!("cannot connect to libvirt at {}", self.uri),
        )
        .caused_by(Cause(e.message().to_owned()));
        let text = e.message().to_ascii_lowercase();
        if text.contains("permission denied") || text.contains("authenticat") {
            return error.hint(GROUP_HINT);
        }
        if !self.is_local() {
            return error.hint(format!(
                "check that `virsh -c {} version` works for you, without a password",
                self.uri
            ));
        }
        let error =
            error.hint("start it: `sudo systemctl start libvirtd`, or `scripts/start-libvirt`");
        if text.contains("no such file") {
            error.hint(
                "if it is not installed: `sudo apt install libvirt-daemon-system qemu-system-x86`",
            )
        } else {
            error
        }
    }
}

const GROUP_HINT: &str =
    "add yourself to the group libvirt: `sudo adduser $USER libvirt`, then log in again";

/// Turns a libvirt error into one for people.
pub fn explain(what: String, e: &VirtError) -> CliError {
    let text = e.message();
    let error = |code| CliError::new(code, what.clone()).caused_by(Cause(text.to_owned()));
    if is_disk_full(e) {
        return error(ExitCode::Missing).hint("free some disk space on the libvirt host");
    }
    let number = e.code();
    if [
        ErrorNumber::AccessDenied,
        ErrorNumber::AuthFailed,
        ErrorNumber::AuthUnavailable,
    ]
    .iter()
    .any(|n| number.is(*n))
    {
        return error(ExitCode::Unavailable).hint(GROUP_HINT);
    }
    error(ExitCode::Unavailable)
}

/// Whether the host's disk is full.
pub fn is_disk_full(e: &VirtError) -> bool {
    e.message().contains("No space left on device")
}

fn is_absent(e: &VirtError) -> bool {
    [
        ErrorNumber::NoDomain,
        ErrorNumber::NoNetwork,
        ErrorNumber::NoStoragePool,
        ErrorNumber::NoStorageVolume,
    ]
    .iter()
    .any(|n| e.code().is(*n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_answer_is_named_with_what_to_do() {
        let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
        let error = Connection::new(uri).open().unwrap_err();
        assert_eq!(error.code, ExitCode::Unavailable);
        assert_eq!(error.message, format!("cannot connect to libvirt at {uri}"));
        assert!(error.to_string().contains("caused by: "), "{error}");
        assert!(!error.hints.is_empty());
    }

    #[test]
    fn only_uris_without_a_host_and_its_transport_are_local() {
        for (uri, local) in [
            ("qemu:///system", true),
            ("test:///default", true),
            ("qemu+ssh://root@host/system", false),
            ("qemu+unix:///system?socket=/x", true),
            ("qemu://host/system", false),
        ] {
            assert_eq!(Connection::new(uri).is_local(), local, "{uri}");
        }
    }

    #[test]
    fn a_connection_is_kept_and_an_absent_object_is_no_error() {
        let connection = Connection::new("test:///default");
        let conn = connection.open().unwrap();
        assert!(
            conn.lookup_domain_by_name("nothing")
                .if_exists()
                .unwrap()
                .is_none()
        );
        assert!(
            conn.lookup_domain_by_name("test")
                .if_exists()
                .unwrap()
                .is_some()
        );
        assert!(
            conn.lookup_storage_pool_by_name("nothing")
                .if_exists()
                .unwrap()
                .is_none()
        );
        assert!(
            conn.lookup_network_by_name("nothing")
                .if_exists()
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(version_text(11_003_000), "11.3.0");
        assert!(
            !Versions {
                libvirt: 9_000_000,
                hypervisor: 7_002_022
            }
            .tcg_is_parallel()
        );
        assert!(
            Versions {
                libvirt: 9_000_000,
                hypervisor: 10_000_002
            }
            .tcg_is_parallel()
        );
    }
}
