//! Errors as a person sees them: what failed, why, and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, Output};

/// Exit codes of `provision`; stable, documented in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// A defect of `provision` itself, or an operating system error with no better code.
    Internal = 1,
    /// Wrong arguments (clap's own code).
    Usage = 2,
    /// A configuration file is defective.
    Config = 3,
    /// No such deployment, node, site or role; or the name is taken.
    Name = 4,
    /// A host or service cannot be reached or refuses.
    Unavailable = 5,
    /// A program, package or permission is missing on this machine, or a disk is full.
    Missing = 6,
    /// At least one node did not join in time; the deployment stays for inspection.
    NotJoined = 7,
    /// The image could not be built.
    Image = 8,
    /// Some resource could not be removed; run destroy again.
    Leftover = 10,
    /// Interrupted by the user.
    Interrupted = 130,
}

/// Whether another try of what failed has a prospect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No: a refusal, a defect, or something the user must do first.
    Never,
    /// Yes, soon: a lost connection, something not visible yet.
    Soon,
    /// Yes, but slower: the other side asked for it.
    Throttled,
}

/// The error every command returns: one sentence, its cause chain, and hints.
#[derive(Debug)]
pub struct CliError {
    /// Process exit code.
    pub code: ExitCode,
    /// What failed, naming the object.
    pub message: String,
    /// Why, outermost first.
    pub source: Option<Box<dyn StdError + Send + Sync>>,
    /// What to do next.
    pub hints: Vec<String>,
    /// Whether the engine may try again by itself.
    pub retry: Retry,
}

impl CliError {
    /// An error without a cause.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            source: None,
            hints: Vec::new(),
            retry: Retry::Never,
        }
    }

    /// Says that another try has a prospect.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl CliError {
    /// A file could not be worked with: `verb` is `read`, `write`, `create`. A full disk and a
    /// missing right get their own code and hint.
    pub fn file(verb: &str, path: &Path, source: io::Error) -> Self {
        let message = format!("cannot {verb} `{}`", path.display());
        let error = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::new(ExitCode::Missing, message).hint(format!(
                    "free some space: `df -h {}` shows what is left",
                    path.display()
                ))
            }
            io::ErrorKind::PermissionDenied => Self::new(ExitCode::Missing, message)
                .hint("run it as root, or choose another directory with --state-dir"),
            _ => Self::new(ExitCode::Internal, message),
        };
        error.caused_by(source)
    }

    /// A program could not be started; `package` is the Debian package that has it.
    pub fn program(program: &str, package: &str, source: io::Error) -> Self {
        let error = match source.kind() {
            io::ErrorKind::NotFound => Self::new(
                ExitCode::Missing,
                format!("the program `{program}` is not installed"),
            )
            .hint(format!("apt-get install {package}")),
            _ => Self::new(ExitCode::Internal, format!("cannot start `{program}`")),
        };
        error.caused_by(source)
    }

    /// A child process failed: its arguments, status and the end of its standard error.
    pub fn child(code: ExitCode, command: &Command, output: &Output) -> Self {
        let mut words = vec![command.get_program().to_string_lossy().into_owned()];
        words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
        let error = Self::new(
            code,
            format!("`{}` failed: {}", words.join(" "), output.status),
        );
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = stderr.lines().filter(|l| !l.trim().is_empty()).collect();
        let end = lines[lines.len().saturating_sub(5)..].join("; ");
        if end.is_empty() {
            error
        } else {
            error.caused_by(end)
        }
    }

    /// Message and causes in one line, for lists.
    pub fn one_line(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = StdError::source(self);
        while let Some(e) = cause {
            text = format!("{text}: {e}");
            cause = e.source();
        }
        text
    }

    /// Interrupted by the user.
    pub fn interrupted() -> Self {
        Self::new(ExitCode::Interrupted, "interrupted")
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        let mut cause = self.source.as_deref().map(|e| e as &dyn StdError);
        while let Some(e) = cause {
            write!(f, "\ncaused by: {e}")?;
            cause = e.source();
        }
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl StdError for CliError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|e| e as &(dyn StdError + 'static))
    }
}
