//! What is written on everything that is made, and how it is read back.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};

use crate::name::NodeName;
use crate::provider::{Resource, Tags};

/// What the EC2 console shows as the name.
const NAME: &str = "Name";
/// Deployment name.
const DEPLOYMENT: &str = "ipop:deployment";
/// Deployment, unmistakably.
pub const UID: &str = "ipop:uid";
/// Installation.
pub const OWNER: &str = "ipop:owner";
/// Resource id of the plan; unlike `Name` nobody edits it in the console.
pub const RESOURCE: &str = "ipop:resource";
/// Token of the making.
const TOKEN: &str = "ipop:token";
/// Node of an instance or its volume.
pub const NODE: &str = "ipop:node";
/// Role of a snapshot or AMI.
pub const ROLE: &str = "ipop:role";
/// Hash of the image.
pub const IMAGE: &str = "ipop:image";
/// Set on what outlives the last deployment.
pub const KEEP: &str = "ipop:keep";
/// The snapshot that a snapshot's changed blocks refer to.
pub const PARENT: &str = "ipop:parent";
/// The snapshot of an AMI.
pub const SNAPSHOT: &str = "ipop:snapshot";

/// Tags of one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// What every thing of a deployment has.
    pub fn new(tags: &Tags, resource: &Resource, token: &str) -> Self {
        Self::default()
            .with(NAME, &resource.id)
            .with(DEPLOYMENT, &tags.deployment)
            .with(UID, &tags.uid)
            .with(OWNER, &tags.owner)
            .with(RESOURCE, &resource.id)
            .with(TOKEN, token)
    }

    /// Adds one.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.0.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Reads what EC2 answered.
    pub fn read(tags: &[Tag]) -> Self {
        let pairs = tags.iter().filter_map(|tag| {
            let key = tag.key()?.to_owned();
            Some((key, tag.value().unwrap_or_default().to_owned()))
        });
        Self(pairs.collect())
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whose it is, if all of it is there.
    pub fn tags(&self) -> Option<Tags> {
        Some(Tags {
            owner: self.value(OWNER)?.to_owned(),
            deployment: self.value(DEPLOYMENT)?.to_owned(),
            uid: self.value(UID)?.to_owned(),
        })
    }

    /// The node.
    pub fn node(&self) -> Option<NodeName> {
        self.value(NODE).map(|node| NodeName(node.to_owned()))
    }

    /// For a call of EC2.
    pub fn ec2(&self) -> Vec<Tag> {
        let tag = |(k, v): (&String, &String)| Tag::builder().key(k).value(v).build();
        self.0.iter().map(tag).collect()
    }

    /// For a call of the EBS direct APIs.
    pub fn ebs(&self) -> Vec<aws_sdk_ebs::types::Tag> {
        let tag =
            |(k, v): (&String, &String)| aws_sdk_ebs::types::Tag::builder().key(k).value(v).build();
        self.0.iter().map(tag).collect()
    }

    /// For a creating call of EC2.
    pub fn specification(&self, kind: ResourceType) -> TagSpecification {
        TagSpecification::builder()
            .resource_type(kind)
            .set_tags(Some(self.ec2()))
            .build()
    }
}

/// A filter of a Describe call.
pub fn filter(name: &str, values: &[&str]) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.iter().map(|v| (*v).to_owned()).collect()))
        .build()
}

/// A filter by a tag of ours.
pub fn tagged(key: &str, value: &str) -> Filter {
    filter(&format!("tag:{key}"), &[value])
}

/// A filter for things of ours, by whomever they were made.
pub fn ours() -> Filter {
    filter("tag-key", &[UID])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let tags = Tags {
            owner: "0011223344556677".into(),
            deployment: "demo".into(),
            uid: "8899aabbccddeeff".into(),
        };
        let resource = Resource {
            kind: "instance".into(),
            id: "ipop-demo-worker-0".into(),
        };
        let labels = Labels::new(&tags, &resource, "token").with(NODE, "worker-0");
        let read = Labels::read(&labels.ec2());
        assert_eq!(read, labels);
        assert_eq!(read.tags(), Some(tags));
        assert_eq!(read.node(), Some(NodeName("worker-0".into())));
        assert_eq!(read.value("Name"), Some("ipop-demo-worker-0"));
        assert_eq!(Labels::read(&[]).tags(), None);
    }
}
