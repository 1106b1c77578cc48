//! Takes the secrets of a handshake out of the library, which does not give them.
//!
//! The library derives its record keys through the crypto provider it is given: by HMACs over
//! `"key expansion" + server_random + client_random` under the master secret (RFC 5246 sections 5
//! and 6.3). A provider that passes everything on and remembers key and seed of these sees all
//! that the record path needs, and exactly what the handshake agreed on.

use std::sync::{Arc, Mutex, PoisonError};

use ipop_datapath::secret::{MASTER_SECRET, RANDOM, Secret, Suite};
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;
use rtc_dtls::crypto_provider::{
    ActiveKeyExchange, AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CbcAlgorithm, CbcCipher,
    CryptoAlgorithm, CryptoError, HashAlgorithm, HmacAlgorithm, KeyExchangeAlgorithm, Mac,
    PublicKey, RTCCrypto, RTCCryptoProvider, RTCRandom, SignatureScheme, SigningKey, StreamCipher,
    StreamCipherAlgorithm,
};

const KEY_EXPANSION: &[u8] = b"key expansion";

/// A crypto provider for one association.
pub(super) struct KeyTap {
    inner: AwsLcRsProvider,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    suite: Option<Suite>,
    master: Option<[u8; MASTER_SECRET]>,
    server_random: [u8; RANDOM],
    client_random: [u8; RANDOM],
}

impl KeyTap {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: AwsLcRsProvider::new(),
            seen: Arc::default(),
        })
    }

    /// What the handshake agreed on; `None` before the library derived its keys. It is forgotten
    /// here.
    pub(super) fn take(&self) -> Option<Secret> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        Some(Secret {
            suite: seen.suite?,
            master: seen.master?,
            client_random: seen.client_random,
            server_random: seen.server_random,
        })
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RTCCryptoProvider for KeyTap {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        self
    }

    fn random(&self) -> &dyn RTCRandom {
        self.inner.random()
    }
}

impl RTCCrypto for KeyTap {
    fn new_hmac(&self, algorithm: HmacAlgorithm, key: &[u8]) -> Result<Box<dyn Mac>, CryptoError> {
        let inner = self.inner.crypto().new_hmac(algorithm, key)?;
        Ok(match key.first_chunk::<MASTER_SECRET>() {
            Some(master) if key.len() == MASTER_SECRET => Box::new(TappedMac {
                inner,
                master: *master,
                seen: self.seen.clone(),
            }),
            _ => inner,
        })
    }

    fn new_aead(
        &self,
        algorithm: AeadAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn AeadCipher>, CryptoError> {
        self.seen().suite = match algorithm {
            AeadAlgorithm::Aes128Gcm => Some(Suite::Aes128Gcm),
            AeadAlgorithm::ChaCha20Poly1305 => Some(Suite::ChaCha20Poly1305),
            _ => None,
        };
        self.inner.crypto().new_aead(algorithm, key)
    }

    fn supports(&self, algorithm: CryptoAlgorithm) -> bool {
        self.inner.crypto().supports(algorithm)
    }

    fn hash(&self, algorithm: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.inner.crypto().hash(algorithm, data)
    }

    fn block_encrypt(
        &self,
        algorithm: BlockCipherAlgorithm,
        key: &[u8],
        block: &mut [u8],
    ) -> Result<(), CryptoError> {
        self.inner.crypto().block_encrypt(algorithm, key, block)
    }

    fn new_stream_cipher(
        &self,
        algorithm: StreamCipherAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn StreamCipher>, CryptoError> {
        self.inner.crypto().new_stream_cipher(algorithm, key)
    }

    fn new_cbc(
        &self,
        algorithm: CbcAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn CbcCipher>, CryptoError> {
        self.inner.crypto().new_cbc(algorithm, key)
    }

    fn start_key_exchange(
        &self,
        algorithm: KeyExchangeAlgorithm,
    ) -> Result<Box<dyn ActiveKeyExchange>, CryptoError> {
        self.inner.crypto().start_key_exchange(algorithm)
    }

    fn generate_signing_key(
        &self,
        scheme: SignatureScheme,
    ) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.inner.crypto().generate_signing_key(scheme)
    }

    fn import_signing_key(
        &self,
        scheme: SignatureScheme,
        pkcs8_der: &[u8],
    ) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.inner.crypto().import_signing_key(scheme, pkcs8_der)
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        public_key: PublicKey<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.inner
            .crypto()
            .verify_signature(scheme, public_key, message, signature)
    }
}

/// An HMAC under what may be a master secret.
struct TappedMac {
    inner: Box<dyn Mac>,
    master: [u8; MASTER_SECRET],
    seen: Arc<Mutex<Seen>>,
}

impl Mac for TappedMac {
    fn output_len(&self) -> usize {
        self.inner.output_len()
    }

    fn sign(&mut self, input: &[&[u8]], output: &mut [u8]) -> Result<(), CryptoError> {
        let seed = input
            .last()
            .and_then(|seed| seed.strip_prefix(KEY_EXPANSION));
        if let Some((server, client)) = seed.and_then(|s| {
            let (server, rest) = s.split_first_chunk::<RANDOM>()?;
            Some((
                server,
                rest.first_chunk::<RANDOM>()
                    .filter(|c| c.len() == rest.len())?,
            ))
        }) {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.master = Some(self.master);
            seen.server_random = *server;
            seen.client_random = *client;
        }
        self.inner.sign(input, output)
    }

    fn verify(&mut self, input: &[&[u8]], expected: &[u8]) -> Result<(), CryptoError> {
        self.inner.verify(input, expected)
    }
}
