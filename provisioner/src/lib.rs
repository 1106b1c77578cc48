//! `provision`: builds VM images, launches them on many kinds of host with generated credentials,
//! and reports when they have truly joined the overlay.
//!
//! Planning and rendering ([`render`], `plan`) know no I/O; execution ([`backend`],
//! [`rendezvous`], [`image`]) knows no policy. Every resource is written to the state database
//! before it is created.

pub mod backend;
pub mod bundle;
pub mod error;
pub mod event;
pub mod layout;
pub mod name;
pub mod render;
pub mod rendezvous;
pub mod secret;
