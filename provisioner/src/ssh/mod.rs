//! SSH to nodes: keys made per deployment, host keys known beforehand, strict checking.

pub mod command;
pub mod keys;
