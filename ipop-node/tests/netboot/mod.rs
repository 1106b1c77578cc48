//! What boots machines from the network, and machines that have nothing else to boot from.

pub mod frontend;
pub mod machine;
pub mod web;
mod worker;

pub use worker::ballast;

/// The MAC address of the machine that the front end knows.
pub const WORKER_MAC: &str = "02:00:00:00:03:01";
/// The address that it has for this machine,
pub const WORKER: &str = "10.1.0.101";
/// and the name.
pub const WORKER_NAME: &str = "compute-0-0";
