//! The machine's own addresses, and when they change.

mod select;
mod watch;

pub use select::{Rules, addresses};
pub use watch::AddressWatch;
