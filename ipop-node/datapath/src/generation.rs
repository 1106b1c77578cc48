//! The keys of one handshake, both ways, with the numbers that records get.
//!
//! A link has one generation at a time, and for a while after a new handshake two. The upper 16
//! bits of a sequence number name the generation, so that a receiver knows the key of a record
//! before it tries one; the lower 32 bits count. The handshake library numbers its own records
//! from 0, so that the two never meet.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::record::{BadRecord, Cipher, ContentType, RecordHeader, TAG};
use crate::replay::ReplayWindow;
use crate::secret::{Secret, Side, Suite};

/// Records after which a new handshake is due. RFC 9147 section 4.5.3 allows 2^24.5 full-size
/// records of TLS for confidentiality margins of 2^-57; at 2^27 it is 2^-52, with a time limit of
/// minutes beside it.
pub const RENEW_AFTER: u32 = 1 << 27;
/// Records after which nothing is sealed any more.
pub const LIMIT: u32 = 1 << 31;

/// Consecutive sequence numbers that nobody else has.
#[derive(Debug)]
pub struct Numbers {
    next: u64,
    left: u32,
}

impl Numbers {
    fn take(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let number = self.next;
        self.next += 1;
        Some(number)
    }
}

/// Why a record was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not authentic.
    Bad,
    /// Seen before, or so old that this is not known.
    Replayed,
}

impl From<BadRecord> for Refused {
    fn from(_: BadRecord) -> Self {
        Self::Bad
    }
}

/// Keys, numbers and replay window of one handshake. Shared by everybody who seals or opens.
pub struct Generation {
    tag: u16,
    suite: Suite,
    sealing: Cipher,
    opening: Cipher,
    sealed: AtomicU32,
    is_heard: AtomicBool,
    window: Mutex<ReplayWindow>,
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("tag", &self.tag)
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

impl Generation {
    /// The generation of a handshake in which this node had the given side.
    pub fn new(secret: &Secret, side: Side) -> Result<Self, BadRecord> {
        let (client, server) = secret.write_keys();
        let (sealing, opening) = match side {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        Ok(Self {
            tag: secret.tag(),
            suite: secret.suite,
            sealing: Cipher::new(secret.suite, &sealing)?,
            opening: Cipher::new(secret.suite, &opening)?,
            sealed: AtomicU32::new(0),
            is_heard: AtomicBool::new(false),
            window: Mutex::default(),
        })
    }

    /// What the upper 16 bits of its sequence numbers are.
    pub const fn tag(&self) -> u16 {
        self.tag
    }

    /// Its cipher suite.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Whether a record's number says that it is of this generation.
    pub const fn owns(&self, sequence: u64) -> bool {
        sequence >> 32 == self.tag as u64
    }

    /// Whether a record can be of this generation: it says so, or it is numbered from 0, as other
    /// implementations do.
    pub const fn may_own(&self, sequence: u64) -> bool {
        self.owns(sequence) || sequence >> 32 == 0
    }

    /// Bytes of a record before its content.
    pub const fn prefix(&self) -> usize {
        self.sealing.prefix()
    }

    /// Bytes of a record beside its content.
    pub const fn overhead(&self) -> usize {
        self.prefix() + TAG
    }

    /// Whether so much was sealed that a new handshake is due.
    pub fn is_worn(&self) -> bool {
        self.sealed.load(Ordering::Relaxed) >= RENEW_AFTER
    }

    /// Records that it has sealed or opened, or a few more: numbers may have gone unused, or been
    /// lost on the way.
    pub fn records(&self) -> u64 {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = window.next() & u64::from(u32::MAX);
        u64::from(self.sealed.load(Ordering::Relaxed)) + opened
    }

    /// Notes that the peer uses this generation, of which a record was opened. Whether that is
    /// news; it is only once.
    #[inline]
    pub fn hear(&self) -> bool {
        !self.is_heard.load(Ordering::Relaxed) && !self.is_heard.swap(true, Ordering::Relaxed)
    }

    /// Whether the peer has used this generation.
    pub fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Relaxed)
    }

    /// Takes `count` numbers, at most 2^16; `None` when the key must not be used any more.
    pub fn reserve(&self, count: u16) -> Option<Numbers> {
        // Below LIMIT there is room for the batches of 2^15 threads at once, each of which gives
        // up before the next: the counter cannot wrap.
        if self.sealed.load(Ordering::Relaxed) >= LIMIT {
            return None;
        }
        let first = self.sealed.fetch_add(u32::from(count), Ordering::Relaxed);
        Some(Numbers {
            next: u64::from(self.tag) << 32 | u64::from(first),
            left: u32::from(count),
        })
    }

    /// Seals `record`, whose content stands already between [`Self::prefix`] and the last
    /// [`TAG`] bytes.
    ///
    /// # Errors
    ///
    /// When the numbers are used up or the record is too short or long.
    pub fn seal(
        &self,
        content: ContentType,
        numbers: &mut Numbers,
        record: &mut [u8],
    ) -> Result<(), BadRecord> {
        let number = numbers.take().ok_or(BadRecord)?;
        self.sealing.seal(content, number, record)
    }

    /// Opens the record at the start of `bytes`, where it stands, and says where its content is.
    /// What is refused is destroyed.
    pub fn open(&self, header: &RecordHeader, bytes: &mut [u8]) -> Result<Range<usize>, Refused> {
        self.batch().open(header, bytes)
    }

    /// Opens several records with the window taken once.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            cipher: &self.opening,
            // A window is whole whatever happened to whoever held it.
            window: self.window.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Opens records one after the other.
pub struct Batch<'a> {
    cipher: &'a Cipher,
    window: std::sync::MutexGuard<'a, ReplayWindow>,
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

impl Batch<'_> {
    /// As [`Generation::open`].
    pub fn open(
        &mut self,
        header: &RecordHeader,
        bytes: &mut [u8],
    ) -> Result<Range<usize>, Refused> {
        if !self.window.is_new(header.sequence) {
            return Err(Refused::Replayed);
        }
        let content = self.cipher.open(header, bytes)?;
        self.window.accept(header.sequence);
        Ok(content)
    }
}

#[cfg(test)]
mod tests;
