//! The overlay node's shell around `ipop-proto`: what moves bytes and time, and decides nothing
//! that the protocol decides.

pub mod xmpp;
