//! SSH keys of a deployment and its `known_hosts`.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::deploy::SshKey;
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::secret::Secret;

/// File name of the key that `provision ssh` signs in with.
pub const CLIENT_KEY: &str = "id_ed25519";
/// File name of the host keys.
pub const KNOWN_HOSTS: &str = "known_hosts";

/// The name under which a node's host key is known, whatever its address is.
pub fn host_alias(deployment: &str, node: &NodeName) -> String {
    format!("{node}.{deployment}.ipop")
}

/// The public host keys of a deployment.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts(String);

impl KnownHosts {
    /// Adds a node's key.
    pub fn add(&mut self, deployment: &str, node: &NodeName, public: &str) {
        self.0 += &format!("{} {public}\n", host_alias(deployment, node));
    }

    /// Writes `known_hosts` in `dir`.
    pub fn write(&self, dir: &Path) -> Result<(), CliError> {
        let path = dir.join(KNOWN_HOSTS);
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(self.0.as_bytes()));
        written.map_err(|e| CliError::file("write", &path, e))
    }
}

/// Makes a directory that only its owner can read.
pub fn private_dir(dir: &Path) -> Result<(), CliError> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|e| CliError::file("create", dir, e))
}

/// Makes an ed25519 key pair as `path` and `path.pub`, unless there is one.
pub fn generate(path: &Path, comment: &str) -> Result<SshKey, CliError> {
    let public_path = PathBuf::from(format!("{}.pub", path.display()));
    if !public_path.exists() {
        // Half a pair is the leftover of a crash; ssh-keygen would ask what to do with it.
        let _ = std::fs::remove_file(path);
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
            .arg(path);
        let output = command
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|e| CliError::program("ssh-keygen", "openssh-client", e))?;
        if !output.status.success() {
            return Err(CliError::child(ExitCode::Internal, &command, &output));
        }
    }
    let read = |path: &Path| std::fs::read(path).map_err(|e| CliError::file("read", path, e));
    let public = String::from_utf8_lossy(&read(&public_path)?).into_owned();
    let public: Vec<_> = public.split_whitespace().take(2).collect();
    Ok(SshKey {
        private: Secret::new(read(path)?),
        public: public.join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_pair_is_made_once_and_read_afterwards() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("key");
        let first = generate(&path, "worker-0").expect("made");
        assert!(
            first.public.starts_with("ssh-ed25519 AAAA"),
            "{}",
            first.public
        );
        assert_eq!(first.public.split(' ').count(), 2);
        let second = generate(&path, "worker-0").expect("read");
        assert_eq!(first.public, second.public);
        assert_eq!(first.private, second.private);
    }
}
