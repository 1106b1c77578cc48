//! Whether a host's KVM really runs a Linux guest.
//!
//! Capabilities do not tell: a nested host may list KVM, answer its API, and die at the guest's
//! first odd instruction. So a kernel is booted once, without a disk and without a network, until
//! it panics for want of a root file system: then it has come through all of its start.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;

use super::connection::{Connection, Versions};
use super::domain::{self, DomainValues, domain_xml};
use super::storage::{NewVolume, Pool};
use crate::error::CliError;

/// How a guest's instructions are run; also libvirt's word for the domain's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accel {
    /// By the processor.
    #[serde(rename = "kvm")]
    Kvm,
    /// By QEMU's translator.
    #[serde(rename = "qemu")]
    Tcg,
}

/// What trying gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What to use.
    pub accel: Accel,
    /// Why, for people.
    pub reason: String,
}

/// What the names of the domain and the volumes used for trying begin with.
pub const PROBE: &str = "ipop-probe-";
/// With KVM the kernel gets there in one or two seconds.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);
/// The panic for want of a root file system, in all kernels since 2.6.
const REACHED: &str = "Unable to mount root fs";

/// Where verdicts are kept: per host, libvirt and QEMU version and, where this is the host, boot.
#[derive(Debug)]
pub struct Memory {
    file: PathBuf,
}

impl Memory {
    /// Names the file for the host behind `connection`. Makes nothing.
    pub fn new(cache: &Path, connection: &Connection, conn: &Connect, versions: Versions) -> Self {
        let boot = if connection.is_local() {
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
        } else {
            String::new()
        };
        let host = conn.hostname().unwrap_or_default();
        let key = format!("{}\n{host}\n{versions:?}\n{boot}", connection.uri());
        let digest: String = Sha256::digest(key)[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Self {
            file: cache.join(format!("libvirt-accel-{digest}.json")),
        }
    }

    /// The verdict kept. A defective file is no verdict.
    pub fn recall(&self) -> Option<Verdict> {
        serde_json::from_slice(&std::fs::read(&self.file).ok()?).ok()
    }

    /// Keeps the verdict. Failing to costs another try, no more.
    pub fn keep(&self, verdict: &Verdict) {
        let written = serde_json::to_vec(verdict)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&self.file, text));
        if let Err(error) = written {
            tracing::debug!(file = %self.file.display(), %error, "verdict on acceleration not kept");
        }
    }
}

/// Tries KVM with the kernel at `kernel` on the host. `name` names the domain and the log; no other
/// try of that name may be under way.
pub fn probe(conn: &Connect, pool: &Pool, name: &str, kernel: &str) -> Result<Verdict, CliError> {
    let listed = conn
        .capabilities()
        .is_ok_and(|c| c.contains("<domain type='kvm'"));
    let tried = if listed {
        boot(conn, pool, name, kernel, Accel::Kvm, LIMIT)?
    } else {
        Err("the host offers no KVM".into())
    };
    Ok(match tried {
        Ok(took) => Verdict {
            accel: Accel::Kvm,
            reason: format!("KVM booted a kernel in {:.1} s", took.as_secs_f32()),
        },
        Err(why) => Verdict {
            accel: Accel::Tcg,
            reason: format!("KVM does not serve: {why}"),
        },
    })
}

/// Boots the kernel until it misses its root file system. How long that took, or why it did not
/// come so far.
pub fn boot(
    conn: &Connect,
    pool: &Pool,
    name: &str,
    kernel: &str,
    accel: Accel,
    limit: Duration,
) -> Result<Result<Duration, String>, CliError> {
    // What a killed try left.
    domain::remove(conn, name)?;
    let log = format!("{name}.console");
    let empty = NewVolume {
        name: &log,
        capacity: 0,
        format: "raw",
        mode: "0600",
        backing: None,
    };
    let (_, console) = pool.create(empty)?;
    let xml = domain_xml(DomainValues {
        name,
        uuid: None,
        accel,
        owner: None,
        memory_mib: 256,
        cpus: 1,
        kernel,
        initrd: None,
        cmdline: "console=ttyS0 panic=-1",
        disk: None,
        data: None,
        personal: None,
        network: None,
        mac: "",
        lan: None,
        console: &console,
    })?;
    // Autodestroy: it goes with our connection, even if we are killed.
    let tried = match conn.create_domain_xml(&xml, sys::VIR_DOMAIN_START_AUTODESTROY) {
        Err(e) => Ok(Err(last_line(e.message().as_bytes()))),
        Ok(domain) => watch(&domain, pool, &log, limit),
    };
    domain::remove(conn, name)?;
    pool.remove_log(&log)?;
    tried
}

fn watch(
    domain: &Domain,
    pool: &Pool,
    log: &str,
    limit: Duration,
) -> Result<Result<Duration, String>, CliError> {
    let started = Instant::now();
    let mut stopped_before = false;
    loop {
        let running = domain::runs(domain);
        let text = pool.tail(log, 1 << 20)?;
        if String::from_utf8_lossy(&text).contains(REACHED) {
            return Ok(Ok(started.elapsed()));
        }
        // Once more round after it stopped: virtlogd may still be writing its last words.
        if stopped_before || started.elapsed() > limit {
            let how = if running { "hung" } else { "stopped" };
            return Ok(Err(match last_line(&text) {
                line if line.is_empty() => format!("a guest {how} before its first word"),
                line => format!("a guest {how} after \"{line}\""),
            }));
        }
        stopped_before = !running;
        std::thread::sleep(POLL);
    }
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text
        .lines()
        .map(str::trim)
        .rfind(|l| !l.is_empty())
        .unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_kept_for_one_host_and_version() {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::new("test:///default");
        let conn = connection.open().unwrap();
        let versions = Versions {
            libvirt: 11_003_000,
            hypervisor: 10_000_002,
        };
        let memory = Memory::new(dir.path(), &connection, &conn, versions);
        assert_eq!(memory.recall(), None);
        let verdict = Verdict {
            accel: Accel::Tcg,
            reason: "tried".into(),
        };
        memory.keep(&verdict);
        assert_eq!(memory.recall(), Some(verdict));
        let newer = Versions {
            hypervisor: 10_001_000,
            ..versions
        };
        assert_eq!(
            Memory::new(dir.path(), &connection, &conn, newer).recall(),
            None
        );
        std::fs::write(&memory.file, "{").unwrap();
        assert_eq!(memory.recall(), None);
    }

    #[test]
    fn a_host_without_kvm_is_not_tried() {
        let conn = Connect::open(Some("test:///default")).unwrap();
        let pool = Pool::ensure(&conn, "default-pool", None).unwrap();
        let verdict = probe(&conn, &pool, "unit", "/boot/vmlinuz").unwrap();
        assert_eq!(verdict.accel, Accel::Tcg);
        assert_eq!(verdict.reason, "KVM does not serve: the host offers no KVM");
    }

    #[test]
    fn the_last_line_of_a_console_is_cleaned_and_cut() {
        assert_eq!(last_line(b"a\r\n\x1b[0mKernel\r\n\r\n"), "[0mKernel");
        assert_eq!(last_line(b""), "");
        assert_eq!(last_line("x".repeat(500).as_bytes()).len(), 120);
    }
}
