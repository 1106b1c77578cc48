//! Making one thing at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;

use virt::connect::Connect;

use super::accel::Accel;
use super::connection::{Context, Versions};
use super::domain::{self, Data, DomainValues, LanCard, Owner, domain_xml, mac_address};
use super::network::{self, network_name};
use super::plan::{DISK, Files, LOG, PERSONAL, Part};
use super::storage::{NewVolume, Pool};
use super::task::Task;
use super::{
    CONSOLE, DATA, DOMAIN, Host, IMAGE, IMAGES_LOCK, NETWORK, VOLUME, data, has_room, smbios, tags,
    unknown_kind, volume_of,
};
use crate::error::{CliError, ExitCode};
use crate::name::machine_name;
use crate::provider::{Image, MachineSpec, Made, Resource, Step, Tags};

/// What of [`Making`](crate::provider::Making) is needed here.
#[derive(Debug)]
pub(super) struct Wanted {
    pub tags: Tags,
    pub machine: Option<MachineSpec>,
    pub images: BTreeMap<String, Image>,
}

impl Host {
    pub(super) fn make_step(
        &self,
        step: &Step,
        wanted: &Wanted,
        task: &Task,
    ) -> Result<Made, CliError> {
        let (id, conn) = (step.resource.id.as_str(), self.connection.open()?);
        let volume = |name: String| Made {
            handle: Some(name),
            reached_at: None,
        };
        match step.resource.kind.as_str() {
            NETWORK => {
                let address = self.make_network(&conn, id, &wanted.tags, task)?;
                Ok(Made {
                    handle: None,
                    reached_at: address,
                })
            }
            IMAGE => self
                .make_image(&conn, &step.resource, wanted, task)
                .map(volume),
            VOLUME | CONSOLE => {
                let spec = machine_of(step, wanted)?;
                self.make_volume(&conn, &step.resource, spec, task)
                    .map(volume)
            }
            DATA => {
                let spec = machine_of(step, wanted)?;
                self.make_data(&conn, &step.resource, spec, task)
                    .map(volume)
            }
            DOMAIN => {
                let spec = machine_of(step, wanted)?;
                self.make_domain(&conn, spec, wanted, task)?;
                Ok(Made {
                    handle: Some(tags::uuid(&wanted.tags, &spec.node)),
                    reached_at: None,
                })
            }
            kind => Err(unknown_kind(kind)),
        }
    }

    fn make_network(
        &self,
        conn: &Connect,
        name: &str,
        tags: &Tags,
        task: &Task,
    ) -> Result<Option<IpAddr>, CliError> {
        let _lock = self.lock()?;
        task.go_on()?;
        let local = self.connection.is_local();
        let address = network::ensure(conn, name, local, Some(tags))?;
        // Elsewhere it is an address of that host, on which nothing of ours listens.
        Ok(local.then_some(address.into()))
    }

    fn make_image(
        &self,
        conn: &Connect,
        resource: &Resource,
        wanted: &Wanted,
        task: &Task,
    ) -> Result<String, CliError> {
        let (_, name) = volume_of(resource)?;
        let found = wanted.images.values().find_map(|image| {
            let part = Part::ALL
                .into_iter()
                .find(|p| p.volume(&image.role, &image.hash) == name)?;
            part.file(image).map(|file| (image, part, file))
        });
        let Some((image, part, file)) = found else {
            return Err(CliError::new(
                ExitCode::Internal,
                format!("no image was given for \"{name}\""),
            ));
        };
        let _images = self.lock_file(&self.lock_name(IMAGES_LOCK), File::lock_shared)?;
        let pool = self.pool(conn)?;
        let waits_for = || format!("uploading \"{name}\" to {}", self.site.uri);
        self.upload_part(&pool, name, (image, part, file), task, &|| {
            task.check(&waits_for)
        })
    }

    /// Makes a volume of a machine anew. One of a machine that runs is left alone.
    fn make_volume(
        &self,
        conn: &Connect,
        resource: &Resource,
        spec: &MachineSpec,
        task: &Task,
    ) -> Result<String, CliError> {
        let (_, name) = volume_of(resource)?;
        let machine = machine_name(&spec.deployment, &spec.node);
        let pool = self.pool(conn)?;
        if domain::is_active(conn, &machine)? {
            return pool.path(name)?.ok_or_else(|| {
                CliError::new(
                    ExitCode::Unavailable,
                    format!("domain \"{machine}\" runs, but its volume \"{name}\" is gone"),
                )
                .hint(format!(
                    "stop it, and it is made anew: `virsh destroy {machine}`"
                ))
            });
        }
        task.go_on()?;
        let suffix = name.strip_prefix(machine.as_str()).unwrap_or_default();
        match suffix {
            DISK => {
                has_room(spec)?;
                let base = uploaded(&pool, Part::Base, &spec.image)?;
                let overlay = NewVolume {
                    name,
                    capacity: u64::from(spec.disk_gib) << 30,
                    format: "qcow2",
                    mode: "0600",
                    backing: Some(&base),
                };
                pool.create(overlay).map(|(_, path)| path)
            }
            PERSONAL => {
                let personal = smbios::structure(&spec.bundle).map_err(|e| {
                    let what = format!("the personal data of {} does not fit", spec.node);
                    CliError::new(ExitCode::Internal, what).caused_by(e)
                })?;
                pool.put(name, &personal)
            }
            LOG => {
                let empty = NewVolume {
                    name,
                    capacity: 0,
                    format: "raw",
                    mode: "0600",
                    backing: None,
                };
                pool.create(empty).map(|(_, path)| path)
            }
            _ => Err(CliError::new(
                ExitCode::Internal,
                format!("\"{name}\" is no volume of {}", spec.node),
            )),
        }
    }

    /// Defines and starts a machine. One that runs is left alone, one that does not is replaced.
    fn make_domain(
        &self,
        conn: &Connect,
        spec: &MachineSpec,
        wanted: &Wanted,
        task: &Task,
    ) -> Result<(), CliError> {
        let machine = machine_name(&spec.deployment, &spec.node);
        if let Some(found) = domain::find(conn, &machine)? {
            let theirs = domain::tags(&found);
            tags::check(
                &format!("domain \"{machine}\""),
                theirs.as_ref().map(|t| &t.0),
                &wanted.tags,
            )?;
            if domain::is_active(conn, &machine)? && domain::runs(&found) {
                return Ok(());
            }
            task.go_on()?;
            domain::remove(conn, &machine)?;
        }
        let pool = self.pool(conn)?;
        let kernel = uploaded(&pool, Part::Kernel, &spec.image)?;
        let initrd = match spec.image.initrd {
            Some(_) => Some(uploaded(&pool, Part::Initrd, &spec.image)?),
            None => None,
        };
        let files = Files::of(&machine);
        let [disk, personal, console] =
            [&files.disk, &files.personal, &files.console].map(|name| there(&pool, name, spec));
        let data = match spec.data_gib {
            Some(_) => {
                let name = data::volume_name(&wanted.tags, &spec.node);
                Some(there(&pool, &name, spec)?)
            }
            None => None,
        };
        let card = spec.lan_card().map(|mac| mac.to_string());
        let lan = match (&card, &self.site.lan) {
            (None, _) => None,
            (Some(mac), Some(lan)) => Some(LanCard {
                bridge: &lan.bridge,
                mac,
            }),
            (Some(_), None) => {
                let message = format!("the site of {} has no LAN", spec.node);
                return Err(CliError::new(ExitCode::Internal, message));
            }
        };
        let accel = self.acceleration(conn, &pool, &kernel, task)?.accel;
        task.go_on()?;
        let parallel = accel == Accel::Kvm || Versions::of(conn)?.tcg_is_parallel();
        let xml = domain_xml(DomainValues {
            name: &machine,
            uuid: Some(&tags::uuid(&wanted.tags, &spec.node)),
            accel,
            owner: Some(Owner {
                tags: &wanted.tags,
                node: &spec.node.0,
                role: &spec.image.role,
            }),
            memory_mib: spec.memory_mib,
            cpus: if parallel { spec.cpus } else { 1 },
            kernel: &kernel,
            initrd: initrd.as_deref(),
            cmdline: &spec.image.cmdline,
            disk: Some(&disk?),
            data: data.as_deref().map(Data::at),
            personal: Some(&personal?),
            network: Some(&network_name(&spec.deployment)),
            mac: &mac_address(&machine),
            lan,
            console: &console?,
        })?;
        start(conn, &machine, &xml).map_err(|e| match lan {
            None => e,
            Some(lan) => e.hint(format!(
                "its card is on the bridge `{}` of that host, by `bridge` in the site's `lan` in sites.toml",
                lan.bridge
            )),
        })
    }
}

/// Defines and starts a domain.
pub(super) fn start(conn: &Connect, machine: &str, xml: &str) -> Result<(), CliError> {
    let domain = conn
        .define_domain_xml(xml)
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

/// Path of a machine's volume on the host.
fn there(pool: &Pool, name: &str, spec: &MachineSpec) -> Result<String, CliError> {
    pool.path(name)?.ok_or_else(|| {
        let message = format!("volume \"{name}\" of {} is gone", spec.node);
        CliError::new(ExitCode::Unavailable, message).hint(format!(
            "`provision resume {}` makes it again",
            spec.deployment
        ))
    })
}

/// Path of an image's part on the host.
fn uploaded(pool: &Pool, part: Part, image: &Image) -> Result<String, CliError> {
    let name = part.volume(&image.role, &image.hash);
    pool.complete(&name)?.ok_or_else(|| {
        CliError::new(
            ExitCode::Unavailable,
            format!("\"{name}\" of image {} is not on the host any more", image.role),
        )
        .hint("`provision site prune` has perhaps removed it; `provision resume NAME` uploads it again")
    })
}

fn machine_of<'a>(step: &Step, wanted: &'a Wanted) -> Result<&'a MachineSpec, CliError> {
    wanted.machine.as_ref().ok_or_else(|| {
        CliError::new(
            ExitCode::Internal,
            format!("no machine was given for \"{}\"", step.resource.id),
        )
    })
}
