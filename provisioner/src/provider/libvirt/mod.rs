//! Machines on a host with libvirt and QEMU, the local one or any that a libvirt URI reaches.
//!
//! A deployment has one NAT network on each host. A machine is a domain with a direct-booted
//! kernel, a qcow2 overlay on the role's image, and a file with its personal data. Images are
//! uploaded once per content into the pool, serve all deployments, and stay until
//! [`Provider::prune`].

pub mod accel;
mod check;
pub mod config;
pub mod connection;
mod data;
pub mod domain;
mod errors;
mod ffi;
mod find;
pub mod lan;
mod make;
pub mod network;
mod plan;
pub mod smbios;
mod snapshot;
pub mod storage;
mod stream;
pub mod tags;
mod task;
mod transport;
pub mod upload;
mod volumes;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use virt::connect::Connect;

use self::accel::{Accel, Memory, Verdict};
pub use self::config::LibvirtSite;
use self::connection::{Connection, Context, Versions};
use self::make::Wanted;
use self::plan::{Files, Part};
use self::storage::Pool;
use self::upload::Progress;
use super::{
    CheckLine, DATA, Found, Image, ImageForm, Machine, MachineSpec, Made, Making, Provider,
    Removing, Resource, SitePlan, Step, Tags, Volumes,
};
use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::name::{NodeName, machine_name};

/// Resource kind: a domain, by name.
pub const DOMAIN: &str = "domain";
/// Resource kind: a volume, as `pool/name`.
pub const VOLUME: &str = "volume";
/// Resource kind: a console log with what was rotated away from it, as `pool/name`.
pub const CONSOLE: &str = "console";
/// Resource kind: a network, by name.
pub const NETWORK: &str = "network";
/// Resource kind: a volume with a part of an image, as `pool/name`.
pub const IMAGE: &str = "image";

/// From start to joined where KVM works; measured runs need a tenth.
pub const KVM_JOIN_LIMIT: Duration = Duration::from_secs(120);
/// From start to joined under software emulation, where a boot takes one to two minutes on an idle
/// machine and several machines share its processors.
pub const TCG_JOIN_LIMIT: Duration = Duration::from_secs(900);

/// Machines that start at once under software emulation, for each of the host's processors: one
/// keeps a processor busy for most of its start.
const TCG_STARTING: usize = 1;

/// Prefixes of the volumes that are parts of images.
const IMAGES: [&str; 3] = ["ipop-base-", "ipop-kernel-", "ipop-initrd-"];
/// Prefixes of the volumes that belong to no deployment: images, and what a killed try left.
const SHARED: [&str; 4] = [IMAGES[0], IMAGES[1], IMAGES[2], accel::PROBE];

/// Shared by launches, held alone by prune: taken before [`Libvirt::lock`].
const IMAGES_LOCK: &str = "images";

/// A host with libvirt.
#[derive(Debug, Clone)]
pub struct Libvirt(Arc<Host>);

/// The host itself. Its methods may hang as long as it does.
#[derive(Debug)]
pub struct Host {
    site: LibvirtSite,
    cache: PathBuf,
    connection: Connection,
}

impl Libvirt {
    /// A host; nothing is connected before the first call. `cache` is `Layout::cache`.
    pub fn new(site: LibvirtSite, cache: &Path) -> Self {
        let connection = Connection::of(&site, cache);
        Self(Arc::new(Host {
            site,
            cache: cache.to_owned(),
            connection,
        }))
    }

    /// Asks the host something, for `limit` at most.
    fn ask<T: Send + 'static>(
        &self,
        what: &str,
        limit: Duration,
        work: impl FnOnce(&Host) -> Result<T, CliError> + Send + 'static,
    ) -> Result<T, CliError> {
        let host = Arc::clone(&self.0);
        task::run(
            &self.0.connection,
            format!("{what} at {}", self.0.site.uri),
            Instant::now() + limit,
            &Interrupt::default(),
            &|_| {},
            move |_| work(&host),
        )
    }
}

impl Deref for Libvirt {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.0
    }
}

impl Host {
    fn pool(&self, conn: &Connect) -> Result<Pool, CliError> {
        let _lock = self.lock()?;
        Pool::ensure(conn, self.site.pool_name(), self.site.pool_path())
    }

    /// What is remembered of the host's acceleration.
    fn memory(&self, conn: &Connect) -> Result<Memory, CliError> {
        let versions = Versions::of(conn)?;
        Ok(Memory::new(&self.cache, &self.connection, conn, versions))
    }

    fn acceleration(
        &self,
        conn: &Connect,
        pool: &Pool,
        kernel: &str,
        events: &dyn Sink,
    ) -> Result<Verdict, CliError> {
        let memory = self.memory(conn)?;
        if let Some(verdict) = memory.recall() {
            return Ok(verdict);
        }
        let _lock = self.lock()?;
        // Another thread may have tried while this one waited.
        if let Some(verdict) = memory.recall() {
            return Ok(verdict);
        }
        events.emit(Event::Step {
            message: format!("trying KVM on {}", self.site.uri),
        });
        let verdict = accel::probe(conn, pool, &self.probe_name(), kernel)?;
        memory.keep(&verdict);
        if verdict.accel == Accel::Tcg {
            let message = format!(
                "{}: software emulation is used, which is slow; {}",
                self.site.uri, verdict.reason
            );
            events.emit(Event::Warning { message });
        }
        Ok(verdict)
    }

    /// Uploads a part of an image unless it is there. `check` may stop it.
    fn upload_part(
        &self,
        pool: &Pool,
        name: &str,
        (image, part, file): (&Image, Part, &Path),
        events: &dyn Sink,
        check: &dyn Fn() -> Result<(), CliError>,
    ) -> Result<String, CliError> {
        if let Some(path) = pool.complete(name)? {
            return Ok(path);
        }
        // Not the lock of all that is shared: an upload may take long, and others would wait.
        let _lock = self.lock_file(&self.lock_name("upload"), File::lock)?;
        if let Some(path) = pool.complete(name)? {
            return Ok(path);
        }
        let mut shown = ("", 0);
        pool.put_shared(name, file, &mut |now: Progress| {
            check()?;
            let Progress { verb, done, total } = now;
            if done == total || shown.0 != verb || done - shown.1 >= 4 << 20 {
                shown = (verb, done);
                events.emit(Event::Progress {
                    what: format!("image {}: {verb} {}", image.role, part.word()),
                    done,
                    total,
                });
            }
            Ok(())
        })
    }

    /// Keeps other threads and other `provision` processes of this user from making the same
    /// shared thing. Held while the value lives.
    fn lock(&self) -> Result<File, CliError> {
        self.lock_file(&self.lock_name("shared"), File::lock)
    }

    /// A lock's file of this host's own: one that hangs holds no other up.
    fn lock_name(&self, what: &str) -> String {
        let digest = Sha256::digest(&self.site.uri);
        let digits: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
        format!("libvirt-{digits}-{what}.lock")
    }

    fn lock_file(
        &self,
        name: &str,
        take: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<File, CliError> {
        let path = self.cache.join(name);
        let locked = std::fs::create_dir_all(&self.cache)
            .and_then(|()| File::create(&path))
            .and_then(|file| take(&file).map(|()| file));
        locked.map_err(|e| {
            CliError::new(
                ExitCode::Internal,
                format!("cannot lock {}", path.display()),
            )
            .caused_by(e)
        })
    }

    /// A name for what is made to try something. Held with [`Self::lock`] it is nobody else's: the
    /// lock's file is part of it, and this host.
    fn own_name(&self, prefix: &str) -> String {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let digest = Sha256::digest(format!("{host}\n{}", self.cache.display()));
        let digits: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
        format!("{prefix}{digits}")
    }

    fn probe_name(&self) -> String {
        self.own_name(accel::PROBE)
    }

    fn remove_volume(&self, conn: &Connect, resource: &Resource) -> Result<(), CliError> {
        let (pool, name) = volume_of(resource)?;
        let Some(pool) = Pool::find(conn, pool)? else {
            return Ok(());
        };
        match resource.kind.as_str() {
            CONSOLE => pool.remove_log(name),
            IMAGE => pool.remove_shared(name),
            _ => pool.remove(name),
        }
    }

    /// Whether what has this name and could be the deployment's is another's. Volumes carry no
    /// tags, but where the deployment's network is another's, so are they.
    fn is_foreign(
        &self,
        conn: &Connect,
        resource: &Resource,
        ours: &Tags,
    ) -> Result<bool, CliError> {
        let theirs = match resource.kind.as_str() {
            DOMAIN => domain::find(conn, &resource.id)?
                .and_then(|d| domain::tags(&d))
                .map(|(tags, _)| tags),
            NETWORK => network::tags(conn, &resource.id)?,
            VOLUME | CONSOLE => network::tags(conn, &network::network_name(&ours.deployment))?,
            DATA => {
                let (_, name) = volume_of(resource)?;
                return Ok(!data::is_of(name, ours));
            }
            _ => None,
        };
        Ok(theirs.is_some_and(|t| t != *ours))
    }

    fn remove_one(&self, resource: &Resource, tags: &Tags) -> Result<(), CliError> {
        let conn = self.connection.open()?;
        // Two sites may be of one host: the deployment's network there is one, and both remove it.
        let _lock = (resource.kind == NETWORK)
            .then(|| self.lock())
            .transpose()?;
        if self.is_foreign(&conn, resource, tags)? {
            // Ours is gone, and somebody else's has its name.
            return Ok(());
        }
        match resource.kind.as_str() {
            DOMAIN => domain::remove(&conn, &resource.id),
            NETWORK => network::remove(&conn, &resource.id),
            VOLUME | CONSOLE | IMAGE => self.remove_volume(&conn, resource),
            DATA => self.remove_data(&conn, resource),
            kind => Err(unknown_kind(kind)),
        }
    }

    fn prune_images(&self) -> Result<Vec<String>, CliError> {
        let conn = self.connection.open()?;
        // A launch has its images before there is a machine that uses them.
        let _images = self.lock_file(&self.lock_name(IMAGES_LOCK), File::lock)?;
        let _lock = self.lock()?;
        let Some(pool) = Pool::find(&conn, self.site.pool_name())? else {
            return Ok(Vec::new());
        };
        let domains = conn
            .list_all_domains(0)
            .context(|| "cannot list libvirt's domains".into())?;
        // One that vanished meanwhile uses nothing.
        let xmls: Vec<_> = domains.iter().filter_map(|d| d.xml_desc(0).ok()).collect();
        pool.prune(&SHARED, &|path| xmls.iter().any(|xml| xml.contains(path)))
    }
}

impl Provider for Libvirt {
    fn image_form(&self) -> Option<ImageForm> {
        Some(ImageForm::Direct)
    }

    fn is_local(&self) -> bool {
        self.connection.is_local()
    }

    fn keeps_data(&self) -> bool {
        true
    }

    fn volumes(&self) -> Option<&dyn Volumes> {
        Some(self)
    }

    /// A host with little to offer is not made faster by more starts at once.
    fn parallel(&self) -> usize {
        4
    }

    fn plan(&self, plan: &SitePlan<'_>) -> Result<Vec<Step>, CliError> {
        Ok(plan::steps(&self.site, plan))
    }

    fn make(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        let (host, step) = (Arc::clone(&self.0), step.clone());
        let wanted = Wanted {
            tags: making.tags.clone(),
            machine: making.machine.cloned(),
            images: making.images.clone(),
        };
        task::run(
            &self.0.connection,
            format!("making {} \"{}\"", step.resource.kind, step.resource.id),
            making.deadline,
            making.interrupt,
            making.events,
            move |task| host.make_step(&step, &wanted, task),
        )
    }

    fn remove(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        let (host, resource) = (Arc::clone(&self.0), removing.resource.clone());
        let tags = removing.tags.clone();
        task::run(
            &self.0.connection,
            format!("removing {} \"{}\"", resource.kind, resource.id),
            removing.deadline,
            removing.interrupt,
            &|_| {},
            move |_| host.remove_one(&resource, &tags),
        )
    }

    fn find(&self, tags: Option<&Tags>) -> Result<Vec<Found>, CliError> {
        let mut found = self.ask("looking for what is there", task::ASK, |host| {
            host.find_all(&host.connection.open()?)
        })?;
        if let Some(tags) = tags {
            // What earlier deployments of that name kept is this one's.
            for data in found.iter_mut().filter(|f| f.resource.kind == DATA) {
                let own = data.tags.iter_mut();
                own.filter(|t| t.owner == tags.owner && t.deployment == tags.deployment)
                    .for_each(|t| t.uid.clone_from(&tags.uid));
            }
            // Images are everybody's.
            found.retain(|f| f.resource.kind == IMAGE || f.tags.as_ref() == Some(tags));
        }
        Ok(found)
    }

    fn machines(&self, tags: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError> {
        let tags = tags.clone();
        self.ask("looking at the machines", task::ASK, move |host| {
            host.machines_of(&host.connection.open()?, &tags)
        })
    }

    fn console(&self, tags: &Tags, node: &NodeName, limit: usize) -> Result<Vec<u8>, CliError> {
        let log = Files::of(&machine_name(&tags.deployment, node)).console;
        self.ask(
            "reading a console",
            task::ASK,
            move |host| match Pool::find(&host.connection.open()?, host.site.pool_name())? {
                Some(pool) => pool.tail(&log, limit),
                None => Ok(Vec::new()),
            },
        )
    }

    fn check(&self) -> Result<Vec<CheckLine>, CliError> {
        self.ask("trying the site", task::TRY, |host| Ok(host.check_host()))
    }

    fn prune(&self) -> Result<Vec<String>, CliError> {
        self.ask("removing unused images", task::TRY, Host::prune_images)
    }

    /// Before the first launch on a host this is the limit of the slow kind, as nothing was tried.
    fn join_limit(&self) -> Result<Duration, CliError> {
        self.ask("asking for its versions", task::ASK, |host| {
            let conn = host.connection.open()?;
            Ok(match host.memory(&conn)?.recall().map(|v| v.accel) {
                Some(Accel::Kvm) => KVM_JOIN_LIMIT,
                Some(Accel::Tcg) | None => TCG_JOIN_LIMIT,
            })
        })
    }

    /// Before the first launch on a host nothing was tried: as many as of the slow kind.
    fn most_starting(&self) -> Result<Option<usize>, CliError> {
        self.ask("asking for its processors", task::ASK, |host| {
            let conn = host.connection.open()?;
            if host.memory(&conn)?.recall().map(|v| v.accel) == Some(Accel::Kvm) {
                return Ok(None);
            }
            let info = conn
                .node_info()
                .context(|| "cannot ask for the host's processors".to_owned())?;
            Ok(Some(info.cpus as usize * TCG_STARTING))
        })
    }
}

/// Pool and name of a volume's resource.
fn volume_of(resource: &Resource) -> Result<(&str, &str), CliError> {
    resource.id.split_once('/').ok_or_else(|| {
        let what = format!("\"{}\" is not the name of a pool and a volume", resource.id);
        CliError::new(ExitCode::Internal, what)
    })
}

/// An overlay smaller than its image would cut the file system off.
fn has_room(spec: &MachineSpec) -> Result<(), CliError> {
    let disk = &spec.image.disk;
    let needed = upload::qcow2_capacity(disk).map_err(|e| {
        CliError::new(
            ExitCode::Image,
            format!("cannot read image file {}", disk.display()),
        )
        .caused_by(e)
        .hint(format!(
            "build it again: `provision image build {}`",
            spec.image.role
        ))
    })?;
    let needed = needed.div_ceil(1 << 30);
    if u64::from(spec.disk_gib) < needed {
        let what = format!(
            "a disk of {} GiB for {} is smaller than its image",
            spec.disk_gib, spec.node
        );
        return Err(CliError::new(ExitCode::Config, what).hint(format!("give it {needed} GiB")));
    }
    Ok(())
}

fn unknown_kind(kind: &str) -> CliError {
    CliError::new(
        ExitCode::Internal,
        format!("libvirt sites have no resource of kind \"{kind}\""),
    )
    .hint("the state database was written by another version of provision")
}
