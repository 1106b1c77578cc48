//! From a handshake's secrets to the keys of its records (RFC 5246 section 6.3).

use std::fmt;

use aws_lc_rs::hmac;

/// Bytes of a master secret (RFC 5246 section 8.1).
pub const MASTER_SECRET: usize = 48;
/// Bytes of each side's random (RFC 5246 section 7.4.1.2).
pub const RANDOM: usize = 32;
const LABEL_KEYS: &[u8] = b"key expansion";
const LABEL_TAG: &[u8] = b"EXPERIMENTAL ipop sequence tag";

/// The cipher suites there is a record path for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 (RFC 5289).
    Aes128Gcm,
    /// TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 (RFC 7905).
    ChaCha20Poly1305,
}

impl Suite {
    /// Bytes of a key.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of the part of a nonce that comes out of the handshake.
    pub const fn iv_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 4,
            Self::ChaCha20Poly1305 => 12,
        }
    }

    /// Bytes of the part of a nonce that each record carries.
    pub const fn explicit_nonce_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 8,
            Self::ChaCha20Poly1305 => 0,
        }
    }
}

/// The side that sent the ClientHello, and the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Sent the ClientHello.
    Client,
    /// Answered it.
    Server,
}

/// What a finished TLS 1.2 handshake leaves behind.
pub struct Secret {
    /// Negotiated cipher suite.
    pub suite: Suite,
    /// The master secret.
    pub master: [u8; MASTER_SECRET],
    /// The client's random.
    pub client_random: [u8; RANDOM],
    /// The server's random.
    pub server_random: [u8; RANDOM],
}

impl fmt::Debug for Secret {
    /// The master secret stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// Key and implicit nonce of one direction.
pub(crate) struct WriteKey {
    pub(crate) key: Vec<u8>,
    pub(crate) iv: Vec<u8>,
}

impl Secret {
    /// Keys of what the client writes, and of what the server writes.
    pub(crate) fn write_keys(&self) -> (WriteKey, WriteKey) {
        let (key, iv) = (self.suite.key_len(), self.suite.iv_len());
        let seed = [&self.server_random[..], &self.client_random[..]].concat();
        let block = prf(&self.master, LABEL_KEYS, &seed, 2 * (key + iv));
        let (keys, ivs) = block.split_at(2 * key);
        let side = |at: usize| WriteKey {
            key: keys[at * key..(at + 1) * key].to_vec(),
            iv: ivs[at * iv..(at + 1) * iv].to_vec(),
        };
        (side(0), side(1))
    }

    /// A number that both sides know and that tells the records of this handshake from those of
    /// the one before; never 0.
    pub(crate) fn tag(&self) -> u16 {
        let seed = [&self.client_random[..], &self.server_random[..]].concat();
        let bytes = prf(&self.master, LABEL_TAG, &seed, 2);
        u16::from_be_bytes([bytes[0], bytes[1]]).max(1)
    }
}

/// The PRF of TLS 1.2 with SHA-256 (RFC 5246 section 5).
fn prf(secret: &[u8], label: &[u8], seed: &[u8], len: usize) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let seed = [label, seed].concat();
    let mut a = hmac::sign(&key, &seed);
    let mut out = Vec::with_capacity(len + 32);
    while out.len() < len {
        let mut context = hmac::Context::with_key(&key);
        context.update(a.as_ref());
        context.update(&seed);
        out.extend_from_slice(context.sign().as_ref());
        a = hmac::sign(&key, a.as_ref());
    }
    out.truncate(len);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vector published for TLS 1.2's PRF with SHA-256 (IETF TLS list, 2009).
    #[test]
    fn the_prf_gives_the_published_test_vector() {
        let secret = [
            0x9b, 0xbe, 0x43, 0x6b, 0xa9, 0x40, 0xf0, 0x17, 0xb1, 0x76, 0x52, 0x84, 0x9a, 0x71,
            0xdb, 0x35,
        ];
        let seed = [
            0xa0, 0xba, 0x9f, 0x93, 0x6c, 0xda, 0x31, 0x18, 0x27, 0xa6, 0xf7, 0x96, 0xff, 0xd5,
            0x19, 0x8c,
        ];
        let out = prf(&secret, b"test label", &seed, 100);
        assert_eq!(
            out[..16],
            [
                0xe3, 0xf2, 0x29, 0xba, 0x72, 0x7b, 0xe1, 0x7b, 0x8d, 0x12, 0x26, 0x20, 0x55, 0x7c,
                0xd4, 0x53
            ]
        );
        assert_eq!(out[96..], [0x87, 0x34, 0x7b, 0x66]);
        assert_eq!(out.len(), 100);
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret {
            suite: Suite::Aes128Gcm,
            master: [0xab; MASTER_SECRET],
            client_random: [1; RANDOM],
            server_random: [2; RANDOM],
        };
        assert_eq!(format!("{secret:?}"), "Secret { suite: Aes128Gcm, .. }");
    }
}
