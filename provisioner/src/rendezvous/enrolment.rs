//! Enrolment tokens: first passwords that others may see, and that die.
//!
//! A token is the initial password of a node's account. It dies with use, because the node changes
//! the password at once; with time, by [`Tokens::expire`]; and with the account. What is not known
//! to be dead is in a file of the deployment's, which the embedded server's supervisor looks at too.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::api::Api;
use super::{RendezvousError, files, password};
use crate::secret::Secret;

/// Name of the file in the rendezvous's directory.
const FILE: &str = "enrolment.json";

/// The tokens of a deployment that may be alive.
#[derive(Debug, Clone)]
pub struct Tokens {
    path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    token: String,
    /// Seconds since 1970.
    expires: u64,
}

/// Local part of the account to its token.
type Entries = BTreeMap<String, Entry>;

impl Tokens {
    /// Those of the rendezvous whose directory is `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            path: dir.join(FILE),
        }
    }

    /// Notes a token, before the account has it.
    pub fn add(
        &self,
        user: &str,
        token: &Secret<String>,
        expires: SystemTime,
    ) -> Result<(), RendezvousError> {
        let entry = Entry {
            token: token.expose().clone(),
            expires: seconds(expires),
        };
        self.change(|entries| {
            entries.insert(user.to_owned(), entry);
        })
    }

    /// The token of an account that was noted and has not been found dead.
    pub fn of(&self, user: &str) -> Result<Option<Secret<String>>, RendezvousError> {
        Ok(self.noted(user)?.map(|(token, _)| token))
    }

    /// The same, with the time when it dies.
    pub fn noted(
        &self,
        user: &str,
    ) -> Result<Option<(Secret<String>, SystemTime)>, RendezvousError> {
        let entries = self.read()?;
        Ok(entries.get(user).map(|entry| {
            let expires = UNIX_EPOCH + Duration::from_secs(entry.expires);
            (Secret::new(entry.token.clone()), expires)
        }))
    }

    /// Kills the tokens whose time is over: an account that still has its token for a password
    /// gets one that nobody knows. Returns these accounts' local parts. A token that was used, or
    /// whose account is gone, is forgotten.
    ///
    /// It may be called at any time, by several processes.
    pub fn expire(&self, api: &Api, now: SystemTime) -> Result<Vec<String>, RendezvousError> {
        let now = seconds(now);
        let over = self.read()?;
        let over = over.into_iter().filter(|(_, entry)| entry.expires <= now);
        let mut killed = Vec::new();
        for (user, entry) in over {
            let token = Secret::new(entry.token.clone());
            if api.check_password(&user, &token)? {
                let nobodys = password::generate().map_err(RendezvousError::Entropy)?;
                api.change_password(&user, &nobodys)?;
                killed.push(user.clone());
            }
            self.change(|entries| {
                // Another token may have been noted meanwhile.
                if entries.get(&user) == Some(&entry) {
                    entries.remove(&user);
                }
            })?;
        }
        Ok(killed)
    }

    fn read(&self) -> Result<Entries, RendezvousError> {
        match std::fs::read(&self.path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| RendezvousError::Damaged {
                    path: self.path.clone(),
                    source,
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Entries::new()),
            Err(source) => Err(RendezvousError::file(&self.path, source)),
        }
    }

    /// Reads, changes and writes the file while no other process does.
    fn change(&self, change: impl FnOnce(&mut Entries)) -> Result<(), RendezvousError> {
        let file = |source| RendezvousError::file(&self.path, source);
        let lock = File::create(self.path.with_extension("lock")).map_err(file)?;
        lock.lock().map_err(file)?;
        let mut entries = self.read()?;
        change(&mut entries);
        let json = serde_json::to_vec(&entries).map_err(|source| RendezvousError::Damaged {
            path: self.path.clone(),
            source,
        })?;
        files::write(&self.path, &json, 0o600).map_err(file)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tokens_are_kept_where_only_their_owner_reads_them_and_the_last_one_counts() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tokens = Tokens::new(dir.path());
        assert_eq!(tokens.of("worker-0").expect("none yet"), None);
        for token in ["one", "two"] {
            let secret = Secret::new(token.to_owned());
            tokens
                .add("worker-0", &secret, SystemTime::now())
                .expect("noted");
        }
        let kept = tokens.of("worker-0").expect("read").expect("noted");
        assert_eq!(kept.expose(), "two");
        let mode = std::fs::metadata(dir.path().join(FILE)).expect("made");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_token_whose_time_is_not_over_needs_no_server() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tokens = Tokens::new(dir.path());
        let token = Secret::new("t".to_owned());
        let expires = SystemTime::now() + Duration::from_secs(60);
        tokens.add("worker-0", &token, expires).expect("noted");
        let api = Api::new("unix:/nonexistent/api", "x", "", None).expect("an address");
        let now = SystemTime::now();
        assert_eq!(tokens.expire(&api, now).expect("nothing to do"), [""; 0]);
        tokens
            .expire(&api, expires)
            .expect_err("nobody there to kill it");
        assert!(tokens.of("worker-0").expect("read").is_some(), "forgotten");
    }
}
