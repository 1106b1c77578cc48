//! CloudLab, by the Portal REST API: experiments whose bare-metal nodes become workers, or hosts
//! of workers.

pub mod config;
