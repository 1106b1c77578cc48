//! CloudLab, by the Portal REST API: experiments whose bare-metal nodes become workers, or hosts
//! of workers.

pub mod api;
pub mod client;
pub mod config;
pub mod error;
pub mod experiment;
pub mod place;
pub mod portal;
pub mod testbed;
pub mod token;
