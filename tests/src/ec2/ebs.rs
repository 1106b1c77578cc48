//! The EBS direct API: REST and JSON, blocks and their checksums.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::clock;
use super::error::Refusal;
use super::filters::TagSet;
use super::http::{Answer, Request};
use super::snapshots::{BLOCK, BLOCKS_PER_GIB, Snapshot, State, Store};
use super::world::{ACCOUNT, World, check_tag};

/// A call of the API, recognised by method and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Start,
    Put(String, String),
    Complete(String),
    Get(String, String),
    List(String),
    Changed(String),
}

impl Call {
    /// Finds out what a request wants; none if it is not for this API.
    pub fn of(request: &Request) -> Option<Self> {
        let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let own = |text: &&str| (*text).to_owned();
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["snapshots"]) => Some(Self::Start),
            ("POST", ["snapshots", "completion", id]) => Some(Self::Complete(own(id))),
            ("PUT", ["snapshots", id, "blocks", index]) => Some(Self::Put(own(id), own(index))),
            ("GET", ["snapshots", id, "blocks", index]) => Some(Self::Get(own(id), own(index))),
            ("GET", ["snapshots", id, "blocks"]) => Some(Self::List(own(id))),
            ("GET", ["snapshots", id, "changedblocks"]) => Some(Self::Changed(own(id))),
            _ => None,
        }
    }

    /// The action's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start => "StartSnapshot",
            Self::Put(..) => "PutSnapshotBlock",
            Self::Complete(_) => "CompleteSnapshot",
            Self::Get(..) => "GetSnapshotBlock",
            Self::List(_) => "ListSnapshotBlocks",
            Self::Changed(_) => "ListChangedBlocks",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Start {
    volume_size: u32,
    parent_snapshot_id: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
    description: Option<String>,
    client_token: Option<String>,
    /// Minutes.
    timeout: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

/// A block that has come, checked as far as that needs no state.
#[derive(Debug)]
pub(super) struct Arrived {
    index: u32,
    digest: [u8; 32],
}

impl Arrived {
    /// Its place.
    pub fn index(&self) -> u32 {
        self.index
    }
}

/// Checks a PutSnapshotBlock; needs no state, and so holds nobody up.
pub(super) fn arrived(index: &str, request: &Request) -> Result<Arrived, Refusal> {
    let index = block_index(index)?;
    let length: Option<usize> = header(request, "x-amz-data-length")?;
    if length != Some(BLOCK) || request.body.len() != BLOCK {
        let text = format!(
            "DataLength and the data must be {BLOCK} bytes; they are {length:?} and {}",
            request.body.len()
        );
        return Err(Refusal::validation("INVALID_BLOCK", text));
    }
    if let Some(progress) = header::<u8>(request, "x-amz-progress")?.filter(|p| *p > 100) {
        let text = format!("Progress {progress} is more than 100");
        return Err(Refusal::validation("INVALID_PARAMETER_VALUE", text));
    }
    let digest = sha256(&request.body);
    checksum(request, &digest, "the block's")?;
    Ok(Arrived { index, digest })
}

impl World {
    pub fn start_snapshot(&mut self, request: &Request) -> Result<Answer, Refusal> {
        let wrong = |text: String| Refusal::validation("INVALID_PARAMETER_VALUE", text);
        let asked: Value =
            serde_json::from_slice(&request.body).map_err(|e| wrong(e.to_string()))?;
        let start: Start =
            serde_json::from_value(asked.clone()).map_err(|e| wrong(e.to_string()))?;
        let token = start.client_token.clone().unwrap_or_default();
        if token.is_empty() || token.len() > 255 {
            return Err(wrong(
                "ClientToken must have 1 to 255 characters".to_owned(),
            ));
        }
        if let Some((before, id)) = self.starts.get(&token) {
            let same = asked.to_string();
            if *before != same {
                let text = "The request uses the same client token as a previous, but \
                            non-identical request.";
                return Err(Refusal::with_status(409, "ConflictException", text));
            }
            let Some(snapshot) = self.snapshots.get(id) else {
                return Err(not_found(id));
            };
            return Ok(started(snapshot));
        }
        if start
            .timeout
            .is_some_and(|minutes| !(10..=4320).contains(&minutes))
        {
            return Err(wrong("Timeout must be 10 to 4320 minutes".to_owned()));
        }
        if !(1..=65_536).contains(&start.volume_size) {
            let text = "VolumeSize must be 1 to 65536 GiB";
            return Err(Refusal::validation("INVALID_VOLUME_SIZE", text));
        }
        let mut tags = TagSet::new();
        for tag in start.tags {
            let invalid = |e: Refusal| Refusal::validation("INVALID_TAG", e.message);
            check_tag(&tag.key, &tag.value).map_err(invalid)?;
            tags.insert(tag.key, tag.value);
        }
        let mut blocks = BTreeMap::new();
        if let Some(parent) = &start.parent_snapshot_id {
            let of = self.readable(parent)?;
            if of.gib > start.volume_size {
                let text = format!("The parent has {} GiB, more than VolumeSize", of.gib);
                return Err(Refusal::validation("INVALID_VOLUME_SIZE", text));
            }
            blocks = of.blocks.clone();
        }
        let store = Store::new().map_err(internal)?;
        let snapshot = Snapshot {
            id: self.new_id("snap"),
            state: State::Open,
            gib: start.volume_size,
            parent: start.parent_snapshot_id,
            description: start.description,
            tags,
            started: SystemTime::now(),
            seen_at: self.now() + self.behaviour.snapshot_unseen,
            completes_at: self.now(),
            blocks,
            written: BTreeMap::new(),
            store: Arc::new(store),
        };
        let answer = started(&snapshot);
        let record = (asked.to_string(), snapshot.id.clone());
        self.starts.insert(token, record);
        self.snapshots.insert(snapshot.id.clone(), snapshot);
        Ok(answer)
    }

    /// Where the blocks of an open snapshot go.
    pub fn open_store(&mut self, id: &str, block: &Arrived) -> Result<Arc<Store>, Refusal> {
        let snapshot = self.open(id)?;
        if block.index >= snapshot.gib * BLOCKS_PER_GIB {
            let text = format!("Block {} is behind the end of the volume", block.index);
            return Err(Refusal::validation("INVALID_BLOCK", text));
        }
        Ok(snapshot.store.clone())
    }

    /// Notes a block that is in the store now.
    pub fn put_block(&mut self, id: &str, block: &Arrived) -> Result<Answer, Refusal> {
        self.open(id)?.wrote(block.index, block.digest);
        Ok(Answer {
            status: 201,
            headers: vec![
                ("x-amz-Checksum", STANDARD.encode(block.digest)),
                ("x-amz-Checksum-Algorithm", "SHA256".to_owned()),
            ],
            body: Vec::new(),
        })
    }

    pub fn complete_snapshot(&mut self, id: &str, request: &Request) -> Result<Answer, Refusal> {
        let (now, pending) = (self.now(), self.behaviour.snapshot_pending);
        let snapshot = self.open(id)?;
        let count: Option<usize> = header(request, "x-amz-changedblockscount")?;
        if count != Some(snapshot.written.len()) {
            let text = format!(
                "ChangedBlocksCount is {count:?}, but {} blocks were written",
                snapshot.written.len()
            );
            return Err(Refusal::validation("INVALID_PARAMETER_VALUE", text));
        }
        if request.header("x-amz-checksum-aggregation-method") != Some("LINEAR") {
            let text = "ChecksumAggregationMethod must be LINEAR";
            return Err(Refusal::validation("INVALID_PARAMETER_VALUE", text));
        }
        let all: Vec<u8> = snapshot.written.values().flatten().copied().collect();
        checksum(request, &sha256(&all), "the snapshot's")?;
        snapshot.state = State::Sealed;
        snapshot.completes_at = now + pending;
        Ok(json_answer(202, &json!({ "Status": "pending" })))
    }

    /// A snapshot that blocks can be written to.
    fn open(&mut self, id: &str) -> Result<&mut Snapshot, Refusal> {
        let now = self.now();
        let snapshot = self.snapshots.get_mut(id).filter(|s| s.seen_at <= now);
        let snapshot = snapshot.ok_or_else(|| not_found(id))?;
        if snapshot.state != State::Open {
            let text = format!("The snapshot '{id}' was completed already");
            return Err(Refusal::validation("INVALID_SNAPSHOT_ID", text));
        }
        Ok(snapshot)
    }
}

fn started(snapshot: &Snapshot) -> Answer {
    let tags: Vec<Value> = snapshot
        .tags
        .iter()
        .map(|(key, value)| json!({ "Key": key, "Value": value }))
        .collect();
    let mut body = json!({
        "SnapshotId": snapshot.id,
        "OwnerId": ACCOUNT,
        "Status": snapshot.state.name(),
        "StartTime": clock::seconds(snapshot.started),
        "VolumeSize": snapshot.gib,
        "BlockSize": BLOCK,
        "Tags": tags,
    });
    if let Some(parent) = &snapshot.parent {
        body["ParentSnapshotId"] = parent.clone().into();
    }
    if let Some(description) = &snapshot.description {
        body["Description"] = description.clone().into();
    }
    json_answer(201, &body)
}

pub(super) fn json_answer(status: u16, body: &Value) -> Answer {
    Answer {
        status,
        headers: vec![("Content-Type", "application/json".to_owned())],
        body: body.to_string().into_bytes(),
    }
}

pub(super) fn block_index(text: &str) -> Result<u32, Refusal> {
    let wrong = |_| Refusal::validation("INVALID_BLOCK", format!("`{text}` is no block index"));
    text.parse().map_err(wrong)
}

fn header<T: std::str::FromStr>(request: &Request, name: &str) -> Result<Option<T>, Refusal> {
    let parsed = request.header(name).map(str::parse).transpose();
    parsed.map_err(|_| {
        let text = format!("The header {name} cannot be read");
        Refusal::validation("INVALID_PARAMETER_VALUE", text)
    })
}

/// The request must carry this checksum. AWS lets some be left out; what is not checked may be
/// wrong without anybody knowing, so the double does not.
fn checksum(request: &Request, digest: &[u8; 32], whose: &str) -> Result<(), Refusal> {
    if request.header("x-amz-checksum-algorithm") != Some("SHA256") {
        let text = "ChecksumAlgorithm must be SHA256";
        return Err(Refusal::validation("INVALID_PARAMETER_VALUE", text));
    }
    let said = request.header("x-amz-checksum");
    if said != Some(&STANDARD.encode(digest)) {
        let text = format!("The checksum is not {whose}: {said:?}");
        return Err(Refusal::validation("INVALID_BLOCK", text));
    }
    Ok(())
}

pub(super) fn not_found(id: &str) -> Refusal {
    Refusal {
        reason: Some("SNAPSHOT_NOT_FOUND".to_owned()),
        ..Refusal::with_status(
            404,
            "ResourceNotFoundException",
            format!("The snapshot '{id}' does not exist."),
        )
    }
}

/// The double's own failure.
pub(super) fn internal(error: std::io::Error) -> Refusal {
    Refusal::with_status(500, "InternalServerException", error)
}

fn sha256(data: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, data);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}
