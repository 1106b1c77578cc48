//! Where an authority's key is while it is unlocked: the kernel's keyring of this user
//! (user-keyring(7)). It is in no file, other users have no right to it, and it is gone when the
//! machine is switched off.

use linux_keyutils::{KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};
use sha2::{Digest, Sha256};

use crate::secret::Secret;

/// The kernel does not keep a key.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's keyring cannot be used: {0:?}")]
pub struct KeyringError(KeyError);

/// The place of one authority's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot(String);

impl Slot {
    /// The place of the key to this certificate: that of another authority is never taken for it.
    pub fn of(certificate_pem: &str) -> Self {
        let digest = Sha256::digest(certificate_pem.trim());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("ipop-provision:authority:{hex}"))
    }

    /// Puts a key there, or another one in its place.
    pub fn put(&self, key_pem: &Secret<String>) -> Result<(), KeyringError> {
        let put = || {
            // Whoever starts `provision` need not possess the user's keyring, but always its
            // process's: only a possessor may say that the user may read the key.
            let own = KeyRing::from_special_id(KeyRingIdentifier::Process, true)?;
            let key = own.add_key(self.0.as_str(), key_pem.expose())?;
            let rights = Permission::VIEW | Permission::READ | Permission::SEARCH;
            key.set_perms(
                KeyPermissionsBuilder::builder()
                    .posessor(Permission::ALL)
                    .user(rights | Permission::LINK)
                    .build(),
            )?;
            user()?.link_key(key)?;
            own.unlink_key(key)
        };
        put().map_err(KeyringError)
    }

    /// The key that is there.
    pub fn get(&self) -> Result<Option<Secret<String>>, KeyringError> {
        let key = match user().and_then(|ring| ring.search(self.0.as_str())) {
            Ok(key) => key,
            Err(error) => return absent(error),
        };
        match key.read_to_vec() {
            // What is no text was not put there by this.
            Ok(bytes) => Ok(String::from_utf8(bytes).ok().map(Secret::new)),
            Err(error) => absent(error),
        }
    }

    /// Takes it away; whether there was one.
    pub fn clear(&self) -> Result<bool, KeyringError> {
        let clear = || {
            let ring = user()?;
            ring.unlink_key(ring.search(self.0.as_str())?)
        };
        match clear() {
            Ok(()) => Ok(true),
            Err(error) => absent(error).map(|_: Option<()>| false),
        }
    }
}

fn user() -> Result<KeyRing, KeyError> {
    KeyRing::from_special_id(KeyRingIdentifier::User, true)
}

fn absent<T>(error: KeyError) -> Result<Option<T>, KeyringError> {
    match error {
        KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked => Ok(None),
        error => Err(KeyringError(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing of a test stays in the user's keyring.
    struct Cleared(Slot);

    impl Drop for Cleared {
        fn drop(&mut self) {
            let _ = self.0.clear();
        }
    }

    #[test]
    fn a_key_is_there_until_it_is_taken_away_and_only_for_its_certificate() {
        let certificate = format!("certificate {}", rand::random::<u64>());
        let slot = Cleared(Slot::of(&certificate));
        let key = |text: &str| Secret::new(text.to_owned());
        assert_eq!(slot.0.get().expect("a keyring"), None);
        assert!(!slot.0.clear().expect("a keyring"));
        for text in ["one", "another"] {
            slot.0.put(&key(text)).expect("put");
            assert_eq!(Slot::of(&certificate).get().expect("read"), Some(key(text)));
        }
        assert_eq!(Slot::of("another").get().expect("a keyring"), None);
        assert!(slot.0.clear().expect("cleared"));
        assert_eq!(slot.0.get().expect("a keyring"), None);
    }
}
