//! The tokio shell of an overlay node.
//!
//! `ipop-proto` decides; this crate moves bytes and time between it and the machine: the TUN
//! device and the UDP sockets ([`datapath`]), the local addresses ([`underlay`]), the XMPP session
//! ([`xmpp`]), the administrator ([`control`], [`cli`]) and the service manager ([`notify`]).
//! [`node`] is the one task that owns the protocol's state and is driven by all of them.
//!
//! Nothing here blocks that task, trusts a peer, or resolves names with the C library (the binary
//! is linked statically).

pub mod audit;
mod backoff;
mod bridge;
pub mod cli;
pub mod control;
pub mod datapath;
mod fault;
mod file;
pub mod log;
pub mod membership;
pub mod metadata;
mod names;
pub mod node;
pub mod notify;
pub mod pins;
pub mod requester;
pub mod revocation;
pub mod rules;
pub mod services;
pub mod settings;
pub mod tun;
pub mod underlay;
pub mod xmpp;
