//! The portal's token: where it comes from, and how to get another.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::config::CloudlabSite;
use crate::error::{CliError, ExitCode};
use crate::secret::Secret;

/// How a new token is had on the portal.
const ON_THE_PAGE: &str = "download a token from the portal's web page (your name, Portal API Token; it lasts two months)";

/// Where the token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// An environment variable.
    Env(String),
    /// A file that its owner alone can read.
    File(PathBuf),
    /// A command that prints it.
    Command(String),
    /// The site names none.
    None,
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable `{name}` (token_env)"),
            Self::File(path) => write!(f, "the file `{}` (token_file)", path.display()),
            Self::Command(command) => {
                write!(
                    f,
                    "the place that `{command}` (token_command) prints it from"
                )
            }
            Self::None => f.write_str("token_env, token_file or token_command"),
        }
    }
}

impl TokenSource {
    /// The one that a site names; a command before a file before a variable.
    pub fn of(site: &CloudlabSite) -> Self {
        if let Some(command) = &site.token_command {
            Self::Command(command.clone())
        } else if let Some(path) = &site.token_file {
            Self::File(path.clone())
        } else if let Some(name) = &site.token_env {
            Self::Env(name.clone())
        } else {
            Self::None
        }
    }

    /// What to do when the token is not taken.
    pub fn renewal(&self) -> String {
        format!("{ON_THE_PAGE} and put it into {self}")
    }

    /// Reads the token.
    pub fn read(&self) -> Result<Secret<String>, CliError> {
        let text = match self {
            Self::Env(name) => std::env::var(name).map_err(|_| self.absent("is not set"))?,
            Self::File(path) => self.read_file(path)?,
            Self::Command(command) => self.run(command)?,
            Self::None => {
                return Err(
                    CliError::new(ExitCode::Config, "the CloudLab site names no token")
                        .hint(format!("{ON_THE_PAGE} and name it by {self}")),
                );
            }
        };
        let token = text.trim();
        // It becomes a header's value.
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(self.absent("holds no token"));
        }
        Ok(Secret::new(token.to_owned()))
    }

    fn absent(&self, how: &str) -> CliError {
        CliError::new(ExitCode::Config, format!("{self} {how}")).hint(self.renewal())
    }

    fn read_file(&self, path: &Path) -> Result<String, CliError> {
        let unreadable = |e: std::io::Error| self.absent("cannot be read").caused_by(e);
        let mode = std::fs::metadata(path)
            .map_err(unreadable)?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            let what = format!(
                "{self} can be read by other users (mode {:o})",
                mode & 0o777
            );
            return Err(
                CliError::new(ExitCode::Config, what).hint(format!("chmod 600 {}", path.display()))
            );
        }
        std::fs::read_to_string(path).map_err(unreadable)
    }

    fn run(&self, line: &str) -> Result<String, CliError> {
        let mut command = Command::new("sh");
        command.args(["-c", line]).stdin(Stdio::null());
        let output = command
            .output()
            .map_err(|e| CliError::program("sh", "dash", e))?;
        if !output.status.success() {
            return Err(CliError::child(ExitCode::Config, &command, &output)
                .hint(format!("the site's token comes from {self}")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_a_file_that_nobody_else_can_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("token");
        std::fs::write(&path, "eyJ.a.b\n").expect("written");
        let set = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
        };
        let source = TokenSource::File(path.clone());
        set(0o644);
        let error = source.read().expect_err("open to all").to_string();
        assert!(error.contains("mode 644"), "{error}");
        assert!(error.contains("hint: chmod 600"), "{error}");
        set(0o600);
        assert_eq!(source.read().expect("read").expose(), "eyJ.a.b");
        std::fs::write(&path, "two words").expect("written");
        assert!(source.read().is_err());
    }

    #[test]
    fn a_token_is_what_a_command_prints() {
        let read = |command: &str| TokenSource::Command(command.to_owned()).read();
        assert_eq!(read("echo eyJ.c.d").expect("read").expose(), "eyJ.c.d");
        let error = read("echo no keyring >&2; exit 3")
            .expect_err("fails")
            .to_string();
        assert!(error.contains("no keyring"), "{error}");
        assert!(error.contains("token_command"), "{error}");
        let debug = format!("{:?}", read("echo eyJ.c.d"));
        assert!(!debug.contains("eyJ"), "{debug}");
    }

    #[test]
    fn a_site_without_a_token_says_how_to_name_one() {
        let error = TokenSource::None.read().expect_err("none");
        assert_eq!(error.code, ExitCode::Config);
        assert!(
            error
                .to_string()
                .contains("token_env, token_file or token_command")
        );
        assert!(TokenSource::Env("IPOP_SURELY_UNSET".into()).read().is_err());
    }
}
