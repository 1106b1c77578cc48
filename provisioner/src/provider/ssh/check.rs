//! `site check` of hosts.

use std::time::{Duration, SystemTime};

use super::SshProvider;
use super::facts::Facts;
use crate::error::CliError;
use crate::provider::CheckLine;
use crate::ssh::target::Target;
use crate::ssh::transport::{Limits, Script};

/// Prints what there is to know of a host.
pub(super) const PROBE: &str = include_str!("files/probe");
/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

impl SshProvider {
    /// Looks at a host without changing anything.
    pub(super) fn probe(&self, host: &Target, limits: &Limits<'_>) -> Result<Facts, CliError> {
        let script = Script::new("looking at it", PROBE);
        let answer = self.transport(host)?.run(&script, limits)?;
        Ok(Facts::parse(&answer.text()))
    }

    /// Lines about every host.
    pub(super) fn checked(&self) -> Vec<CheckLine> {
        let (share, packages) = (self.settings.share, self.settings.install_packages);
        let answers = self.ask_all(|host| self.probe(host, &Limits::within(PATIENCE)));
        let mut lines = Vec::new();
        for (host, answer) in answers {
            let facts = match answer {
                Ok(facts) => facts,
                Err(error) => {
                    lines.push(CheckLine {
                        what: format!("{host}: log-in as root"),
                        ok: false,
                        found: on_one_line(&error),
                    });
                    continue;
                }
            };
            lines.push(CheckLine {
                what: format!("{host}: log-in as root"),
                ok: true,
                found: "works".to_owned(),
            });
            for verdict in facts.judge(seconds_now(), share, packages) {
                let (ok, found) = match verdict.found {
                    Ok(found) => (true, found),
                    Err((found, hint)) => (false, format!("{found}: {hint}")),
                };
                lines.push(CheckLine {
                    what: format!("{host}: {}", verdict.what),
                    ok,
                    found,
                });
            }
        }
        lines
    }
}

/// This machine's time.
pub(super) fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs().cast_signed())
}

/// An error where only a line fits.
pub(super) fn on_one_line(error: &CliError) -> String {
    let cause = error.source.as_ref().map(|e| format!(" ({e})"));
    let hints: String = error.hints.iter().map(|h| format!("; {h}")).collect();
    format!("{}{}{hints}", error.message, cause.unwrap_or_default())
}
