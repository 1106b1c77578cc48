//! Whose things are, as libvirt's objects say it: a domain's metadata and UUID, a network's TXT
//! record. Volumes can carry nothing of the kind.

use sha2::{Digest, Sha256};

use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::provider::Tags;

/// Namespace of a domain's metadata.
pub const NAMESPACE: &str = "urn:ipop:provision:0";
/// Name of a network's TXT record. libvirt knows metadata of networks only since 9.7.
pub const RECORD: &str = "ipop-provision";

/// The UUID of a node's domain: it tells a deployment's machines from all others in a list of
/// domains, without a question for each.
pub fn uuid(tags: &Tags, node: &NodeName) -> String {
    let text = format!(
        "{NAMESPACE}\n{}\n{}\n{}\n{node}",
        tags.owner, tags.deployment, tags.uid
    );
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(text)[..16]);
    // RFC 9562: version 8 (made as its maker likes), variant 10.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// The value of a network's TXT record. No comma: dnsmasq would cut it there.
pub fn record(tags: &Tags) -> String {
    format!(
        "owner={};deployment={};uid={}",
        tags.owner, tags.deployment, tags.uid
    )
}

/// The tags in a network's XML.
pub fn of_network(xml: &str) -> Option<Tags> {
    let txt = xml
        .split("<txt ")
        .skip(1)
        .filter_map(|rest| rest.split('>').next())
        .find(|tag| attribute(tag, "name").is_some_and(|name| name == RECORD))?;
    let value = attribute(txt, "value")?;
    let field = |name: &str| {
        let mut fields = value.split(';').filter_map(|f| f.split_once('='));
        fields.find(|f| f.0 == name).map(|f| f.1.to_owned())
    };
    Some(Tags {
        owner: field("owner")?,
        deployment: field("deployment")?,
        uid: field("uid")?,
    })
}

/// The tags and the node in a domain's metadata.
pub fn of_domain(metadata: &str) -> Option<(Tags, NodeName)> {
    let field = |name: &str| attribute(metadata, name).map(str::to_owned);
    let tags = Tags {
        owner: field("owner")?,
        deployment: field("deployment")?,
        uid: field("uid")?,
    };
    Some((tags, NodeName(field("node")?)))
}

/// An attribute of a tag, in either kind of quotation mark.
pub fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    tag.match_indices(name).find_map(|(at, _)| {
        let before = &tag[..at];
        if !before.is_empty() && !before.ends_with(char::is_whitespace) {
            return None;
        }
        let value = tag[at + name.len()..].strip_prefix('=')?;
        let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        value[1..].split(quote).next()
    })
}

/// An error unless `found` are the tags expected. Things without tags are of before there were any.
pub fn check(what: &str, found: Option<&Tags>, expected: &Tags) -> Result<(), CliError> {
    match found {
        Some(found) if found != expected => Err(foreign(what, found, expected)),
        _ => Ok(()),
    }
}

fn foreign(what: &str, found: &Tags, expected: &Tags) -> CliError {
    let (whose, hint) = if found.owner == expected.owner {
        (
            format!("an earlier deployment \"{}\"", found.deployment),
            "`provision gc` finds and removes what earlier deployments left",
        )
    } else {
        (
            format!(
                "deployment \"{}\" of somebody else (installation {})",
                found.deployment, found.owner
            ),
            "choose another name for the deployment: this one is taken on that host",
        )
    };
    CliError::new(ExitCode::Name, format!("{what} belongs to {whose}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags() -> Tags {
        Tags {
            owner: "0123456789abcdef".into(),
            deployment: "demo".into(),
            uid: "fedcba9876543210".into(),
        }
    }

    #[test]
    fn a_networks_tags_are_read_back_from_libvirts_xml() {
        let xml = format!(
            "<network><dns>\n<txt name='other' value='x'/>\n<txt name='{RECORD}' value='{}'/></dns></network>",
            record(&tags())
        );
        assert_eq!(of_network(&xml), Some(tags()));
        assert_eq!(of_network("<network/>"), None);
        assert_eq!(of_network(&xml.replace(";uid", ";id")), None);
    }

    #[test]
    fn a_domains_tags_are_read_back_in_either_quotation_mark() {
        let xml = "<machine owner='0123456789abcdef' uid=\"fedcba9876543210\" deployment='demo' node='worker-0'/>";
        assert_eq!(of_domain(xml), Some((tags(), NodeName("worker-0".into()))));
        assert_eq!(of_domain("<machine deployment='demo' node='w'/>"), None);
    }

    #[test]
    fn an_attribute_is_not_the_end_of_another() {
        assert_eq!(attribute("<a xid='1' id='2'>", "id"), Some("2"));
        assert_eq!(attribute("<a xid='1'>", "id"), None);
    }

    #[test]
    fn a_uuid_is_of_one_node_of_one_deployment() {
        let node = NodeName("worker-0".into());
        let uuid_of = |tags: &Tags| uuid(tags, &node);
        assert_eq!(uuid_of(&tags()), uuid_of(&tags()));
        assert_eq!(uuid_of(&tags()).len(), 36);
        assert_eq!(&uuid_of(&tags())[14..15], "8");
        let later = Tags {
            uid: "0".into(),
            ..tags()
        };
        assert_ne!(uuid_of(&tags()), uuid_of(&later));
        assert_ne!(
            uuid_of(&tags()),
            uuid(&tags(), &NodeName("worker-1".into()))
        );
    }

    #[test]
    fn what_belongs_to_others_is_refused_with_a_way_out() {
        let mut other = tags();
        other.uid = "0".repeat(16);
        let earlier = check("network \"ipop-demo\"", Some(&other), &tags()).unwrap_err();
        other.owner = "f".repeat(16);
        let foreign = check("network \"ipop-demo\"", Some(&other), &tags()).unwrap_err();
        insta::assert_snapshot!(format!("{earlier}\n\n{foreign}"));
        assert!(check("x", Some(&tags()), &tags()).is_ok());
        assert!(check("x", None, &tags()).is_ok());
    }
}
