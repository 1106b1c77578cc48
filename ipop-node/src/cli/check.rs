//! `ipop-node check`.

use std::path::PathBuf;

use super::{CliError, print};
use crate::settings::{credentials_directory, read_config};

/// Check a configuration file and say `ok`.
///
/// Reads the file as `run` would and reports the first defect by line and key. Secrets that it
/// names are not read, nothing is changed and nobody is contacted.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: &Args) -> Result<(), CliError> {
    let config = read_config(&args.config, credentials_directory().as_deref())?;
    let meets = match (&config.xmpp, config.peers.len()) {
        (Some(xmpp), 0) => format!("account {}", xmpp.jid),
        (Some(xmpp), n) => format!("account {}, peers by configuration: {n}", xmpp.jid),
        (None, n) => format!("no account, peers by configuration: {n}"),
    };
    print(&format!(
        "ok: node {} on overlay {} ({}, {}), {meets}\n",
        config.node.name, config.overlay.name, config.overlay.ipv4, config.overlay.ipv6,
    ))
}
