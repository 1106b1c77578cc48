//! How an authority's key is kept: as it is, or under a passphrase, and then locked or unlocked.

use std::path::{Path, PathBuf};

use ipop_proto::authority::issue::Issuer;
use serde::Serialize;

use super::keyring::Slot;
use super::{AuthorityError, file, lock, sealed};
use crate::rendezvous::files;
use crate::secret::Secret;

/// How a key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Custody {
    /// In its file, for whoever can read that.
    Plain,
    /// Encrypted in its file, and in the kernel's keyring until the machine is switched off.
    Unlocked,
    /// Encrypted in its file, and nowhere else.
    Locked,
}

/// Takes the key of the authority in `dir`, which is about to be removed, from the kernel's keyring.
/// Where that cannot be used there is none in it.
pub fn forget(dir: &Path) {
    if let Ok(Some(key)) = KeyFile::of(dir) {
        let _ = key.lock();
    }
}

/// The file of an authority's key.
pub struct KeyFile {
    dir: PathBuf,
    path: PathBuf,
    certificate: String,
    slot: Slot,
}

impl KeyFile {
    /// That of the authority in `dir`, where there is one.
    pub fn of(dir: &Path) -> Result<Option<Self>, AuthorityError> {
        let path = dir.join("ca.pem");
        match std::fs::read_to_string(&path) {
            Ok(certificate) => Ok(Some(Self::new(dir, &certificate))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file(&path)(error)),
        }
    }

    /// That of the key to this certificate (PEM).
    pub(super) fn new(dir: &Path, certificate: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            path: dir.join("ca.key"),
            certificate: certificate.to_owned(),
            slot: Slot::of(certificate),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the key is kept.
    pub fn custody(&self) -> Result<Custody, AuthorityError> {
        Ok(match (sealed::is_sealed(&self.text()?), self.slot.get()?) {
            (false, _) => Custody::Plain,
            (true, Some(_)) => Custody::Unlocked,
            (true, None) => Custody::Locked,
        })
    }

    /// The key (PEM).
    pub(super) fn read(&self) -> Result<Secret<String>, AuthorityError> {
        let text = self.text()?;
        if !sealed::is_sealed(&text) {
            return Ok(Secret::new(text));
        }
        let unlocked = self.slot.get()?;
        unlocked.ok_or_else(|| AuthorityError::Locked(self.path.clone()))
    }

    /// Says why nothing can be signed, where that is so.
    pub fn usable(&self) -> Result<(), AuthorityError> {
        self.read().map(|_| ())
    }

    /// Encrypts the key, or encrypts it with another passphrase; it is unlocked then.
    ///
    /// A key that is encrypted already has to be unlocked.
    pub fn encrypt(&self, passphrase: &Secret<String>) -> Result<(), AuthorityError> {
        let _lock = lock(&self.dir)?;
        let key = self.read()?;
        let sealed = sealed::seal(key.expose(), passphrase).map_err(|e| self.unusable(e))?;
        // First: what signs goes on without a gap.
        self.slot.put(&key)?;
        files::write(&self.path, sealed.as_bytes(), 0o600).map_err(file(&self.path))
    }

    /// Writes the key to its file as it is.
    pub fn decrypt(&self, passphrase: &Secret<String>) -> Result<(), AuthorityError> {
        let _lock = lock(&self.dir)?;
        let key = self.open(passphrase)?;
        files::write(&self.path, key.expose().as_bytes(), 0o600).map_err(file(&self.path))?;
        self.slot.clear()?;
        Ok(())
    }

    /// Has the key ready until [`lock`](Self::lock) or until the machine is switched off.
    pub fn unlock(&self, passphrase: &Secret<String>) -> Result<(), AuthorityError> {
        Ok(self.slot.put(&self.open(passphrase)?)?)
    }

    /// Has nothing signed until the key is unlocked; whether it was.
    pub fn lock(&self) -> Result<bool, AuthorityError> {
        Ok(self.slot.clear()?)
    }

    /// The key, which is the certificate's.
    fn open(&self, passphrase: &Secret<String>) -> Result<Secret<String>, AuthorityError> {
        let key = sealed::open(&self.text()?, passphrase).map_err(|e| self.unusable(e))?;
        Issuer::from_pem(key.expose(), &self.certificate).map_err(|source| {
            AuthorityError::Issue {
                dir: self.dir.clone(),
                source,
            }
        })?;
        Ok(key)
    }

    fn text(&self) -> Result<String, AuthorityError> {
        std::fs::read_to_string(&self.path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => AuthorityError::NoKey(self.path.clone()),
            _ => file(&self.path)(error),
        })
    }

    fn unusable(&self, source: super::SealError) -> AuthorityError {
        AuthorityError::Seal {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;
    use std::time::SystemTime;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    /// Nothing of a test stays in the user's keyring.
    struct Forgotten(tempfile::TempDir);

    impl Drop for Forgotten {
        fn drop(&mut self) {
            forget(self.0.path());
        }
    }

    #[test]
    fn a_key_under_a_passphrase_signs_while_it_is_unlocked() {
        let dir = Forgotten(tempfile::tempdir().expect("temporary directory"));
        let dir = dir.0.path();
        assert!(KeyFile::of(dir).expect("readable").is_none());
        let now = SystemTime::now();
        let certificate = open(dir, now).expect("made").certificate_pem().to_owned();
        let key = KeyFile::of(dir).expect("readable").expect("an authority");
        assert_eq!(key.custody().expect("known"), Custody::Plain);
        let plain = std::fs::read_to_string(key.path()).expect("a key");

        key.encrypt(&secret("one")).expect("encrypted");
        assert_eq!(key.custody().expect("known"), Custody::Unlocked);
        let sealed = std::fs::read_to_string(key.path()).expect("a key");
        assert!(sealed.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        assert_eq!(
            open(dir, now).expect("unlocked").certificate_pem(),
            certificate
        );

        assert!(key.lock().expect("locked"));
        assert_eq!(key.custody().expect("known"), Custody::Locked);
        let locked = open(dir, now).map(|_| ());
        assert!(
            matches!(locked, Err(AuthorityError::Locked(_))),
            "{locked:?}"
        );
        // Nothing that needs the key does without it.
        let again = key.encrypt(&secret("two"));
        assert!(matches!(again, Err(AuthorityError::Locked(_))), "{again:?}");
        for refused in [key.unlock(&secret("two")), key.decrypt(&secret("two"))] {
            assert!(
                matches!(refused, Err(AuthorityError::Seal { .. })),
                "{refused:?}"
            );
        }
        assert_eq!(std::fs::read_to_string(key.path()).expect("a key"), sealed);
        assert_eq!(key.custody().expect("known"), Custody::Locked);

        key.unlock(&secret("one")).expect("unlocked");
        key.encrypt(&secret("two")).expect("another passphrase");
        key.decrypt(&secret("one")).expect_err("the old one");
        key.decrypt(&secret("two")).expect("decrypted");
        assert_eq!(key.custody().expect("known"), Custody::Plain);
        let issuer = |pem: &str| {
            Issuer::from_pem(pem, &certificate)
                .expect("its key")
                .key_pem()
        };
        let now_plain = std::fs::read_to_string(key.path()).expect("a key");
        assert_eq!(issuer(&now_plain), issuer(&plain));
        assert!(!key.lock().expect("nothing is in the keyring"));
    }

    #[test]
    fn the_key_of_another_authority_is_not_unlocked() {
        let dirs = [(); 2].map(|()| Forgotten(tempfile::tempdir().expect("temporary directory")));
        let [one, other] = &dirs;
        for dir in &dirs {
            open(dir.0.path(), SystemTime::now()).expect("made");
            let key = KeyFile::of(dir.0.path()).expect("readable").expect("there");
            key.encrypt(&secret("one")).expect("encrypted");
            key.lock().expect("locked");
        }
        std::fs::copy(one.0.path().join("ca.key"), other.0.path().join("ca.key")).expect("copied");
        let key = KeyFile::of(other.0.path())
            .expect("readable")
            .expect("there");
        let refused = key.unlock(&secret("one"));
        assert!(
            matches!(refused, Err(AuthorityError::Issue { .. })),
            "{refused:?}"
        );
        assert_eq!(key.custody().expect("known"), Custody::Locked);
    }
}
