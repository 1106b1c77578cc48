//! What this package's programs have in common: how a measurement fails, how a run is stopped, what
//! the machine is and what else it did, and what several rounds come to. It measures nothing itself.

pub mod activity;
pub mod failure;
pub mod interrupt;
pub mod machine;
pub mod statistics;
