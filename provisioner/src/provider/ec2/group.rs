//! The deployment's security group: no inbound rule at all, as the nodes reach each other by their
//! own outgoing traffic.

use aws_sdk_ec2::types::{Filter, ResourceType, SecurityGroup};

use super::api::{Api, Backoff, Limits, UNSEEN, confirmed};
use super::config::Ec2Site;
use super::error::{Class, Failure};
use super::tags::{self, Labels};
use crate::error::{CliError, ExitCode};
use crate::event::Event;
use crate::provider::{Made, Making, Removing, Resource};

/// Makes the group, or finds that it is there.
pub async fn make(
    api: &Api,
    site: &Ec2Site,
    resource: &Resource,
    making: &Making<'_>,
) -> Result<Made, CliError> {
    let limits = Limits {
        deadline: making.deadline,
        interrupt: Some(making.interrupt),
    };
    let made = |id: String| Made {
        handle: Some(id),
        reached_at: None,
    };
    let look = async || own(api, limits, resource, &making.tags.uid).await;
    if let Some(group) = look().await?.pop() {
        warn_of_rules(&group, making);
        return Ok(made(group.group_id.unwrap_or_default()));
    }
    let vpc = vpc(api, limits, site).await?;
    let labels = Labels::new(making.tags, resource, making.token);
    let created = api
        .change("CreateSecurityGroup", limits, || {
            api.ec2
                .create_security_group()
                .group_name(&resource.id)
                .description(format!(
                    "ipop deployment {}: nothing comes in",
                    making.tags.deployment
                ))
                .vpc_id(&vpc)
                .tag_specifications(labels.specification(ResourceType::SecurityGroup))
                .send()
        })
        .await;
    match created {
        Ok(answer) => Ok(made(answer.group_id.unwrap_or_default())),
        Err(e) if e.is(Class::Duplicate) => {
            // A try whose answer was lost.
            match confirmed(limits, look).await?.pop() {
                Some(group) => Ok(made(group.group_id.unwrap_or_default())),
                None => Err(cannot_make(e, resource)),
            }
        }
        Err(e) => Err(cannot_make(e, resource)),
    }
}

/// Deletes the group; without a handle that of its name and deployment. Instances that are
/// terminated let go of it only some time later.
pub async fn remove(api: &Api, removing: &Removing<'_>) -> Result<(), CliError> {
    let limits = Limits {
        deadline: removing.deadline,
        interrupt: Some(removing.interrupt),
    };
    let resource = removing.resource;
    let id = match removing.handle {
        Some(id) => id.to_owned(),
        None => match confirmed(limits, async || {
            own(api, limits, resource, &removing.tags.uid).await
        })
        .await?
        .pop()
        {
            Some(group) => group.group_id.unwrap_or_default(),
            None => return Ok(()),
        },
    };
    let mut backoff = Backoff::default();
    let mut unseen = 0;
    loop {
        let deleted = api
            .ask("DeleteSecurityGroup", limits, || {
                api.ec2.delete_security_group().group_id(&id).send()
            })
            .await;
        let failure = match deleted {
            Ok(_) => return Ok(()),
            Err(e) if e.is(Class::NotFound) && unseen == UNSEEN => return Ok(()),
            Err(e) => e,
        };
        let pause = backoff.pause();
        unseen += u32::from(failure.is(Class::NotFound));
        let in_use = failure.is(Class::InUse) || failure.is(Class::NotFound);
        let failed = failure.context(format!("cannot remove security group {}", resource.id));
        if !in_use || limits.left() <= pause {
            return Err(failed);
        }
        limits.pause(pause, "DeleteSecurityGroup").await?;
    }
}

/// All groups that these filters let through.
pub async fn list(
    api: &Api,
    limits: Limits<'_>,
    filters: Vec<Filter>,
) -> Result<Vec<SecurityGroup>, CliError> {
    let mut found = Vec::new();
    let mut next = None;
    loop {
        let page = api
            .ask("DescribeSecurityGroups", limits, || {
                api.ec2
                    .describe_security_groups()
                    .set_filters(Some(filters.clone()))
                    .max_results(500)
                    .set_next_token(next.clone())
                    .send()
            })
            .await
            .map_err(|e| e.context("cannot list the security groups"))?;
        found.extend(page.security_groups.unwrap_or_default());
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(found);
        }
    }
}

/// The VPC of the site's subnet, or the default one.
pub async fn vpc(api: &Api, limits: Limits<'_>, site: &Ec2Site) -> Result<String, CliError> {
    let none = |what: String| {
        CliError::new(ExitCode::Config, what).hint(
            "name an existing `subnet` in sites.toml, or make a default VPC \
             (`aws ec2 create-default-vpc`)",
        )
    };
    match &site.subnet {
        Some(subnet) => api
            .ask("DescribeSubnets", limits, || {
                api.ec2.describe_subnets().subnet_ids(subnet).send()
            })
            .await
            .map_err(|e| e.context(format!("cannot use subnet {subnet}")))?
            .subnets()
            .first()
            .and_then(|s| s.vpc_id().map(str::to_owned))
            .ok_or_else(|| none(format!("there is no subnet {subnet} in {}", api.place))),
        None => api
            .ask("DescribeVpcs", limits, || {
                api.ec2
                    .describe_vpcs()
                    .filters(tags::filter("is-default", &["true"]))
                    .send()
            })
            .await
            .map_err(|e| e.context("cannot look for the default VPC"))?
            .vpcs()
            .first()
            .and_then(|v| v.vpc_id().map(str::to_owned))
            .ok_or_else(|| none(format!("{} has no default VPC", api.place))),
    }
}

async fn own(
    api: &Api,
    limits: Limits<'_>,
    resource: &Resource,
    uid: &str,
) -> Result<Vec<SecurityGroup>, CliError> {
    let filters = vec![
        tags::filter("group-name", &[&resource.id]),
        tags::tagged(tags::UID, uid),
    ];
    list(api, limits, filters).await
}

fn warn_of_rules(group: &SecurityGroup, making: &Making<'_>) {
    let rules = group.ip_permissions().len();
    if rules > 0 {
        making.events.emit(Event::Warning {
            message: format!(
                "security group {} has {rules} inbound rules that `provision` did not make",
                group.group_id().unwrap_or_default()
            ),
        });
    }
}

fn cannot_make(failure: Failure, resource: &Resource) -> CliError {
    failure.context(format!("cannot make security group {}", resource.id))
}
