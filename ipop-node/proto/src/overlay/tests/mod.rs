//! Overlays on a simulated underlay and virtual time.

mod authority;
mod contents;
mod links;
mod names;
mod packets;
mod path;
mod pinning;
mod policy;
mod revocation;
mod robustness;
mod server;
mod signalling;
mod static_peers;
mod world;
