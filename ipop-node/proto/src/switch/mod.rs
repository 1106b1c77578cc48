//! The switch: what a node does with the Ethernet frames that are not plain unicast between known
//! stations.
//!
//! The threads of the data path look up where a frame's destination is in
//! [`Stations`](ipop_datapath::stations::Stations) and carry it there. Everything else that
//! [`classify`](ipop_datapath::ethernet::classify) finds they hand over, one frame at a time.

pub mod arp;
pub mod discovery;
pub mod fdb;
mod frame;
pub mod groups;
pub mod guard;
pub mod loops;
pub mod membership;
pub mod message;
pub mod neighbours;
pub mod port;
pub mod probe;
pub mod search;
pub mod storm;
