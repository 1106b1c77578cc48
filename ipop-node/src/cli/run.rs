//! `ipop-node run`.

use std::path::PathBuf;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::{CliError, Exit};
use crate::settings::{Settings, credentials_directory};
use crate::{node, xmpp};

/// Libraries that log every step, the ICE password among them, below WARN.
const VERBOSE: [&str; 2] = ["rtc_ice", "rtc_dtls"];

/// Join the overlay and stay in it until told to leave.
///
/// Makes the TUN device, signs in to the XMPP server, and links to every other member. Runs in the
/// foreground; SIGTERM and SIGINT leave the overlay cleanly and remove the device. Needs root, or
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One for the packets, one for TLS and XML.
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::System, "cannot start").caused_by(error))?;
    // Spawned, so that it runs on a worker and not across threads.
    let ended = runtime.block_on(async { tokio::spawn(node::run(settings)).await });
    match ended {
        Ok(ended) => Ok(ended?),
        Err(error) => Err(CliError::new(Exit::System, "a defect of ipop-node").caused_by(error)),
    }
}

fn start_log(filter: Option<&str>) -> Result<(), CliError> {
    let bad = |text: &str, error| {
        CliError::new(Exit::Usage, format!("`{text}` is not a log filter"))
            .caused_by(error)
            .hint("write a level (`info`), or target=level pairs with commas between")
    };
    let text = match filter {
        Some(text) => text.to_owned(),
        None => std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()),
    };
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    subscriber(&text, std::io::stderr, ansi)
        .map_err(|error| bad(&text, error))?
        .init();
    Ok(())
}

/// Logs what the filter `text` lets through to `writer`, but no stanzas, and of libraries that
/// tell every step no more than their warnings unless `text` names them.
fn subscriber<W>(
    text: &str,
    writer: W,
    ansi: bool,
) -> Result<impl Subscriber + Send + Sync, ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(text)?;
    let hushed = VERBOSE.map(|target| (target, !text.contains(target)));
    let is_verbose = move |metadata: &Metadata<'_>| {
        *metadata.level() > Level::WARN
            && hushed
                .iter()
                .any(|(target, hushed)| *hushed && metadata.target().starts_with(target))
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(ansi);
    Ok(tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .with(filter_fn(move |metadata| {
            xmpp::may_be_logged(metadata) && !is_verbose(metadata)
        })))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::sync::Arc;

    use super::*;

    /// What is logged under the filter `text`.
    fn logged(text: &str) -> String {
        let mut file = tempfile::tempfile().expect("file");
        let writer = Arc::new(file.try_clone().expect("file"));
        let subscriber = subscriber(text, writer, false).expect("a filter");
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "tokio_xmpp::xmlstream", "stanza");
            tracing::debug!(target: "tokio_xmpp::xmlstream", "harmless");
            tracing::debug!(target: "rtc_ice::agent", "password");
            tracing::warn!(target: "rtc_ice::agent", "warning");
            tracing::info!(target: "ipop_node", "ours");
        });
        let mut all = String::new();
        file.rewind().expect("file");
        file.read_to_string(&mut all).expect("text");
        all
    }

    #[test]
    fn no_filter_brings_stanzas_into_the_log() {
        for text in ["trace", "tokio_xmpp=trace", "tokio_xmpp::xmlstream=trace"] {
            let logged = logged(text);
            assert!(!logged.contains("stanza"), "{text}: {logged}");
            assert!(logged.contains("harmless"), "{text}: {logged}");
        }
    }

    #[test]
    fn verbose_libraries_say_warnings_only_unless_they_are_named() {
        for text in ["info", "debug", "trace"] {
            let logged = logged(text);
            assert!(!logged.contains("password"), "{text}: {logged}");
            assert!(logged.contains("warning"), "{text}: {logged}");
            assert!(logged.contains("ours"), "{text}: {logged}");
        }
        assert!(logged("rtc_ice=debug").contains("password"));
        assert_eq!(logged("error"), "");
    }
}
