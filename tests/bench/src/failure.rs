//! Why something could not be measured. A failure ends one measurement, not the run: it is kept and
//! shown in the report.

use std::process::{Command, Output};

/// One thing that went wrong, in words for the report.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// What a measurement gives.
pub type Result<T> = std::result::Result<T, Failure>;

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Says what was being done when something failed.
pub trait During<T> {
    /// Puts `what` before the failure.
    fn during(self, what: &str) -> Result<T>;
}

impl<T, E: std::fmt::Display> During<T> for std::result::Result<T, E> {
    fn during(self, what: &str) -> Result<T> {
        self.map_err(|error| Failure(format!("{what}: {error}")))
    }
}

/// Runs a command that must succeed and gives its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().during(&shown)?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        let last = stderr.trim().lines().last().unwrap_or_default();
        return Err(Failure(format!("`{shown}` ended with {status}: {last}")));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// A command as one would type it.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
