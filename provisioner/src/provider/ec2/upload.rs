//! Putting blocks into a pending snapshot, many at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_ebs::primitives::{ByteStream, SdkBody};
use aws_sdk_ebs::types::ChecksumAlgorithm;
use tokio::task::JoinSet;

use super::api::{Api, Backoff, CONSISTENT_AFTER};
use super::blocks::{self, BLOCK, Digest};
use super::error::{Class, Failure};
use super::resume::Upload;
use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode};

/// Blocks on their way at once; more bring no speed, and 64 of them are 32 MiB of memory.
const IN_FLIGHT: usize = 64;
/// One block, all its tries: an upload that hangs somewhere ends instead of waiting for ever.
const BLOCK_LIMIT: Duration = Duration::from_secs(150);
/// One try of one block.
const TRY_LIMIT: Duration = Duration::from_secs(25);

/// One upload into one snapshot.
pub struct Put<'a> {
    /// The connection.
    pub api: &'a Api,
    /// Snapshot id.
    pub snapshot: &'a str,
    /// The raw image.
    pub path: &'a Path,
    /// What is to be there in the end, by block number.
    pub blocks: &'a BTreeMap<u32, Digest>,
    /// Set when the user wants to stop.
    pub interrupt: &'a Interrupt,
    /// When all must be there.
    pub deadline: Instant,
}

/// Why a block did not arrive.
enum Trouble {
    Read(io::Error),
    Changed,
    Refused(Failure),
}

impl Put<'_> {
    /// Puts what has not arrived yet; `progress` is told how many have.
    pub async fn run(&self, record: &mut Upload, progress: impl Fn(u64)) -> Result<(), CliError> {
        let file = File::open(self.path).map_err(|e| self.unreadable(e))?;
        let file = Arc::new(file);
        let mut todo: Vec<_> = self
            .blocks
            .iter()
            .filter(|(index, _)| !record.arrived.contains(index))
            .map(|(index, digest)| (*index, *digest))
            .collect();
        todo.reverse();
        let mut done = (self.blocks.len() - todo.len()) as u64;
        progress(done);
        // Dropped on every way out, which ends what is still on its way.
        let mut tasks = JoinSet::new();
        loop {
            self.interrupt.check()?;
            while tasks.len() < IN_FLIGHT
                && let Some((index, digest)) = todo.pop()
            {
                tasks.spawn(put_block(
                    self.api.ebs.clone(),
                    self.api.place.clone(),
                    self.snapshot.to_owned(),
                    Arc::clone(&file),
                    index,
                    digest,
                    self.deadline.min(Instant::now() + BLOCK_LIMIT),
                ));
            }
            // Wakes up now and then for the interrupt.
            let joined = tokio::time::timeout(Duration::from_millis(200), tasks.join_next());
            match joined.await {
                Err(_) => {}
                Ok(None) => return Ok(()),
                Ok(Some(Ok(Ok(index)))) => {
                    record.note(index)?;
                    done += 1;
                    progress(done);
                }
                Ok(Some(Ok(Err((index, trouble))))) => return Err(self.failed(index, trouble)),
                Ok(Some(Err(e))) => {
                    let what = format!("the upload into {} ended early", self.snapshot);
                    return Err(CliError::new(ExitCode::Internal, what).caused_by(e));
                }
            }
        }
    }

    fn failed(&self, index: u32, trouble: Trouble) -> CliError {
        match trouble {
            Trouble::Read(e) => self.unreadable(e),
            Trouble::Changed => CliError::new(
                ExitCode::Image,
                format!(
                    "image file {} changed while it was uploaded",
                    self.path.display()
                ),
            )
            .hint("build the image again, then `provision resume`"),
            Trouble::Refused(failure) => failure.context(format!(
                "cannot put block {index} into snapshot {}",
                self.snapshot
            )),
        }
    }

    fn unreadable(&self, e: io::Error) -> CliError {
        let what = format!("cannot read image file {}", self.path.display());
        CliError::new(ExitCode::Image, what)
            .caused_by(e)
            .hint("build the image again: `provision image build ROLE`")
    }
}

/// Puts one block, as often as it takes within its deadline.
async fn put_block(
    client: aws_sdk_ebs::Client,
    place: String,
    snapshot: String,
    file: Arc<File>,
    index: u32,
    digest: Digest,
    deadline: Instant,
) -> Result<u32, (u32, Trouble)> {
    let began = Instant::now();
    let read = tokio::task::spawn_blocking(move || {
        let block = blocks::read(&file, index)?;
        Ok((blocks::hash(&block) == digest).then(|| SdkBody::from(block)))
    });
    let block = match read.await.map_err(io::Error::other).and_then(|read| read) {
        Ok(Some(block)) => block,
        Ok(None) => return Err((index, Trouble::Changed)),
        Err(e) => return Err((index, Trouble::Read(e))),
    };
    let mut backoff = Backoff::default();
    loop {
        // Held in memory, and so cloned without a copy.
        let Some(body) = block.try_clone() else {
            let e = io::Error::other("the block cannot be read twice");
            return Err((index, Trouble::Read(e)));
        };
        let sent = client
            .put_snapshot_block()
            .snapshot_id(&snapshot)
            .block_index(i32::try_from(index).unwrap_or(i32::MAX))
            .data_length(BLOCK as i32)
            .checksum(blocks::base64(&digest))
            .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .block_data(ByteStream::new(body))
            .send();
        let left = deadline.saturating_duration_since(Instant::now());
        let failure = match tokio::time::timeout(left.min(TRY_LIMIT), sent).await {
            Ok(Ok(_)) => return Ok(index),
            Ok(Err(e)) => Failure::new("PutSnapshotBlock", &place, &e),
            Err(_) => Failure::timeout("PutSnapshotBlock", &place),
        };
        // A snapshot just started is not known everywhere yet.
        let unknown_yet = failure.is(Class::NotFound) && began.elapsed() < CONSISTENT_AFTER;
        let pause = backoff.pause();
        let in_time = Instant::now() + pause < deadline;
        if !(failure.passes() || unknown_yet) || !in_time {
            return Err((index, Trouble::Refused(failure)));
        }
        tracing::debug!(%failure, index, %snapshot, "putting the block again");
        tokio::time::sleep(pause).await;
    }
}
