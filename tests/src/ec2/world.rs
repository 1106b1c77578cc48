//! Everything that exists in the double's account.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::behaviour::Behaviour;
use super::error::Refusal;
use super::filters::TagSet;
use super::groups::Group;
use super::images::Image;
use super::instances::Instance;
use super::params::Params;
use super::snapshots::Snapshot;

/// The account that owns everything.
pub(super) const ACCOUNT: &str = "123456789012";
/// Keys that begin so belong to AWS.
const RESERVED: &str = "aws:";

/// The state. A dry run works on a clone of it.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub behaviour: Behaviour,
    pub instances: BTreeMap<String, Instance>,
    /// Of RunInstances, by client token: what was asked, and what was launched.
    pub launches: HashMap<String, (String, Vec<String>)>,
    pub images: BTreeMap<String, Image>,
    /// Identifiers of images that are no more.
    pub deregistered: Vec<String>,
    pub snapshots: BTreeMap<String, Snapshot>,
    /// Of StartSnapshot, by client token.
    pub starts: HashMap<String, (String, String)>,
    pub groups: BTreeMap<String, Group>,
    /// Volumes that outlived their instance.
    pub volumes: BTreeMap<String, TagSet>,
    /// What is to be told to the guests.
    pub effects: Vec<Effect>,
    began: Instant,
    /// For how many more calls things cannot be found.
    unseen: HashMap<String, u32>,
    next_id: u64,
}

/// Something that happened to a machine.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    Started(Guest),
    Stopped(String),
}

/// What an instance that now runs was given.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The instance.
    pub instance: String,
    /// User data, decoded.
    pub user_data: Vec<u8>,
}

impl World {
    pub fn new(behaviour: Behaviour) -> Self {
        let mut world = Self {
            behaviour,
            instances: BTreeMap::new(),
            launches: HashMap::new(),
            images: BTreeMap::new(),
            deregistered: Vec::new(),
            snapshots: BTreeMap::new(),
            starts: HashMap::new(),
            groups: BTreeMap::new(),
            volumes: BTreeMap::new(),
            effects: Vec::new(),
            began: Instant::now(),
            unseen: HashMap::new(),
            next_id: 0,
        };
        let default = Group::default_of_vpc();
        world.groups.insert(default.id.clone(), default);
        world
    }

    /// Time since the double began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// A new identifier, which cannot be found at first.
    pub fn new_id(&mut self, prefix: &str) -> String {
        self.next_id += 1;
        // Scattered, so that nobody relies on their order.
        let scattered = self.next_id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = format!("{prefix}-0{scattered:016x}");
        if self.behaviour.unseen_calls > 0 {
            self.unseen.insert(id.clone(), self.behaviour.unseen_calls);
        }
        id
    }

    /// Whether a call that looks for `id` finds it, as far as that depends on its age.
    pub fn sees(&mut self, id: &str) -> bool {
        match self.unseen.get_mut(id) {
            None => true,
            Some(1) => {
                self.unseen.remove(id);
                false
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    /// Lets time pass for everything.
    pub fn tick(&mut self) {
        self.tick_instances();
        self.tick_snapshots();
    }

    /// Everything that would cost money or stand in the way of a later deployment.
    pub fn leftovers(&self) -> Vec<String> {
        let name = |tags: &TagSet| tags.get("Name").cloned().unwrap_or_default();
        let instances = self.instances.values().filter(|i| !i.is_over());
        let groups = self.groups.values().filter(|group| !group.is_default());
        instances
            .map(|i| format!("instance {} {} {}", i.id, i.state.name(), name(&i.tags)))
            .chain(
                self.volumes
                    .iter()
                    .map(|(id, tags)| format!("volume {id} {}", name(tags))),
            )
            .chain(
                self.images
                    .values()
                    .map(|i| format!("image {} {}", i.id, i.name)),
            )
            .chain(
                self.snapshots
                    .values()
                    .map(|s| format!("snapshot {} {} {}", s.id, s.state.name(), name(&s.tags))),
            )
            .chain(groups.map(|g| format!("group {} {}", g.id, g.name)))
            .map(|line| line.trim_end().to_owned())
            .collect()
    }
}

/// Reads `TagSpecification.N`; resources other than those in `kinds` are refused.
pub(super) fn tag_specifications(
    params: &mut Params,
    kinds: &[&str],
) -> Result<BTreeMap<String, TagSet>, Refusal> {
    let mut found = BTreeMap::new();
    for mut specification in params.structures("TagSpecification")? {
        let kind = specification.require("ResourceType")?;
        if !kinds.contains(&kind.as_str()) {
            let text =
                format!("'{kind}' is not a valid taggable resource type for this operation.");
            return Err(Refusal::new("InvalidParameterValue", text));
        }
        let tags = tags(&mut specification)?;
        specification.finish()?;
        if tags.is_empty() {
            let text = "Tag specification must have at least one tag";
            return Err(Refusal::new("InvalidParameterValue", text));
        }
        if found.insert(kind.clone(), tags).is_some() {
            let text = format!("Duplicate resource type '{kind}' in tag specifications");
            return Err(Refusal::new("InvalidParameterValue", text));
        }
    }
    Ok(found)
}

/// Reads `Tag.N`.
pub(super) fn tags(params: &mut Params) -> Result<TagSet, Refusal> {
    let mut tags = TagSet::new();
    for mut tag in params.structures("Tag")? {
        let key = tag.require("Key")?;
        let value = tag.take("Value").unwrap_or_default();
        tag.finish()?;
        check_tag(&key, &value)?;
        if tags.insert(key.clone(), value).is_some() {
            let text = format!("Duplicate tag key '{key}' specified.");
            return Err(Refusal::new("InvalidParameterValue", text));
        }
    }
    if tags.len() > 50 {
        return Err(Refusal::new("TagLimitExceeded", "More than 50 tags"));
    }
    Ok(tags)
}

/// The rules for a tag.
pub(super) fn check_tag(key: &str, value: &str) -> Result<(), Refusal> {
    if key.is_empty() || key.chars().count() > 127 || key.starts_with(RESERVED) {
        return Err(Refusal::value(
            "tagKey",
            key,
            "Tag keys must be between 1 and 127 characters in length and must not begin with 'aws:'.",
        ));
    }
    if value.chars().count() > 255 {
        return Err(Refusal::value("tagValue", value, "At most 255 characters."));
    }
    Ok(())
}

/// Whether `id` has the form `prefix-` and 8 or 17 hexadecimal digits.
pub(super) fn well_formed(prefix: &str, id: &str) -> bool {
    let digits = id.strip_prefix(prefix).and_then(|id| id.strip_prefix('-'));
    digits.is_some_and(|digits| {
        matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}
