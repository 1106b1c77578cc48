//! `provision`: builds VM images, launches them on many kinds of host with generated credentials,
//! and reports when they have truly joined the overlay.
//!
//! Planning and rendering ([`render`], [`plan`]) know no I/O; execution ([`provider`],
//! [`rendezvous`], [`image`]) knows no policy; [`deploy`] ties them together. Every resource is
//! written to the state database before it is created.

pub mod audit;
pub mod authority;
pub mod bundle;
pub mod cli;
pub mod deploy;
pub mod drain;
pub mod error;
pub mod event;
pub mod gc;
pub mod image;
pub mod keep;
pub mod layout;
pub mod name;
pub mod plan;
pub mod power;
pub mod provider;
pub mod render;
pub mod rendezvous;
pub mod report;
pub mod secret;
pub mod site;
pub mod size;
pub mod ssh;
pub mod state;
pub mod watch;
