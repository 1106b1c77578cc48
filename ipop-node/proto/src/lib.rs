//! The overlay's protocol, apart from every runtime.
//!
//! This crate holds what two nodes must agree on and how one node reacts to what it sees:
//! overlay addresses, signalling messages and their stanzas, node configuration and status, and
//! the state machines of gathering, links, peers and revocation lists.
//!
//! It is driven from outside: the caller hands in datagrams, signals, IP packets and the current
//! time, and takes out datagrams, signals, IP packets, events and the next deadline. Nothing here
//! opens a socket, spawns a task, or reads a clock.

pub mod address;
pub mod audit;
pub mod authority;
pub mod candidate;
pub mod config;
pub mod gather;
pub mod gossip;
pub mod invitation;
pub mod journal;
pub mod link;
pub mod names;
pub mod net;
pub mod overlay;
pub mod pinning;
pub mod policy;
pub mod service;
pub mod signal;
#[cfg(any(test, feature = "test-support"))]
pub mod sim;
pub mod stanza;
pub mod status;
pub mod switch;
