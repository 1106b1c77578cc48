//! Domains: the XML of a machine, and what is asked of a running one.

use std::net::IpAddr;

use serde::Serialize;
use sha2::{Digest, Sha256};
use virt::connect::Connect;
use virt::domain::{Domain, DomainState, DomainStateEnum};
use virt::sys;

use super::accel::Accel;
use super::connection::Context;
use super::{data, tags};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::provider::Tags;
use crate::render::render;

/// Whose machine it is; goes into the domain's metadata.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Owner<'a> {
    /// Whose it is.
    pub tags: &'a Tags,
    /// Node.
    pub node: &'a str,
    /// Role.
    pub role: &'a str,
}

/// The device of [`Data`], as libvirt calls it.
pub(super) const DATA_DISK: &str = "vdb";

/// A second disk, for data that outlives the machine.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Data<'a> {
    /// qcow2 volume.
    pub path: &'a str,
    /// What the guest finds it by.
    pub serial: &'a str,
}

impl<'a> Data<'a> {
    /// The disk of a volume.
    pub fn at(path: &'a str) -> Self {
        let serial = data::SERIAL;
        Self { path, serial }
    }
}

/// A second card, on a LAN of the host.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LanCard<'a> {
    /// The host's bridge.
    pub bridge: &'a str,
    /// Its MAC address.
    pub mac: &'a str,
}

/// What the domain template needs. Paths are the host's.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DomainValues<'a> {
    /// Domain name.
    pub name: &'a str,
    /// See [`tags::uuid`]; without one libvirt takes some.
    pub uuid: Option<&'a str>,
    /// How the guest's instructions are run.
    pub accel: Accel,
    /// `None`: a guest for trying out, that is not to restart.
    pub owner: Option<Owner<'a>>,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Kernel.
    pub kernel: &'a str,
    /// Initial RAM disk. Without one the root disk is on NVMe, otherwise on virtio-blk.
    pub initrd: Option<&'a str>,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// qcow2 root disk.
    pub disk: Option<&'a str>,
    /// Disk for data that outlives the machine, on virtio-blk.
    pub data: Option<Data<'a>>,
    /// SMBIOS structure with the personal data.
    pub personal: Option<&'a str>,
    /// Network and the interface's MAC address.
    pub network: Option<&'a str>,
    /// MAC address on the network.
    pub mac: &'a str,
    /// Card on a LAN of the host.
    pub lan: Option<LanCard<'a>>,
    /// Console log.
    pub console: &'a str,
}

/// The domain's XML.
pub fn domain_xml(values: DomainValues<'_>) -> Result<String, CliError> {
    render("libvirt-domain.xml.j2", values)
        .map_err(|e| CliError::new(ExitCode::Internal, "cannot render a domain").caused_by(e))
}

/// A locally administered MAC address, always the same for a machine, so that it keeps its lease.
/// With 32 bits of its own: with QEMU's usual 24, one in a thousand deployments of 200 machines
/// would have two alike.
pub fn mac_address(machine: &str) -> String {
    let digest = Sha256::digest(machine);
    format!(
        "52:54:{:02x}:{:02x}:{:02x}:{:02x}",
        digest[0], digest[1], digest[2], digest[3]
    )
}

/// Looks a domain up.
pub fn find(conn: &Connect, name: &str) -> Result<Option<Domain>, CliError> {
    let found = conn.lookup_domain_by_name(name).if_exists();
    found.context(|| format!("cannot look up domain \"{name}\""))
}

/// Whether there is such a domain and it uses its volumes: also a paused one does.
pub fn is_active(conn: &Connect, name: &str) -> Result<bool, CliError> {
    let Some(domain) = find(conn, name)? else {
        return Ok(false);
    };
    let active = domain.is_active().if_exists();
    Ok(active
        .context(|| format!("cannot look at domain \"{name}\""))?
        .unwrap_or(false))
}

/// Whether the domain runs; one that is gone does not.
pub fn runs(domain: &Domain) -> bool {
    domain.info().is_ok_and(|info| is_running(info.state))
}

/// Whose it is, and which node.
pub fn tags(domain: &Domain) -> Option<(Tags, NodeName)> {
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT;
    let metadata = domain
        .metadata(kind as i32, Some(tags::NAMESPACE), 0)
        .ok()?;
    tags::of_domain(&metadata)
}

/// Stops and undefines a domain. One that is gone is no error.
pub fn remove(conn: &Connect, name: &str) -> Result<(), CliError> {
    let Some(domain) = find(conn, name)? else {
        return Ok(());
    };
    if domain.is_active().unwrap_or(false) {
        let stopped = domain.destroy().if_exists();
        if let Err(e) = stopped
            && domain.is_active().unwrap_or(false)
        {
            return Err(e).context(|| format!("cannot stop domain \"{name}\""));
        }
    }
    // Gone by being stopped: it was transient.
    let Some(domain) = find(conn, name)? else {
        return Ok(());
    };
    let known = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
    let all =
        known | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
    // A driver that lacks a feature refuses its flag.
    let undefined = domain
        .undefine_flags(all)
        .or_else(|_| domain.undefine_flags(known));
    undefined
        .if_exists()
        .context(|| format!("cannot undefine domain \"{name}\""))?;
    Ok(())
}

/// The IPv4 address that the network's DHCP server gave to the domain.
pub fn lease(conn: &Connect, name: &str) -> Result<Option<IpAddr>, CliError> {
    let Some(domain) = find(conn, name)? else {
        return Ok(None);
    };
    if !domain.is_active().unwrap_or(false) {
        return Ok(None);
    }
    let interfaces = domain
        .interface_addresses(sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, 0)
        .context(|| format!("cannot ask for the address of domain \"{name}\""))?;
    let addresses = interfaces.iter().flat_map(|i| &i.addrs);
    Ok(addresses
        .filter_map(|a| a.addr.parse::<IpAddr>().ok())
        .find(IpAddr::is_ipv4))
}

/// Whether a domain's state counts as running.
fn is_running(state: DomainStateEnum) -> bool {
    state.is(DomainState::Running) || state.is(DomainState::Blocked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Tags {
        Tags {
            owner: "0123456789abcdef".into(),
            deployment: "demo".into(),
            uid: "fedcba9876543210".into(),
        }
    }

    fn values(tags: &Tags) -> DomainValues<'_> {
        DomainValues {
            name: "ipop-demo-worker-0",
            uuid: Some("00010203-0405-8607-8809-0a0b0c0d0e0f"),
            accel: Accel::Tcg,
            owner: Some(Owner {
                tags,
                node: "worker-0",
                role: "worker",
            }),
            memory_mib: 1024,
            cpus: 2,
            kernel: "/pool/ipop-kernel-worker-0123456789ab",
            initrd: Some("/pool/ipop-initrd-worker-0123456789ab"),
            cmdline: "root=LABEL=root console=ttyS0 x=\"<&'\"",
            disk: Some("/pool/ipop-demo-worker-0.qcow2"),
            data: None,
            personal: Some("/pool/a,b/ipop-demo-worker-0.smbios"),
            network: Some("ipop-demo"),
            mac: "52:54:00:01:02:03",
            lan: None,
            console: "/pool/ipop-demo-worker-0.console",
        }
    }

    #[test]
    fn a_machine_with_an_initrd_has_its_root_on_virtio() {
        insta::assert_snapshot!(domain_xml(values(&ours())).unwrap());
    }

    #[test]
    fn a_machine_says_whose_it_is() {
        let xml = domain_xml(values(&ours())).unwrap();
        let metadata = xml.split("<ipop:machine").nth(1).unwrap();
        let metadata = metadata.split('>').next().unwrap();
        let node = NodeName("worker-0".into());
        assert_eq!(tags::of_domain(metadata), Some((ours(), node)));
    }

    #[test]
    fn a_machine_without_an_initrd_has_its_root_on_nvme() {
        let ours = ours();
        let values = DomainValues {
            initrd: None,
            accel: Accel::Kvm,
            ..values(&ours)
        };
        insta::assert_snapshot!(domain_xml(values).unwrap());
    }

    #[test]
    fn data_that_outlives_the_machine_is_on_a_disk_that_the_guest_knows_by_its_serial_number() {
        let ours = ours();
        let values = DomainValues {
            initrd: None,
            data: Some(Data::at("/pool/ipop-demo.lake-data.0123456789abcdef.data")),
            ..values(&ours)
        };
        let xml = domain_xml(values).unwrap();
        let disks = xml.split("<devices>").nth(1).unwrap();
        let disks = disks.split("<interface").next().unwrap();
        insta::assert_snapshot!(disks);
        let data = disks.split("<disk ").find(|d| d.contains(data::SERIAL));
        let target = format!("<target dev='{DATA_DISK}'");
        assert!(data.unwrap().contains(&target), "what a snapshot copies");
        let guest = include_str!("../../../../images/share/files/usr/lib/ipop/volume");
        assert!(guest.contains(&format!("serial={}\n", data::SERIAL)));
    }

    #[test]
    fn a_machine_on_a_lan_has_a_second_card_there() {
        let ours = ours();
        let lan = LanCard {
            bridge: "br-lab",
            mac: "52:54:00:01:02:04",
        };
        let values = DomainValues {
            lan: Some(lan),
            ..values(&ours)
        };
        let xml = domain_xml(values).unwrap();
        let cards: Vec<_> = xml.split("<interface ").skip(1).collect();
        assert_eq!(cards.len(), 2, "{xml}");
        assert!(cards[0].starts_with("type='network'"), "{xml}");
        let card = cards[1].split("</interface>").next().unwrap();
        insta::assert_snapshot!(card);
    }

    #[test]
    fn a_guest_for_trying_out_has_no_disk_no_network_and_no_restart() {
        let ours = ours();
        let values = DomainValues {
            uuid: None,
            owner: None,
            initrd: None,
            disk: None,
            personal: None,
            network: None,
            ..values(&ours)
        };
        insta::assert_snapshot!(domain_xml(values).unwrap());
    }

    #[test]
    fn machines_have_mac_addresses_of_their_own() {
        assert_eq!(
            mac_address("ipop-demo-worker-0"),
            mac_address("ipop-demo-worker-0")
        );
        assert_ne!(
            mac_address("ipop-demo-worker-0"),
            mac_address("ipop-demo-worker-1")
        );
        assert!(mac_address("x").starts_with("52:54:"));
    }

    #[test]
    fn a_domain_is_running_then_gone_and_may_be_removed_twice() {
        let conn = Connect::open(Some("test:///default")).unwrap();
        let xml = "<domain type='test'><name>unit</name><memory>1024</memory>\
                   <os><type>hvm</type></os></domain>";
        let domain = conn.define_domain_xml(xml).unwrap();
        assert!(!runs(&domain));
        assert_eq!(lease(&conn, "unit").unwrap(), None);
        domain.create().unwrap();
        assert!(runs(&domain));
        domain.suspend().unwrap();
        assert!(!runs(&domain));
        remove(&conn, "unit").unwrap();
        remove(&conn, "unit").unwrap();
        assert!(find(&conn, "unit").unwrap().is_none());
        assert_eq!(lease(&conn, "unit").unwrap(), None);
    }
}
