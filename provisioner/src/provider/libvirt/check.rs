//! `site check` for a libvirt host: each line tries one thing for real.

use std::path::{Path, PathBuf};

use virt::connect::Connect;

use super::accel::{self, Accel, Memory, Verdict};
use super::connection::{Versions, version_text};
use super::storage::Pool;
use super::{Host, lan, network};
use crate::error::{CliError, ExitCode};
use crate::provider::CheckLine;

/// A role's image, unpacked, with room for a few machines to write.
const ROOM: u64 = 4 << 30;
/// Prefix of the network that is made to see whether one starts.
const NETWORK: &str = "ipop-check-";

impl Host {
    /// All lines; after one without which nothing works, no more follow.
    pub(super) fn check_host(&self) -> Vec<CheckLine> {
        let mut lines = Vec::new();
        let connected = self
            .connection
            .open()
            .and_then(|c| Versions::of(&c).map(|v| (c, v)));
        let (conn, versions) = match connected {
            Ok(connected) => connected,
            Err(e) => return vec![failed("connection", &e)],
        };
        let found = format!(
            "{}: libvirt {}, QEMU {}",
            self.site.uri,
            version_text(versions.libvirt),
            version_text(versions.hypervisor)
        );
        lines.push(CheckLine {
            what: "connection".into(),
            ok: true,
            found,
        });
        lines.push(line("network", self.check_network(&conn)));
        if let Some(site) = &self.site.lan {
            let there = lan::check(&self.site);
            let found = match self.connection.is_local() {
                true => format!("bridge `{}`", site.bridge),
                false => format!("bridge `{}`, not tried: the first launch will", site.bridge),
            };
            lines.push(line("LAN", there.map(|()| found)));
        }
        match self.pool(&conn) {
            Ok(pool) => {
                lines.push(line("storage", self.check_room(&pool)));
                lines.push(line(
                    "acceleration",
                    self.check_acceleration(&conn, &pool, versions),
                ));
            }
            Err(e) => lines.push(failed("storage", &e)),
        }
        lines
    }

    fn check_network(&self, conn: &Connect) -> Result<String, CliError> {
        let _lock = self.lock()?;
        let name = self.own_name(NETWORK);
        // What a check that was killed left behind.
        network::remove(conn, &name)?;
        let started = network::ensure(conn, &name, self.connection.is_local(), None);
        network::remove(conn, &name)?;
        started.map(|address| format!("a NAT network starts (tried with {address}/24)"))
    }

    fn check_room(&self, pool: &Pool) -> Result<String, CliError> {
        let available = pool.available()?;
        let found = format!(
            "pool \"{}\", {:.1} GiB free",
            self.site.pool_name(),
            available as f64 / f64::from(1 << 30)
        );
        if available < ROOM {
            return Err(CliError::new(ExitCode::Missing, found).hint(format!(
                "free some space, {} GiB should be there",
                ROOM >> 30
            )));
        }
        Ok(found)
    }

    /// Tries again whatever is remembered: whoever asks has perhaps just repaired it.
    fn check_acceleration(
        &self,
        conn: &Connect,
        pool: &Pool,
        versions: Versions,
    ) -> Result<String, CliError> {
        let _lock = self.lock()?;
        let memory = Memory::new(&self.cache, &self.connection, conn, versions);
        let verdict = match uploaded_kernel(pool)? {
            Some(kernel) => accel::probe(conn, pool, &self.probe_name(), &kernel)?,
            None => match host_kernel() {
                Some(kernel) => self.probe_with(conn, pool, &kernel)?,
                None => {
                    return Ok("not tried: no kernel to try it with, the first launch will".into());
                }
            },
        };
        memory.keep(&verdict);
        Ok(match verdict.accel {
            Accel::Kvm => verdict.reason,
            Accel::Tcg => format!("software emulation, which is slow: {}", verdict.reason),
        })
    }

    fn probe_with(&self, conn: &Connect, pool: &Pool, kernel: &Path) -> Result<Verdict, CliError> {
        let name = self.probe_name();
        let volume = format!("{name}.kernel");
        let path = pool.put_shared(&volume, kernel, &mut |_| Ok(()))?;
        let verdict = accel::probe(conn, pool, &name, &path);
        pool.remove_shared(&volume)?;
        verdict
    }
}

/// Any kernel that a launch has uploaded.
fn uploaded_kernel(pool: &Pool) -> Result<Option<String>, CliError> {
    for name in pool.volumes()? {
        if name.starts_with("ipop-kernel-")
            && let Some(path) = pool.complete(&name)?
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// A kernel of this machine, which serves for a remote host too.
fn host_kernel() -> Option<PathBuf> {
    let entries = std::fs::read_dir("/boot").ok()?;
    let mut kernels: Vec<_> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-"))
        })
        .filter(|p| std::fs::File::open(p).is_ok())
        .collect();
    kernels.sort();
    kernels.pop()
}

fn line(what: &str, found: Result<String, CliError>) -> CheckLine {
    match found {
        Ok(found) => CheckLine {
            what: what.into(),
            ok: true,
            found,
        },
        Err(e) => failed(what, &e),
    }
}

/// The error on one line, its hints behind it.
fn failed(what: &str, e: &CliError) -> CheckLine {
    let mut found = e.message.clone();
    let mut cause = std::error::Error::source(e);
    while let Some(error) = cause {
        found = format!("{found}: {error}");
        cause = error.source();
    }
    for hint in &e.hints {
        found = format!("{found}; {hint}");
    }
    CheckLine {
        what: what.into(),
        ok: false,
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Libvirt, LibvirtSite};
    use crate::provider::Provider;

    #[test]
    fn a_host_that_cannot_be_reached_gives_one_line_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
        let site = LibvirtSite {
            uri: uri.into(),
            ..LibvirtSite::default()
        };
        let lines = Libvirt::new(site, dir.path()).check().unwrap();
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].ok);
        assert!(
            lines[0]
                .found
                .starts_with(&format!("cannot connect to libvirt at {uri}: "))
        );
        assert!(lines[0].found.contains("; "), "no hint: {}", lines[0].found);
    }

    #[test]
    fn a_host_that_serves_has_a_line_for_each_thing_tried() {
        let dir = tempfile::tempdir().unwrap();
        let site = LibvirtSite {
            uri: "test:///default".into(),
            pool: Some("default-pool".into()),
            ..LibvirtSite::default()
        };
        let lines = Libvirt::new(site, dir.path()).check().unwrap();
        let what: Vec<_> = lines.iter().map(|l| l.what.as_str()).collect();
        assert_eq!(what, ["connection", "network", "storage", "acceleration"]);
        for line in &lines[..3] {
            assert!(line.ok, "{}", line.found);
        }
    }

    #[test]
    fn the_network_of_a_check_that_was_killed_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let site = LibvirtSite {
            uri: "test:///default".into(),
            pool: Some("default-pool".into()),
            ..LibvirtSite::default()
        };
        let libvirt = Libvirt::new(site, dir.path());
        let conn = virt::connect::Connect::open(Some("test:///default")).unwrap();
        let name = libvirt.own_name(super::NETWORK);
        // Without an address: taken over, it would fail the check.
        let xml = format!("<network><name>{name}</name></network>");
        conn.define_network_xml(&xml).unwrap();
        let lines = libvirt.check().unwrap();
        assert!(lines[1].ok, "{}", lines[1].found);
        assert!(conn.lookup_network_by_name(&name).is_err());
    }
}
