//! `ipop-node run`.

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use super::{CliError, Exit};
use crate::settings::{Settings, credentials_directory};
use crate::{log, node};

/// Join the overlay and stay in it until told to leave.
///
/// Makes the TUN device, signs in to the XMPP server if the configuration names one, and links to
/// every other member and to every peer in the configuration. Runs in the foreground; SIGTERM and SIGINT leave the overlay cleanly and remove the device. Needs root, or
/// CAP_NET_ADMIN.
///
/// A refused account, or a server that cannot be reached, does not end the program: it keeps
/// trying, and `ipop-node status` says why it is not signed in.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file (TOML); when relative, looked up in $CREDENTIALS_DIRECTORY first.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log, as a filter such as `info` or `ipop_node=debug`; instead of $RUST_LOG.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

pub fn run(args: &Args) -> Result<(), CliError> {
    start_log(args.log.as_deref())?;
    let settings = Settings::load(&args.config, credentials_directory().as_deref())?;
    // One thread: packets have threads of their own, and what is left is little. A second one would
    // cost every answer to a peer a change of threads.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::System, "cannot start").caused_by(error))?;
    // Spawned, so that a panic comes back as an error.
    let ended = runtime.block_on(async { tokio::spawn(node::run(settings)).await });
    match ended {
        Ok(ended) => Ok(ended?),
        Err(error) => Err(CliError::new(Exit::System, "a defect of ipop-node").caused_by(error)),
    }
}

/// What is logged unless somebody says otherwise. The libraries warn of every answer that comes too
/// late and every flight that is repeated, which is in the nature of networks.
const DEFAULT_LOG: &str = "info,rtc_ice=error,rtc_dtls=error";

fn start_log(filter: Option<&str>) -> Result<(), CliError> {
    let bad = |text: &str, error| {
        CliError::new(Exit::Usage, format!("`{text}` is not a log filter"))
            .caused_by(error)
            .hint("write a level (`info`), or target=level pairs with commas between")
    };
    let text = match filter {
        Some(text) => text.to_owned(),
        None => std::env::var("RUST_LOG").unwrap_or_else(|_| DEFAULT_LOG.to_owned()),
    };
    let filter = EnvFilter::builder()
        .parse(&text)
        .map_err(|error| bad(&text, error))?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    log::subscriber(filter, std::io::stderr, ansi).init();
    Ok(())
}
