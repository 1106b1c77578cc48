//! The configuration file and the secrets it names, as they lie on this machine.

use std::io;
use std::path::{Path, PathBuf};

use ipop_proto::config::{ConfigError, NodeConfig};

use crate::xmpp::{Account, Password};

/// Everything `ipop-node run` needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The configuration.
    pub config: NodeConfig,
    /// The account, with the password and the CA read in.
    pub account: Account,
}

/// The configuration, or a file it names, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("cannot read the {what} {}", path.display())]
    Read {
        /// What the file is.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration is defective.
    #[error("defective configuration file {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Line, column, key and what is wrong.
        #[source]
        source: ConfigError,
    },
    /// The password file has nothing in it.
    #[error("the password file {} is empty", .0.display())]
    NoPassword(PathBuf),
}

impl Settings {
    /// Reads the configuration and the secrets. Relative paths are looked up in `credentials` (the
    /// value of `$CREDENTIALS_DIRECTORY`), then in the working directory.
    pub fn load(config: &Path, credentials: Option<&Path>) -> Result<Self, SettingsError> {
        let config = read_config(config, credentials)?;
        let password_path = locate(&config.xmpp.password_file, credentials);
        let password = read("password file", &password_path)?;
        // A trailing newline is the editor's, not the password's.
        let password = String::from_utf8_lossy(&password)
            .trim_end_matches(['\r', '\n'])
            .to_owned();
        if password.is_empty() {
            return Err(SettingsError::NoPassword(password_path));
        }
        let ca_pem = read("CA file", &locate(&config.xmpp.ca_file, credentials))?;
        let account = Account {
            jid: config.xmpp.jid.clone(),
            // A node that was killed and runs again must not be taken for the old one.
            resource: format!("ipop-{:08x}", rand::random::<u32>()),
            password: Password::new(password),
            servers: config.xmpp.servers.clone(),
            ca_pem,
        };
        Ok(Self { config, account })
    }
}

/// Reads and checks the configuration alone.
pub fn read_config(path: &Path, credentials: Option<&Path>) -> Result<NodeConfig, SettingsError> {
    let path = locate(path, credentials);
    let text = read("configuration file", &path)?;
    let text = String::from_utf8_lossy(&text);
    NodeConfig::parse(&text).map_err(|source| SettingsError::Config { path, source })
}

/// `$CREDENTIALS_DIRECTORY`, set by systemd for a unit with credentials (systemd.exec(5)).
pub fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
}

/// A relative path means a credential when there is one of that name.
fn locate(path: &Path, credentials: Option<&Path>) -> PathBuf {
    match credentials {
        Some(dir) if path.is_relative() && dir.join(path).exists() => dir.join(path),
        _ => path.to_owned(),
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, SettingsError> {
    std::fs::read(path).map_err(|source| SettingsError::Read {
        what,
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        [node]
        name = "a"
        [overlay]
        name = "demo"
        ipv4 = "10.73.0.1/24"
        ipv6 = "fd5a::1/64"
        [xmpp]
        jid = "a@demo.ipop"
        servers = ["192.0.2.1:5222"]
        password_file = "ipop.password"
        ca_file = "ipop.ca"
    "#;

    #[test]
    fn relative_paths_are_credentials() {
        let dir = tempfile::tempdir().expect("directory");
        for (name, text) in [
            ("ipop.config", CONFIG),
            ("ipop.password", "sesame\n"),
            ("ipop.ca", "x"),
        ] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let settings =
            Settings::load(Path::new("ipop.config"), Some(dir.path())).expect("complete");
        assert_eq!(settings.account.password, Password::new("sesame"));
        assert_eq!(settings.account.ca_pem, b"x");
    }

    #[test]
    fn a_missing_secret_is_named() {
        let dir = tempfile::tempdir().expect("directory");
        let config = dir.path().join("ipop.config");
        std::fs::write(&config, CONFIG).expect("written");
        let error = Settings::load(&config, Some(dir.path())).expect_err("no password");
        assert_eq!(
            error.to_string(),
            "cannot read the password file ipop.password"
        );
    }
}
