//! `provision` as an XMPP client of its deployment: it sees what the nodes say of themselves, and
//! asks them for the rest.
//!
//! [`progress`] decides what a presence means; [`Watcher`] moves bytes and time.

pub mod progress;
mod watcher;

pub use watcher::{Facts, WatchError, WatchEvent, Watcher};
