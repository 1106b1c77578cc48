//! The file in which records of an overlay are kept: lines are added to its end, by several processes at once.
//!
//! It is bounded: when it is full it becomes the older one, `FILE.1`, in place of the one before. So at
//! least the last [`Trail::limit`] bytes are there, and at most twice as many. Each line is written whole
//! or taken back; one that a crash cut is closed by the next, and told when the file is read.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipop_proto::audit::Record;

/// How long another process may hold the file, which takes microseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between tries.
const PAUSE: Duration = Duration::from_millis(1);

/// A file of records.
#[derive(Debug, Clone)]
pub struct Trail {
    path: PathBuf,
    limit: u64,
    is_durable: bool,
}

/// What is in a file of records.
#[derive(Debug, Default)]
pub struct Kept {
    /// The records, in the order in which they were written.
    pub records: Vec<Record>,
    /// Lines that are none, as after a crash.
    pub damaged: usize,
    /// Whether there is a file at all.
    pub exists: bool,
}

impl Trail {
    /// The file at `path` of at most `limit` bytes, and the older one beside it. Nothing is made yet.
    /// What is written survives a crash of the system if it `is_durable`.
    pub fn new(path: PathBuf, limit: u64, is_durable: bool) -> Self {
        Self {
            path,
            limit,
            is_durable,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The most bytes that it has.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Adds a record. The file and its folder are made, for the owner only, if they are not there.
    ///
    /// # Errors
    ///
    /// Those of `open(2)`, `write(2)`, `fsync(2)` and `rename(2)`; `TimedOut` when another process holds
    /// the file.
    pub fn append(&self, record: &Record) -> io::Result<()> {
        let line = record.to_line()?;
        if let Some(dir) = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let mut private = std::fs::DirBuilder::new();
            private.recursive(true).mode(0o700).create(dir)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        loop {
            let Some(mut file) = self.open(&options, Lock::Alone)? else {
                continue;
            };
            let length = file.metadata()?.len();
            // What a crash cut is a line of its own.
            let mut last = [b'\n'];
            if length > 0 {
                file.read_exact_at(&mut last, length - 1)?;
            }
            let start = if last == [b'\n'] { "" } else { "\n" };
            let text = format!("{start}{line}");
            if length > 0 && length + text.len() as u64 > self.limit {
                std::fs::rename(&self.path, self.older())?;
                continue;
            }
            if let Err(error) = file.write_all(text.as_bytes()) {
                // Half a line would be no record; if it stays, the next one closes it.
                let _ = file.set_len(length);
                return Err(error);
            }
            if self.is_durable {
                file.sync_data()?;
            }
            return Ok(());
        }
    }

    /// What there is, the older file first.
    ///
    /// # Errors
    ///
    /// Those of `open(2)` and `read(2)`; `TimedOut` when another process holds the file. That there is
    /// none is no error.
    pub fn read(&self) -> io::Result<Kept> {
        let mut options = OpenOptions::new();
        options.read(true);
        let current = loop {
            match self.open(&options, Lock::WithReaders) {
                Ok(None) => {}
                Ok(Some(file)) => break Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break None,
                Err(error) => return Err(error),
            }
        };
        // As long as that is locked, nobody moves it in the older one's place.
        let mut kept = Kept::default();
        match std::fs::read(self.older()) {
            Ok(bytes) => kept.take(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(mut file) = current {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut file, &mut bytes)?;
            kept.take(&bytes);
        }
        Ok(kept)
    }

    /// Opens and locks the file; nothing if another one has taken its place meanwhile.
    fn open(&self, options: &OpenOptions, lock: Lock) -> io::Result<Option<File>> {
        let file = options.open(&self.path)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let locked = match lock {
                Lock::Alone => file.try_lock(),
                Lock::WithReaders => file.try_lock_shared(),
            };
            match locked {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "another process holds the file",
                    ));
                }
            }
        }
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok((there.ino() == file.metadata()?.ino()).then_some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file that was full last.
    pub fn older(&self) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(".1");
        PathBuf::from(name)
    }
}

#[derive(Clone, Copy)]
enum Lock {
    Alone,
    WithReaders,
}

impl Kept {
    /// Takes what a file, or its end, says.
    pub fn take(&mut self, bytes: &[u8]) {
        self.exists = true;
        for line in bytes.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
            let text = std::str::from_utf8(line).ok();
            match text.and_then(|text| Record::from_line(text).ok()) {
                Some(record) => self.records.push(record),
                None => self.damaged += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    use ipop_proto::audit::Event;

    use super::*;

    fn record(number: u64) -> Record {
        Record {
            list: Some(number),
            ..Record::new(Event::Revoked, SystemTime::UNIX_EPOCH)
        }
    }

    fn numbers(trail: &Trail) -> Vec<u64> {
        let kept = trail.read().expect("read");
        assert_eq!(kept.damaged, 0);
        kept.records.iter().filter_map(|r| r.list).collect()
    }

    #[test]
    fn what_many_write_at_once_is_there_whole_and_in_order_while_there_is_room() {
        let dir = tempfile::tempdir().expect("directory");
        let trail = Trail::new(dir.path().join("audit/demo.jsonl"), 1 << 20, false);
        assert!(!trail.read().expect("nothing").exists);
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let trail = &trail;
                scope.spawn(move || {
                    for number in 0..50 {
                        trail.append(&record(writer * 50 + number)).expect("added");
                    }
                });
            }
        });
        let all = numbers(&trail);
        for writer in 0..8 {
            let own = writer * 50..(writer + 1) * 50;
            let of_writer: Vec<_> = all.iter().filter(|n| own.contains(*n)).copied().collect();
            assert_eq!(of_writer, own.collect::<Vec<_>>());
        }
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(trail.path()), 0o600);
        assert_eq!(mode(&dir.path().join("audit")), 0o700);
    }

    #[test]
    fn it_keeps_the_newest_and_is_bounded_whoever_writes() {
        let dir = tempfile::tempdir().expect("directory");
        let length = record(1000).to_line().expect("JSON").len() as u64;
        let trail = Trail::new(dir.path().join("log"), 10 * length, true);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let trail = &trail;
                scope.spawn(move || {
                    for number in 0..100 {
                        let number = 1000 + writer * 100 + number;
                        trail.append(&record(number)).expect("added");
                    }
                });
            }
        });
        trail.append(&record(9999)).expect("added");
        let all = numbers(&trail);
        assert!((10..=20).contains(&all.len()), "{all:?}");
        assert_eq!(all.last(), Some(&9999));
        let files = std::fs::read_dir(dir.path()).expect("there").count();
        assert_eq!(files, 2);
        // One that is larger than the file may be is kept all the same.
        let small = Trail::new(dir.path().join("small"), 1, false);
        for number in 0..3 {
            small.append(&record(number)).expect("added");
        }
        assert_eq!(numbers(&small), [1, 2]);
    }

    #[test]
    fn a_line_that_was_cut_is_told_and_harms_no_other() {
        let dir = tempfile::tempdir().expect("directory");
        let trail = Trail::new(dir.path().join("log"), 1 << 20, false);
        trail.append(&record(1)).expect("added");
        let line = record(2).to_line().expect("JSON");
        let mut file = OpenOptions::new()
            .append(true)
            .open(trail.path())
            .expect("there");
        file.write_all(&line.as_bytes()[..20]).expect("written");
        trail.append(&record(3)).expect("added");
        let kept = trail.read().expect("read");
        let numbers: Vec<_> = kept.records.iter().filter_map(|r| r.list).collect();
        assert_eq!((numbers, kept.damaged), (vec![1, 3], 1));
    }

    #[test]
    fn who_holds_the_file_for_ever_stops_nobody() {
        let dir = tempfile::tempdir().expect("directory");
        let trail = Trail::new(dir.path().join("log"), 1 << 20, false);
        trail.append(&record(1)).expect("added");
        let held = File::open(trail.path()).expect("there");
        held.lock().expect("locked");
        let error = trail.append(&record(2)).expect_err("held");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(held);
        trail.append(&record(3)).expect("added");
        assert_eq!(numbers(&trail), [1, 3]);
    }
}
