//! A strict stand-in of a Rocks front end: a `rocks` command that keeps a small database, refuses
//! what the real one refuses, and writes the files of its DHCP and TFTP servers. On a machine
//! ([`Frontend`]) these servers are real: ISC dhcpd, which a command that writes its configuration
//! starts again, and tftpd-hpa.
//!
//! The command finds the front end's files from where it stands itself, `ROOT/opt/rocks/bin/rocks`,
//! and touches nothing outside of ROOT. As with the real one a command is not one transaction: what
//! fails midway stays as it is then. How it misbehaves is in a file ([`database::Mode`]).

mod boot;
pub mod command;
pub mod database;
pub mod files;
mod frontend;
mod lab;
mod list;
mod listing;
mod servers;

pub use self::frontend::{BRIDGE, Frontend, PRIVATE};
pub use self::lab::Lab;
