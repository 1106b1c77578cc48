//! An image's content as an EBS snapshot.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_ebs::types::{ChecksumAggregationMethod, ChecksumAlgorithm};
use aws_sdk_ec2::types::{Snapshot, SnapshotState};

use super::api::{Api, Backoff, Limits, confirmed};
use super::blocks::{self, BLOCK, Blocks};
use super::error::{Class, Failure};
use super::resume::Memory;
use super::tags::{self, Labels};
use super::upload::Put;
use crate::error::{CliError, ExitCode, Retry};
use crate::event::Event;
use crate::provider::{Image, Made, Making, Removing, Resource, Tags};

/// Minutes after the last block at which the service gives an unfinished upload up: long enough to
/// come back after a lunch break, short enough not to be paid for long.
const GIVEN_UP_AFTER: i32 = 180;
/// Snapshots that were asked for with the same token and did not serve, before giving up.
const RESTARTS: u32 = 4;
/// How long a snapshot that takes no completion may need to show that it is complete already.
const SHOWN_AFTER: Duration = Duration::from_secs(60);

/// What the site and the engine say about an upload.
pub struct Uploading<'a> {
    pub api: &'a Api,
    pub memory: &'a Memory,
    pub keep: bool,
    pub image: &'a Image,
    pub whole: &'a Path,
    pub resource: &'a Resource,
    pub making: &'a Making<'a>,
}

/// Uploads an image, goes on with what was begun, or finds that it is there.
pub async fn make(uploading: &Uploading<'_>) -> Result<Made, CliError> {
    let limits = Limits {
        deadline: uploading.making.deadline,
        interrupt: Some(uploading.making.interrupt),
    };
    let mut pending = None;
    let mut refused = None;
    for snapshot in by_name(
        uploading.api,
        limits,
        &uploading.resource.id,
        &uploading.making.tags.owner,
    )
    .await?
    {
        let Some(id) = snapshot.snapshot_id() else {
            continue;
        };
        match snapshot.state() {
            // What is recorded here counts more: there are servers that call a snapshot completed
            // from its start.
            Some(SnapshotState::Completed) if !uploading.memory.unfinished(id) => {
                uploading.remember(id).await?;
                return Ok(made(id));
            }
            Some(SnapshotState::Pending | SnapshotState::Completed) if pending.is_none() => {
                pending = Some(snapshot);
            }
            _ => {
                delete(uploading.api, limits, id).await?;
                uploading.memory.forget(id)?;
                refused = Some(id.to_owned());
            }
        }
    }
    let blocks = uploading.scan().await?;
    let begun = match pending {
        Some(snapshot) => uploading.go_on(&snapshot, limits).await?,
        None => None,
    };
    let (id, parent) = match begun {
        Some(begun) => begun,
        None => uploading.start(&blocks, refused, limits).await?,
    };
    uploading
        .fill(&id, parent.as_ref(), &blocks, limits)
        .await?;
    uploading.wait(&id, limits).await?;
    if uploading.keep {
        uploading.memory.keep(&id, &blocks)?;
    } else {
        uploading.memory.forget(&id)?;
    }
    Ok(made(&id))
}

/// Removes a snapshot; without a handle all of that name.
pub async fn remove(api: &Api, memory: &Memory, removing: &Removing<'_>) -> Result<(), CliError> {
    let limits = Limits {
        deadline: removing.deadline,
        interrupt: Some(removing.interrupt),
    };
    let ids = match removing.handle {
        Some(id) => vec![id.to_owned()],
        None => confirmed(limits, async || {
            by_name(api, limits, &removing.resource.id, &removing.tags.owner).await
        })
        .await?
        .iter()
        .filter_map(|s| Some(s.snapshot_id()?.to_owned()))
        .collect(),
    };
    for id in ids {
        delete(api, limits, &id).await?;
        memory.forget(&id)?;
    }
    Ok(())
}

/// All snapshots of the account that these filters let through.
pub async fn list(
    api: &Api,
    limits: Limits<'_>,
    filters: Vec<aws_sdk_ec2::types::Filter>,
) -> Result<Vec<Snapshot>, CliError> {
    let mut found = Vec::new();
    let mut next = None;
    loop {
        let page = api
            .ask("DescribeSnapshots", limits, || {
                api.ec2
                    .describe_snapshots()
                    .owner_ids("self")
                    .set_filters(Some(filters.clone()))
                    .max_results(500)
                    .set_next_token(next.clone())
                    .send()
            })
            .await
            .map_err(|e| e.context("cannot list the snapshots"))?;
        found.extend(page.snapshots.unwrap_or_default());
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(found);
        }
    }
}

/// Deletes a snapshot; gone is fine. One that an AMI being deregistered still uses is asked again.
pub async fn delete(api: &Api, limits: Limits<'_>, id: &str) -> Result<(), CliError> {
    let mut backoff = Backoff::default();
    loop {
        let deleted = api
            .ask("DeleteSnapshot", limits, || {
                api.ec2.delete_snapshot().snapshot_id(id).send()
            })
            .await;
        match deleted {
            Ok(_) => return Ok(()),
            Err(e) if e.is(Class::NotFound) => return Ok(()),
            Err(e) if e.is(Class::InUse) => {
                let failed = e.context(format!("cannot remove snapshot {id}"));
                if limits.left() < LAST_PAUSE {
                    return Err(failed);
                }
                limits.pause(backoff.pause(), "DeleteSnapshot").await?;
            }
            Err(e) => return Err(e.context(format!("cannot remove snapshot {id}"))),
        }
    }
}

/// With less left than this there is no further try.
const LAST_PAUSE: Duration = Duration::from_secs(2);

async fn by_name(
    api: &Api,
    limits: Limits<'_>,
    name: &str,
    owner: &str,
) -> Result<Vec<Snapshot>, CliError> {
    let filters = vec![
        tags::tagged(tags::RESOURCE, name),
        tags::tagged(tags::OWNER, owner),
    ];
    list(api, limits, filters).await
}

/// The client token after one whose snapshot does not serve, the same each time.
fn successor(token: &str, before: &str) -> String {
    let digest = blocks::hash(format!("{token} {before}").as_bytes());
    digest[..16].iter().map(|b| format!("{b:02x}")).collect()
}

fn made(id: &str) -> Made {
    Made {
        handle: Some(id.to_owned()),
        reached_at: None,
    }
}

impl Uploading<'_> {
    async fn scan(&self) -> Result<Blocks, CliError> {
        let path = self.whole.to_owned();
        let interrupt = self.making.interrupt.clone();
        let check = move || match interrupt.is_set() {
            true => Err(io::Error::other("stopped")),
            false => Ok(()),
        };
        let scanned = tokio::task::spawn_blocking(move || Blocks::scan(&path, check)).await;
        self.making.interrupt.check()?;
        scanned
            .map_err(io::Error::other)
            .and_then(|s| s)
            .map_err(|e| {
                let what = format!("cannot read image file {}", self.whole.display());
                CliError::new(ExitCode::Image, what)
                    .caused_by(e)
                    .hint(format!(
                        "build it again: `provision image build {}`",
                        self.image.role
                    ))
            })
    }

    /// Keeps the block list of a snapshot that is there, if a kill prevented it.
    async fn remember(&self, id: &str) -> Result<(), CliError> {
        if !self.keep || self.memory.blocks(id).is_some() {
            return Ok(());
        }
        let blocks = self.scan().await?;
        self.memory.keep(id, &blocks)
    }

    /// The unfinished snapshot and the blocks of its parent, or none if they are forgotten: then
    /// it goes.
    async fn go_on(
        &self,
        snapshot: &Snapshot,
        limits: Limits<'_>,
    ) -> Result<Option<(String, Option<Blocks>)>, CliError> {
        let id = snapshot.snapshot_id().unwrap_or_default().to_owned();
        let labels = Labels::read(snapshot.tags());
        match labels.value(tags::PARENT) {
            None => Ok(Some((id, None))),
            Some(parent) => match self.memory.blocks(parent) {
                Some(blocks) => Ok(Some((id, Some(blocks)))),
                None => {
                    delete(self.api, limits, &id).await?;
                    Ok(None)
                }
            },
        }
    }

    async fn start(
        &self,
        blocks: &Blocks,
        refused: Option<String>,
        limits: Limits<'_>,
    ) -> Result<(String, Option<Blocks>), CliError> {
        let Making { tags, token, .. } = *self.making;
        let bytes = std::fs::metadata(self.whole).map_or(0, |m| m.len());
        let gib = i64::try_from(bytes.div_ceil(1 << 30))
            .unwrap_or(i64::MAX)
            .max(1);
        let parent = self.parent(gib, tags, limits).await?;
        let mut labels = Labels::new(tags, self.resource, token)
            .with(tags::ROLE, &self.image.role)
            .with(tags::IMAGE, &self.image.hash);
        if self.keep {
            labels = labels.with(tags::KEEP, "yes");
        }
        if let Some((id, _)) = &parent {
            labels = labels.with(tags::PARENT, id);
        }
        tracing::debug!(blocks = blocks.0.len(), gib, parent = ?parent.as_ref().map(|p| &p.0), "starting a snapshot");
        // The API answers a token it knows with the snapshot it made for it, however that ended; so
        // the next one after it has a token that follows from both.
        let mut token = match &refused {
            None => token.to_owned(),
            Some(before) => successor(token, before),
        };
        let mut ended = None;
        for _ in 0..RESTARTS {
            let started = self
                .api
                .ask("StartSnapshot", limits, || {
                    self.api
                        .ebs
                        .start_snapshot()
                        .volume_size(gib)
                        .set_parent_snapshot_id(parent.as_ref().map(|p| p.0.clone()))
                        .set_tags(Some(labels.ebs()))
                        .description(format!(
                            "image of {} made by ipop provision",
                            self.image.role
                        ))
                        .client_token(&token)
                        .timeout(GIVEN_UP_AFTER)
                        .send()
                })
                .await;
            let started = match started {
                Ok(started) => started,
                // The snapshot of this token was removed.
                Err(e) if e.is(Class::NotFound) => {
                    token = successor(&token, "gone");
                    ended = Some(e.to_string());
                    continue;
                }
                Err(e) => return Err(e.context(self.what("start the upload of"))),
            };
            let id = started.snapshot_id.unwrap_or_default();
            match started.status {
                None | Some(aws_sdk_ebs::types::Status::Pending) => {
                    return Ok((id, parent.map(|p| p.1)));
                }
                _ => {
                    token = successor(&token, &id);
                    ended = Some(format!("snapshot {id} ended at once"));
                }
            }
        }
        Err(
            CliError::new(ExitCode::Unavailable, self.what("start the upload of"))
                .caused_by(ended.unwrap_or_default())
                .retry(Retry::Soon),
        )
    }

    /// The newest finished snapshot of the same role whose blocks are known here.
    async fn parent(
        &self,
        gib: i64,
        tags: &Tags,
        limits: Limits<'_>,
    ) -> Result<Option<(String, Blocks)>, CliError> {
        if !self.keep {
            return Ok(None);
        }
        let filters = vec![
            tags::tagged(tags::ROLE, &self.image.role),
            tags::tagged(tags::OWNER, &tags.owner),
        ];
        let mut found = list(self.api, limits, filters).await?;
        found.retain(|s| {
            s.state() == Some(&SnapshotState::Completed)
                && s.volume_size().is_none_or(|size| i64::from(size) <= gib)
        });
        found.sort_by_key(|s| {
            std::cmp::Reverse(s.start_time().map(|t| (t.secs(), t.subsec_nanos())))
        });
        Ok(found.iter().find_map(|snapshot| {
            let id = snapshot.snapshot_id()?;
            Some((id.to_owned(), self.memory.blocks(id)?))
        }))
    }

    /// Puts what is missing, and says that this is all.
    async fn fill(
        &self,
        id: &str,
        parent: Option<&Blocks>,
        blocks: &Blocks,
        limits: Limits<'_>,
    ) -> Result<(), CliError> {
        let changed = blocks.changed_since(parent);
        let mut record = self.memory.upload(id, &self.image.hash)?;
        if record.complete {
            return Ok(());
        }
        let put = Put {
            api: self.api,
            snapshot: id,
            path: self.whole,
            blocks: &changed,
            interrupt: self.making.interrupt,
            deadline: self.making.deadline,
        };
        let total = changed.len() as u64 * BLOCK as u64;
        let what = format!("image {}: upload to {}", self.image.role, self.api.place);
        let progress = |done: u64| {
            self.making.events.emit(Event::Progress {
                what: what.clone(),
                done: done * BLOCK as u64,
                total,
            });
        };
        put.run(&mut record, progress).await?;
        let told = self
            .api
            .ask("CompleteSnapshot", limits, || {
                self.api
                    .ebs
                    .complete_snapshot()
                    .snapshot_id(id)
                    .changed_blocks_count(i32::try_from(changed.len()).unwrap_or(i32::MAX))
                    .checksum(blocks::linear(&changed))
                    .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
                    .checksum_aggregation_method(
                        ChecksumAggregationMethod::ChecksumAggregationLinear,
                    )
                    .send()
            })
            .await;
        match told {
            Ok(_) => {}
            Err(e) => self.not_complete(id, e, limits).await?,
        }
        record.note_complete()
    }

    /// The service found something else in the snapshot than was put, or knows it as complete
    /// already: its answer was lost, or a kill came between it and our note of it. What was
    /// completed shows that after a while, and must not be removed before.
    async fn not_complete(
        &self,
        id: &str,
        failure: Failure,
        limits: Limits<'_>,
    ) -> Result<(), CliError> {
        if !matches!(
            failure.class,
            Class::Refused | Class::Token | Class::NotFound
        ) {
            return Err(failure.context(self.what("complete the upload of")));
        }
        let what = format!("waiting for what became of snapshot {id}");
        let (began, mut backoff) = (Instant::now(), Backoff::default());
        loop {
            match self.state(id, limits).await?.0 {
                Some(SnapshotState::Completed) => return Ok(()),
                Some(SnapshotState::Error) => break,
                _ if began.elapsed() >= SHOWN_AFTER => break,
                _ => limits.pause(backoff.pause(), &what).await?,
            }
        }
        delete(self.api, limits, id).await?;
        self.memory.forget(id)?;
        Err(failure
            .context(self.what("complete the upload of"))
            .retry(Retry::Soon)
            .hint("the half snapshot was removed, the next try uploads all of it"))
    }

    async fn wait(&self, id: &str, limits: Limits<'_>) -> Result<(), CliError> {
        let mut backoff = Backoff::default();
        let what = format!("waiting for snapshot {id} to be completed");
        loop {
            match self.state(id, limits).await? {
                (Some(SnapshotState::Completed), _) => return Ok(()),
                (Some(SnapshotState::Error), why) => {
                    delete(self.api, limits, id).await?;
                    self.memory.forget(id)?;
                    let failed = CliError::new(ExitCode::Unavailable, self.what("upload"))
                        .caused_by(format!("snapshot {id} failed: {}", why.unwrap_or_default()))
                        .retry(Retry::Soon);
                    return Err(failed.hint("it was removed, the next try uploads all of it"));
                }
                _ => limits.pause(backoff.pause(), &what).await?,
            }
        }
    }

    /// The state and its reason; none while the snapshot is not visible yet, or not with our tags.
    async fn state(
        &self,
        id: &str,
        limits: Limits<'_>,
    ) -> Result<(Option<SnapshotState>, Option<String>), CliError> {
        let answer = self
            .api
            .ask("DescribeSnapshots", limits, || {
                self.api.ec2.describe_snapshots().snapshot_ids(id).send()
            })
            .await;
        match answer {
            Ok(answer) => Ok(answer
                .snapshots()
                .iter()
                .find(|s| self.is_ours(s))
                .map(|s| (s.state().cloned(), s.state_message().map(str::to_owned)))
                .unwrap_or_default()),
            Err(e) if e.is(Class::NotFound) => Ok((None, None)),
            Err(e) => Err(e.context(format!("cannot see snapshot {id}"))),
        }
    }

    fn is_ours(&self, snapshot: &Snapshot) -> bool {
        let labels = Labels::read(snapshot.tags());
        labels.value(tags::RESOURCE) == Some(&self.resource.id)
            && labels.value(tags::OWNER) == Some(&self.making.tags.owner)
    }

    fn what(&self, verb: &str) -> String {
        format!(
            "cannot {verb} image {} to {}",
            self.image.role, self.api.place
        )
    }
}
