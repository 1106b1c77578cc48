//! AMIs.

use std::time::Instant;

use aws_sdk_ec2::types::{
    ArchitectureValues, BlockDeviceMapping, BootModeValues, EbsBlockDevice, Filter, Image as Ami,
    ImageState, ImdsSupportValues, ResourceType, VolumeType,
};

use super::api::{Api, Backoff, CONSISTENT_AFTER, Limits, confirmed};
use super::error::Class;
use super::plan;
use super::tags::{self, Labels};
use crate::error::{CliError, ExitCode, Retry};
use crate::provider::{Image, Made, Making, Removing, Resource};

/// The root disk in block device mappings. On Nitro instances it is NVMe whatever its name.
pub const ROOT_DEVICE: &str = "/dev/xvda";

/// Registers the AMI of a snapshot, or finds that it is there.
pub async fn make(
    api: &Api,
    keep: bool,
    image: &Image,
    resource: &Resource,
    making: &Making<'_>,
) -> Result<Made, CliError> {
    let limits = Limits {
        deadline: making.deadline,
        interrupt: Some(making.interrupt),
    };
    let needed = plan::resource(plan::SNAPSHOT, &resource.id);
    let snapshot = (making.handles)(&needed).ok_or_else(|| {
        let what = format!("AMI {} has no snapshot to be made of", resource.id);
        CliError::new(ExitCode::Internal, what)
    })?;
    let mut labels = Labels::new(making.tags, resource, making.token)
        .with(tags::ROLE, &image.role)
        .with(tags::IMAGE, &image.hash)
        .with(tags::SNAPSHOT, &snapshot);
    if keep {
        labels = labels.with(tags::KEEP, "yes");
    }
    let mut found = None;
    for ami in by_name(api, limits, &resource.id).await? {
        let id = ami.image_id().unwrap_or_default().to_owned();
        let read = Labels::read(ami.tags());
        // Without its snapshot, or failed: of no use, and its name is needed.
        let other = read.value(tags::SNAPSHOT).is_some_and(|of| of != snapshot);
        let serves = matches!(
            ami.state(),
            Some(ImageState::Available | ImageState::Pending)
        );
        if other || !serves {
            deregister(api, limits, &id).await?;
        } else {
            found = Some(id);
        }
    }
    let id = match found {
        Some(id) => id,
        None => register(api, limits, resource, image, &snapshot, &labels).await?,
    };
    wait(api, limits, &id, &labels).await?;
    Ok(Made {
        handle: Some(id),
        reached_at: None,
    })
}

/// Deregisters an AMI; without a handle all of that name.
pub async fn remove(api: &Api, removing: &Removing<'_>) -> Result<(), CliError> {
    let limits = Limits {
        deadline: removing.deadline,
        interrupt: Some(removing.interrupt),
    };
    match removing.handle {
        Some(id) => deregister(api, limits, id).await,
        None => {
            let look = async || by_name(api, limits, &removing.resource.id).await;
            for ami in confirmed(limits, look).await? {
                deregister(api, limits, ami.image_id().unwrap_or_default()).await?;
            }
            Ok(())
        }
    }
}

/// Deregisters one; gone is fine.
pub async fn deregister(api: &Api, limits: Limits<'_>, id: &str) -> Result<(), CliError> {
    let done = api
        .ask("DeregisterImage", limits, || {
            api.ec2.deregister_image().image_id(id).send()
        })
        .await;
    match done {
        Ok(_) => Ok(()),
        Err(e) if e.is(Class::NotFound) => Ok(()),
        // A second call while the first is worked on.
        Err(e) if e.code.as_deref() == Some("InvalidAMIID.Unavailable") => Ok(()),
        Err(e) => Err(e.context(format!("cannot deregister AMI {id}"))),
    }
}

/// All AMIs of the account that these filters let through.
pub async fn list(
    api: &Api,
    limits: Limits<'_>,
    filters: Vec<Filter>,
) -> Result<Vec<Ami>, CliError> {
    let mut found = Vec::new();
    let mut next = None;
    loop {
        let page = api
            .ask("DescribeImages", limits, || {
                api.ec2
                    .describe_images()
                    .owners("self")
                    .set_filters(Some(filters.clone()))
                    .max_results(500)
                    .set_next_token(next.clone())
                    .send()
            })
            .await
            .map_err(|e| e.context("cannot list the AMIs"))?;
        found.extend(page.images.unwrap_or_default());
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(found);
        }
    }
}

/// Names are unique in an account, and ours say whose they are.
async fn by_name(api: &Api, limits: Limits<'_>, name: &str) -> Result<Vec<Ami>, CliError> {
    list(api, limits, vec![tags::filter("name", &[name])]).await
}

async fn register(
    api: &Api,
    limits: Limits<'_>,
    resource: &Resource,
    image: &Image,
    snapshot: &str,
    labels: &Labels,
) -> Result<String, CliError> {
    let root = EbsBlockDevice::builder()
        .snapshot_id(snapshot)
        .volume_type(VolumeType::Gp3)
        .delete_on_termination(true)
        .build();
    let mapping = BlockDeviceMapping::builder()
        .device_name(ROOT_DEVICE)
        .ebs(root)
        .build();
    let what = || format!("cannot register AMI {} of snapshot {snapshot}", resource.id);
    let began = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        let registered = api
            .change("RegisterImage", limits, || {
                api.ec2
                    .register_image()
                    .name(&resource.id)
                    .description(format!("image of {} made by ipop provision", image.role))
                    .architecture(ArchitectureValues::X8664)
                    .virtualization_type("hvm")
                    .ena_support(true)
                    .imds_support(ImdsSupportValues::V20)
                    .boot_mode(BootModeValues::UefiPreferred)
                    .root_device_name(ROOT_DEVICE)
                    .block_device_mappings(mapping.clone())
                    .tag_specifications(labels.specification(ResourceType::Image))
                    .send()
            })
            .await;
        let failure = match registered {
            Ok(answer) => return Ok(answer.image_id.unwrap_or_default()),
            Err(failure) => failure,
        };
        // A try whose answer was lost.
        if failure.is(Class::Duplicate) {
            let look = async || by_name(api, limits, &resource.id).await;
            if let Some(ami) = confirmed(limits, look).await?.first() {
                return Ok(ami.image_id().unwrap_or_default().to_owned());
            }
        }
        // The snapshot is complete and yet not known everywhere.
        let unknown_yet = failure.is(Class::NotFound) && began.elapsed() < CONSISTENT_AFTER;
        if !unknown_yet {
            return Err(failure.context(what()));
        }
        limits.pause(backoff.pause(), &what()).await?;
    }
}

async fn wait(api: &Api, limits: Limits<'_>, id: &str, labels: &Labels) -> Result<(), CliError> {
    let mut backoff = Backoff::default();
    let what = format!("waiting for AMI {id} to be available");
    loop {
        let answer = api
            .ask("DescribeImages", limits, || {
                api.ec2.describe_images().image_ids(id).send()
            })
            .await;
        let ami = match answer {
            Ok(answer) => answer.images.unwrap_or_default().pop(),
            Err(e) if e.is(Class::NotFound) => None,
            Err(e) => return Err(e.context(format!("cannot see AMI {id}"))),
        };
        match ami {
            Some(ami) if ami.state() == Some(&ImageState::Available) => {
                return label(api, limits, id, &ami, labels).await;
            }
            Some(ami) if ami.state() != Some(&ImageState::Pending) => {
                let why = ami.state_reason().and_then(|r| r.message());
                let state = ami.state().map_or("in no state", ImageState::as_str);
                deregister(api, limits, id).await?;
                return Err(
                    CliError::new(ExitCode::Unavailable, format!("AMI {id} is {state}"))
                        .caused_by(why.unwrap_or("the service gave no reason").to_owned())
                        .retry(Retry::Soon),
                );
            }
            _ => limits.pause(backoff.pause(), &what).await?,
        }
    }
}

/// Some servers that speak EC2's API pass over the tags of a registration.
async fn label(
    api: &Api,
    limits: Limits<'_>,
    id: &str,
    ami: &Ami,
    labels: &Labels,
) -> Result<(), CliError> {
    if Labels::read(ami.tags()).tags().is_some() {
        return Ok(());
    }
    api.ask("CreateTags", limits, || {
        api.ec2
            .create_tags()
            .resources(id)
            .set_tags(Some(labels.ec2()))
            .send()
    })
    .await
    .map(drop)
    .map_err(|e| e.context(format!("cannot tag AMI {id}")))
}
