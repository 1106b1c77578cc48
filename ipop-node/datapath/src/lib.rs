//! What a packet goes through between the TUN or TAP device and the UDP socket: segmentation,
//! DTLS records, coalescing, routes.
//!
//! Nothing here opens a device or a socket, spawns a thread or reads a clock. Nothing here
//! allocates or takes a lock for each packet: buffers are the caller's and are used again.
//!
//! On the way out [`segment`] cuts a super-packet of the device (`IFF_VNET_HDR`) into packets,
//! each written where its record will be sealed; on the way in [`coalesce`] finds the packets of
//! one flow among those that came out of records, so that they are written to the device as one.

pub mod backlog;
pub mod carry;
pub mod checksum;
pub mod coalesce;
pub mod ecn;
pub mod envelope;
pub mod ethernet;
pub mod fragment;
pub mod generation;
pub mod holders;
pub mod inet;
pub mod policy;
pub mod prefix;
pub mod published;
pub mod record;
pub mod replay;
pub mod secret;
pub mod segment;
pub mod stations;
pub mod vnet;

mod aead;
mod word;
