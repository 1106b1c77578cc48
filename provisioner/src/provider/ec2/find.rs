//! What is there, by tags alone.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ec2::types::{Filter, ImageState, Instance, SnapshotState, Tag};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::api::{Api, Limits};
use super::error::Class;
use super::resume::Memory;
use super::tags::{self, Labels};
use super::{group, image, instance, plan, snapshot};
use crate::error::CliError;
use crate::name::NodeName;
use crate::provider::{Found, Health, Machine, MachineState, Tags};

/// Listing everything, page by page.
const LIMIT: Duration = Duration::from_secs(120);

/// What was made just now shows after this.
const SHOWN_AFTER: Duration = Duration::from_secs(2);

/// Things of one deployment, or of all.
pub async fn find(api: &Api, whose: Option<&Tags>) -> Result<Vec<Found>, CliError> {
    let limits = Limits::within(LIMIT);
    let first = look(api, whose, limits).await?;
    if whose.is_some() {
        // The records say what else to look for.
        return Ok(first);
    }
    // Without records nobody would miss what a killed process made last.
    limits.pause(SHOWN_AFTER, "looking again").await?;
    let mut all = look(api, whose, limits).await?;
    let missing = |found: &Found| {
        let same =
            |other: &Found| (&other.resource, &other.handle) == (&found.resource, &found.handle);
        !all.iter().any(same)
    };
    let hidden: Vec<_> = first.into_iter().filter(missing).collect();
    all.extend(hidden);
    Ok(all)
}

async fn look(api: &Api, whose: Option<&Tags>, limits: Limits<'_>) -> Result<Vec<Found>, CliError> {
    let filters = || filters(whose);
    let (instances, groups, images, snapshots) = tokio::try_join!(
        instance::list(api, limits, filters()),
        group::list(api, limits, filters()),
        image::list(api, limits, filters()),
        snapshot::list(api, limits, filters()),
    )?;
    let mut all = Vec::new();
    for i in &instances {
        let health = match instance::state(i) {
            "terminated" => continue,
            "shutting-down" => Health::Going,
            "pending" | "running" => Health::Present,
            _ => Health::Broken,
        };
        all.extend(found(plan::INSTANCE, i.instance_id(), i.tags(), health));
    }
    for g in &groups {
        all.extend(found(plan::GROUP, g.group_id(), g.tags(), Health::Present));
    }
    for i in &images {
        let health = match i.state() {
            Some(ImageState::Available | ImageState::Pending) | None => Health::Present,
            Some(ImageState::Deregistered) => continue,
            Some(_) => Health::Broken,
        };
        all.extend(found(plan::IMAGE, i.image_id(), i.tags(), health));
    }
    for s in &snapshots {
        // Half of an upload is gone on with by making it again.
        let health = match s.state() {
            Some(SnapshotState::Completed) => Health::Present,
            _ => Health::Broken,
        };
        all.extend(found(plan::SNAPSHOT, s.snapshot_id(), s.tags(), health));
    }
    Ok(all)
}

/// The deployment's machines.
pub async fn machines(api: &Api, whose: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError> {
    let limits = Limits::within(LIMIT);
    let instances = instance::list(api, limits, filters(Some(whose))).await?;
    let mut machines: BTreeMap<NodeName, Machine> = BTreeMap::new();
    for i in &instances {
        let Some(node) = Labels::read(i.tags()).node() else {
            continue;
        };
        let machine = machine(i);
        // Terminated ones stay visible for an hour; a successor counts more.
        let better = machines
            .get(&node)
            .is_none_or(|known| rank(machine.state) > rank(known.state));
        if better {
            machines.insert(node, machine);
        }
    }
    Ok(machines)
}

/// The console of a node's newest instance.
pub async fn console(
    api: &Api,
    whose: &Tags,
    node: &NodeName,
    limit: usize,
) -> Result<Vec<u8>, CliError> {
    let limits = Limits::within(instance::CONSOLE_LIMIT);
    let mut filters = filters(Some(whose));
    filters.push(tags::tagged(tags::NODE, &node.0));
    let mut instances = instance::list(api, limits, filters).await?;
    instances.sort_by_key(|i| (rank(machine(i).state), i.launch_time().map(|t| t.secs())));
    let Some(id) = instances.pop().and_then(|i| i.instance_id) else {
        return Ok(Vec::new());
    };
    let ask = async |latest: bool| {
        api.ask("GetConsoleOutput", limits, || {
            let request = api.ec2.get_console_output().instance_id(&id);
            request.set_latest(latest.then_some(true)).send()
        })
        .await
    };
    // Only Nitro instances have the latest output, others that of some minutes ago.
    let answer = match ask(true).await {
        Err(e) if e.is(Class::Unsupported) => ask(false).await,
        answer => answer,
    };
    let output = match answer {
        Ok(answer) => answer.output.unwrap_or_default(),
        Err(e) if e.is(Class::NotFound) => String::new(),
        Err(e) => return Err(e.context(format!("cannot read the console of {node} ({id})"))),
    };
    let text: String = output.split_whitespace().collect();
    let mut bytes = BASE64_STANDARD.decode(text).map_err(|e| {
        let what = format!("the console of {node} ({id}) is not Base64");
        CliError::new(crate::error::ExitCode::Unavailable, what).caused_by(e)
    })?;
    Ok(bytes.split_off(bytes.len().saturating_sub(limit)))
}

fn filters(whose: Option<&Tags>) -> Vec<Filter> {
    match whose {
        Some(tags) => vec![tags::tagged(tags::UID, &tags.uid)],
        None => vec![tags::ours()],
    }
}

/// None for a thing that has no id of ours: somebody's copy with our tags on it.
fn found(kind: &str, handle: Option<&str>, tags: &[Tag], health: Health) -> Option<Found> {
    let labels = Labels::read(tags);
    let kept = labels.value(tags::KEEP).is_some();
    Some(Found {
        resource: plan::resource(kind, labels.value(tags::RESOURCE)?),
        handle: handle.map(str::to_owned),
        // What is kept belongs to no deployment: it is listed, and `site prune` removes it.
        tags: labels.tags().filter(|_| !kept),
        node: labels.node(),
        health,
    })
}

fn machine(instance: &Instance) -> Machine {
    let state = match instance::state(instance) {
        "pending" | "running" => MachineState::Running,
        "terminated" => MachineState::Absent,
        _ => MachineState::Stopped,
    };
    let address = |text: Option<&str>| text.and_then(|a| a.parse().ok());
    Machine {
        state,
        underlay: address(instance.public_ip_address())
            .or_else(|| address(instance.private_ip_address())),
        place: instance
            .placement()
            .and_then(|p| p.availability_zone())
            .map(str::to_owned),
        why: match state {
            MachineState::Running => None,
            _ => instance::reason(instance),
        },
    }
}

fn rank(state: MachineState) -> u8 {
    match state {
        MachineState::Running => 2,
        MachineState::Stopped => 1,
        MachineState::Absent => 0,
    }
}

/// Removes what is kept and used by no instance: AMIs and snapshots that were uploaded from this
/// machine, which is known by their records in the cache. Those of other installations that share
/// the account stay.
pub async fn prune(
    api: &Api,
    memory: &Memory,
    limits: Limits<'_>,
) -> Result<Vec<String>, CliError> {
    let kept = || vec![tags::filter("tag-key", &[tags::KEEP])];
    let mut removed = Vec::new();
    for ami in image::list(api, limits, kept()).await? {
        let id = ami.image_id().unwrap_or_default();
        let labels = Labels::read(ami.tags());
        let own = labels
            .value(tags::SNAPSHOT)
            .is_some_and(|snapshot| memory.blocks(snapshot).is_some());
        let used = || async {
            let states = ["pending", "running", "stopping", "stopped"];
            let users = vec![
                tags::filter("image-id", &[id]),
                tags::filter("instance-state-name", &states),
            ];
            Ok::<_, CliError>(!instance::list(api, limits, users).await?.is_empty())
        };
        if own && !used().await? {
            image::deregister(api, limits, id).await?;
            removed.push(id.to_owned());
        }
    }
    let needed: Vec<String> = image::list(api, limits, kept())
        .await?
        .iter()
        .filter(|ami| !removed.iter().any(|id| ami.image_id() == Some(id)))
        .filter_map(|ami| Some(Labels::read(ami.tags()).value(tags::SNAPSHOT)?.to_owned()))
        .collect();
    for snapshot in snapshot::list(api, limits, kept()).await? {
        let id = snapshot.snapshot_id().unwrap_or_default();
        if memory.blocks(id).is_some() && !needed.iter().any(|n| n == id) {
            snapshot::delete(api, limits, id).await?;
            memory.forget(id)?;
            removed.push(id.to_owned());
        }
    }
    Ok(removed)
}
