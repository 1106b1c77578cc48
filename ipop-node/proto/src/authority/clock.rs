//! The time of day, which certificates are valid by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::UnixTime;
use x509_parser::time::ASN1Time;

/// The time of day as it was told last, to the second. What drives the protocol tells it, since
/// nothing here reads a clock, and may tell an earlier one than before: clocks are set.
#[derive(Debug)]
pub struct WallClock(AtomicU64);

impl WallClock {
    /// A clock that shows `now`.
    pub fn new(now: SystemTime) -> Self {
        Self(AtomicU64::new(unix(now).as_secs()))
    }

    /// It is `now`.
    pub fn set(&self, now: SystemTime) {
        self.0.store(unix(now).as_secs(), Ordering::Relaxed);
    }

    /// The time that was told last.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// The same time in another form; what lies before 1970 is its beginning.
pub(super) fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The same time for people.
pub(super) fn date(unix: u64) -> String {
    i64::try_from(unix)
        .ok()
        .and_then(|unix| ASN1Time::from_timestamp(unix).ok())
        .map_or_else(|| format!("second {unix}"), |time| time.to_string())
}
