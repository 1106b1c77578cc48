//! The TUN or TAP device with the node's overlay addresses.

use std::io;

use ipop_datapath::coalesce::Offload;
use ipop_proto::config::{NodeConfig, OverlayMode};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::datapath::Queue;

/// Packets and super-packets that wait in the device while the node is busy. Few, so that nothing
/// waits long behind a bulk transfer.
const QUEUE_PACKETS: u32 = 64;

/// The TUN device could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the TUN device `{interface}`")]
pub struct TunError {
    /// The device's name.
    pub interface: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The device. It vanishes when all its queues are dropped.
#[derive(Debug)]
pub struct Device {
    /// At least one.
    pub queues: Vec<Queue>,
    /// What may be written to it.
    pub offload: Offload,
}

/// Makes the device, gives it the MTU, and both addresses unless it is to be bridged, and brings it up, with `queues` queues if
/// the kernel has that. What the kernel does not offer, or the configuration does not want, is done
/// without.
pub fn create(config: &NodeConfig, queues: usize) -> Result<Device, TunError> {
    let interface = &config.overlay.interface;
    let made = [(true, queues > 1), (true, false), (false, false)]
        .into_iter()
        .filter(|(offload, _)| config.offload.device || !offload)
        .map(|(offload, several)| {
            build(config, offload, several, if several { queues } else { 1 })
        });
    let mut failed = None;
    for result in made {
        match result {
            Ok(device) => return Ok(device),
            Err(error) => {
                tracing::debug!(interface, %error, "device not made like this");
                failed.get_or_insert(error);
            }
        }
    }
    Err(TunError {
        interface: interface.clone(),
        source: failed.unwrap_or_else(|| io::ErrorKind::Unsupported.into()),
    })
}

fn build(config: &NodeConfig, offload: bool, several: bool, queues: usize) -> io::Result<Device> {
    let overlay = &config.overlay;
    let mut builder = DeviceBuilder::new();
    if let Some(mac) = overlay.mac {
        builder = builder.mac_addr(mac.0);
    }
    let builder = builder
        .name(&overlay.interface)
        .layer(match overlay.mode {
            OverlayMode::Route => Layer::L3,
            OverlayMode::Switch => Layer::L2,
        })
        .mtu(overlay.mtu)
        .packet_information(false)
        .offload(offload)
        .multi_queue(several)
        .with(|device| {
            device.tx_queue_len(QUEUE_PACKETS);
        });
    let builder = match config.switch.bridge {
        // A port of a bridge has no use for them.
        Some(_) => builder,
        None => builder
            .ipv4(overlay.ipv4.addr, overlay.ipv4.prefix, None)
            .ipv6(overlay.ipv6.addr, overlay.ipv6.prefix),
    };
    let first = builder.build_sync()?;
    let offloads = Offload {
        tcp: first.tcp_gso(),
        udp: first.udp_gso(),
        sums: offload,
    };
    let mut devices = vec![first];
    while devices.len() < queues {
        let next = devices[0].try_clone()?;
        devices.push(next);
    }
    let queues = devices.into_iter().map(|device| queue(device, offload));
    Ok(Device {
        queues: queues.collect::<io::Result<_>>()?,
        offload: offloads,
    })
}

fn queue(device: SyncDevice, has_header: bool) -> io::Result<Queue> {
    device.set_nonblocking(true)?;
    Ok(Queue::new(device, has_header))
}
