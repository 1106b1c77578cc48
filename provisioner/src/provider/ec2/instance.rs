//! Instances.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, Filter, HttpTokensState, Instance,
    InstanceInterruptionBehavior, InstanceMarketOptionsRequest, InstanceMetadataEndpointState,
    InstanceMetadataOptionsRequest, InstanceStateName, InstanceType, MarketType, ResourceType,
    ShutdownBehavior, SpotInstanceType, SpotMarketOptions, VolumeType,
};

use super::api::{Api, Backoff, CONSISTENT_AFTER, Limits, UNSEEN, confirmed};
use super::config::Ec2Site;
use super::error::Class;
use super::image::ROOT_DEVICE;
use super::tags::{self, Labels};
use super::{blocks, plan, user_data};
use crate::error::{CliError, ExitCode, Retry};
use crate::provider::{MachineSpec, Made, Making, Removing, Step};

/// States of an instance that has ended.
const DEAD: [&str; 2] = ["shutting-down", "terminated"];
/// States of an instance that is there and does not serve.
const STOPPED: [&str; 2] = ["stopping", "stopped"];

/// Launches the node's instance, or finds that it runs.
pub async fn make(
    api: &Api,
    site: &Ec2Site,
    step: &Step,
    making: &Making<'_>,
) -> Result<Made, CliError> {
    let limits = Limits {
        deadline: making.deadline,
        interrupt: Some(making.interrupt),
    };
    let spec = making.machine.ok_or_else(|| {
        let what = format!("the step of {} has no machine", step.resource.id);
        CliError::new(ExitCode::Internal, what)
    })?;
    // What EC2 would refuse is refused before anything is asked.
    let user_data = user_data::encode(&spec.bundle, &spec.node)?;
    let mut found = None;
    let mut dead = BTreeSet::new();
    for instance in of_name(api, limits, &step.resource.id, &making.tags.uid).await? {
        let id = instance.instance_id().unwrap_or_default().to_owned();
        if DEAD.contains(&state(&instance)) {
            dead.insert(id);
        } else if STOPPED.contains(&state(&instance)) {
            // It does not come up by itself, and must not be there beside its successor.
            terminate(api, limits, &id).await?;
        } else if found.is_none() {
            found = Some(id);
        }
    }
    let id = match found {
        Some(id) => id,
        None => {
            let token = successor(making.token, &dead);
            let launch = Launch {
                step,
                spec,
                user_data,
                token,
            };
            run(api, site, launch, making, limits).await?
        }
    };
    wait_running(api, limits, spec, &id).await?;
    Ok(Made {
        handle: Some(id),
        reached_at: None,
    })
}

/// Terminates an instance and waits until it is; without a handle all of the name and deployment.
pub async fn remove(api: &Api, removing: &Removing<'_>) -> Result<(), CliError> {
    let limits = Limits {
        deadline: removing.deadline,
        interrupt: Some(removing.interrupt),
    };
    let mut ids = Vec::new();
    match removing.handle {
        Some(id) => ids.push(id.to_owned()),
        None => {
            let look =
                async || of_name(api, limits, &removing.resource.id, &removing.tags.uid).await;
            let found = confirmed(limits, look).await?;
            let there = found.into_iter().filter(|i| state(i) != "terminated");
            ids.extend(there.filter_map(|i| i.instance_id));
        }
    }
    for id in ids {
        terminate(api, limits, &id).await?;
        wait_terminated(api, limits, &id).await?;
    }
    Ok(())
}

/// All instances that these filters let through.
pub async fn list(
    api: &Api,
    limits: Limits<'_>,
    filters: Vec<Filter>,
) -> Result<Vec<Instance>, CliError> {
    let mut found = Vec::new();
    let mut next = None;
    loop {
        let page = api
            .ask("DescribeInstances", limits, || {
                api.ec2
                    .describe_instances()
                    .set_filters(Some(filters.clone()))
                    .max_results(1000)
                    .set_next_token(next.clone())
                    .send()
            })
            .await
            .map_err(|e| e.context("cannot list the instances"))?;
        let reservations = page.reservations.unwrap_or_default();
        found.extend(
            reservations
                .into_iter()
                .flat_map(|r| r.instances.unwrap_or_default()),
        );
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(found);
        }
    }
}

/// The state's name.
pub fn state(instance: &Instance) -> &str {
    instance
        .state()
        .and_then(|s| s.name())
        .map_or("pending", InstanceStateName::as_str)
}

/// Why an instance is in its state, in EC2's words.
pub fn reason(instance: &Instance) -> Option<String> {
    let reason = instance.state_reason()?;
    let words: Vec<_> = [reason.code(), reason.message()]
        .into_iter()
        .flatten()
        .collect();
    match words[..] {
        [code, message] if message.starts_with(code) => Some(message.to_owned()),
        [] => None,
        _ => Some(words.join(": ")),
    }
}

/// The client token after these instances: EC2 answers one that it knows with the instance it
/// launched for it, also when that ended by itself.
fn successor(token: &str, dead: &BTreeSet<String>) -> String {
    if dead.is_empty() {
        return token.to_owned();
    }
    let ids: Vec<_> = dead.iter().map(String::as_str).collect();
    let digest = blocks::hash(format!("{token} {}", ids.join(" ")).as_bytes());
    digest[..16].iter().map(|b| format!("{b:02x}")).collect()
}

/// What of a name is there, or was until lately.
async fn of_name(
    api: &Api,
    limits: Limits<'_>,
    name: &str,
    uid: &str,
) -> Result<Vec<Instance>, CliError> {
    let filters = vec![
        tags::tagged(tags::UID, uid),
        tags::tagged(tags::RESOURCE, name),
    ];
    list(api, limits, filters).await
}

/// One instance to be launched.
struct Launch<'a> {
    step: &'a Step,
    spec: &'a MachineSpec,
    /// In Base64.
    user_data: String,
    token: String,
}

async fn run(
    api: &Api,
    site: &Ec2Site,
    launch: Launch<'_>,
    making: &Making<'_>,
    limits: Limits<'_>,
) -> Result<String, CliError> {
    let Launch {
        step,
        spec,
        user_data,
        mut token,
    } = launch;
    let what = format!("cannot launch {}", spec.node);
    let needed = |kind: &str| {
        step.after
            .iter()
            .filter(|r| r.kind == kind)
            .find_map(|r| (making.handles)(r))
            .ok_or_else(|| {
                CliError::new(ExitCode::Internal, &*what).caused_by(format!("it has no {kind} yet"))
            })
    };
    let (image, group) = (needed(plan::IMAGE)?, needed(plan::GROUP)?);
    let labels = Labels::new(making.tags, &step.resource, making.token)
        .with(tags::NODE, &spec.node.0)
        .with(tags::ROLE, &spec.image.role);
    let root = EbsBlockDevice::builder()
        .volume_type(VolumeType::Gp3)
        .volume_size(i32::try_from(spec.disk_gib).unwrap_or(i32::MAX))
        .delete_on_termination(true)
        .build();
    let mapping = BlockDeviceMapping::builder()
        .device_name(ROOT_DEVICE)
        .ebs(root)
        .build();
    let metadata = InstanceMetadataOptionsRequest::builder()
        .http_endpoint(InstanceMetadataEndpointState::Enabled)
        .http_tokens(HttpTokensState::Required)
        .http_put_response_hop_limit(1)
        .build();
    let began = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        let launched = api
            .change("RunInstances", limits, || {
                api.ec2
                    .run_instances()
                    .min_count(1)
                    .max_count(1)
                    .client_token(&token)
                    .image_id(&image)
                    .instance_type(InstanceType::from(site.instance_type.as_str()))
                    .security_group_ids(&group)
                    .set_subnet_id(site.subnet.clone())
                    .block_device_mappings(mapping.clone())
                    .metadata_options(metadata.clone())
                    .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
                    .set_instance_market_options(site.spot.then(spot))
                    .tag_specifications(labels.specification(ResourceType::Instance))
                    .tag_specifications(labels.specification(ResourceType::Volume))
                    .user_data(&user_data)
                    .send()
            })
            .await;
        let failure = match launched {
            Ok(answer) => {
                let instance = answer.instances.unwrap_or_default().pop();
                return instance.and_then(|i| i.instance_id).ok_or_else(|| {
                    CliError::new(ExitCode::Unavailable, what)
                        .caused_by("RunInstances answered without an instance")
                        .retry(Retry::Soon)
                });
            }
            Err(failure) => failure,
        };
        // The group or the AMI is not known everywhere yet.
        let unknown_yet = failure.is(Class::NotFound) && began.elapsed() < CONSISTENT_AFTER;
        if unknown_yet {
            limits.pause(backoff.pause(), &what).await?;
            continue;
        }
        // The instance of this token ended so long ago that it is not shown any more.
        if failure.is(Class::Token) && token == making.token {
            token = successor(making.token, &BTreeSet::from(["forgotten".to_owned()]));
            continue;
        }
        let no_spot = site.spot && failure.is(Class::Capacity);
        let failed = failure.context(what);
        return Err(match no_spot {
            true => failed.hint("or set `spot = false` for the site"),
            false => failed,
        });
    }
}

fn spot() -> InstanceMarketOptionsRequest {
    let options = SpotMarketOptions::builder()
        .spot_instance_type(SpotInstanceType::OneTime)
        .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate)
        .build();
    InstanceMarketOptionsRequest::builder()
        .market_type(MarketType::Spot)
        .spot_options(options)
        .build()
}

/// EC2 accepts a launch and may still give it up: for a limit of volumes, a key it may not use, no
/// room. Then the instance ends by itself, and its reason is all there is.
async fn wait_running(
    api: &Api,
    limits: Limits<'_>,
    spec: &MachineSpec,
    id: &str,
) -> Result<(), CliError> {
    let mut backoff = Backoff::default();
    let what = format!("waiting for {} ({id}) to run", spec.node);
    loop {
        let instance = one(api, limits, id).await?;
        match instance.as_ref().map(state) {
            Some("running") => return Ok(()),
            Some(state) if state != "pending" => {
                let why = instance.as_ref().and_then(reason);
                let what = format!("the instance of {} ({id}) is {state}", spec.node);
                return Err(CliError::new(ExitCode::Unavailable, what)
                    .caused_by(why.unwrap_or_else(|| "EC2 gave no reason".into()))
                    .hint("`provision resume` launches another when the cause is gone"));
            }
            _ => limits.pause(backoff.pause(), &what).await?,
        }
    }
}

async fn terminate(api: &Api, limits: Limits<'_>, id: &str) -> Result<(), CliError> {
    let mut backoff = Backoff::default();
    let mut unseen = 0;
    loop {
        let done = api
            .ask("TerminateInstances", limits, || {
                api.ec2.terminate_instances().instance_ids(id).send()
            })
            .await;
        match done {
            Ok(_) => return Ok(()),
            Err(e) if e.is(Class::NotFound) && unseen == UNSEEN => return Ok(()),
            Err(e) if e.is(Class::NotFound) => unseen += 1,
            Err(e) => return Err(e.context(format!("cannot terminate instance {id}"))),
        }
        limits.pause(backoff.pause(), "TerminateInstances").await?;
    }
}

async fn wait_terminated(api: &Api, limits: Limits<'_>, id: &str) -> Result<(), CliError> {
    let mut backoff = Backoff::default();
    let what = format!("waiting for instance {id} to be terminated");
    loop {
        match one(api, limits, id).await?.as_ref().map(state) {
            None | Some("terminated") => return Ok(()),
            Some(_) => limits.pause(backoff.pause(), &what).await?,
        }
    }
}

/// One instance; none while it is not visible yet, or any more.
async fn one(api: &Api, limits: Limits<'_>, id: &str) -> Result<Option<Instance>, CliError> {
    let answer = api
        .ask("DescribeInstances", limits, || {
            api.ec2.describe_instances().instance_ids(id).send()
        })
        .await;
    match answer {
        Ok(answer) => Ok(answer
            .reservations
            .unwrap_or_default()
            .pop()
            .and_then(|r| r.instances?.pop())),
        Err(e) if e.is(Class::NotFound) => Ok(None),
        Err(e) => Err(e.context(format!("cannot see instance {id}"))),
    }
}

/// How long asking for one console may take.
pub const CONSOLE_LIMIT: Duration = Duration::from_secs(30);
