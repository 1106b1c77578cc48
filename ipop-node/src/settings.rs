//! The configuration file and the secrets it names, as they lie on this machine.

mod membership;

use std::io;
use std::path::{Path, PathBuf};

use ipop_proto::authority::{Authority, AuthorityError, ListError, Refused};
use ipop_proto::config::{ConfigError, NodeConfig, PinningSection, RulesError, XmppSection};
use ipop_proto::link::{Identity, IdentityError};
use ipop_proto::pinning::{Pins, PinsError};

use crate::pins::PinFile;
use crate::requester::RequestError;
use crate::rules;
use crate::xmpp::{Account, Enrolment, Password};

use self::membership::membership;
pub use self::membership::{Membership, claim, own_certificate};

/// Everything `ipop-node run` needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The configuration file, as it was named.
    pub source: PathBuf,
    /// The configuration, with the rules that are in force.
    pub config: NodeConfig,
    /// The account, where there is one, with the CA read in, and the password where it is not the
    /// node's to make.
    pub account: Option<Account>,
    /// How the node gets a password of its own, where it does.
    pub enrolment: Option<Enrolment>,
    /// What peers know this node by, where that is to outlive a run.
    pub identity: Option<Identity>,
    /// Whom to believe about peers, and what it says of this node.
    pub membership: Option<Membership>,
    /// Whom the owner has approved, and where that is kept, where peers by account have to be.
    pub pinning: Option<(PinFile, Pins)>,
    /// The public SSH host key to report.
    pub ssh_host_key: Option<String>,
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
    /// The identity file cannot be used.
    #[error("unusable identity file {}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: IdentityError,
    },
    /// The authority's file cannot be used.
    #[error("unusable authority file {}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: AuthorityError,
    },
    /// A file with revocation lists cannot be used.
    #[error("unusable revocation list {}", path.display())]
    RevocationList {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ListError,
    },
    /// The file of those who were approved cannot be used.
    #[error("unusable file of approved peers {}", path.display())]
    Pins {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PinsError,
    },
    /// The file of rules that the node was told cannot be used.
    #[error("unusable file of rules {}", path.display())]
    Rules {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: RulesError,
    },
    /// The certificate in the identity file does not make this node a member.
    #[error("this node's certificate in {} would be refused by its peers", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Refused,
    },
    /// This node's key cannot be made, or not be put where it belongs.
    #[error("cannot make this node's key in {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<RequestError>,
    },
    /// A peer is said to be this node.
    #[error("peer.fingerprint: that of `{0}` is this node's own")]
    OwnFingerprint(String),
    /// The password file, or that of the token, has nothing in it.
    #[error("the {what} {} is empty", path.display())]
    NoPassword {
        /// What the file is.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
    },
}

impl Settings {
    /// Reads the configuration and the secrets. Relative paths are looked up in `credentials` (the
    /// value of `$CREDENTIALS_DIRECTORY`), then in the working directory.
    pub fn load(config: &Path, credentials: Option<&Path>) -> Result<Self, SettingsError> {
        let source = config.to_owned();
        let config = rules::in_force(read_config(config, credentials)?)?;
        let (account, enrolment) = match &config.xmpp {
            None => (None, None),
            Some(xmpp) => {
                let (account, enrolment) = account(xmpp, credentials)?;
                (Some(account), enrolment)
            }
        };
        let path = config.node.identity.as_ref();
        let path = path.map(|path| locate(path, credentials));
        let pinning = match (&config.pinning, &path) {
            (Some(section), Some(identity)) => {
                let file = pin_file(section, identity);
                let pins = file.load()?;
                Some((file, pins))
            }
            _ => None,
        };
        let (membership, identity) = match (&config.authority, path) {
            (Some(section), Some(path)) => {
                let (membership, identity) = membership(&config, section, path, credentials)?;
                (Some(membership), Some(identity))
            }
            (_, path) => (None, path.as_deref().map(read_identity).transpose()?),
        };
        let own = identity.as_ref().map(Identity::fingerprint);
        if let Some(peer) = config.peers.iter().find(|p| Some(p.fingerprint) == own) {
            return Err(SettingsError::OwnFingerprint(peer.name.clone()));
        }
        let ssh_host_key = match &config.node.ssh_host_key {
            None => None,
            Some(path) => Some(public_key(&read("SSH host key", path)?)),
        };
        Ok(Self {
            source,
            config,
            account,
            enrolment,
            identity,
            membership,
            pinning,
            ssh_host_key,
        })
    }
}

fn pin_file(section: &PinningSection, identity: &Path) -> PinFile {
    let kept = section.keep.clone();
    let kept = kept.or_else(|| Some(state_directory()?.join("pins.json")));
    PinFile(kept.unwrap_or_else(|| identity.with_extension("pins")))
}

/// Reads and checks the configuration alone.
pub fn read_config(path: &Path, credentials: Option<&Path>) -> Result<NodeConfig, SettingsError> {
    let path = locate(path, credentials);
    let text = read("configuration file", &path)?;
    let text = String::from_utf8_lossy(&text);
    NodeConfig::parse(&text).map_err(|source| SettingsError::Config { path, source })
}

/// Reads an identity file.
pub fn read_identity(path: &Path) -> Result<Identity, SettingsError> {
    let text = read("identity file", path)?;
    Identity::from_pem(&String::from_utf8_lossy(&text)).map_err(|source| SettingsError::Identity {
        path: path.to_owned(),
        source,
    })
}

/// Reads the authority's file for one overlay.
pub fn read_authority(path: &Path, overlay: &str) -> Result<Authority, SettingsError> {
    let text = read("authority file", path)?;
    Authority::from_pem(&String::from_utf8_lossy(&text), overlay).map_err(|source| {
        SettingsError::Authority {
            path: path.to_owned(),
            source,
        }
    })
}

fn account(
    xmpp: &XmppSection,
    credentials: Option<&Path>,
) -> Result<(Account, Option<Enrolment>), SettingsError> {
    let (password, enrolment) = match &xmpp.enrol_token_file {
        None => {
            let path = locate(&xmpp.password_file, credentials);
            (read_secret("password file", &path)?, None)
        }
        Some(token) => {
            let token = read_secret("enrolment token", &locate(token, credentials))?;
            let enrolment = Enrolment {
                token,
                password_file: xmpp.password_file.clone(),
            };
            (Password::new(""), Some(enrolment))
        }
    };
    let ca_pem = read("CA file", &locate(&xmpp.ca_file, credentials))?;
    let account = Account {
        jid: xmpp.jid.clone(),
        // A node that was killed and runs again must not be taken for the old one.
        resource: format!("ipop-{:08x}", rand::random::<u32>()),
        password,
        servers: xmpp.servers.clone(),
        ca_pem,
    };
    Ok((account, enrolment))
}

/// `$CREDENTIALS_DIRECTORY`, set by systemd for a unit with credentials (systemd.exec(5)).
pub fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
}

/// `$STATE_DIRECTORY`, set by systemd for a unit with one (systemd.exec(5)); the first of several.
fn state_directory() -> Option<PathBuf> {
    let dirs = std::env::var_os("STATE_DIRECTORY")?;
    std::env::split_paths(&dirs).find(|dir| dir.is_absolute())
}

/// A relative path means a credential when there is one of that name.
pub(crate) fn locate(path: &Path, credentials: Option<&Path>) -> PathBuf {
    match credentials {
        Some(dir) if path.is_relative() && dir.join(path).exists() => dir.join(path),
        _ => path.to_owned(),
    }
}

fn read_secret(what: &'static str, path: &Path) -> Result<Password, SettingsError> {
    let text = read(what, path)?;
    // A trailing newline is the editor's, not the password's.
    let text = String::from_utf8_lossy(&text)
        .trim_end_matches(['\r', '\n'])
        .to_owned();
    if text.is_empty() {
        return Err(SettingsError::NoPassword {
            what,
            path: path.to_owned(),
        });
    }
    Ok(Password::new(text))
}

/// Kind and key of an OpenSSH public key file, without the comment.
fn public_key(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
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
    use std::time::{Duration, SystemTime};

    use ipop_proto::authority::Validity;
    use ipop_proto::authority::issue::{Issuer, Subject};

    use super::*;
    use crate::cli::{CliError, Exit};

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

    /// Puts what a member of the authority's overlay needs, but for its identity, into a folder.
    fn place(dir: &Path, config: &str, issuer: &Issuer) {
        for (name, text) in [
            ("ipop.config", config),
            ("ipop.password", "sesame"),
            ("ipop.ca", "x"),
            ("ipop.authority", issuer.certificate_pem()),
        ] {
            std::fs::write(dir.join(name), text).expect("written");
        }
    }

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
        let account = settings.account.expect("an account");
        assert_eq!(account.password, Password::new("sesame"));
        assert_eq!(account.ca_pem, b"x");
    }

    #[test]
    fn a_node_that_enrols_needs_a_token_and_no_password() {
        let dir = tempfile::tempdir().expect("directory");
        let password = dir.path().join("state/password");
        let key = dir.path().join("key.pub");
        let config = CONFIG
            .replace(
                "password_file = \"ipop.password\"",
                &format!("password_file = {password:?}\nenrol_token_file = \"ipop.enrol-token\""),
            )
            .replace(
                "name = \"a\"",
                &format!("name = \"a\"\nssh_host_key = {key:?}"),
            );
        for (name, text) in [
            ("ipop.config", config.as_str()),
            ("ipop.enrol-token", "token\n"),
            ("ipop.ca", "x"),
            ("key.pub", "ssh-ed25519 AAAA root@worker-0\n"),
        ] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let load = || Settings::load(Path::new("ipop.config"), Some(dir.path()));
        let settings = load().expect("complete");
        let enrolment = settings.enrolment.expect("it enrols");
        assert_eq!(enrolment.token, Password::new("token"));
        assert_eq!(enrolment.password_file, password);
        assert_eq!(settings.ssh_host_key.as_deref(), Some("ssh-ed25519 AAAA"));
        std::fs::write(dir.path().join("ipop.enrol-token"), "\n").expect("written");
        let error = load().expect_err("no token").to_string();
        assert!(error.starts_with("the enrolment token "), "{error}");
    }

    #[test]
    fn an_identity_is_read_and_a_peer_with_the_same_one_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let identity = Identity::generate().expect("an identity");
        let xmpp = CONFIG.find("[xmpp]").expect("there");
        let config = |fingerprint| {
            format!(
                "{}[[peer]]\nname = \"b\"\nipv4 = \"10.73.0.2\"\nipv6 = \"fd5a::2\"\n\
                 fingerprint = \"{fingerprint}\"",
                CONFIG[..xmpp]
                    .replace("name = \"a\"", "name = \"a\"\nidentity = \"ipop.identity\"")
            )
        };
        let load = |config: String, pem: &str| {
            std::fs::write(dir.path().join("ipop.config"), config).expect("written");
            std::fs::write(dir.path().join("ipop.identity"), pem).expect("written");
            Settings::load(Path::new("ipop.config"), Some(dir.path()))
        };
        let pem = identity.to_pem().expect("PEM");
        let other = Identity::generate().expect("an identity");
        let settings = load(config(other.fingerprint()), &pem).expect("complete");
        let read = settings.identity.expect("an identity");
        assert_eq!(read.fingerprint(), identity.fingerprint());
        assert!(settings.account.is_none());
        let error = load(config(identity.fingerprint()), &pem).expect_err("itself");
        assert!(matches!(error, SettingsError::OwnFingerprint(name) if name == "b"));
        let error = load(config(other.fingerprint()), "x").expect_err("no PEM");
        assert!(matches!(error, SettingsError::Identity { .. }));
    }

    #[test]
    fn a_node_whose_certificate_its_peers_would_refuse_does_not_start() {
        let dir = tempfile::tempdir().expect("directory");
        let now = SystemTime::now();
        let day = Duration::from_secs(86_400);
        let valid = |days: [i32; 2]| {
            let [not_before, not_after] = days.map(|days| match days {
                ..0 => now - days.unsigned_abs() * day,
                _ => now + days.unsigned_abs() * day,
            });
            Validity {
                not_before,
                not_after,
            }
        };
        let issuer = Issuer::generate("test", valid([-9, 9]), [1; 16]).expect("an authority");
        let other = Issuer::generate("test", valid([-9, 9]), [1; 16]).expect("an authority");
        let config = CONFIG.replace("name = \"a\"", "name = \"a\"\nidentity = \"ipop.identity\"")
            + "[authority]\ncertificate = \"ipop.authority\"\n";
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("written");
        };
        place(dir.path(), &config, &issuer);
        let load = || Settings::load(Path::new("ipop.config"), Some(dir.path()));
        let identity = Identity::generate().expect("an identity");
        let install = |issuer: &Issuer, name: &str, last: u8, days| {
            let subject = Subject {
                name: name.to_owned(),
                overlay: "demo".to_owned(),
                addrs: vec![[10, 73, 0, last].into(), "fd5a::1".parse().expect("valid")],
                role: None,
                groups: Default::default(),
            };
            let request = subject.request(&identity).expect("a request");
            let (subject, key) = Subject::of_request(&request).expect("the same");
            let signed = issuer.sign(&subject, &key, valid(days), [2; 16]);
            let (pem, _) = signed.expect("signed");
            let certified = identity.certified(&pem).expect("its key");
            write("ipop.identity", &certified.to_pem().expect("PEM"));
        };
        install(&issuer, "a", 1, [-1, 1]);
        let membership = load().expect("complete").membership.expect("a member");
        assert_eq!(membership.certified.expect("one").name, "a");
        assert_eq!(membership.identity, dir.path().join("ipop.identity"));
        for (issuer, name, last, days, why) in [
            (&other, "a", 1, [-1, 1], "not of this overlay's authority"),
            (&issuer, "a", 1, [-2, -1], "the certificate ended on"),
            (&issuer, "a", 1, [1, 2], "the certificate begins on"),
            (&issuer, "b", 1, [-1, 1], "the certificate says b"),
            (
                &issuer,
                "a",
                2,
                [-1, 1],
                "the certificate says a (10.73.0.2",
            ),
        ] {
            install(issuer, name, last, days);
            let error = CliError::from(load().expect_err(why));
            assert_eq!(error.exit, Exit::Config);
            let text = error.to_string();
            assert!(
                text.starts_with("error: this node's certificate in "),
                "{text}"
            );
            assert!(text.contains(why), "{text}");
        }
        // Another one's key.
        install(&issuer, "a", 1, [-1, 1]);
        let stranger = Identity::generate()
            .and_then(|other| other.to_pem())
            .expect("PEM");
        let key = &stranger[..stranger.find("-----BEGIN CERT").expect("there")];
        let own = std::fs::read_to_string(dir.path().join("ipop.identity")).expect("there");
        let certificate = &own[own.find("-----BEGIN CERT").expect("there")..];
        write("ipop.identity", &format!("{key}{certificate}"));
        let error = load().expect_err("not its key");
        assert!(matches!(error, SettingsError::Identity { .. }), "{error:?}");
        write("ipop.authority", "");
        let error = CliError::from(load().expect_err("no authority"));
        assert_eq!(error.exit, Exit::Config);
    }

    #[test]
    fn a_node_that_can_ask_begins_with_what_it_was_given_or_a_key_of_its_own() {
        let dir = tempfile::tempdir().expect("directory");
        let now = SystemTime::now();
        let day = Duration::from_secs(86_400);
        let valid = |days| Validity {
            not_before: now - days * day,
            not_after: now + days * day,
        };
        let issuer = Issuer::generate("test", valid(9), [1; 16]).expect("an authority");
        let path = dir.path().join("state.pem");
        let config = CONFIG.replace(
            "name = \"a\"",
            &format!("name = \"a\"\nidentity = {path:?}"),
        ) + "[authority]\ncertificate = \"ipop.authority\"\ngiven = \"ipop.identity\"\n\
               issuer = \"provision@demo.ipop/issuer\"\n";
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("written");
        };
        place(dir.path(), &config, &issuer);
        let load = || {
            let settings = Settings::load(Path::new("ipop.config"), Some(dir.path()));
            let settings = settings.expect("complete");
            let membership = settings.membership.expect("an authority");
            assert!(membership.requester.is_some());
            let identity = settings.identity.expect("one");
            (identity.fingerprint(), membership.certified.is_some())
        };
        let signed = |name: &str| {
            let identity = Identity::generate().expect("an identity");
            let subject = Subject {
                name: name.to_owned(),
                overlay: "demo".to_owned(),
                addrs: vec![[10, 73, 0, 1].into(), "fd5a::1".parse().expect("valid")],
                role: None,
                groups: Default::default(),
            };
            let request = subject.request(&identity).expect("a request");
            let (subject, key) = Subject::of_request(&request).expect("the same");
            let (pem, _) = issuer
                .sign(&subject, &key, valid(1), [2; 16])
                .expect("signed");
            identity.certified(&pem).expect("its key")
        };
        let pem = |identity: &Identity| identity.to_pem().expect("PEM");
        // Of another node: it is begun with, as there is nothing else, and does not serve.
        let other = signed("b");
        write("ipop.identity", &pem(&other));
        assert_eq!(load(), (other.fingerprint(), false));
        let given = signed("a");
        write("ipop.identity", &pem(&given));
        assert_eq!(load(), (given.fingerprint(), true));
        // What came later stays, and what is given does not come back.
        let renewed = signed("a");
        write("state.pem", &pem(&renewed));
        assert_eq!(load(), (renewed.fingerprint(), true));
        // Nothing given: a key is made, and stays.
        std::fs::remove_file(&path).expect("there");
        write(
            "ipop.config",
            &config.replace("given = \"ipop.identity\"\n", ""),
        );
        let (own, certified) = load();
        assert!(!certified);
        assert_eq!(load(), (own, false));
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
