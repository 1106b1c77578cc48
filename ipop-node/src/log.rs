//! The log, with what must never stand in it left out.

use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;

/// Crates that print secrets below a level, and that level: whole stanzas with TURN credentials
/// at trace, ICE passwords at debug. (What rtc-ice and rtc-dtls say at info tells nobody anything.)
const LIMITS: [(&str, Level); 3] = [
    ("tokio_xmpp", Level::DEBUG),
    ("rtc_ice", Level::WARN),
    ("rtc_dtls", Level::WARN),
];

/// Prints what `filter` lets through, but no secrets, whatever it asks for.
pub fn subscriber<W>(filter: EnvFilter, writer: W, ansi: bool) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // The hint leaves it to `filter` which levels are not even looked at.
    let harmless = filter_fn(|metadata| is_harmless(metadata.target(), *metadata.level()))
        .with_max_level_hint(LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(ansi);
    registry().with(lines.with_filter(filter.and(harmless)))
}

fn is_harmless(target: &str, level: Level) -> bool {
    LIMITS.iter().all(|(name, limit)| {
        let rest = target.strip_prefix(name);
        level <= *limit || !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn printed(filter: &str) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let log = subscriber(EnvFilter::new(filter), move || writer.clone(), false);
        tracing::subscriber::with_default(log, || {
            tracing::trace!(target: "tokio_xmpp::xmlstream", "<secret/>");
            tracing::debug!(target: "rtc_ice::agent", "remotePwd: secret");
            tracing::info!(target: "rtc_dtls", "secret");
            tracing::debug!(target: "tokio_xmpp::stanzastream", "reconnecting");
            tracing::warn!(target: "rtc_ice::agent", "no candidate");
            tracing::info!(target: "rtc_icebox", "another crate");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_filter_gets_secrets_into_the_log() {
        for filter in [
            "trace",
            "tokio_xmpp::xmlstream=trace,rtc_ice=trace,rtc_dtls=debug",
        ] {
            let text = printed(filter);
            assert!(!text.contains("secret"), "{filter}: {text}");
            assert!(text.contains("no candidate"), "{filter}: {text}");
        }
        let all = printed("trace");
        assert!(all.contains("reconnecting") && all.contains("another crate"));
    }

    #[test]
    fn the_limits_let_nothing_through_that_the_filter_does_not() {
        let text = printed("info");
        assert!(!text.contains("reconnecting"), "{text}");
        assert_eq!(printed("error"), "");
    }
}
