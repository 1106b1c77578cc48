//! What a deployment needs on a host. Knows no I/O.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::config::LibvirtSite;
use super::data;
use super::network::network_name;
use super::{CONSOLE, DATA, DOMAIN, IMAGE, NETWORK, VOLUME};
use crate::name::{RESOURCE_PREFIX, machine_name};
use crate::provider::{Image, Resource, Scope, SitePlan, Step};

/// For what libvirt does in well under a second. A host that does other things may be slow.
const QUICK: Duration = Duration::from_secs(120);
/// For an upload: 1 GiB at 600 kB/s.
const UPLOAD: Duration = Duration::from_secs(1800);
/// For a start, which may have to wait until another machine's has tried KVM.
const START: Duration = Duration::from_secs(300);
/// Stands for the hash of an image that is not built yet.
const UNBUILT: &str = "unbuilt";

/// Names of a machine's volumes.
pub(super) struct Files {
    pub disk: String,
    pub personal: String,
    pub console: String,
}

impl Files {
    pub fn of(machine: &str) -> Self {
        Self {
            disk: format!("{machine}{DISK}"),
            personal: format!("{machine}{PERSONAL}"),
            console: format!("{machine}{LOG}"),
        }
    }
}

/// Suffix of a root disk.
pub(super) const DISK: &str = ".qcow2";
/// Suffix of personal data.
pub(super) const PERSONAL: &str = ".smbios";
/// Suffix of a console log.
pub(super) const LOG: &str = ".console";

/// One file of an image, as a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Kernel,
    Initrd,
    Base,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Kernel, Self::Initrd, Self::Base];

    /// As in the volume's name, and in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Base => "base",
        }
    }

    /// The file; none of an image that has no such part.
    pub fn file(self, image: &Image) -> Option<&Path> {
        match self {
            Self::Kernel => Some(&image.kernel),
            Self::Initrd => image.initrd.as_deref(),
            Self::Base => Some(&image.disk),
        }
    }

    /// The volume's name. Equal content, equal name, whoever uploaded it.
    pub fn volume(self, role: &str, hash: &str) -> String {
        let hash = hash.get(..12).unwrap_or(hash);
        let suffix = if self == Self::Base { ".qcow2" } else { "" };
        format!("{RESOURCE_PREFIX}-{}-{role}-{hash}{suffix}", self.word())
    }
}

/// The steps, in an order in which they can be made.
pub(super) fn steps(site: &LibvirtSite, plan: &SitePlan<'_>) -> Vec<Step> {
    if plan.machines.is_empty() {
        return Vec::new();
    }
    let deployment = &plan.tags.deployment;
    let in_pool = |kind: &str, name: String| Resource {
        kind: kind.into(),
        id: format!("{}/{name}", site.pool_name()),
    };
    let parts = |role: &str| match plan.images.get(role) {
        Some(image) => Part::ALL
            .into_iter()
            .filter(|p| p.file(image).is_some())
            .map(|p| in_pool(IMAGE, p.volume(role, &image.hash)))
            .collect(),
        None => vec![
            in_pool(IMAGE, Part::Kernel.volume(role, UNBUILT)),
            in_pool(IMAGE, Part::Base.volume(role, UNBUILT)),
        ],
    };

    let network = Resource {
        kind: NETWORK.into(),
        id: network_name(deployment),
    };
    let mut steps = vec![Step {
        resource: network.clone(),
        scope: Scope::Deployment,
        after: Vec::new(),
        deadline: QUICK,
    }];
    let roles: BTreeSet<_> = plan.machines.iter().map(|m| m.image.as_str()).collect();
    for role in roles {
        steps.extend(parts(role).into_iter().map(|resource| Step {
            resource,
            scope: Scope::Site { keep: true },
            after: Vec::new(),
            deadline: UPLOAD,
        }));
    }
    for wanted in plan.machines {
        let machine = machine_name(deployment, &wanted.node);
        let files = Files::of(&machine);
        let images: Vec<Resource> = parts(&wanted.image);
        let volumes = [
            in_pool(VOLUME, files.disk),
            in_pool(VOLUME, files.personal),
            in_pool(CONSOLE, files.console),
        ];
        let node = |resource: Resource, after: Vec<Resource>, deadline| Step {
            resource,
            scope: Scope::Node(wanted.node.clone()),
            after,
            deadline,
        };
        for (i, volume) in volumes.iter().enumerate() {
            // After the network, which is refused where somebody else has a deployment of this
            // name: then none of its machines' volumes are taken for ours.
            let mut after = vec![network.clone()];
            if i == 0 {
                after.extend(images.last().cloned());
            }
            steps.push(node(volume.clone(), after, QUICK));
        }
        let mut after = vec![network.clone()];
        after.extend(images);
        after.extend(volumes);
        if wanted.data_gib.is_some() {
            // After nothing: it outlives all else.
            let volume = in_pool(DATA, data::volume_name(plan.tags, &wanted.node));
            steps.push(Step {
                resource: volume.clone(),
                scope: Scope::Data(wanted.node.clone()),
                after: Vec::new(),
                deadline: QUICK,
            });
            after.push(volume);
        }
        let domain = Resource {
            kind: DOMAIN.into(),
            id: machine,
        };
        steps.push(node(domain, after, START));
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::name::NodeName;
    use crate::provider::{Tags, WantedMachine};

    fn plan(images: &BTreeMap<String, Image>) -> Vec<Step> {
        let tags = Tags {
            owner: "0123456789abcdef".into(),
            deployment: "demo".into(),
            uid: "fedcba9876543210".into(),
        };
        let machines = ["frontend", "worker"].map(|role| WantedMachine {
            node: NodeName(format!("{role}-0")),
            role: role.into(),
            image: role.into(),
            memory_mib: 512,
            cpus: 1,
            disk_gib: 4,
            data_gib: (role == "worker").then_some(20),
            slot: 0,
        });
        let plan = SitePlan {
            tags: &tags,
            machines: &machines,
            members: &[],
            images,
        };
        steps(&LibvirtSite::default(), &plan)
    }

    fn shown(steps: &[Step]) -> String {
        let line = |s: &Step| {
            let after: Vec<_> = s.after.iter().map(|r| r.id.as_str()).collect();
            format!("{} {} after {after:?}", s.resource.kind, s.resource.id)
        };
        steps.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn steps_can_be_made_in_their_order_and_a_machine_comes_last() {
        let image = Image {
            role: "worker".into(),
            hash: "0123456789abcdef".repeat(4),
            disk: "disk".into(),
            kernel: "kernel".into(),
            initrd: Some("initrd".into()),
            cmdline: String::new(),
            whole: None,
        };
        let steps = plan(&BTreeMap::from([("worker".into(), image)]));
        insta::assert_snapshot!(shown(&steps));
        for (i, step) in steps.iter().enumerate() {
            for needed in &step.after {
                assert!(
                    steps[..i].iter().any(|s| s.resource == *needed),
                    "{} comes before {}",
                    step.resource.id,
                    needed.id
                );
            }
        }
        assert_eq!(steps.last().map(|s| s.resource.kind.as_str()), Some(DOMAIN));
    }

    #[test]
    fn no_machine_needs_nothing() {
        let tags = Tags {
            owner: String::new(),
            deployment: "demo".into(),
            uid: String::new(),
        };
        let plan = SitePlan {
            tags: &tags,
            machines: &[],
            members: &[],
            images: &BTreeMap::new(),
        };
        assert_eq!(steps(&LibvirtSite::default(), &plan), []);
    }
}
