//! Where `provision` keeps its files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{CliError, ExitCode};

/// The state and cache directories.
///
/// As root `/var/lib/ipop-provision` and `/var/cache/ipop-provision`, otherwise below
/// `$XDG_STATE_HOME` and `$XDG_CACHE_HOME`; `IPOP_STATE_DIR` and `IPOP_CACHE_DIR` override.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Deployments, the database, keys. Made with mode 0700; when root runs an embedded rendezvous
    /// below it, ejabberd's group may pass through it (0710) but not list it.
    pub state: PathBuf,
    /// Built images and downloaded packages; may be deleted at any time.
    pub cache: PathBuf,
}

impl Layout {
    /// Chooses the directories. `env` looks up environment variables.
    pub fn choose(
        root: bool,
        state_dir: Option<PathBuf>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, CliError> {
        let dir = |own: &str, xdg: &str, home: &str, system: &str| {
            let absolute = |name: &str| env(name).map(PathBuf::from).filter(|p| p.is_absolute());
            absolute(own)
                .or_else(|| root.then(|| PathBuf::from(system)))
                .or_else(|| Some(absolute(xdg)?.join("ipop-provision")))
                .or_else(|| Some(absolute("HOME")?.join(home).join("ipop-provision")))
                .ok_or_else(|| {
                    CliError::new(ExitCode::Usage, "there is no directory to keep state in")
                        .hint(format!("set HOME, or {own} to an absolute path"))
                })
        };
        let state = match state_dir {
            Some(state) => std::path::absolute(&state)
                .map_err(|e| CliError::file("find the absolute path of", &state, e))?,
            None => dir(
                "IPOP_STATE_DIR",
                "XDG_STATE_HOME",
                ".local/state",
                "/var/lib/ipop-provision",
            )?,
        };
        let cache = dir(
            "IPOP_CACHE_DIR",
            "XDG_CACHE_HOME",
            ".cache",
            "/var/cache/ipop-provision",
        )?;
        Ok(Self { state, cache })
    }

    /// The state database.
    pub fn database(&self) -> PathBuf {
        self.state.join("state.db")
    }

    /// All files of one deployment. Removed by destroy.
    pub fn deployment(&self, name: &str) -> PathBuf {
        self.state.join("deployments").join(name)
    }

    /// The deployment's embedded rendezvous: configuration, certificate, spool, logs.
    pub fn rendezvous(&self, name: &str) -> PathBuf {
        self.deployment(name).join("rendezvous")
    }

    /// The deployment's SSH keys and `known_hosts`.
    pub fn ssh(&self, name: &str) -> PathBuf {
        self.deployment(name).join("ssh")
    }

    /// What is known of the workers that come when jobs wait ([`crate::power`]).
    pub fn power(&self, name: &str) -> PathBuf {
        self.deployment(name).join("power")
    }

    /// The authority of the deployment's overlay, with its key.
    pub fn authority(&self, name: &str) -> PathBuf {
        self.deployment(name).join("authority")
    }

    /// What happened in the overlay of the deployments of this name ([`crate::audit`]). Stays when they
    /// are destroyed.
    pub fn audit(&self, name: &str) -> PathBuf {
        self.state.join("audit").join(format!("{name}.jsonl"))
    }

    /// Locks between processes that are no deployment's own.
    pub fn locks(&self) -> PathBuf {
        self.state.join("locks")
    }

    /// Built images.
    pub fn images(&self) -> PathBuf {
        self.cache.join("images")
    }

    /// Creates both directories, readable by the owner only.
    pub fn create(&self) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        for dir in [&self.state, &self.cache] as [&Path; 2] {
            // Directories above it get the usual mode: the rendezvous's user must pass them.
            if let Some(parent) = dir.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)?;
        }
        Ok(())
    }
}

/// The places where something of the user's configuration is looked for, first to last: below
/// `$XDG_CONFIG_HOME/ipop`, then `/etc/ipop`.
pub fn configuration(name: &str, env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let dir = |name: &str| env(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let config = dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")));
    let places = config.into_iter().chain([PathBuf::from("/etc")]);
    places.map(|place| place.join("ipop").join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(root: bool, env: &[(&str, &str)]) -> Layout {
        let find = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
        Layout::choose(root, None, find).expect("a directory")
    }

    #[test]
    fn root_keeps_state_below_var_and_others_below_home() {
        assert_eq!(
            choose(true, &[("HOME", "/root")]).state,
            Path::new("/var/lib/ipop-provision")
        );
        let user = choose(false, &[("HOME", "/home/u")]);
        assert_eq!(user.state, Path::new("/home/u/.local/state/ipop-provision"));
        assert_eq!(user.cache, Path::new("/home/u/.cache/ipop-provision"));
        let set = choose(true, &[("IPOP_STATE_DIR", "/s"), ("IPOP_CACHE_DIR", "/c")]);
        assert_eq!((set.state, set.cache), ("/s".into(), "/c".into()));
    }

    #[test]
    fn without_any_directory_the_error_says_what_to_set() {
        let error = Layout::choose(false, None, |_| None).expect_err("nowhere");
        assert!(error.to_string().contains("IPOP_STATE_DIR"), "{error}");
    }
}
