//! Snapshots as EC2 shows them, and where their blocks are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::clock;
use super::error::Refusal;
use super::filters::{Filters, Page, TagSet};
use super::images::owned_by_self;
use super::params::Params;
use super::world::{ACCOUNT, World, well_formed};
use super::xml::Xml;

/// Bytes of a block.
pub const BLOCK: usize = 512 * 1024;
/// Blocks in a gibibyte.
pub(super) const BLOCKS_PER_GIB: u32 = 2048;

const FILTERS: [&str; 6] = [
    "snapshot-id",
    "status",
    "owner-id",
    "volume-size",
    "description",
    "progress",
];

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Blocks can be written.
    Open,
    /// It was completed and is not ready yet.
    Sealed,
    Completed,
}

impl State {
    /// EC2 knows no difference between the first two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open | Self::Sealed => "pending",
            Self::Completed => "completed",
        }
    }
}

/// A block that was written.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub digest: [u8; 32],
    /// The file it is in, at its own index.
    store: Arc<Store>,
}

/// The blocks written to one snapshot, in a file without a name.
#[derive(Debug)]
pub(super) struct Store(File);

impl Store {
    pub fn new() -> io::Result<Self> {
        tempfile::tempfile().map(Self)
    }

    pub fn write(&self, index: u32, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, u64::from(index) * BLOCK as u64)
    }
}

/// A snapshot.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub id: String,
    pub state: State,
    pub gib: u32,
    pub parent: Option<String>,
    pub description: Option<String>,
    pub tags: TagSet,
    pub started: SystemTime,
    /// When it can first be found by the EBS API.
    pub seen_at: Duration,
    /// When it will be completed, once it is sealed.
    pub completes_at: Duration,
    /// All of its blocks, those of its parent among them.
    pub blocks: BTreeMap<u32, Block>,
    /// Indices of the blocks written to itself.
    pub written: BTreeMap<u32, [u8; 32]>,
    pub store: Arc<Store>,
}

impl Snapshot {
    /// Notes a block that is in the store.
    pub fn wrote(&mut self, index: u32, digest: [u8; 32]) {
        self.written.insert(index, digest);
        let store = self.store.clone();
        self.blocks.insert(index, Block { digest, store });
    }

    fn field(&self, name: &str) -> Vec<String> {
        let value = match name {
            "snapshot-id" => self.id.clone(),
            "status" => self.state.name().to_owned(),
            "owner-id" => ACCOUNT.to_owned(),
            "volume-size" => self.gib.to_string(),
            "description" => self.description.clone().unwrap_or_default(),
            _ => self.progress().to_owned(),
        };
        vec![value]
    }

    fn progress(&self) -> &'static str {
        match self.state {
            State::Open => "0%",
            State::Sealed => "99%",
            State::Completed => "100%",
        }
    }

    fn write(&self, xml: &mut Xml) {
        xml.leaf("snapshotId", &self.id)
            .leaf("volumeId", "vol-ffffffff")
            .leaf("status", self.state.name())
            .leaf("startTime", clock::iso(self.started))
            .leaf("progress", self.progress())
            .leaf("ownerId", ACCOUNT)
            .leaf("volumeSize", self.gib)
            .leaf("description", self.description.as_deref().unwrap_or(""))
            .leaf("encrypted", false)
            .leaf("storageTier", "standard")
            .tags(&self.tags);
    }
}

impl Block {
    /// Its content.
    pub fn read(&self, index: u32) -> io::Result<Vec<u8>> {
        let mut data = vec![0; BLOCK];
        let at = u64::from(index) * BLOCK as u64;
        self.store.0.read_exact_at(&mut data, at)?;
        Ok(data)
    }
}

impl World {
    pub(super) fn tick_snapshots(&mut self) {
        let now = self.now();
        for snapshot in self.snapshots.values_mut() {
            if snapshot.state == State::Sealed && now >= snapshot.completes_at {
                snapshot.state = State::Completed;
            }
        }
    }

    pub fn describe_snapshots(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("SnapshotId")?;
        let owners = params.values("Owner")?;
        let filters = Filters::take(params, &FILTERS)?;
        let page = Page::take(params, self.behaviour.page)?;
        params.finish()?;
        owned_by_self(&owners, &ids)?;
        for id in &ids {
            self.snapshot(id)?;
        }
        let candidates: Vec<String> = self
            .snapshots
            .values()
            .filter(|s| ids.is_empty() || ids.contains(&s.id))
            .filter(|s| filters.match_all(&s.tags, |name| s.field(name)))
            .map(|s| s.id.clone())
            .collect();
        let found = candidates
            .into_iter()
            .filter(|id| !ids.is_empty() || self.sees(id))
            .collect();
        let page = if ids.is_empty() { page } else { Page::all() };
        let (found, next) = page.cut(found, String::clone);
        let mut xml = Xml::default();
        xml.items("snapshotSet", &found, |xml, id| {
            self.snapshots[id].write(xml);
        })
        .maybe("nextToken", next);
        Ok(xml)
    }

    pub fn delete_snapshot(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let id = params.require("SnapshotId")?;
        params.finish()?;
        self.snapshot(&id)?;
        if let Some(image) = self.images.values().find(|image| image.snapshot == id) {
            let text = format!("The snapshot {id} is currently in use by {}", image.id);
            return Err(Refusal::new("InvalidSnapshot.InUse", text));
        }
        self.snapshots.remove(&id);
        Ok(Xml::done())
    }

    /// Refuses the identifier of a snapshot that cannot be found.
    pub fn snapshot(&mut self, id: &str) -> Result<(), Refusal> {
        if !well_formed("snap", id) {
            let text = format!("Invalid id: \"{id}\" (expecting \"snap-...\")");
            return Err(Refusal::new("InvalidSnapshotID.Malformed", text));
        }
        if !self.snapshots.contains_key(id) || !self.sees(id) {
            let text = format!("The snapshot '{id}' does not exist.");
            return Err(Refusal::new("InvalidSnapshot.NotFound", text));
        }
        Ok(())
    }
}
