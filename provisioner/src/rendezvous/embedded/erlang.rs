//! The distribution's ejabberd, run without its control script.
//!
//! `ejabberdctl` wants the system's own user, paths and node name, and on Debian AppArmor confines
//! it to them. Erlang itself does not care.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Paths;
use crate::rendezvous::RendezvousError;

/// Where the Erlang runtime may be.
const ERL: &[&str] = &["/usr/bin/erl", "/usr/local/bin/erl"];
/// Directories whose children may be Erlang library directories.
const LIBRARIES: &[&str] = &["/usr/lib", "/usr/lib/erlang", "/usr/share"];

/// Where Erlang and ejabberd are installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    erl: PathBuf,
    /// Directory with `ejabberd-<version>` and the libraries it needs.
    libraries: PathBuf,
}

impl Installation {
    /// Looks where Debian's packages put them.
    pub fn find() -> Result<Self, RendezvousError> {
        let erl = ERL
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .ok_or_else(|| RendezvousError::NotInstalled("/usr/bin/erl".to_owned()))?;
        let libraries = LIBRARIES
            .iter()
            .flat_map(|dir| children(Path::new(dir)))
            .find(|dir| holds_ejabberd(dir))
            .ok_or_else(|| RendezvousError::NotInstalled("Erlang's library ejabberd".to_owned()))?;
        Ok(Self { erl, libraries })
    }

    /// The command that runs ejabberd in the foreground.
    ///
    /// Without `-name` or `-sname` there is no distribution: no epmd, no cluster port, no cookie,
    /// and every deployment's Mnesia belongs to the same node name, `nonode@nohost`.
    pub(super) fn command(&self, paths: &Paths) -> Command {
        let spool = paths.spool();
        let mut command = Command::new(&self.erl);
        command
            .args(["+K", "true", "+Bd", "-noinput"])
            .args(["-mnesia", "dir"])
            // The working directory, by a path of a known length: see `spec::API_SOCKET`.
            .arg("\"/proc/self/cwd\"")
            // Only what is critical on standard output; the log file has everything, rotated.
            .args(["-ejabberd", "quiet", "true"])
            .args(["log_rotate_size", "4194304", "log_rotate_count", "2"])
            .args(["-s", "ejabberd"])
            .current_dir(&spool)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", &spool)
            .env("ERL_LIBS", &self.libraries)
            .env("ERL_CRASH_DUMP_BYTES", "0")
            .env("EJABBERD_CONFIG_PATH", paths.ejabberd_yml())
            .env("EJABBERD_LOG_PATH", paths.ejabberd_log());
        command
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn holds_ejabberd(libraries: &Path) -> bool {
    children(libraries).iter().any(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("ejabberd-"))
            && path.join("ebin/ejabberd.app").exists()
    })
}
