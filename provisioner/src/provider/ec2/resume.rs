//! What is remembered of uploads, in files of the cache: which blocks of an unfinished one have
//! arrived (the API lists those of finished snapshots only), and which blocks a finished one has,
//! so that the next version puts only what changed. Losing them costs time, nothing else.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::blocks::{Blocks, Digest};
use crate::error::CliError;

/// Marks an upload whose last call was made.
const COMPLETE: &str = "complete";

/// Where the files are.
pub struct Memory {
    dir: PathBuf,
}

/// The record of one unfinished upload. Blocks are appended as they arrive, so that a killed
/// process loses no more than the last line.
pub struct Upload {
    path: PathBuf,
    file: File,
    /// Blocks that have arrived.
    pub arrived: BTreeSet<u32>,
    /// Whether all have, and the service was told.
    pub complete: bool,
}

impl Memory {
    /// Below the cache directory.
    pub fn new(cache: &Path) -> Self {
        Self {
            dir: cache.join("ec2"),
        }
    }

    /// Opens the record of an upload of this image into this snapshot. One of another image is
    /// begun anew.
    pub fn upload(&self, snapshot: &str, image: &str) -> Result<Upload, CliError> {
        self.make_dir()?;
        let path = self.dir.join(format!("{snapshot}.upload"));
        let header = format!("image {image}");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(CliError::file("read", &path, e)),
        };
        let known = text
            .split_once('\n')
            .is_some_and(|(first, _)| first == header);
        let mut arrived = BTreeSet::new();
        let mut complete = false;
        // The last line may be torn (`13` of `137`): a line counts when its end was written.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        if known {
            for line in whole.lines().skip(1) {
                match line.parse() {
                    Ok(index) => _ = arrived.insert(index),
                    Err(_) => complete |= line == COMPLETE,
                }
            }
        }
        let failed = |e| CliError::file("write", &path, e);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed)?;
        if !known {
            file.set_len(0).map_err(failed)?;
            writeln!(file, "{header}").map_err(failed)?;
        } else {
            file.set_len(whole.len() as u64).map_err(failed)?;
        }
        Ok(Upload {
            path,
            file,
            arrived,
            complete,
        })
    }

    /// Whether an upload into this snapshot was begun here and did not come to its end.
    pub fn unfinished(&self, snapshot: &str) -> bool {
        std::fs::read_to_string(self.dir.join(format!("{snapshot}.upload")))
            .is_ok_and(|text| !text.lines().any(|line| line == COMPLETE))
    }

    /// Keeps which blocks a finished snapshot has, and forgets the record of its upload.
    pub fn keep(&self, snapshot: &str, blocks: &Blocks) -> Result<(), CliError> {
        self.make_dir()?;
        let path = self.blocks_path(snapshot);
        let new = path.with_extension("new");
        let text: String = blocks
            .0
            .iter()
            .map(|(index, digest)| format!("{index} {}\n", hex(digest)))
            .collect();
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|e| CliError::file("write", &path, e))?;
        remove(&self.dir.join(format!("{snapshot}.upload")))
    }

    /// Which blocks a snapshot has, if that was kept.
    pub fn blocks(&self, snapshot: &str) -> Option<Blocks> {
        let text = std::fs::read_to_string(self.blocks_path(snapshot)).ok()?;
        let blocks = text.lines().map(|line| {
            let (index, digest) = line.split_once(' ')?;
            Some((index.parse().ok()?, unhex(digest)?))
        });
        Some(Blocks(blocks.collect::<Option<_>>()?))
    }

    /// Forgets everything of a snapshot.
    pub fn forget(&self, snapshot: &str) -> Result<(), CliError> {
        remove(&self.blocks_path(snapshot))?;
        remove(&self.dir.join(format!("{snapshot}.upload")))
    }

    fn blocks_path(&self, snapshot: &str) -> PathBuf {
        self.dir.join(format!("{snapshot}.blocks"))
    }

    fn make_dir(&self) -> Result<(), CliError> {
        std::fs::create_dir_all(&self.dir).map_err(|e| CliError::file("create", &self.dir, e))
    }
}

impl Upload {
    /// Notes that a block has arrived.
    pub fn note(&mut self, index: u32) -> Result<(), CliError> {
        self.line(&index.to_string())?;
        self.arrived.insert(index);
        Ok(())
    }

    /// Notes that the service was told that all have.
    pub fn note_complete(&mut self) -> Result<(), CliError> {
        self.line(COMPLETE)?;
        self.complete = true;
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), CliError> {
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|e| CliError::file("write", &self.path, e))
    }
}

fn remove(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(CliError::file("remove", path, e)),
        _ => Ok(()),
    }
}

fn hex(digest: &Digest) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() || !text.is_ascii() {
        return None;
    }
    for (i, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn blocks_that_arrived_are_known_after_a_kill_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        let mut upload = memory.upload("snap-1", "aa").unwrap();
        upload.note(7).unwrap();
        upload.note(12).unwrap();
        drop(upload);
        let path = dir.path().join("ec2/snap-1.upload");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"13").unwrap();
        let mut upload = memory.upload("snap-1", "aa").unwrap();
        assert_eq!(upload.arrived, BTreeSet::from([7, 12]));
        assert!(!upload.complete && memory.unfinished("snap-1"));
        upload.note(14).unwrap();
        upload.note_complete().unwrap();
        assert!(!memory.unfinished("snap-1") && !memory.unfinished("snap-2"));
        let upload = memory.upload("snap-1", "aa").unwrap();
        assert_eq!(upload.arrived, BTreeSet::from([7, 12, 14]));
        assert!(upload.complete);
        let other = memory.upload("snap-1", "bb").unwrap();
        assert!(other.arrived.is_empty() && !other.complete);
    }

    #[test]
    fn the_blocks_of_a_snapshot_are_kept_and_a_defective_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        assert_eq!(memory.blocks("snap-1"), None);
        let blocks = Blocks(BTreeMap::from([(3, [0xab; 32]), (4, [1; 32])]));
        memory.keep("snap-1", &blocks).unwrap();
        assert_eq!(memory.blocks("snap-1"), Some(blocks));
        std::fs::write(dir.path().join("ec2/snap-1.blocks"), "3 zz").unwrap();
        assert_eq!(memory.blocks("snap-1"), None);
        memory.forget("snap-1").unwrap();
        memory.forget("snap-1").unwrap();
    }
}
