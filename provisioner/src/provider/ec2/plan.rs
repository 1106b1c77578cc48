//! Which things a deployment needs on EC2. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::{CliError, ExitCode};
use crate::name::{RESOURCE_PREFIX, machine_name};
use crate::provider::{Image, Resource, Scope, SitePlan, Step, Tags};

/// An EBS snapshot with an image's content.
pub const SNAPSHOT: &str = "snapshot";
/// An AMI.
pub const IMAGE: &str = "image";
/// A security group.
pub const GROUP: &str = "security-group";
/// An instance.
pub const INSTANCE: &str = "instance";

/// Uploading a whole image over a slow line.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(2 * 3600);
const IMAGE_LIMIT: Duration = Duration::from_secs(600);
const GROUP_LIMIT: Duration = Duration::from_secs(120);
const INSTANCE_LIMIT: Duration = Duration::from_secs(300);
/// Stands for the hash of an image that is not built yet.
const UNBUILT: &str = "unbuilt";

/// The steps, each after those it needs.
pub fn steps(plan: &SitePlan<'_>, keep_images: bool) -> Result<Vec<Step>, CliError> {
    let scope = Scope::Site { keep: keep_images };
    let roles: BTreeSet<&str> = plan.machines.iter().map(|m| m.image.as_str()).collect();
    let mut steps = Vec::new();
    for role in roles {
        let id = match plan.images.get(role) {
            Some(image) => image_id(image, plan.tags),
            None => id(role, UNBUILT, plan.tags),
        };
        let snapshot = resource(SNAPSHOT, &id);
        let step = |resource, after, deadline| Step {
            resource,
            scope: scope.clone(),
            after,
            deadline,
        };
        steps.push(step(snapshot.clone(), Vec::new(), SNAPSHOT_LIMIT));
        steps.push(step(resource(IMAGE, &id), vec![snapshot], IMAGE_LIMIT));
    }
    if plan.machines.is_empty() {
        return Ok(steps);
    }
    let group = group(plan.tags);
    steps.push(Step {
        resource: group.clone(),
        scope: Scope::Deployment,
        after: Vec::new(),
        deadline: GROUP_LIMIT,
    });
    for machine in plan.machines {
        let id = match plan.images.get(&machine.image) {
            Some(image) => {
                if let Some(whole) = &image.whole
                    && let Ok(file) = std::fs::metadata(whole)
                {
                    has_room(machine.disk_gib, file.len(), &machine.node.0)?;
                }
                image_id(image, plan.tags)
            }
            None => id(&machine.image, UNBUILT, plan.tags),
        };
        steps.push(Step {
            resource: resource(
                INSTANCE,
                &machine_name(&plan.tags.deployment, &machine.node),
            ),
            scope: Scope::Node(machine.node.clone()),
            after: vec![resource(IMAGE, &id), group.clone()],
            deadline: INSTANCE_LIMIT,
        });
    }
    Ok(steps)
}

/// Id of an image's snapshot and AMI. The installation is part of it because the names of AMIs are
/// shared by all users of an account.
pub fn image_id(image: &Image, tags: &Tags) -> String {
    id(
        &image.role,
        image.hash.get(..16).unwrap_or(&image.hash),
        tags,
    )
}

/// The deployment's security group.
pub fn group(tags: &Tags) -> Resource {
    let uid = tags.uid.get(..8).unwrap_or(&tags.uid);
    resource(
        GROUP,
        &format!("{RESOURCE_PREFIX}-{}-{uid}", tags.deployment),
    )
}

/// A resource of this kind and id.
pub fn resource(kind: &str, id: &str) -> Resource {
    Resource {
        kind: kind.to_owned(),
        id: id.to_owned(),
    }
}

/// A root disk smaller than its image is refused by RunInstances; better said before an upload.
pub fn has_room(disk_gib: u32, image_bytes: u64, node: &str) -> Result<(), CliError> {
    let needed = image_bytes.div_ceil(1 << 30);
    if u64::from(disk_gib) >= needed {
        return Ok(());
    }
    let what = format!("a disk of {disk_gib} GiB for {node} is smaller than its image");
    Err(CliError::new(ExitCode::Config, what).hint(format!("give it {needed} GiB")))
}

fn id(role: &str, hash: &str, tags: &Tags) -> String {
    let owner = tags.owner.get(..8).unwrap_or(&tags.owner);
    format!("{RESOURCE_PREFIX}-{role}-{hash}-{owner}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::name::NodeName;
    use crate::provider::WantedMachine;

    fn machine(role: &str, number: u32) -> WantedMachine {
        WantedMachine {
            node: NodeName(format!("{role}-{number}")),
            role: role.into(),
            image: role.into(),
            memory_mib: 1024,
            cpus: 1,
            disk_gib: 4,
            data_gib: None,
            slot: number,
        }
    }

    #[test]
    fn every_step_comes_after_what_it_needs_and_images_are_shared() {
        let tags = Tags {
            owner: "0011223344556677".into(),
            deployment: "demo".into(),
            uid: "8899aabbccddeeff".into(),
        };
        let worker = Image {
            role: "worker".into(),
            hash: "ab".repeat(32),
            disk: "/none".into(),
            kernel: "/none".into(),
            initrd: None,
            cmdline: String::new(),
            whole: None,
        };
        let images = BTreeMap::from([("worker".to_owned(), worker)]);
        let machines = [
            machine("frontend", 0),
            machine("worker", 1),
            machine("worker", 2),
        ];
        let plan = SitePlan {
            tags: &tags,
            machines: &machines,
            members: &[],
            images: &images,
        };
        let steps = steps(&plan, true).unwrap();
        let ids: Vec<_> = steps
            .iter()
            .map(|s| format!("{} {}", s.resource.kind, s.resource.id))
            .collect();
        assert_eq!(
            ids,
            [
                "snapshot ipop-frontend-unbuilt-00112233",
                "image ipop-frontend-unbuilt-00112233",
                "snapshot ipop-worker-abababababababab-00112233",
                "image ipop-worker-abababababababab-00112233",
                "security-group ipop-demo-8899aabb",
                "instance ipop-demo-frontend-0",
                "instance ipop-demo-worker-1",
                "instance ipop-demo-worker-2",
            ]
        );
        for (i, step) in steps.iter().enumerate() {
            for needed in &step.after {
                assert!(
                    steps[..i].iter().any(|s| s.resource == *needed),
                    "{needed:?}"
                );
            }
        }
        assert_eq!(steps[2].scope, Scope::Site { keep: true });
        assert_eq!(steps[4].scope, Scope::Deployment);
    }

    #[test]
    fn a_disk_smaller_than_the_image_is_refused_with_the_size_it_needs() {
        assert!(has_room(2, 2 << 30, "worker-0").is_ok());
        let error = has_room(2, (2 << 30) + 1, "worker-0").unwrap_err();
        assert_eq!(error.code, ExitCode::Config);
        assert!(error.to_string().contains("give it 3 GiB"), "{error}");
    }
}
