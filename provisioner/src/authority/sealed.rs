//! The authority's key under a passphrase: PKCS#8 (RFC 5958) by PBES2 (RFC 8018) with scrypt (RFC 7914)
//! and AES-256-CBC, as `openssl pkcs8` reads and writes it.

use pkcs8::der::pem::PemLabel as _;
use pkcs8::der::{Document, SecretDocument};
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef};

use crate::secret::Secret;

/// scrypt's N = 2^14, r and p: 16 MiB, which is what OpenSSL takes at most, and as much work as OWASP
/// asks for at least.
const SCRYPT: (u8, u32, u32) = (14, 8, 5);

/// A key cannot be encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The text is no key of the kind that was expected.
    #[error("this is no key in PKCS#8")]
    NoKey(#[source] pkcs8::Error),
    /// It does not open.
    #[error("the passphrase is wrong, or the file is damaged")]
    Passphrase,
    /// The library refuses.
    #[error("it cannot be encrypted")]
    Failed(#[source] pkcs8::Error),
}

/// Whether a PEM text is a key that a passphrase opens.
pub fn is_sealed(pem: &str) -> bool {
    let label = EncryptedPrivateKeyInfoRef::PEM_LABEL;
    pem.contains(&format!("-----BEGIN {label}-----"))
}

/// Encrypts a key (PEM).
pub fn seal(key_pem: &str, passphrase: &Secret<String>) -> Result<String, SealError> {
    let no_key = |e: pkcs8::der::Error| SealError::NoKey(e.into());
    let (_, key) = SecretDocument::from_pem(key_pem).map_err(no_key)?;
    let info = PrivateKeyInfoRef::try_from(key.as_bytes()).map_err(SealError::NoKey)?;
    let (log_n, r, p) = SCRYPT;
    let failed = |e: pkcs8::pkcs5::Error| SealError::Failed(e.into());
    let params = scrypt::Params::new(log_n, r, p).map_err(|_| {
        failed(pkcs8::pkcs5::Error::AlgorithmParametersInvalid {
            oid: pbes2::SCRYPT_OID,
        })
    })?;
    let (salt, iv): ([u8; 16], [u8; 16]) = (rand::random(), rand::random());
    let params = pbes2::Parameters::generate_scrypt_aes256cbc(params, &salt, iv).map_err(failed)?;
    let sealed = info
        .encrypt_with_params(params, passphrase.expose())
        .map_err(SealError::Failed)?;
    let label = EncryptedPrivateKeyInfoRef::PEM_LABEL;
    let pem = sealed.to_pem(label, LineEnding::LF);
    pem.map(|pem| pem.to_string())
        .map_err(|e| SealError::Failed(e.into()))
}

/// Decrypts a key (PEM).
pub fn open(sealed: &str, passphrase: &Secret<String>) -> Result<Secret<String>, SealError> {
    let no_key = |e: pkcs8::der::Error| SealError::NoKey(e.into());
    let (_, document) = Document::from_pem(sealed).map_err(no_key)?;
    let info =
        EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(SealError::NoKey)?;
    // With a wrong passphrase the padding is wrong, or else what is inside is no key.
    let key = info.decrypt(passphrase.expose());
    let key = key.map_err(|_| SealError::Passphrase)?;
    PrivateKeyInfoRef::try_from(key.as_bytes()).map_err(|_| SealError::Passphrase)?;
    let pem = key.to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF);
    let pem = pem.map_err(|e| SealError::Failed(e.into()))?;
    Ok(Secret::new(pem.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn key() -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        key.serialize_pem()
    }

    #[test]
    fn what_is_sealed_opens_with_its_passphrase_and_with_no_other() {
        let key = key();
        let sealed = seal(&key, &secret("correct horse")).expect("sealed");
        assert!(is_sealed(&sealed) && !is_sealed(&key));
        let opened = open(&sealed, &secret("correct horse")).expect("opened");
        let parsed = |pem: &str| rcgen::KeyPair::from_pem(pem).expect("a key");
        assert_eq!(
            parsed(opened.expose()).serialize_der(),
            parsed(&key).serialize_der()
        );
        for wrong in ["", "correct horsf", "Correct horse", "correct horse "] {
            let error = open(&sealed, &secret(wrong)).expect_err("wrong");
            assert!(matches!(error, SealError::Passphrase), "{error:?}");
        }
        // Each time with another salt.
        assert_ne!(
            sealed,
            seal(&key, &secret("correct horse")).expect("sealed")
        );
    }

    #[test]
    fn what_is_no_key_is_not_sealed_and_what_is_damaged_does_not_open() {
        let sealed = seal("nothing", &secret("a"));
        assert!(matches!(sealed, Err(SealError::NoKey(_))));
        let opened = open(&key(), &secret("a"));
        assert!(matches!(opened, Err(SealError::NoKey(_))), "{opened:?}");
        let sealed = seal(&key(), &secret("a")).expect("sealed");
        let (head, tail) = sealed.split_at(sealed.len() - 60);
        let damaged = head.to_owned() + &tail.replacen(|c: char| c.is_ascii_lowercase(), "Z", 4);
        open(&damaged, &secret("a")).expect_err("damaged");
    }

    #[test]
    fn openssl_reads_it() {
        let key = key();
        let sealed = seal(&key, &secret("correct horse")).expect("sealed");
        let mut openssl = Command::new("openssl")
            .args(["pkcs8", "-passin", "pass:correct horse"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl runs");
        let mut input = openssl.stdin.take().expect("piped");
        input.write_all(sealed.as_bytes()).expect("written");
        drop(input);
        let output = openssl.wait_with_output().expect("openssl ends");
        assert!(output.status.success());
        let opened = String::from_utf8(output.stdout).expect("PEM");
        let public = |pem: &str| {
            let key = rcgen::KeyPair::from_pem(pem).expect("a key");
            rcgen::PublicKeyData::subject_public_key_info(&key)
        };
        assert_eq!(public(&opened), public(&key));
    }
}
