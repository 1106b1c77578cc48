//! The connection to libvirt, and its errors in our words.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use virt::connect::Connect;
use virt::error::Error as VirtError;

use super::config::LibvirtSite;
use super::errors::{explain, is_absent, unreachable};
use super::transport::Transport;
use crate::error::CliError;

/// Seconds between questions to a daemon that says nothing, and how many it may leave unanswered.
const KEEPALIVE: (i32, u32) = (5, 4);

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
    transport: Transport,
    open: Mutex<Option<Connect>>,
}

impl Connection {
    /// Opens nothing yet.
    pub fn new(uri: &str) -> Self {
        let site = LibvirtSite {
            uri: uri.to_owned(),
            ..LibvirtSite::default()
        };
        Self::of(&site, Path::new("/nonexistent"))
    }

    /// For a site; in `cache` is what its transport needs. Opens nothing yet.
    pub fn of(site: &LibvirtSite, cache: &Path) -> Self {
        Self {
            uri: site.uri.clone(),
            transport: Transport::of(site, cache),
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
        let mut open = self.locked();
        if let Some(conn) = open.as_ref().filter(|c| c.is_alive().unwrap_or(false)) {
            return Ok(conn.clone());
        }
        *open = None;
        // Without this libvirt writes every error to standard error, the expected ones too.
        virt::error::clear_error_callback();
        run_event_loop();
        self.transport.prepare()?;
        let conn = Connect::open(Some(&self.transport.uri))
            .map_err(|e| unreachable(&self.uri, self.is_local(), e.message()))?;
        // A driver inside this process has no connection that could be lost.
        if let Err(error) = conn.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1) {
            tracing::debug!(uri = self.uri, error = error.message(), "no keepalive");
        }
        *open = Some(conn.clone());
        Ok(conn)
    }

    /// Gives up a connection on which a call hangs; the next call opens another.
    pub fn forget(&self) {
        // Held, it is just being opened, by a thread whose own time is limited.
        if let Ok(mut open) = self.open.try_lock()
            && let Some(conn) = open.take()
        {
            // Closing it may hang like every call on it.
            std::mem::forget(conn);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Option<Connect>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// libvirt asks a silent daemon whether it lives only where somebody runs its event loop.
fn run_event_loop() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        if let Err(error) = virt::event::event_register_default_impl() {
            tracing::warn!(error = error.message(), "no event loop for libvirt");
            return;
        }
        std::thread::spawn(|| {
            loop {
                if let Err(error) = virt::event::event_run_default_impl() {
                    tracing::warn!(error = error.message(), "libvirt's event loop");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ExitCode;

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
