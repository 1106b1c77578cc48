//! Volumes with data that outlives its machine: made once, found again, never replaced.
//!
//! Volumes carry no tags and there may be no domain and no network to say whose one is, so its name does:
//! the installation, the deployment and the node are in it. Not the deployment's uid: a later deployment
//! of that name has the data again.

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt::storage_vol::StorageVol;
use virt::sys;

use super::connection::Context;
use super::storage::{NewVolume, Pool};
use super::task::Task;
use super::{Host, domain, volume_of};
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::name::{NodeName, RESOURCE_PREFIX, machine_name};
use crate::provider::{MachineSpec, Resource, Tags};

/// Suffix of a volume with data.
pub(super) const SUFFIX: &str = ".data";
/// What the guest finds the disk by.
pub(super) const SERIAL: &str = "ipop-share";
/// Hex digits of [`Tags::owner`].
const OWNER_DIGITS: usize = 16;

/// The name of a node's volume with data. No name has a dot in it.
pub(super) fn volume_name(tags: &Tags, node: &NodeName) -> String {
    let Tags {
        owner, deployment, ..
    } = tags;
    format!("{RESOURCE_PREFIX}-{deployment}.{node}.{owner}{SUFFIX}")
}

/// The name of a snapshot of a node's data.
pub(super) fn snapshot_name(tags: &Tags, node: &NodeName, label: &str) -> String {
    let Tags {
        owner, deployment, ..
    } = tags;
    format!("{RESOURCE_PREFIX}-{deployment}.{node}.{owner}.{label}{SUFFIX}")
}

/// What the name of a volume with data says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OfVolume {
    /// Whose it is, without the deployment's uid.
    pub tags: Tags,
    /// The node whose data it has, or had.
    pub node: NodeName,
    /// Of a snapshot, what it is called.
    pub label: Option<String>,
}

/// Whose a volume with data is.
pub(super) fn of_volume(name: &str) -> Option<OfVolume> {
    let rest = name.strip_prefix(RESOURCE_PREFIX)?.strip_prefix('-')?;
    let mut parts = rest.strip_suffix(SUFFIX)?.split('.');
    let (deployment, node, owner) = (parts.next()?, parts.next()?, parts.next()?);
    let label = parts.next();
    let is_owner = owner.len() == OWNER_DIGITS && owner.bytes().all(|b| b.is_ascii_hexdigit());
    let is_named = !deployment.is_empty() && !node.is_empty() && is_owner;
    (is_named && label != Some("") && parts.next().is_none()).then(|| OfVolume {
        tags: Tags {
            owner: owner.to_owned(),
            deployment: deployment.to_owned(),
            uid: String::new(),
        },
        node: NodeName(node.to_owned()),
        label: label.map(str::to_owned),
    })
}

/// Whether a volume is the deployment's, or was an earlier one's of that name.
pub(super) fn is_of(name: &str, tags: &Tags) -> bool {
    of_volume(name).is_some_and(|OfVolume { tags: of, .. }| {
        of.owner == tags.owner && of.deployment == tags.deployment
    })
}

/// A volume that must be the deployment's own, and the work with it.
pub(super) struct OwnData<'a> {
    pub tags: &'a Tags,
    pub node: &'a NodeName,
    pub resource: &'a Resource,
    pub task: &'a Task,
}

impl OwnData<'_> {
    /// The volume, in its pool. Another deployment's is none of ours, whatever is recorded.
    pub(super) fn open(&self, conn: &Connect) -> Result<(Pool, StorageVol, &str), CliError> {
        let (pool, name) = volume_of(self.resource)?;
        if name != volume_name(self.tags, self.node) {
            let message = format!(
                "\"{name}\" is not the volume with the data of {}",
                self.node
            );
            return Err(CliError::new(ExitCode::Internal, message));
        }
        let gone = || {
            let message = format!("volume \"{name}\" with the data of {} is gone", self.node);
            CliError::new(ExitCode::Unavailable, message)
        };
        let pool = Pool::find(conn, pool)?.ok_or_else(gone)?;
        let volume = pool.volume(name)?.ok_or_else(gone)?;
        Ok((pool, volume, name))
    }

    /// The node's machine, if it uses the volume.
    pub(super) fn machine(&self, conn: &Connect) -> Result<Option<Domain>, CliError> {
        let machine = machine_name(&self.tags.deployment, self.node);
        match domain::is_active(conn, &machine)? {
            true => domain::find(conn, &machine),
            false => Ok(None),
        }
    }
}

impl Host {
    /// Gives a volume more room, and never less. QEMU holds the file of a machine that runs: then it is
    /// QEMU that makes it larger, and tells the guest.
    pub(super) fn grow_data(&self, own: &OwnData<'_>, size_bytes: u64) -> Result<(), CliError> {
        let conn = self.connection.open()?;
        let (pool, volume, name) = own.open(&conn)?;
        own.task.go_on()?;
        let Some(machine) = own.machine(&conn)? else {
            return pool.grow(&volume, name, size_bytes);
        };
        // Asked of the file, which QEMU writes at once: it would make the disk smaller if told so.
        let info = volume.info().context(|| pool.failed("look at", name))?;
        if info.capacity >= size_bytes {
            return Ok(());
        }
        let path = volume
            .path()
            .context(|| pool.failed("find the path of", name))?;
        machine
            .block_resize(&path, size_bytes, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES)
            .map_err(|e| pool.write_failed("grow", name, size_bytes, &e))
    }

    /// Makes the volume of a machine's data, or takes the one that is there: as it is, but for more room
    /// if it is too small.
    pub(super) fn make_data(
        &self,
        conn: &Connect,
        resource: &Resource,
        spec: &MachineSpec,
        task: &Task,
    ) -> Result<String, CliError> {
        let (_, name) = volume_of(resource)?;
        let Some(gib) = spec.data_gib else {
            let message = format!("{} has no volume for data", spec.node);
            return Err(CliError::new(ExitCode::Internal, message));
        };
        let capacity = u64::from(gib) << 30;
        let pool = self.pool(conn)?;
        task.go_on()?;
        let new = NewVolume {
            name,
            capacity,
            format: "qcow2",
            mode: "0600",
            backing: None,
        };
        let (volume, is_new) = pool.keep(new)?;
        if !is_new {
            task.emit(Event::Step {
                message: format!("the data of an earlier `{}` is there: `{name}`", spec.node),
            });
            let machine = machine_name(&spec.deployment, &spec.node);
            if !domain::is_active(conn, &machine)? {
                pool.grow(&volume, name, capacity)?;
            }
        }
        volume
            .path()
            .context(|| pool.failed("find the path of", name))
    }

    /// Deletes a volume with data for good, unless a machine runs with it.
    pub(super) fn remove_data(&self, conn: &Connect, resource: &Resource) -> Result<(), CliError> {
        let (pool, name) = volume_of(resource)?;
        let Some(OfVolume { tags, node, label }) = of_volume(name) else {
            let message = format!("\"{name}\" is not the name of a volume with data");
            return Err(CliError::new(ExitCode::Internal, message));
        };
        let machine = machine_name(&tags.deployment, &node);
        // No machine runs with a snapshot.
        if label.is_none() && domain::is_active(conn, &machine)? {
            let message = format!("volume \"{name}\" is in use by domain \"{machine}\"");
            return Err(CliError::new(ExitCode::Unavailable, message));
        }
        match Pool::find(conn, pool)? {
            Some(pool) if label.is_some() => pool.remove_shared(name),
            Some(pool) => pool.remove(name),
            None => Ok(()),
        }
    }
}

impl Pool {
    /// The volume of this name, and whether it was made for this. One that is there is never replaced,
    /// also if libvirt has not heard of its file.
    fn keep(&self, new: NewVolume<'_>) -> Result<(StorageVol, bool), CliError> {
        if let Some(volume) = self.volume(new.name)? {
            return Ok((volume, false));
        }
        self.refresh()?;
        if let Some(volume) = self.volume(new.name)? {
            return Ok((volume, false));
        }
        let xml = super::storage::volume_xml(new)?;
        match StorageVol::create_xml(&self.pool, &xml, 0) {
            Ok(volume) => Ok((volume, true)),
            // Made at the same time.
            Err(e) if e.code().is(ErrorNumber::StorageVolExist) => match self.volume(new.name)? {
                Some(volume) => Ok((volume, false)),
                None => Err(self.write_failed("create", new.name, new.capacity, &e)),
            },
            Err(e) => Err(self.write_failed("create", new.name, new.capacity, &e)),
        }
    }

    /// Gives a volume more room, and never less.
    pub(super) fn grow(
        &self,
        volume: &StorageVol,
        name: &str,
        capacity: u64,
    ) -> Result<(), CliError> {
        let info = volume.info().context(|| self.failed("look at", name))?;
        if info.capacity >= capacity {
            return Ok(());
        }
        let grown = volume.resize(capacity, 0);
        grown
            .map(drop)
            .map_err(|e| self.write_failed("grow", name, capacity, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags() -> Tags {
        Tags {
            owner: "0123456789abcdef".into(),
            deployment: "a-b".into(),
            uid: "fedcba9876543210".into(),
        }
    }

    #[test]
    fn a_volumes_name_says_whose_it_is() {
        let node = NodeName("lake-data".into());
        let name = volume_name(&tags(), &node);
        assert_eq!(name, "ipop-a-b.lake-data.0123456789abcdef.data");
        let without = Tags {
            uid: String::new(),
            ..tags()
        };
        let mut of = OfVolume {
            tags: without,
            node: node.clone(),
            label: None,
        };
        assert_eq!(of_volume(&name).as_ref(), Some(&of));
        let snapshot = snapshot_name(&tags(), &node, "before-2");
        assert_eq!(
            snapshot,
            "ipop-a-b.lake-data.0123456789abcdef.before-2.data"
        );
        of.label = Some("before-2".to_owned());
        assert_eq!(of_volume(&snapshot), Some(of));
        assert!(is_of(&snapshot, &tags()));
        let later = Tags {
            uid: "0".repeat(16),
            ..tags()
        };
        assert!(is_of(&name, &later), "a later deployment of that name");
        let (mut other, mut theirs) = (tags(), tags());
        other.deployment = "a".into();
        theirs.owner = "f".repeat(16);
        assert!(!is_of(&name, &other) && !is_of(&name, &theirs));
    }

    #[test]
    fn a_volume_is_made_once_and_grows_and_never_shrinks() {
        let conn = Connect::open(Some("test:///default")).unwrap();
        let pool = Pool::ensure(&conn, "default-pool", None).unwrap();
        let name = volume_name(&tags(), &NodeName("lake-data".into()));
        let new = |gib: u64| NewVolume {
            name: &name,
            capacity: gib << 30,
            format: "qcow2",
            mode: "0600",
            backing: None,
        };
        let (first, is_new) = pool.keep(new(2)).unwrap();
        assert!(is_new);
        let key = first.key().unwrap();
        let (second, is_new) = pool.keep(new(1)).unwrap();
        assert!(!is_new);
        assert_eq!(second.key().unwrap(), key);
        pool.grow(&second, &name, 1 << 30).unwrap();
        assert_eq!(second.info().unwrap().capacity, 2 << 30);
        pool.remove(&name).unwrap();
    }

    #[test]
    fn no_other_volume_is_taken_for_one() {
        for name in [
            "ipop-a-b.lake-data.0123456789abcdef",
            "ipop-a-b.lake-data.data",
            "ipop-a-b.lake-data.0123456789abcde.data",
            "ipop-a.b.lake-data.0123456789abcdef.data",
            "ipop-a..0123456789abcdef.data",
            "ipop-a.b.0123456789abcdef..data",
            "ipop-a.b.0123456789abcdef.c.d.data",
            "ipop-a-b-worker-0.qcow2",
            "other-a.b.0123456789abcdef.data",
        ] {
            assert_eq!(of_volume(name), None, "{name}");
        }
    }
}
