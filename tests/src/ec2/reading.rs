//! The reading half of the EBS direct API: blocks of completed snapshots, and what differs.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::clock;
use super::ebs::{block_index, internal, json_answer, not_found};
use super::error::Refusal;
use super::http::{Answer, Request};
use super::snapshots::{BLOCK, Block, Snapshot, State};
use super::world::World;

impl World {
    pub fn get_block(
        &mut self,
        id: &str,
        index: &str,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        let index = block_index(index)?;
        let query = query(request);
        let snapshot = self.readable(id)?;
        let block = snapshot
            .blocks
            .get(&index)
            .filter(|block| query.get("blockToken") == Some(&token(index, &block.digest)))
            .ok_or_else(|| {
                let text = "The block token is not of this block";
                Refusal::validation("INVALID_BLOCK_TOKEN", text)
            })?;
        Ok(Answer {
            status: 200,
            headers: vec![
                ("Content-Type", "application/octet-stream".to_owned()),
                ("x-amz-Data-Length", BLOCK.to_string()),
                ("x-amz-Checksum", STANDARD.encode(block.digest)),
                ("x-amz-Checksum-Algorithm", "SHA256".to_owned()),
            ],
            body: block.read(index).map_err(internal)?,
        })
    }

    pub fn list_blocks(&mut self, id: &str, request: &Request) -> Result<Answer, Refusal> {
        let snapshot = self.readable(id)?;
        let all = snapshot.blocks.iter().map(|(index, block)| {
            let token = token(*index, &block.digest);
            (*index, json!({ "BlockIndex": index, "BlockToken": token }))
        });
        listing("Blocks", all.collect(), snapshot.gib, request)
    }

    pub fn list_changed(&mut self, id: &str, request: &Request) -> Result<Answer, Refusal> {
        let second = self.readable(id)?.clone();
        let first = match query(request).get("firstSnapshotId") {
            Some(first) => self.readable(first)?.blocks.clone(),
            None => BTreeMap::new(),
        };
        let mut indices: Vec<u32> = first.keys().chain(second.blocks.keys()).copied().collect();
        indices.sort_unstable();
        indices.dedup();
        let changed = indices.into_iter().filter_map(|index| {
            let digest = |blocks: &BTreeMap<u32, _>| -> Option<[u8; 32]> {
                blocks.get(&index).map(|block: &Block| block.digest)
            };
            let (before, after) = (digest(&first), digest(&second.blocks));
            (before != after).then(|| {
                let mut change = json!({ "BlockIndex": index });
                for (name, digest) in [("FirstBlockToken", before), ("SecondBlockToken", after)] {
                    if let Some(digest) = digest {
                        change[name] = token(index, &digest).into();
                    }
                }
                (index, change)
            })
        });
        listing("ChangedBlocks", changed.collect(), second.gib, request)
    }

    /// A snapshot that blocks can be read from.
    pub(super) fn readable(&self, id: &str) -> Result<&Snapshot, Refusal> {
        let snapshot = self.snapshots.get(id).ok_or_else(|| not_found(id))?;
        if snapshot.state != State::Completed {
            let text = format!("The snapshot '{id}' is not completed");
            return Err(Refusal::validation("INVALID_SNAPSHOT_ID", text));
        }
        Ok(snapshot)
    }
}

/// A page of blocks.
fn listing(
    name: &str,
    all: Vec<(u32, Value)>,
    gib: u32,
    request: &Request,
) -> Result<Answer, Refusal> {
    let query = query(request);
    let number = |key: &str| -> Result<Option<u32>, Refusal> {
        let text = query.get(key).filter(|text| !text.is_empty());
        let parsed = text.map(|text| text.parse()).transpose();
        parsed.map_err(|_| Refusal::validation("INVALID_PAGE_TOKEN", format!("{key} is invalid")))
    };
    let asked = number("maxResults")?.unwrap_or(10_000);
    if !(100..=10_000).contains(&asked) {
        let text = "MaxResults must be 100 to 10000";
        return Err(Refusal::validation("INVALID_PARAMETER_VALUE", text));
    }
    let from = number("pageToken")?.or(number("startingBlockIndex")?);
    // Never more than the smallest page that can be asked for.
    let rest = all
        .into_iter()
        .filter(|(index, _)| *index >= from.unwrap_or(0));
    let mut rest: Vec<_> = rest.take(101).collect();
    let mut body = json!({
        "VolumeSize": gib,
        "BlockSize": BLOCK,
        "ExpiryTime": clock::seconds(SystemTime::now()) + 3600,
    });
    if rest.len() > 100 {
        body["NextToken"] = rest.pop().map(|(index, _)| index.to_string()).into();
    }
    body[name] = rest.into_iter().map(|(_, block)| block).collect();
    Ok(json_answer(200, &body))
}

fn query(request: &Request) -> BTreeMap<String, String> {
    form_urlencoded::parse(request.query.as_bytes())
        .into_owned()
        .collect()
}

fn token(index: u32, digest: &[u8; 32]) -> String {
    STANDARD.encode(format!("block {index} {:?}", &digest[..4]))
}
