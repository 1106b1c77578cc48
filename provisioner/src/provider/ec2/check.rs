//! `site check` for EC2: each line tries one thing for real.

use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_ec2::types::{EbsNvmeSupport, EnaSupport, InstanceType, InstanceTypeInfo};

use super::api::{Api, Limits};
use super::config::Ec2Site;
use super::error::{Class, Failure};
use super::group;
use crate::error::{CliError, ExitCode};
use crate::provider::CheckLine;

/// Each line.
const LIMIT: Duration = Duration::from_secs(10);
/// No image, snapshot or instance has these ids.
const NO_IMAGE: &str = "ami-00000000000000000";
const NO_INSTANCE: &str = "i-00000000000000000";
const NO_SNAPSHOT: &str = "snap-00000000000000000";

/// All lines; after one without which nothing works, no more follow.
pub async fn lines(api: &Api, site: &Ec2Site) -> Vec<CheckLine> {
    let mut lines = vec![line("credentials", credentials(api).await)];
    if !lines[0].ok {
        return lines;
    }
    let region = region(api, site).await;
    let reached = region.is_ok();
    lines.push(line("log-in", region));
    if !reached {
        return lines;
    }
    let (kind, network, denied, blocks) = tokio::join!(
        instance_type(api, site),
        network(api, site),
        permissions(api, site),
        ebs(api),
    );
    lines.push(CheckLine {
        what: "clock".into(),
        ok: true,
        found: "close enough to Amazon's: a signed request was accepted".into(),
    });
    lines.push(line("instance type", kind));
    lines.push(line("network", network));
    lines.push(line("permissions", denied));
    lines.push(line("image upload", blocks));
    lines.push(CheckLine {
        what: "quota".into(),
        ok: true,
        found: format!(
            "not checked: Service Quotas, Amazon EC2, {}, \"Running On-Demand Standard instances\" \
             (or \"All Standard Spot Instance Requests\") says how many vCPUs there may be",
            site.region
        ),
    });
    lines
}

async fn credentials(api: &Api) -> Result<String, CliError> {
    let none = |message: String| {
        Failure {
            class: Class::NoCredentials,
            operation: "credentials",
            code: None,
            message,
            place: api.place.clone(),
        }
        .context("there are no usable credentials")
    };
    let provider = api
        .credentials
        .as_ref()
        .ok_or_else(|| none("no source of credentials is configured".into()))?;
    match tokio::time::timeout(LIMIT, provider.provide_credentials()).await {
        Ok(Ok(found))
            if found
                .expiry()
                .is_some_and(|e| e <= std::time::SystemTime::now()) =>
        {
            Err(none("they have expired".into()))
        }
        Ok(Ok(_)) => Ok("found".into()),
        Ok(Err(e)) => {
            let mut cause: &dyn std::error::Error = &e;
            while let Some(next) = cause.source() {
                cause = next;
            }
            Err(none(cause.to_string()))
        }
        Err(_) => Err(none("their source did not answer".into())),
    }
}

async fn region(api: &Api, site: &Ec2Site) -> Result<String, CliError> {
    let limits = Limits::within(LIMIT);
    let cannot = format!("cannot use region {}", site.region);
    // Without filters: a region that does not exist must be told from one that is not enabled.
    let regions = api
        .ask("DescribeRegions", limits, || {
            api.ec2.describe_regions().all_regions(true).send()
        })
        .await
        .map_err(|e| e.context(&*cannot))?;
    let known = regions
        .regions()
        .iter()
        .find(|r| r.region_name() == Some(&site.region));
    match known.map(|r| r.opt_in_status().unwrap_or_default()) {
        Some("not-opted-in") => Err(CliError::new(ExitCode::Config, cannot)
            .caused_by("it is not enabled for this account")
            .hint("enable it (`aws account enable-region`), or choose another `region`")),
        Some(_) => Ok(format!("{} answers", api.place)),
        None => Err(CliError::new(ExitCode::Config, cannot)
            .caused_by("there is no such region")
            .hint("`aws ec2 describe-regions` lists them")),
    }
}

async fn instance_type(api: &Api, site: &Ec2Site) -> Result<String, CliError> {
    let name = site.instance_type.as_str();
    let does_not_serve = format!("instance type {name} does not serve");
    let answer = api
        .ask("DescribeInstanceTypes", Limits::within(LIMIT), || {
            api.ec2
                .describe_instance_types()
                .instance_types(InstanceType::from(name))
                .send()
        })
        .await
        .map_err(|e| e.context(&*does_not_serve))?;
    let lacks = |cause: &str| Failure {
        class: Class::Unsupported,
        operation: "DescribeInstanceTypes",
        code: None,
        message: cause.to_owned(),
        place: api.place.clone(),
    };
    let Some(info) = answer.instance_types().first() else {
        return Err(lacks("the region does not have it").context(does_not_serve));
    };
    if let Some(cause) = lack(info) {
        return Err(lacks(cause).context(does_not_serve));
    }
    let cpus = info
        .v_cpu_info()
        .and_then(|c| c.default_v_cpus())
        .unwrap_or(0);
    let mib = info
        .memory_info()
        .and_then(|m| m.size_in_mib())
        .unwrap_or(0);
    Ok(format!("{name}: {cpus} vCPUs, {mib} MiB"))
}

/// What the image needs and the type does not have, as far as the API says.
fn lack(info: &InstanceTypeInfo) -> Option<&'static str> {
    let x86 = info.processor_info().is_none_or(|p| {
        p.supported_architectures()
            .iter()
            .any(|a| a.as_str() == "x86_64")
    });
    let ena = info.network_info().and_then(|n| n.ena_support());
    let nvme = info.ebs_info().and_then(|e| e.nvme_support());
    if !x86 {
        Some("it is not x86_64")
    } else if ena == Some(&EnaSupport::Unsupported) {
        Some("it has no ENA network")
    } else if nvme == Some(&EbsNvmeSupport::Unsupported) {
        Some("its disks are not NVMe")
    } else {
        None
    }
}

async fn network(api: &Api, site: &Ec2Site) -> Result<String, CliError> {
    let vpc = group::vpc(api, Limits::within(LIMIT), site).await?;
    Ok(match &site.subnet {
        Some(subnet) => format!("subnet {subnet} of {vpc}"),
        None => format!("the default VPC, {vpc}"),
    })
}

/// Asks for each thing without wanting it done. What does not exist is looked for only after the
/// permission, so any other answer than a refusal is a permission.
async fn permissions(api: &Api, site: &Ec2Site) -> Result<String, CliError> {
    let limits = Limits::within(LIMIT);
    let kind = InstanceType::from(site.instance_type.as_str());
    let (run, terminate, group, register, tag) = tokio::join!(
        api.ask("RunInstances", limits, || api
            .ec2
            .run_instances()
            .dry_run(true)
            .min_count(1)
            .max_count(1)
            .image_id(NO_IMAGE)
            .instance_type(kind.clone())
            .set_subnet_id(site.subnet.clone())
            .send()),
        api.ask("TerminateInstances", limits, || api
            .ec2
            .terminate_instances()
            .dry_run(true)
            .instance_ids(NO_INSTANCE)
            .send()),
        api.ask("CreateSecurityGroup", limits, || api
            .ec2
            .create_security_group()
            .dry_run(true)
            .group_name("ipop-check")
            .description("never made")
            .send()),
        api.ask("DeregisterImage", limits, || api
            .ec2
            .deregister_image()
            .dry_run(true)
            .image_id(NO_IMAGE)
            .send()),
        api.ask("CreateTags", limits, || api
            .ec2
            .create_tags()
            .dry_run(true)
            .resources(NO_IMAGE)
            .tags(aws_sdk_ec2::types::Tag::builder().key("ipop:check").build())
            .send()),
    );
    let answers = [
        run.err(),
        terminate.err(),
        group.err(),
        register.err(),
        tag.err(),
    ];
    let mut denied: Vec<Failure> = answers.into_iter().flatten().collect();
    denied.retain(|f| f.is(Class::Denied) || f.is(Class::Auth));
    let names: Vec<_> = denied
        .iter()
        .map(|f| format!("ec2:{}", f.operation))
        .collect();
    match denied.pop() {
        None => Ok("none is refused in a dry run (RegisterImage, DeleteSnapshot not tried)".into()),
        Some(failure) => Err(failure.context(format!("not allowed: {}", names.join(", ")))),
    }
}

/// The EBS direct APIs have an endpoint of their own and no dry run: a question about a snapshot
/// that does not exist reaches them, and its refusal tells of the permissions.
async fn ebs(api: &Api) -> Result<String, CliError> {
    let asked = api
        .ask("ListSnapshotBlocks", Limits::within(LIMIT), || {
            api.ebs
                .list_snapshot_blocks()
                .snapshot_id(NO_SNAPSHOT)
                .send()
        })
        .await;
    match asked {
        Err(e) if !matches!(e.class, Class::NotFound | Class::Refused) => {
            Err(e.context("cannot use the EBS direct APIs"))
        }
        _ => Ok("the EBS direct APIs answer (ebs:StartSnapshot is not tried)".into()),
    }
}

fn line(what: &str, found: Result<String, CliError>) -> CheckLine {
    let (ok, found) = match found {
        Ok(found) => (true, found),
        Err(e) => (false, one_line(&e)),
    };
    CheckLine {
        what: what.into(),
        ok,
        found,
    }
}

/// The error on one line, its hints behind it.
fn one_line(e: &CliError) -> String {
    let mut found = e.one_line();
    for hint in &e.hints {
        found = format!("{found}; {hint}");
    }
    found
}
