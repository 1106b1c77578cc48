//! The contract of before [`Provider`](crate::provider::Provider), until nothing uses it.

use std::fs::File;
use std::net::IpAddr;
use std::time::Duration;

use super::accel::Accel;
use super::connection::Versions;
use super::domain::{self, DomainValues, Owner, domain_xml, mac_address};
use super::network::{self, network_name};
use super::plan::{Files, Part};
use super::storage::{NewVolume, Pool};
use super::{
    CONSOLE, DOMAIN, IMAGES_LOCK, Libvirt, NETWORK, VOLUME, has_room, make, smbios, unknown_kind,
};
use crate::backend::{Backend, CheckLine, Image, MachineSpec, MachineState, Resource};
use crate::error::{CliError, ExitCode};
use crate::event::Sink;
use crate::name::{NodeName, machine_name};
use crate::provider::{Provider, Tags};

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
                let address = network::ensure(&conn, &resource.id, local, None)?;
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
        let _images = self.lock_file(&self.lock_name(IMAGES_LOCK), File::lock_shared)?;
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
            uuid: None,
            owner: Some(Owner {
                tags: None,
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
        make::start(&conn, &machine, &xml)
    }

    fn remove(&self, resource: &Resource) -> Result<(), CliError> {
        match resource.kind.as_str() {
            DOMAIN => domain::remove(&self.connection.open()?, &resource.id),
            NETWORK => network::remove(&self.connection.open()?, &resource.id),
            VOLUME | CONSOLE => self.remove_volume(&self.connection.open()?, resource),
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
        let tags = Tags {
            owner: String::new(),
            deployment: deployment.into(),
            uid: String::new(),
        };
        Provider::console(self, &tags, node, limit)
    }

    fn check(&self) -> Result<Vec<CheckLine>, CliError> {
        Ok(self.check_host())
    }

    fn prune(&self) -> Result<Vec<String>, CliError> {
        Provider::prune(self)
    }

    fn join_limit(&self) -> Result<Duration, CliError> {
        Provider::join_limit(self)
    }
}

/// Paths of an image's volumes on the host.
struct Uploaded {
    base: String,
    kernel: String,
    initrd: Option<String>,
}

impl Libvirt {
    fn upload(&self, pool: &Pool, image: &Image, events: &dyn Sink) -> Result<Uploaded, CliError> {
        let put = |part: Part| {
            part.file(image)
                .map(|file| {
                    let name = part.volume(&image.role, &image.hash);
                    self.upload_part(pool, &name, (image, part, file), events, &|| Ok(()))
                })
                .transpose()
        };
        Ok(Uploaded {
            kernel: put(Part::Kernel)?.unwrap_or_default(),
            initrd: put(Part::Initrd)?,
            base: put(Part::Base)?.unwrap_or_default(),
        })
    }
}
