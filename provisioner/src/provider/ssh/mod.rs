//! Machines that exist already and are reached by SSH: the static `ipop-node` is installed on them.

pub mod config;
