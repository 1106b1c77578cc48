//! The AEAD ciphers of records (RFC 5116), from the library that is faster at them on this processor.
//!
//! That is aws-lc-rs, but for AES-GCM on x86-64 processors with VAES and VPCLMULQDQ and without AVX-512
//! (AMD Zen 3, Intel's cores for desktops since Alder Lake): ring has code for their 256-bit registers,
//! aws-lc for the 512-bit ones only. A packet takes a half to three quarters of the time there
//! (`cargo bench -p ipop-datapath --bench speed aead`). Both write the same bytes.

use crate::record::{BadRecord, TAG};
use crate::secret::Suite;

/// Bytes of a nonce, of either cipher.
pub(crate) const NONCE: usize = 12;

/// A key, with the library that uses it.
pub(crate) enum Key {
    AwsLc(Box<aws_lc_rs::aead::LessSafeKey>),
    Ring(Box<ring::aead::LessSafeKey>),
}

impl Key {
    /// For records of `suite`.
    pub(crate) fn new(suite: Suite, key: &[u8]) -> Result<Self, BadRecord> {
        match suite {
            Suite::Aes128Gcm if vaes_without_avx512() => Self::ring(suite, key),
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => Self::aws_lc(suite, key),
        }
    }

    fn aws_lc(suite: Suite, key: &[u8]) -> Result<Self, BadRecord> {
        use aws_lc_rs::aead::{AES_128_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
        let algorithm = match suite {
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| BadRecord)?;
        Ok(Self::AwsLc(Box::new(LessSafeKey::new(key))))
    }

    fn ring(suite: Suite, key: &[u8]) -> Result<Self, BadRecord> {
        use ring::aead::{AES_128_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
        let algorithm = match suite {
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| BadRecord)?;
        Ok(Self::Ring(Box::new(LessSafeKey::new(key))))
    }

    /// Encrypts `body` where it stands, and returns its tag. A nonce is never given twice.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE],
        additional_data: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; TAG], BadRecord> {
        let mut bytes = [0; TAG];
        match self {
            Self::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(additional_data), body)
                    .map_err(|_| BadRecord)?;
                bytes.copy_from_slice(tag.as_ref());
            }
            Self::Ring(key) => {
                use ring::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(additional_data), body)
                    .map_err(|_| BadRecord)?;
                bytes.copy_from_slice(tag.as_ref());
            }
        }
        Ok(bytes)
    }

    /// Decrypts `body`, whose last [`TAG`] bytes are its tag, where it stands.
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE],
        additional_data: &[u8],
        body: &mut [u8],
    ) -> Result<(), BadRecord> {
        match self {
            Self::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, Aad::from(additional_data), body)
                    .map_err(|_| BadRecord)?;
            }
            Self::Ring(key) => {
                use ring::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, Aad::from(additional_data), body)
                    .map_err(|_| BadRecord)?;
            }
        }
        Ok(())
    }
}

/// Whether this processor has the instructions that only ring makes use of.
#[cfg(target_arch = "x86_64")]
fn vaes_without_avx512() -> bool {
    use std::arch::is_x86_feature_detected;
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && !is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn vaes_without_avx512() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths around those at which either library goes over to other code.
    const LENGTHS: [usize; 14] = [
        0, 1, 15, 16, 17, 95, 96, 97, 287, 288, 511, 512, 1391, 16384,
    ];

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + len) as u8).collect()
    }

    #[test]
    fn both_libraries_write_and_read_the_same_records() {
        for suite in [Suite::Aes128Gcm, Suite::ChaCha20Poly1305] {
            let secret = vec![0x5a; suite.key_len()];
            let keys = [
                Key::aws_lc(suite, &secret).unwrap(),
                Key::ring(suite, &secret).unwrap(),
            ];
            for len in LENGTHS {
                let sealed = keys.each_ref().map(|key| {
                    let mut body = content(len);
                    let tag = key.seal([9; NONCE], b"additional", &mut body).unwrap();
                    body.extend_from_slice(&tag);
                    body
                });
                assert_eq!(sealed[0], sealed[1], "{suite:?}, {len} bytes");
                for (opener, other) in keys.iter().zip([1, 0]) {
                    let mut body = sealed[other].clone();
                    opener.open([9; NONCE], b"additional", &mut body).unwrap();
                    assert_eq!(body[..len], content(len), "{suite:?}, {len} bytes");
                }
            }
        }
    }

    #[test]
    fn neither_library_opens_what_was_changed() {
        for suite in [Suite::Aes128Gcm, Suite::ChaCha20Poly1305] {
            let secret = vec![0x5a; suite.key_len()];
            for key in [
                Key::aws_lc(suite, &secret).unwrap(),
                Key::ring(suite, &secret).unwrap(),
            ] {
                let mut sealed = content(600);
                let tag = key.seal([9; NONCE], b"additional", &mut sealed).unwrap();
                sealed.extend_from_slice(&tag);
                for at in [0, 599, 600, 615] {
                    let mut changed = sealed.clone();
                    changed[at] ^= 1;
                    assert_eq!(
                        key.open([9; NONCE], b"additional", &mut changed),
                        Err(BadRecord)
                    );
                }
                let mut whole = sealed.clone();
                assert_eq!(
                    key.open([8; NONCE], b"additional", &mut whole),
                    Err(BadRecord)
                );
                let mut whole = sealed.clone();
                assert_eq!(
                    key.open([9; NONCE], b"additionaL", &mut whole),
                    Err(BadRecord)
                );
            }
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        for suite in [Suite::Aes128Gcm, Suite::ChaCha20Poly1305] {
            let short = vec![0; suite.key_len() - 1];
            assert!(Key::new(suite, &short).is_err());
            assert!(Key::ring(suite, &short).is_err());
        }
    }
}
