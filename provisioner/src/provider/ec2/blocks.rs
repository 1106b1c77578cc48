//! An image as EBS sees it: numbered blocks, of which those of zeroes are not there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Bytes of a block; the EBS direct APIs know no other size.
pub const BLOCK: usize = 512 * 1024;

/// SHA-256 of a block.
pub type Digest = [u8; 32];

/// The blocks of an image that are not zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blocks(pub BTreeMap<u32, Digest>);

impl Blocks {
    /// Reads a raw image. Holes are not read, and blocks of zeroes are left out. `check` is asked
    /// now and then whether to go on.
    pub fn scan(path: &Path, check: impl Fn() -> io::Result<()>) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut blocks = BTreeMap::new();
        let mut next: u64 = 0;
        while let Some(data) = find(&file, SeekFrom::Data(next * BLOCK as u64))? {
            let hole = find(&file, SeekFrom::Hole(data))?.unwrap_or(bytes);
            let first = (data / BLOCK as u64).max(next);
            next = hole.div_ceil(BLOCK as u64);
            for index in first..next {
                check()?;
                let index = u32::try_from(index).map_err(io::Error::other)?;
                let block = read(&file, index)?;
                if block.iter().any(|byte| *byte != 0) {
                    blocks.insert(index, hash(&block));
                }
            }
            if next * BLOCK as u64 >= bytes {
                break;
            }
        }
        Ok(Self(blocks))
    }

    /// What must be put so that a snapshot has these blocks: all of them, or with a parent those
    /// that differ; a block that only the parent has is put as zeroes.
    pub fn changed_since(&self, parent: Option<&Self>) -> BTreeMap<u32, Digest> {
        let Some(parent) = parent else {
            return self.0.clone();
        };
        let differ = self.0.iter().filter(|(i, d)| parent.0.get(i) != Some(*d));
        let mut changed: BTreeMap<u32, Digest> = differ.map(|(i, d)| (*i, *d)).collect();
        let zero = hash(&vec![0; BLOCK]);
        let gone = parent.0.keys().filter(|i| !self.0.contains_key(i));
        changed.extend(gone.map(|i| (*i, zero)));
        changed
    }
}

/// Reads a block; what is beyond the end of the file is zero.
pub fn read(file: &File, index: u32) -> io::Result<Vec<u8>> {
    let mut block = vec![0; BLOCK];
    let start = u64::from(index) * BLOCK as u64;
    let mut filled = 0;
    while filled < BLOCK {
        match file.read_at(&mut block[filled..], start + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(block)
}

/// SHA-256 of a block.
pub fn hash(block: &[u8]) -> Digest {
    let mut out = Digest::default();
    out.copy_from_slice(digest(&SHA256, block).as_ref());
    out
}

/// A digest as the API takes it.
pub fn base64(digest: &Digest) -> String {
    BASE64_STANDARD.encode(digest)
}

/// The checksum of all blocks put into a snapshot, by the method LINEAR: of their digests (the
/// bytes, not their Base64) in the order of their numbers.
pub fn linear(blocks: &BTreeMap<u32, Digest>) -> String {
    let mut context = Context::new(&SHA256);
    for digest in blocks.values() {
        context.update(digest);
    }
    BASE64_STANDARD.encode(context.finish())
}

/// The place of the next data or hole; none when there is none to the end.
fn find(file: &File, from: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, from) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(len: u64, blocks: &[(u64, u8)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(len).unwrap();
        for (index, fill) in blocks {
            let start = index * BLOCK as u64;
            let end = (start + BLOCK as u64).min(len);
            let data = vec![*fill; usize::try_from(end - start).unwrap()];
            file.as_file().write_at(&data, start).unwrap();
        }
        file
    }

    fn scan(file: &tempfile::NamedTempFile) -> Blocks {
        Blocks::scan(file.path(), || Ok(())).unwrap()
    }

    #[test]
    fn holes_and_written_zeroes_are_left_out_and_the_last_block_is_padded() {
        let len = 40 * BLOCK as u64 + 100;
        let file = image(len, &[(3, 7), (4, 0), (20, 9), (40, 1)]);
        let blocks = scan(&file);
        assert_eq!(blocks.0.keys().copied().collect::<Vec<_>>(), [3, 20, 40]);
        let mut last = vec![1; 100];
        last.resize(BLOCK, 0);
        assert_eq!(blocks.0[&40], hash(&last));
        assert_eq!(read(file.as_file(), 40).unwrap(), last);
        assert!(scan(&image(1 << 30, &[])).0.is_empty());
    }

    #[test]
    fn a_later_version_puts_what_differs_and_zeroes_over_what_went() {
        let old = scan(&image(8 << 20, &[(0, 1), (1, 2), (2, 3)]));
        let new = scan(&image(8 << 20, &[(0, 1), (1, 9), (5, 5)]));
        let changed = new.changed_since(Some(&old));
        assert_eq!(changed.keys().copied().collect::<Vec<_>>(), [1, 2, 5]);
        assert_eq!(changed[&2], hash(&vec![0; BLOCK]));
        assert_eq!(new.changed_since(None), new.0);
        assert!(old.changed_since(Some(&old)).is_empty());
    }

    #[test]
    fn the_linear_checksum_is_that_of_the_digests_in_order() {
        let blocks = BTreeMap::from([(9, [2; 32]), (1, [1; 32])]);
        let mut digests = vec![1; 32];
        digests.extend([2; 32]);
        assert_eq!(linear(&blocks), base64(&hash(&digests)));
    }
}
