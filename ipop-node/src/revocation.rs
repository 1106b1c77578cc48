//! Where a node's revocation lists lie on this machine: the one that its owner installs, and those that
//! it keeps itself, so as not to forget over a restart what other members have told it.

use std::io;
use std::path::{Path, PathBuf};

use ipop_proto::authority::{Authority, ListError, RevocationList};

use crate::file::{self, PUBLIC};
use crate::settings::{SettingsError, locate};

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lists {
    /// `authority.revoked`; it is looked for whenever it is read, since it may come later.
    pub installed: Option<PathBuf>,
    /// Where relative paths are looked up first.
    pub credentials: Option<PathBuf>,
    /// `authority.keep`.
    pub kept: PathBuf,
}

impl Lists {
    /// Gives the authority the lists in both files. A file that is not there has none.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or the one that the owner installed is not the authority's.
    pub fn load(&self, authority: &Authority) -> Result<(), SettingsError> {
        for list in read(&self.kept)? {
            // Of one that was believed once.
            if let Err(error) = authority.take(list) {
                let file = self.kept.display();
                tracing::warn!(%file, %error, "a kept revocation list is left out");
            }
        }
        for list in self.installed()? {
            match authority.take(list) {
                Ok(_) | Err(ListError::Old { .. }) => {}
                Err(source) => return Err(self.unusable(source)),
            }
        }
        Ok(())
    }

    /// The lists that the owner has installed.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn installed(&self) -> Result<Vec<RevocationList>, SettingsError> {
        self.found().as_deref().map_or(Ok(Vec::new()), read)
    }

    fn found(&self) -> Option<PathBuf> {
        let path = self.installed.as_deref()?;
        Some(locate(path, self.credentials.as_deref()))
    }

    /// Writes down the lists that count.
    ///
    /// # Errors
    ///
    /// Those of writing a file.
    pub fn keep(&self, authority: &Authority) -> io::Result<()> {
        let lists = authority.lists();
        let text: String = lists.iter().map(|(_, list)| list.pem()).collect();
        match text.is_empty() || std::fs::read_to_string(&self.kept).is_ok_and(|old| old == text) {
            true => Ok(()),
            false => file::replace(&self.kept, &text, PUBLIC),
        }
    }

    fn unusable(&self, source: ListError) -> SettingsError {
        SettingsError::RevocationList {
            path: self.found().unwrap_or_default(),
            source,
        }
    }
}

fn read(path: &Path) -> Result<Vec<RevocationList>, SettingsError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(SettingsError::Read {
                what: "revocation list",
                path: path.to_owned(),
                source,
            });
        }
    };
    let lists = RevocationList::from_pem(&String::from_utf8_lossy(&text));
    lists.map_err(|source| SettingsError::RevocationList {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use ipop_proto::authority::issue::Issuer;
    use ipop_proto::authority::{Serial, Validity};

    use super::*;

    fn issuer() -> Issuer {
        let now = SystemTime::now();
        let validity = Validity {
            not_before: now,
            not_after: now + Duration::from_secs(3600),
        };
        Issuer::generate("test", validity, [1; 16]).expect("an authority")
    }

    fn believed(issuer: &Issuer) -> Authority {
        Authority::from_pem(issuer.certificate_pem(), "demo").expect("its certificate")
    }

    fn numbers(authority: &Authority) -> Vec<u64> {
        let lists = authority.lists();
        lists.iter().map(|(_, list)| list.number()).collect()
    }

    #[test]
    fn what_is_kept_is_there_again_and_the_newer_of_both_files_counts() {
        let dir = tempfile::tempdir().expect("directory");
        let files = Lists {
            installed: Some("installed".into()),
            credentials: Some(dir.path().to_owned()),
            kept: dir.path().join("kept"),
        };
        let issuer = issuer();
        let revoke = |previous| {
            let serial = Serial::new(&[7]).expect("a number");
            let list = issuer.revoke(previous, &[serial], SystemTime::now());
            list.expect("a list")
        };
        let load = |issuer: &Issuer| {
            let authority = believed(issuer);
            files.load(&authority).map(|()| authority)
        };
        let none = load(&issuer).expect("no files");
        assert!(numbers(&none).is_empty());
        files.keep(&none).expect("nothing to keep");
        assert!(!files.kept.exists());
        let first = revoke(None);
        let second = revoke(Some(&first));
        let install = |text: &str| {
            std::fs::write(dir.path().join("installed"), text).expect("written");
        };
        install(&second.pem());
        let authority = load(&issuer).expect("installed");
        assert_eq!(numbers(&authority), [2]);
        files.keep(&authority).expect("kept");
        // An older one comes too late.
        install(&first.pem());
        assert_eq!(numbers(&load(&issuer).expect("kept")), [2]);
        install(&revoke(Some(&second)).pem());
        assert_eq!(numbers(&load(&issuer).expect("installed")), [3]);
        // Another authority is believed now.
        install("");
        let other = self::issuer();
        assert!(numbers(&load(&other).expect("left out")).is_empty());
        install(&first.pem());
        let error = load(&other).expect_err("not the authority's");
        assert!(matches!(error, SettingsError::RevocationList { .. }));
        // Half a file is none.
        std::fs::write(&files.kept, &second.pem()[..200]).expect("written");
        install("");
        let read = load(&issuer).map(|authority| numbers(&authority));
        assert!(!matches!(read, Ok(numbers) if numbers == [2]));
    }
}
