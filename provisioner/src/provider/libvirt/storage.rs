//! Volumes in a directory pool: shared images, and the files of one machine.
//!
//! All goes through libvirt, so that the host may be another one. A machine's files are volumes
//! too, its personal data and its console log included: that gives them a path that QEMU's
//! security profiles allow, a way to read them from afar, and a way to remove them.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorNumber};
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;

use super::connection::Context;
use super::data;
use super::errors::{explain, is_disk_full};
use crate::error::{CliError, ExitCode};
use crate::render::render;

/// Where the pool is made when the site names none.
pub const DEFAULT_POOL_PATH: &str = "/var/lib/libvirt/images/ipop";
/// An empty volume of this suffix says that the upload of its namesake came to its end. libvirt
/// can neither rename a volume nor tell a whole one from half of one.
pub(super) const COMPLETE: &str = ".complete";
/// A pool refuses to be refreshed while another upload runs.
const REFRESH_LIMIT: Duration = Duration::from_secs(60);

/// What a new volume is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NewVolume<'a> {
    /// Name in the pool.
    pub name: &'a str,
    /// Size as the guest sees it, bytes.
    pub capacity: u64,
    /// `raw` or `qcow2`.
    pub format: &'a str,
    /// Octal permissions.
    pub mode: &'a str,
    /// Path of the qcow2 volume that it is an overlay of.
    pub backing: Option<&'a str>,
}

/// A storage pool.
#[derive(Debug)]
pub struct Pool {
    pub(super) conn: Connect,
    pub(super) pool: StoragePool,
    name: String,
}

impl Pool {
    /// Finds the pool and starts it. Makes it as a directory at `path`, if there is one to be made.
    pub fn ensure(conn: &Connect, name: &str, path: Option<&Path>) -> Result<Self, CliError> {
        let failed = |what: &str| format!("cannot {what} storage pool \"{name}\"");
        let found = conn.lookup_storage_pool_by_name(name).if_exists();
        let pool = match (found.context(|| failed("look up"))?, path) {
            (Some(pool), _) => pool,
            (None, Some(path)) => {
                let xml = xml("libvirt-pool.xml.j2", PoolValues { name, path })?;
                let pool = conn
                    .define_storage_pool_xml(&xml, 0)
                    .context(|| failed("define"))?;
                pool.build(0).context(|| failed("build"))?;
                pool.set_autostart(true).context(|| failed("autostart"))?;
                pool
            }
            (None, None) => {
                return Err(CliError::new(
                    ExitCode::Config,
                    format!("there is no storage pool \"{name}\" on the libvirt host"),
                )
                .hint("`virsh pool-list --all` shows the pools; set the site's `pool`"));
            }
        };
        if !pool.is_active().context(|| failed("look at"))? {
            pool.create(0).context(|| failed("start"))?;
        }
        Ok(Self {
            conn: conn.clone(),
            pool,
            name: name.to_owned(),
        })
    }

    /// The pool, if it exists and runs.
    pub fn find(conn: &Connect, name: &str) -> Result<Option<Self>, CliError> {
        let found = conn.lookup_storage_pool_by_name(name).if_exists();
        let Some(pool) = found.context(|| format!("cannot look up storage pool \"{name}\""))?
        else {
            return Ok(None);
        };
        Self::ensure(conn, name, None).map(|_| {
            Some(Self {
                conn: conn.clone(),
                pool,
                name: name.into(),
            })
        })
    }

    /// Free bytes.
    pub fn available(&self) -> Result<u64, CliError> {
        let info = self.pool.info();
        Ok(info
            .context(|| format!("cannot look at storage pool \"{}\"", self.name))?
            .available)
    }

    /// A volume by name.
    pub fn volume(&self, name: &str) -> Result<Option<StorageVol>, CliError> {
        let found = self.pool.lookup_storage_vol_by_name(name).if_exists();
        found.context(|| self.failed("look up", name))
    }

    /// A volume's path on the host, if there is one of that name.
    pub fn path(&self, name: &str) -> Result<Option<String>, CliError> {
        let volume = self.volume(name)?;
        volume
            .map(|v| v.path().context(|| self.failed("find the path of", name)))
            .transpose()
    }

    /// Names of all volumes.
    pub fn volumes(&self) -> Result<Vec<String>, CliError> {
        let names = self.pool.list_volumes();
        names.context(|| format!("cannot list storage pool \"{}\"", self.name))
    }

    /// Makes a volume and returns it with its path on the host. One of that name is replaced.
    pub fn create(&self, new: NewVolume<'_>) -> Result<(StorageVol, String), CliError> {
        self.remove(new.name)?;
        let xml = volume_xml(new)?;
        let volume = match StorageVol::create_xml(&self.pool, &xml, 0) {
            // A file that libvirt has not heard of yet, such as the leftover of a rotated log.
            Err(e)
                if e.code().is(ErrorNumber::StorageVolExist) || e.message().contains("exist") =>
            {
                self.refresh()?;
                self.remove(new.name)?;
                StorageVol::create_xml(&self.pool, &xml, 0)
            }
            other => other,
        };
        let volume = volume.map_err(|e| self.write_failed("create", new.name, new.capacity, &e))?;
        let path = volume
            .path()
            .context(|| self.failed("find the path of", new.name))?;
        Ok((volume, path))
    }

    /// Removes a volume. One that is gone is no error.
    pub fn remove(&self, name: &str) -> Result<(), CliError> {
        let Some(volume) = self.volume(name)? else {
            return Ok(());
        };
        match volume.delete(0).if_exists() {
            Ok(_) => Ok(()),
            // The file is gone, libvirt's memory of it is not.
            Err(e) if e.message().contains("No such file") => self.refresh(),
            Err(e) => Err(explain(self.failed("remove", name), &e)),
        }
    }

    /// Removes a volume that [`Pool::put_shared`] made, its marker first: what has none is not used.
    pub fn remove_shared(&self, name: &str) -> Result<(), CliError> {
        self.remove(&format!("{name}{COMPLETE}"))?;
        self.remove(name)
    }

    /// Removes a log and what virtlogd rotated away from it (`NAME.0`, `NAME.1`…).
    pub fn remove_log(&self, name: &str) -> Result<(), CliError> {
        self.remove(name)?;
        // libvirt has not heard of rotated ones before it looks at all of the directory, which
        // would make removing many machines slow. Whether there is a first one is seen at once.
        let first = format!("{name}.0");
        let probe = NewVolume {
            name: &first,
            capacity: 0,
            format: "raw",
            mode: "0600",
            backing: None,
        };
        let xml = xml("libvirt-volume.xml.j2", probe)?;
        if let Ok(volume) = StorageVol::create_xml(&self.pool, &xml, 0) {
            volume
                .delete(0)
                .if_exists()
                .context(|| self.failed("remove", &first))?;
            return Ok(());
        }
        self.refresh()?;
        for volume in self.volumes()? {
            let rotated = volume
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('.'));
            if rotated.is_some_and(|n| n.parse::<u8>().is_ok()) {
                self.remove(&volume)?;
            }
        }
        Ok(())
    }

    /// Has libvirt look at the directory again.
    pub fn refresh(&self) -> Result<(), CliError> {
        let deadline = Instant::now() + REFRESH_LIMIT;
        loop {
            match self.pool.refresh(0) {
                Err(e)
                    if e.message().contains("asynchronous jobs") && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(200));
                }
                other => {
                    return other
                        .map(drop)
                        .context(|| format!("cannot refresh storage pool \"{}\"", self.name));
                }
            }
        }
    }

    /// Removes the volumes of shared images that no other volume is an overlay of and `in_use`
    /// does not claim by their path (escaped for XML). Returns their names.
    pub fn prune(
        &self,
        prefixes: &[&str],
        in_use: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<String>, CliError> {
        self.refresh()?;
        let names = self.volumes()?;
        let mut backing = Vec::new();
        for name in &names {
            let Some(volume) = self.volume(name)? else {
                continue;
            };
            let xml = volume.xml_desc(0).context(|| self.failed("read", name))?;
            if let Some((_, store)) = xml.split_once("<backingStore>") {
                backing.push(store.to_owned());
            }
        }
        let mut removed = Vec::new();
        for name in names
            .iter()
            .filter(|n| prefixes.iter().any(|p| n.starts_with(p)))
        {
            // Data is nobody's image, whatever its deployment is called.
            if name.ends_with(COMPLETE) || name.ends_with(data::SUFFIX) {
                continue;
            }
            let Some(volume) = self.volume(name)? else {
                continue;
            };
            let path = volume
                .path()
                .context(|| self.failed("find the path of", name))?;
            // As libvirt writes it in XML.
            let path = path
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;");
            let tag = format!("<path>{path}</path>");
            if backing.iter().any(|b| b.contains(&tag)) || in_use(&path) {
                continue;
            }
            self.remove_shared(name)?;
            removed.push(name.clone());
        }
        Ok(removed)
    }

    pub(super) fn write_failed(
        &self,
        verb: &str,
        name: &str,
        needed: u64,
        e: &VirtError,
    ) -> CliError {
        if is_disk_full(e) {
            let available = self.available().unwrap_or(0);
            return self.full(name, needed, available);
        }
        explain(self.failed(verb, name), e)
    }

    pub(super) fn full(&self, name: &str, needed: u64, available: u64) -> CliError {
        CliError::new(
            ExitCode::Missing,
            format!(
                "storage pool \"{}\" is full: \"{name}\" needs {} MiB, {} MiB are free",
                self.name,
                needed.div_ceil(1 << 20),
                available >> 20
            ),
        )
        .hint("free some disk space on the libvirt host, or set the site's `pool` to one with more")
    }

    pub(super) fn failed(&self, verb: &str, name: &str) -> String {
        format!(
            "cannot {verb} volume \"{name}\" in storage pool \"{}\"",
            self.name
        )
    }
}

#[derive(Serialize)]
struct PoolValues<'a> {
    name: &'a str,
    path: &'a Path,
}

pub(super) fn volume_xml(new: NewVolume<'_>) -> Result<String, CliError> {
    xml("libvirt-volume.xml.j2", new)
}

fn xml(template: &str, values: impl Serialize) -> Result<String, CliError> {
    render(template, values).map_err(|e| {
        CliError::new(ExitCode::Internal, format!("cannot render {template}")).caused_by(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_template_renders() {
        let values = PoolValues {
            name: "ipop",
            path: Path::new("/srv/a & b/ipop"),
        };
        insta::assert_snapshot!(xml("libvirt-pool.xml.j2", values).unwrap());
    }

    #[test]
    fn the_volume_template_renders_for_files_and_overlays() {
        let file = NewVolume {
            name: "a.smbios",
            capacity: 7,
            format: "raw",
            mode: "0600",
            backing: None,
        };
        let overlay = NewVolume {
            name: "a.qcow2",
            capacity: 4 << 30,
            format: "qcow2",
            mode: "0600",
            backing: Some("/pool/<base>.qcow2"),
        };
        let text = [file, overlay]
            .map(|v| xml("libvirt-volume.xml.j2", v).unwrap())
            .concat();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_pool_that_was_not_asked_to_be_made_must_exist() {
        let conn = Connect::open(Some("test:///default")).unwrap();
        let error = Pool::ensure(&conn, "nothing", None).unwrap_err();
        assert_eq!(error.code, ExitCode::Config);
        assert!(error.message.contains("\"nothing\""));
        assert!(Pool::find(&conn, "nothing").unwrap().is_none());
    }

    #[test]
    fn volumes_are_found_and_removed_once() {
        let conn = Connect::open(Some("test:///default")).unwrap();
        let pool = Pool::ensure(&conn, "default-pool", None).unwrap();
        let new = NewVolume {
            name: "unit.raw",
            capacity: 1024,
            format: "raw",
            mode: "0600",
            backing: None,
        };
        let (_, path) = pool.create(new).unwrap();
        assert!(path.ends_with("/unit.raw"));
        assert!(pool.complete("unit.raw").unwrap().is_none());
        pool.remove("unit.raw").unwrap();
        pool.remove("unit.raw").unwrap();
        assert!(pool.volume("unit.raw").unwrap().is_none());
    }
}
