//! Machines on a host with libvirt and QEMU, the local one or any that a libvirt URI reaches.
//!
//! A deployment has one NAT network on each host. A machine is a domain with a direct-booted
//! kernel, a qcow2 overlay on the role's image, and a file with its personal data. Images are
//! uploaded once per content into the pool, serve all deployments, and stay until
//! [`Backend::prune`]; everything else is a [`Resource`].

pub mod accel;
mod check;
pub mod connection;
pub mod domain;
pub mod network;
pub mod smbios;
pub mod storage;
mod upload;

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use virt::connect::Connect;

use self::accel::{Accel, Memory, Verdict};
use self::connection::{Connection, Context, Versions};
use self::domain::{DomainValues, Owner, domain_xml, mac_address};
use self::network::network_name;
use self::storage::{DEFAULT_POOL_PATH, NewVolume, Pool};
use super::{Backend, CheckLine, Image, MachineSpec, MachineState, Resource};
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::name::{NodeName, RESOURCE_PREFIX, machine_name};

/// Resource kind: a domain, by name.
pub const DOMAIN: &str = "domain";
/// Resource kind: a volume, as `pool/name`.
pub const VOLUME: &str = "volume";
/// Resource kind: a console log with what was rotated away from it, as `pool/name`.
pub const CONSOLE: &str = "console";
/// Resource kind: a network, by name.
pub const NETWORK: &str = "network";

/// From start to joined where KVM works; measured runs need a tenth.
pub const KVM_JOIN_LIMIT: Duration = Duration::from_secs(120);
/// From start to joined under software emulation, where a boot takes one to two minutes on an idle
/// machine and several machines share its processors.
pub const TCG_JOIN_LIMIT: Duration = Duration::from_secs(900);

/// Prefixes of the volumes that belong to no deployment: images, and what a killed try left.
const SHARED: [&str; 4] = ["ipop-base-", "ipop-kernel-", "ipop-initrd-", accel::PROBE];

/// Shared by launches, held alone by prune: taken before [`Libvirt::lock`].
const IMAGES_LOCK: &str = "libvirt-images.lock";

/// A libvirt site's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LibvirtSite {
    /// libvirt connection URI.
    pub uri: String,
    /// An existing storage pool of type `dir`. Without it the pool `ipop` is used, and made if
    /// there is none.
    pub pool: Option<String>,
    /// Directory on the host to make the pool in, if there is no pool of that name.
    pub pool_path: Option<PathBuf>,
}

impl Default for LibvirtSite {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".into(),
            pool: None,
            pool_path: None,
        }
    }
}

impl LibvirtSite {
    fn pool_name(&self) -> &str {
        self.pool.as_deref().unwrap_or(RESOURCE_PREFIX)
    }

    fn pool_path(&self) -> Option<&Path> {
        match (&self.pool_path, &self.pool) {
            (Some(path), _) => Some(path),
            (None, None) => Some(Path::new(DEFAULT_POOL_PATH)),
            (None, Some(_)) => None,
        }
    }
}

/// A host with libvirt.
#[derive(Debug)]
pub struct Libvirt {
    site: LibvirtSite,
    cache: PathBuf,
    connection: Connection,
}

/// Names of a machine's volumes.
struct Files {
    disk: String,
    personal: String,
    console: String,
}

impl Files {
    fn of(machine: &str) -> Self {
        Self {
            disk: format!("{machine}.qcow2"),
            personal: format!("{machine}.smbios"),
            console: format!("{machine}.console"),
        }
    }
}

/// Paths of an image's volumes on the host.
struct Uploaded {
    base: String,
    kernel: String,
    initrd: Option<String>,
}

impl Libvirt {
    /// A host; nothing is connected before the first call. `cache` is `Layout::cache`.
    pub fn new(site: LibvirtSite, cache: &Path) -> Self {
        let connection = Connection::new(&site.uri);
        Self {
            site,
            cache: cache.to_owned(),
            connection,
        }
    }

    fn pool(&self, conn: &Connect) -> Result<Pool, CliError> {
        let _lock = self.lock()?;
        Pool::ensure(conn, self.site.pool_name(), self.site.pool_path())
    }

    fn acceleration(
        &self,
        conn: &Connect,
        pool: &Pool,
        kernel: &str,
        events: &dyn Sink,
    ) -> Result<Verdict, CliError> {
        let memory = Memory::new(&self.cache, &self.connection, conn, Versions::of(conn)?);
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

    /// Uploads what of the image is not there yet.
    fn upload(&self, pool: &Pool, image: &Image, events: &dyn Sink) -> Result<Uploaded, CliError> {
        let put = |part: &str, suffix: &str, file: &Path, format: &str| {
            let hash = image.hash.get(..12).unwrap_or(&image.hash);
            let name = format!("{RESOURCE_PREFIX}-{part}-{}-{hash}{suffix}", image.role);
            if let Some(path) = pool.complete(&name)? {
                return Ok(path);
            }
            let _lock = self.lock()?;
            if let Some(path) = pool.complete(&name)? {
                return Ok(path);
            }
            let what = format!("image {}: upload {part}", image.role);
            let mut shown = 0;
            pool.put_shared(&name, file, format, &mut |done, total| {
                if done == total || done - shown >= 4 << 20 {
                    shown = done;
                    events.emit(Event::Progress {
                        what: what.clone(),
                        done,
                        total,
                    });
                }
            })
        };
        Ok(Uploaded {
            kernel: put("kernel", "", &image.kernel, "raw")?,
            initrd: image
                .initrd
                .as_ref()
                .map(|f| put("initrd", "", f, "raw"))
                .transpose()?,
            base: put("base", ".qcow2", &image.disk, "qcow2")?,
        })
    }

    /// Keeps other threads and other `provision` processes of this user from making the same
    /// shared thing. Held while the value lives.
    fn lock(&self) -> Result<File, CliError> {
        self.lock_file("libvirt.lock", File::lock)
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

    fn remove_volume(&self, id: &str, log: bool) -> Result<(), CliError> {
        let Some((pool, name)) = id.split_once('/') else {
            let what = format!("\"{id}\" is not the name of a pool and a volume");
            return Err(CliError::new(ExitCode::Internal, what));
        };
        let conn = self.connection.open()?;
        match Pool::find(&conn, pool)? {
            Some(pool) if log => pool.remove_log(name),
            Some(pool) => pool.remove(name),
            None => Ok(()),
        }
    }
}

impl Backend for Libvirt {
    fn plan_shared(&self, deployment: &str) -> Result<Vec<Resource>, CliError> {
        Ok(vec![Resource {
            kind: NETWORK.into(),
            id: network_name(deployment),
        }])
    }

    fn create_shared(&self, _: &str, resource: &Resource) -> Result<Option<IpAddr>, CliError> {
        match resource.kind.as_str() {
            NETWORK => {
                let conn = self.connection.open()?;
                let _lock = self.lock()?;
                let local = self.connection.is_local();
                let address = network::ensure(&conn, &resource.id, local)?;
                // Elsewhere it is an address of that host, on which nothing of ours listens.
                Ok(local.then_some(address.into()))
            }
            kind => Err(unknown_kind(kind)),
        }
    }

    fn plan_machine(&self, spec: &MachineSpec) -> Result<Vec<Resource>, CliError> {
        let machine = machine_name(&spec.deployment, &spec.node);
        let files = Files::of(&machine);
        let in_pool = |kind: &str, name: String| Resource {
            kind: kind.into(),
            id: format!("{}/{name}", self.site.pool_name()),
        };
        Ok(vec![
            in_pool(VOLUME, files.disk),
            in_pool(VOLUME, files.personal),
            in_pool(CONSOLE, files.console),
            Resource {
                kind: DOMAIN.into(),
                id: machine,
            },
        ])
    }

    fn launch(&self, spec: &MachineSpec, events: &dyn Sink) -> Result<(), CliError> {
        let machine = machine_name(&spec.deployment, &spec.node);
        let conn = self.connection.open()?;
        if domain::state(&conn, &machine)? == MachineState::Running {
            return Ok(());
        }
        // What an interrupted launch left: its volumes are replaced below.
        domain::remove(&conn, &machine)?;
        let personal = smbios::structure(&spec.bundle).map_err(|e| {
            let what = format!("the personal data of {} does not fit", spec.node);
            CliError::new(ExitCode::Internal, what).caused_by(e)
        })?;
        has_room(spec)?;
        let _images = self.lock_file(IMAGES_LOCK, File::lock_shared)?;
        let pool = self.pool(&conn)?;
        let image = self.upload(&pool, &spec.image, events)?;
        let accel = self
            .acceleration(&conn, &pool, &image.kernel, events)?
            .accel;
        let parallel = accel == Accel::Kvm || Versions::of(&conn)?.tcg_is_parallel();

        let files = Files::of(&machine);
        let disk = NewVolume {
            name: &files.disk,
            capacity: u64::from(spec.disk_gib) << 30,
            format: "qcow2",
            mode: "0600",
            backing: Some(&image.base),
        };
        let (_, disk) = pool.create(disk)?;
        let personal = pool.put(&files.personal, &personal)?;
        let console = NewVolume {
            name: &files.console,
            capacity: 0,
            format: "raw",
            mode: "0600",
            backing: None,
        };
        let (_, console) = pool.create(console)?;
        let xml = domain_xml(DomainValues {
            name: &machine,
            accel,
            owner: Some(Owner {
                deployment: &spec.deployment,
                node: &spec.node.0,
                role: &spec.image.role,
            }),
            memory_mib: spec.memory_mib,
            cpus: if parallel { spec.cpus } else { 1 },
            kernel: &image.kernel,
            initrd: image.initrd.as_deref(),
            cmdline: &spec.image.cmdline,
            disk: Some(&disk),
            personal: Some(&personal),
            network: Some(&network_name(&spec.deployment)),
            mac: &mac_address(&machine),
            console: &console,
        })?;
        let domain = conn
            .define_domain_xml(&xml)
            .context(|| format!("cannot define domain \"{machine}\""))?;
        domain
            .create()
            .context(|| format!("cannot start domain \"{machine}\""))
            .map(drop)
            .map_err(|e| {
                e.hint(format!(
                    "QEMU's own log on the libvirt host: /var/log/libvirt/qemu/{machine}.log"
                ))
            })
    }

    fn remove(&self, resource: &Resource) -> Result<(), CliError> {
        match resource.kind.as_str() {
            DOMAIN => domain::remove(&self.connection.open()?, &resource.id),
            NETWORK => network::remove(&self.connection.open()?, &resource.id),
            VOLUME => self.remove_volume(&resource.id, false),
            CONSOLE => self.remove_volume(&resource.id, true),
            kind => Err(unknown_kind(kind)),
        }
    }

    fn machine_state(&self, deployment: &str, node: &NodeName) -> Result<MachineState, CliError> {
        domain::state(&self.connection.open()?, &machine_name(deployment, node))
    }

    fn underlay_address(
        &self,
        deployment: &str,
        node: &NodeName,
    ) -> Result<Option<IpAddr>, CliError> {
        domain::lease(&self.connection.open()?, &machine_name(deployment, node))
    }

    fn console(
        &self,
        deployment: &str,
        node: &NodeName,
        limit: usize,
    ) -> Result<Vec<u8>, CliError> {
        let conn = self.connection.open()?;
        match Pool::find(&conn, self.site.pool_name())? {
            Some(pool) => pool.tail(&Files::of(&machine_name(deployment, node)).console, limit),
            None => Ok(Vec::new()),
        }
    }

    fn check(&self) -> Result<Vec<CheckLine>, CliError> {
        Ok(self.check_host())
    }

    /// Before the first launch on a host this is the limit of the slow kind, as nothing was tried.
    fn prune(&self) -> Result<Vec<String>, CliError> {
        let conn = self.connection.open()?;
        // A launch has its images before there is a machine that uses them.
        let _images = self.lock_file(IMAGES_LOCK, File::lock)?;
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

    fn join_limit(&self) -> Result<Duration, CliError> {
        let conn = self.connection.open()?;
        let memory = Memory::new(&self.cache, &self.connection, &conn, Versions::of(&conn)?);
        Ok(match memory.recall().map(|v| v.accel) {
            Some(Accel::Kvm) => KVM_JOIN_LIMIT,
            Some(Accel::Tcg) | None => TCG_JOIN_LIMIT,
        })
    }
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
