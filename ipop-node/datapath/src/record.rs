//! DTLS 1.2 records with an AEAD cipher, sealed and opened where they stand (RFC 6347 section
//! 4.1, RFC 5288 for AES-GCM, RFC 7905 for ChaCha20-Poly1305).
//!
//! A record is `header (13) · explicit nonce (8 with AES-GCM, else 0) · ciphertext · tag (16)`.

use std::fmt;
use std::ops::Range;

use crate::aead::{Key, NONCE};
use crate::secret::{Suite, WriteKey};

/// Bytes of a record's header.
pub const HEADER: usize = 13;
/// Bytes of a record's tag.
pub const TAG: usize = 16;
/// Most bytes that a record of either suite has beside its content.
pub const MAX_OVERHEAD: usize = HEADER + 8 + TAG;
/// Sequence numbers are 48 bits.
pub const MAX_SEQUENCE: u64 = (1 << 48) - 1;
/// The epoch of everything after a first handshake; there is no renegotiation.
pub const EPOCH: u16 = 1;
/// The version on the wire: 1.2.
const VERSION: [u8; 2] = [254, 253];

/// What a record carries (RFC 5246 section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// Closing and errors.
    Alert,
    /// Packets.
    ApplicationData,
}

impl ContentType {
    const fn code(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::ApplicationData => 23,
        }
    }

    /// From its code; others than these two are the handshake's.
    pub const fn of(code: u8) -> Option<Self> {
        match code {
            21 => Some(Self::Alert),
            23 => Some(Self::ApplicationData),
            _ => None,
        }
    }
}

/// The plaintext fields of a record of [`EPOCH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What it carries.
    pub content: ContentType,
    /// Its number.
    pub sequence: u64,
    /// Bytes of the whole record.
    pub len: usize,
}

impl RecordHeader {
    /// Reads the header of the record at the start of `bytes`; `None` unless it is whole and of a
    /// type and epoch that are protected by this crate.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let content = ContentType::of(header[0])?;
        if header[1..3] != VERSION || header[3..5] != EPOCH.to_be_bytes() {
            return None;
        }
        let mut sequence = [0; 8];
        sequence[2..].copy_from_slice(&header[5..11]);
        let len = HEADER + usize::from(u16::from_be_bytes([header[11], header[12]]));
        (bytes.len() >= len).then_some(Self {
            content,
            sequence: u64::from_be_bytes(sequence),
            len,
        })
    }
}

/// The record is not authentic, or too short to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record that is not authentic")]
pub struct BadRecord;

/// The cipher of one direction.
pub(crate) struct Cipher {
    key: Key,
    iv: [u8; NONCE],
    suite: Suite,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

impl Cipher {
    pub(crate) fn new(suite: Suite, write: &WriteKey) -> Result<Self, BadRecord> {
        let mut iv = [0; NONCE];
        iv.get_mut(..write.iv.len())
            .ok_or(BadRecord)?
            .copy_from_slice(&write.iv);
        Ok(Self {
            key: Key::new(suite, &write.key)?,
            iv,
            suite,
        })
    }

    /// Bytes before the content.
    pub(crate) const fn prefix(&self) -> usize {
        HEADER + self.suite.explicit_nonce_len()
    }

    /// Seals `record`, whose content stands already between [`Self::prefix`] and [`TAG`].
    ///
    /// The caller never gives a sequence number twice.
    pub(crate) fn seal(
        &self,
        content: ContentType,
        sequence: u64,
        record: &mut [u8],
    ) -> Result<(), BadRecord> {
        let prefix = self.prefix();
        let plain = record.len().checked_sub(prefix + TAG).ok_or(BadRecord)?;
        let fragment = u16::try_from(record.len() - HEADER).map_err(|_| BadRecord)?;
        let (header, body) = record.split_at_mut(prefix);
        let (body, tag_out) = body.split_at_mut(plain);
        let number = numbered(sequence);
        header[0] = content.code();
        header[1..3].copy_from_slice(&VERSION);
        header[3..11].copy_from_slice(&number);
        header[11..13].copy_from_slice(&fragment.to_be_bytes());
        if self.suite.explicit_nonce_len() > 0 {
            header[13..21].copy_from_slice(&number);
        }
        let nonce = self.nonce(&number);
        let aad = additional_data(&number, content, plain);
        let tag = self.key.seal(nonce, &aad, body)?;
        tag_out.copy_from_slice(&tag);
        Ok(())
    }

    /// Opens a whole record where it stands and says where its content is.
    pub(crate) fn open(
        &self,
        header: &RecordHeader,
        record: &mut [u8],
    ) -> Result<Range<usize>, BadRecord> {
        let prefix = self.prefix();
        let plain = header.len.checked_sub(prefix + TAG).ok_or(BadRecord)?;
        let record = record.get_mut(..header.len).ok_or(BadRecord)?;
        let (head, body) = record.split_at_mut(prefix);
        let number = numbered(header.sequence);
        // The explicit nonce is the sender's choice (RFC 5288 section 3).
        let nonce = match self.suite {
            Suite::Aes128Gcm => {
                let explicit = head[HEADER..].first_chunk().ok_or(BadRecord)?;
                self.nonce(explicit)
            }
            Suite::ChaCha20Poly1305 => self.nonce(&number),
        };
        let aad = additional_data(&number, header.content, plain);
        self.key.open(nonce, &aad, body)?;
        Ok(prefix..prefix + plain)
    }

    fn nonce(&self, explicit: &[u8; 8]) -> [u8; NONCE] {
        let mut nonce = self.iv;
        for (byte, part) in nonce[4..].iter_mut().zip(explicit) {
            // AES-GCM's salt is 4 bytes, so that these 8 are 0 there.
            *byte ^= part;
        }
        nonce
    }
}

/// Epoch and sequence number as they stand on the wire.
fn numbered(sequence: u64) -> [u8; 8] {
    (u64::from(EPOCH) << 48 | (sequence & MAX_SEQUENCE)).to_be_bytes()
}

/// RFC 5246 section 6.2.3.3.
fn additional_data(number: &[u8; 8], content: ContentType, plain: usize) -> [u8; 13] {
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(number);
    aad[8] = content.code();
    aad[9..11].copy_from_slice(&VERSION);
    // A record's content is below 2^14 and was measured by whoever calls.
    let [.., high, low] = plain.to_be_bytes();
    aad[11] = high;
    aad[12] = low;
    aad
}
