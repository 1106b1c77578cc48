//! The TUN device with the node's overlay addresses.

use std::io;

use ipop_proto::config::NodeConfig;
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

/// Packets that wait in the device while the node is busy.
const QUEUE_PACKETS: u32 = 1000;

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

/// Makes the device, gives it both addresses and the MTU, and brings it up. It vanishes when it is
/// dropped.
pub async fn create(config: &NodeConfig) -> Result<AsyncDevice, TunError> {
    let overlay = &config.overlay;
    let failed = |source| TunError {
        interface: overlay.interface.clone(),
        source,
    };
    let device = DeviceBuilder::new()
        .name(&overlay.interface)
        .layer(Layer::L3)
        .ipv4(overlay.ipv4.addr, overlay.ipv4.prefix, None)
        .ipv6(overlay.ipv6.addr, overlay.ipv6.prefix)
        .mtu(overlay.mtu)
        .packet_information(false)
        .with(|device| {
            device.tx_queue_len(QUEUE_PACKETS);
        })
        .build_async()
        .map_err(failed)?;
    // `try_send` goes by the readiness that was seen last: see it once.
    device.writable().await.map_err(failed)?;
    Ok(device)
}
