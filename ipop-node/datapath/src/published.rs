//! A value that one thread changes now and then and others read all the time.

use std::sync::Arc;

#[cfg(loom)]
use loom::sync::Mutex;
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::Mutex;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// The newest value.
#[derive(Debug)]
pub struct Published<T> {
    version: AtomicU64,
    newest: Mutex<Arc<T>>,
}

impl<T> Published<T> {
    /// Publishes a first value.
    pub fn new(value: T) -> Self {
        Self {
            version: AtomicU64::new(1),
            newest: Mutex::new(Arc::new(value)),
        }
    }

    /// Publishes another one, and gives it.
    pub fn publish(&self, value: T) -> Arc<T> {
        let value = Arc::new(value);
        let mut newest = match self.newest.lock() {
            Ok(newest) => newest,
            Err(poisoned) => poisoned.into_inner(),
        };
        *newest = value.clone();
        // Under the lock: who sees this number and then takes the lock finds no older value.
        self.version.fetch_add(1, Ordering::Release);
        value
    }
}

impl<T: Default> Default for Published<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// One thread's view of a [`Published`] value. Reading takes no lock; [`Self::refresh`] takes one
/// only when there is something new.
#[derive(Debug)]
pub struct Reader<T> {
    source: Arc<Published<T>>,
    version: u64,
    value: Arc<T>,
}

impl<T> Reader<T> {
    /// A view of the newest value.
    pub fn new(source: Arc<Published<T>>) -> Self {
        let (version, value) = newest(&source);
        Self {
            source,
            version,
            value,
        }
    }

    /// Takes the newest value if it is another one. Whether it was.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        if self.source.version.load(Ordering::Acquire) == self.version {
            return false;
        }
        (self.version, self.value) = newest(&self.source);
        true
    }

    /// The value as of the last [`Self::refresh`].
    #[inline]
    pub fn get(&self) -> &Arc<T> {
        &self.value
    }
}

fn newest<T>(source: &Published<T>) -> (u64, Arc<T>) {
    let newest = match source.newest.lock() {
        Ok(newest) => newest,
        Err(poisoned) => poisoned.into_inner(),
    };
    (source.version.load(Ordering::Acquire), newest.clone())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_was_published_when_it_refreshes() {
        let source = Arc::new(Published::new(1));
        let mut reader = Reader::new(source.clone());
        source.publish(2);
        assert_eq!(**reader.get(), 1);
        assert!(reader.refresh());
        assert_eq!(**reader.get(), 2);
        assert!(!reader.refresh());
    }
}
