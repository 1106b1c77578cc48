//! Child processes: what they print, how they fail.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use crate::error::{CliError, ExitCode};

/// Lines of standard error kept for the message about a failure.
const KEPT_LINES: usize = 12;

/// A program that an image build runs, and the Debian package it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Name of the program.
    pub program: &'static str,
    /// Debian package.
    pub package: &'static str,
}

/// Installs packages into a new root.
pub const MMDEBSTRAP: Tool = Tool {
    program: "mmdebstrap",
    package: "mmdebstrap",
};
/// Makes the ext4 file system.
pub const MKE2FS: Tool = Tool {
    program: "mke2fs",
    package: "e2fsprogs",
};
/// Makes the qcow2 disk.
pub const QEMU_IMG: Tool = Tool {
    program: "qemu-img",
    package: "qemu-utils",
};
/// Unpacks the package stage.
pub const TAR: Tool = Tool {
    program: "tar",
    package: "tar",
};

/// A child process failed.
#[derive(Debug, thiserror::Error)]
#[error("`{command}` {}{}", outcome(*status), end_of(stderr))]
pub struct ChildError {
    /// Program and arguments.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// The last lines it printed on standard error.
    pub stderr: Vec<String>,
}

impl ChildError {
    fn disk_full(&self) -> bool {
        self.stderr.iter().any(|line| {
            line.contains("No space left on device") || line.contains("Could not allocate block")
        })
    }
}

impl Tool {
    /// The program's path, or an error that says which package to install.
    pub fn find(self) -> Result<PathBuf, CliError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        dirs.map(|dir: PathBuf| dir.join(self.program))
            .find(|file| file.is_file())
            .ok_or_else(|| {
                CliError::new(
                    ExitCode::Missing,
                    format!("program {} is not installed", self.program),
                )
                .hint(format!("apt install {}", self.package))
            })
    }

    /// A command that dies with this process and speaks plain English.
    pub fn command(self) -> Result<Command, CliError> {
        let program = self.find()?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program);
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        Ok(command)
    }
}

/// Runs a child to its end and hands each line of its standard error to `line`.
pub fn run(mut command: Command, mut line: impl FnMut(&str)) -> Result<(), CliError> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let shown = words
        .iter()
        .map(|w| w.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    tracing::debug!(command = shown, "run");
    let failed = |e: std::io::Error| {
        CliError::new(ExitCode::Image, format!("cannot run `{shown}`")).caused_by(e)
    };
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut kept = std::collections::VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        for text in BufReader::new(stderr).split(b'\n') {
            let text = String::from_utf8_lossy(&text.map_err(failed)?)
                .trim_end()
                .to_owned();
            line(&text);
            kept.push_back(text);
            if kept.len() > KEPT_LINES {
                kept.pop_front();
            }
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let error = ChildError {
        command: shown.clone(),
        status,
        stderr: kept.into(),
    };
    Err(if error.disk_full() {
        CliError::new(ExitCode::Missing, "the disk is full")
            .caused_by(error)
            .hint("free some space, or set IPOP_CACHE_DIR to a folder on a larger disk")
    } else {
        CliError::new(ExitCode::Image, "a step of the image build failed").caused_by(error)
    })
}

fn outcome(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn end_of(stderr: &[String]) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!("; it last said:\n  {}", stderr.join("\n  "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<(), CliError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, |_| {})
    }

    #[test]
    fn a_failing_child_shows_its_arguments_its_status_and_what_it_last_said() {
        let error = shell("echo one >&2; exit 3")
            .expect_err("it fails")
            .to_string();
        assert!(
            error.contains(
                "`sh -c echo one >&2; exit 3` exited with status 3; it last said:\n  one"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_full_disk_is_called_that() {
        let error =
            shell("echo 'tar: write: No space left on device' >&2; exit 2").expect_err("it fails");
        assert_eq!(error.code, ExitCode::Missing);
        assert_eq!(error.message, "the disk is full");
    }

    #[test]
    fn a_missing_program_is_an_error_with_its_package() {
        let tool = Tool {
            program: "no-such-program-here",
            package: "the-package",
        };
        let error = tool.find().expect_err("it is not there");
        assert_eq!(error.code, ExitCode::Missing);
        assert_eq!(error.hints, ["apt install the-package"]);
    }

    #[test]
    fn every_line_is_handed_on_in_order() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo a >&2; echo b >&2"]);
        run(command, |l| lines.push(l.to_owned())).expect("it succeeds");
        assert_eq!(lines, ["a", "b"]);
    }
}
