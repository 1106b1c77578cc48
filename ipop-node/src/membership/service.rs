//! The service that runs a membership's node, where the machine has systemd.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The unit, as the Debian package has it.
const UNIT: &str = include_str!("../../../packaging/ipop-node@.service");
/// Its name.
const UNIT_FILE: &str = "ipop-node@.service";
/// Where packages put it, and where machines without the package get it.
const UNIT_FOLDERS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// The program in the unit.
const PROGRAM: &str = "/usr/bin/ipop-node";

/// The service of one membership.
#[derive(Debug)]
pub struct Service {
    name: String,
}

/// The service cannot be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The unit cannot be written.
    #[error("cannot write the unit {}", path.display())]
    Unit {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `systemctl` cannot be run.
    #[error("cannot run systemctl")]
    Run(#[source] io::Error),
    /// `systemctl` refuses.
    #[error("`systemctl {command}` failed: {said}")]
    Refused {
        /// Its arguments.
        command: String,
        /// What it said.
        said: String,
    },
}

impl Service {
    /// That of the membership of this name; none where systemd does not run (sd_booted(3)).
    pub fn of(name: &str) -> Option<Self> {
        Path::new("/run/systemd/system").is_dir().then(|| Self {
            name: format!("ipop-node@{name}.service"),
        })
    }

    /// The unit's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it now and with the machine.
    pub fn start(&self) -> Result<(), ServiceError> {
        let there = |folder: &str| Path::new(folder).join(UNIT_FILE).exists();
        if !UNIT_FOLDERS.into_iter().any(there) {
            let path = Path::new(UNIT_FOLDERS[0]).join(UNIT_FILE);
            let written = std::env::current_exe()
                .and_then(|program| fs::write(&path, unit(&program.display().to_string())));
            written.map_err(|source| ServiceError::Unit { path, source })?;
            systemctl(&["daemon-reload"])?;
        }
        // It reports readiness once it is signed in, which may be never.
        systemctl(&["enable", "--now", "--no-block", &self.name])
    }

    /// Stops it, and does not start it with the machine any more.
    pub fn stop(&self) -> Result<(), ServiceError> {
        systemctl(&["disable", "--now", &self.name])
    }
}

/// The unit for a program that lies elsewhere.
fn unit(program: &str) -> String {
    UNIT.replace(
        &format!("ExecStart={PROGRAM} "),
        &format!("ExecStart={program} "),
    )
}

fn systemctl(arguments: &[&str]) -> Result<(), ServiceError> {
    let output = Command::new("systemctl").args(arguments).output();
    let output = output.map_err(ServiceError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServiceError::Refused {
        command: arguments.join(" "),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_runs_the_program_that_joined() {
        let unit = unit("/opt/ipop/ipop-node");
        let starts = |line: &&str| line.starts_with("ExecStart=");
        let line = unit.lines().find(starts).expect("a program");
        assert_eq!(line, "ExecStart=/opt/ipop/ipop-node run --config node.toml");
    }
}
