//! SSH: to nodes (keys made per deployment, host keys known beforehand, strict checking), and to
//! machines that exist already ([`transport`]).

pub mod command;
mod exec;
mod failure;
pub mod keys;
pub mod room;
pub mod target;
pub mod transport;
pub mod upload;

pub(crate) use exec::{output, output_up_to};
