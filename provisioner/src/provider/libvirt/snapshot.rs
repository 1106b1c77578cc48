//! Snapshots of data: whole copies of a volume as it was at one moment, in the same pool.
//!
//! QEMU makes the copy while a machine runs (libvirt's backup, push mode): what the machine overwrites meanwhile is
//! copied first, so that all of it is of the moment at which it began. It is what a power failure at that moment
//! would have left, and the journal of the file system is made for that. No chain of files comes of it: the volume
//! stays the one file that it is, and so does each snapshot.

use std::thread::sleep;
use std::time::Duration;

use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt::storage_vol::StorageVol;
use virt::sys;

use super::connection::Context;
use super::data::{self, OwnData, snapshot_name};
use super::storage::{COMPLETE, NewVolume, Pool, volume_xml};
use super::task::Task;
use super::{Host, domain, ffi, volume_of};
use crate::deploy::fault;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::name::machine_name;
use crate::render::render;

/// How often it is looked how far a copy is.
const LOOK: Duration = Duration::from_millis(300);

impl Host {
    /// Copies a volume as it is now. A copy that did not come to its end is not marked as whole, and is made anew.
    pub(super) fn snapshot_data(&self, own: &OwnData<'_>, label: &str) -> Result<(), CliError> {
        let conn = self.connection.open()?;
        let (pool, volume, name) = own.open(&conn)?;
        let copy = snapshot_name(own.tags, own.node, label);
        if pool.complete(&copy)?.is_some() {
            let message = format!("there is a snapshot \"{label}\" of \"{name}\" already");
            return Err(CliError::new(ExitCode::Name, message));
        }
        let info = volume.info().context(|| pool.failed("look at", name))?;
        let available = pool.available()?;
        if available < info.allocation {
            return Err(pool.full(&copy, info.allocation, available));
        }
        own.task.go_on()?;
        pool.remove_shared(&copy)?;
        let new = NewVolume {
            name: &copy,
            capacity: info.capacity,
            format: "qcow2",
            mode: "0600",
            backing: None,
        };
        let copied = match own.machine(&conn)? {
            Some(machine) => pool.copy_of_running(&machine, new, own.task),
            None => pool.copy_of_idle(&volume, new),
        };
        let whole = copied.and_then(|()| pool.mark_complete(&copy));
        if whole.is_err() {
            // Best effort: without its mark it is no snapshot.
            let _ = pool.remove(&copy);
        }
        whole
    }
}

impl Host {
    /// Puts a copy of a snapshot in the place of a node's data. libvirt can rename no volume, so that there is a
    /// time without data: whoever calls this has recorded what it is at. The machine is stopped for that, and stays
    /// so.
    pub(super) fn restore_data(&self, own: &OwnData<'_>, size_bytes: u64) -> Result<(), CliError> {
        let conn = self.connection.open()?;
        let (pool, copy) = volume_of(own.resource)?;
        let wrong = |what: &str| {
            let message = format!("\"{copy}\" is {what}");
            CliError::new(ExitCode::Unavailable, message)
        };
        let of = data::of_volume(copy).filter(|of| of.node == *own.node && of.label.is_some());
        if of.is_none() || !data::is_of(copy, own.tags) {
            return Err(wrong("no snapshot of that data"));
        }
        let pool = Pool::find(&conn, pool)?.ok_or_else(|| wrong("gone"))?;
        let snapshot = pool.volume(copy)?.ok_or_else(|| wrong("gone"))?;
        if pool.complete(copy)?.is_none() {
            return Err(wrong("not whole"));
        }
        let info = snapshot.info().context(|| pool.failed("look at", copy))?;
        let name = data::volume_name(own.tags, own.node);
        // Of what is there now the room comes free.
        let there = pool.volume(&name)?.and_then(|volume| volume.info().ok());
        let available = pool.available()? + there.map_or(0, |info| info.allocation);
        if available < info.allocation {
            return Err(pool.full(&name, info.allocation, available));
        }
        own.task.go_on()?;
        if let Some(running) = own.machine(&conn)? {
            let failed = || format!("cannot stop the machine of {}", own.node);
            running.destroy().if_exists().context(failed)?;
        }
        pool.remove_whole(&name, own.task)?;
        fault::at("data-removed");
        let new = NewVolume {
            name: &name,
            capacity: info.capacity,
            format: "qcow2",
            mode: "0600",
            backing: None,
        };
        pool.copy_of_idle(&snapshot, new)?;
        if let Some(volume) = pool.volume(&name)? {
            pool.grow(&volume, &name, size_bytes)?;
        }
        Ok(())
    }

    /// Starts a node's machine, if it is there and does not run.
    pub(super) fn serve_data(&self, own: &OwnData<'_>) -> Result<(), CliError> {
        let conn = self.connection.open()?;
        let machine = machine_name(&own.tags.deployment, own.node);
        if domain::is_active(&conn, &machine)? {
            return Ok(());
        }
        match domain::find(&conn, &machine)? {
            None => Ok(()),
            Some(machine) => machine
                .create()
                .map(drop)
                .context(|| format!("cannot start the machine of {}", own.node)),
        }
    }
}

impl Pool {
    /// Removes a volume as soon as libvirt has written all of it: what copies to it goes on when the command that
    /// began it was killed, and libvirt removes nothing meanwhile.
    fn remove_whole(&self, name: &str, task: &Task) -> Result<(), CliError> {
        let mut is_told = false;
        loop {
            let Some(volume) = self.volume(name)? else {
                return Ok(());
            };
            match volume.delete(0).if_exists() {
                Err(e) if e.code().is(ErrorNumber::OperationInvalid) => {}
                // Also of a file that is gone.
                _ => return self.remove(name),
            }
            if !is_told {
                is_told = true;
                let message = format!("waiting until libvirt has written volume \"{name}\"");
                task.emit(Event::Step { message });
            }
            task.check(&|| format!("waiting for volume \"{name}\""))?;
            sleep(LOOK);
        }
    }

    fn copy_of_idle(&self, volume: &StorageVol, new: NewVolume<'_>) -> Result<(), CliError> {
        StorageVol::create_xml_from(&self.pool, &volume_xml(new)?, volume, 0)
            .map(drop)
            .map_err(|e| self.write_failed("create", new.name, new.capacity, &e))
    }

    fn copy_of_running(
        &self,
        machine: &Domain,
        new: NewVolume<'_>,
        task: &Task,
    ) -> Result<(), CliError> {
        // libvirt finds it in the pool, and gives it to QEMU's user for the time of the copy.
        let (_, path) = self.create(new)?;
        let failed = || self.failed("copy to", new.name);
        let xml = render(
            "libvirt-backup.xml.j2",
            serde_json::json!({ "disk": domain::DATA_DISK, "path": path }),
        )
        .map_err(|e| CliError::new(ExitCode::Internal, "cannot render a backup").caused_by(e))?;
        ffi::backup_begin(machine, &xml).context(failed)?;
        let waits_for = || format!("copying to volume \"{}\"", new.name);
        loop {
            if let Err(stopped) = task.check(&waits_for) {
                // Best effort: it may have ended meanwhile.
                let _ = ffi::abort_job(machine);
                return Err(stopped);
            }
            let job = machine.job_info().context(failed)?;
            if job.r#type == sys::VIR_DOMAIN_JOB_NONE as i32 {
                break;
            }
            task.emit(Event::Progress {
                what: format!("snapshot {}", new.name),
                done: job.data_processed.unwrap_or(0),
                total: job.data_total.unwrap_or(0),
            });
            sleep(LOOK);
        }
        match ffi::has_completed_job(machine).context(failed)? {
            true => Ok(()),
            false => Err(CliError::new(ExitCode::Unavailable, failed())
                .hint("QEMU's own log on the libvirt host may tell why: it is in /var/log/libvirt/qemu")
                .hint("the disk there may be full, or the machine has stopped meanwhile")),
        }
    }

    /// Notes that a volume is whole.
    fn mark_complete(&self, name: &str) -> Result<(), CliError> {
        let marker = format!("{name}{COMPLETE}");
        let new = NewVolume {
            name: &marker,
            capacity: 0,
            format: "raw",
            mode: "0600",
            backing: None,
        };
        self.create(new).map(drop)
    }
}
