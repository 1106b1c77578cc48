//! `site check` of a front end.

use std::collections::BTreeSet;
use std::time::Duration;

use super::RocksProvider;
use super::facts::{self, FrontEnd};
use super::plan::Registered;
use super::register::PLACES;
use crate::error::{CliError, ExitCode};
use crate::provider::ssh::facts::Verdict;
use crate::provider::{CheckLine, Provider as _};
use crate::ssh::room::ROOM;
use crate::ssh::transport::{Limits, Script};

const PROBE: &str = include_str!("files/probe");
/// How long the front end may take to answer: `rocks` needs a second for each of its lists.
const PATIENCE: Duration = Duration::from_secs(60);

impl RocksProvider {
    /// Looks at the front end without changing anything.
    fn verdicts(&self, limits: &Limits<'_>) -> Result<Vec<Verdict>, CliError> {
        let args = [
            self.settings.network.as_str(),
            self.settings.bridge.as_str(),
        ];
        let text = format!("{ROOM}{PLACES}{PROBE}");
        let script = Script::new("looking at Rocks", &text).args(&args);
        let answer = self.ssh.transport(&self.host)?.run(&script, limits)?;
        let frontend = FrontEnd::parse(&answer.text());
        let found = self.registered(None, limits)?;
        let names = found
            .iter()
            .filter_map(|f| Registered::of(&f.resource).ok());
        let own: BTreeSet<String> = names.map(|r| r.name).collect();
        Ok(frontend.judge(&self.settings, &self.lan, &own))
    }

    /// Refuses a front end that does not serve.
    pub(super) fn check_frontend(&self, limits: &Limits<'_>) -> Result<(), CliError> {
        for verdict in self.verdicts(limits)? {
            if let Err((found, hint)) = verdict.found {
                let host = &self.host;
                let message = format!("{host} cannot be a front end: {}: {found}", verdict.what);
                let code = match verdict.what {
                    facts::ROOM => ExitCode::Missing,
                    _ => ExitCode::Unavailable,
                };
                return Err(CliError::new(code, message).hint(hint));
            }
        }
        Ok(())
    }

    /// Lines about the machine and about Rocks on it.
    pub(super) fn checked(&self) -> Vec<CheckLine> {
        let host = &self.host;
        let mut lines = match self.ssh.check() {
            Ok(lines) => lines,
            Err(error) => return vec![failed(format!("{host}: log-in as root"), &error)],
        };
        if lines
            .iter()
            .any(|l| !l.ok && l.what.ends_with("log-in as root"))
        {
            return lines;
        }
        match self.verdicts(&Limits::within(PATIENCE)) {
            Ok(verdicts) => lines.extend(verdicts.into_iter().map(|verdict| {
                let (ok, found) = match verdict.found {
                    Ok(found) => (true, found),
                    Err((found, hint)) => (false, format!("{found}: {hint}")),
                };
                CheckLine {
                    what: format!("{host}: {}", verdict.what),
                    ok,
                    found,
                }
            })),
            Err(error) => lines.push(failed(format!("{host}: Rocks"), &error)),
        }
        lines
    }
}

fn failed(what: String, error: &CliError) -> CheckLine {
    CheckLine {
        what,
        ok: false,
        found: error.one_line(),
    }
}
