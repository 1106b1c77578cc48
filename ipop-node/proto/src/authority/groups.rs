//! The groups that a certificate says its node is in.
//!
//! They are in the extension subjectDirectoryAttributes (RFC 5280 section 4.2.1.8), which is not
//! critical, so that who does not know of them leaves them out: as the attribute `group` with the syntax
//! that it has in attribute certificates (RFC 5755 sections 4.4 and 4.4.4), each group one UTF8String.

use std::collections::BTreeSet;

use x509_parser::asn1_rs::{Any, Class, FromDer as _, Tag};
use x509_parser::certificate::X509Certificate;

use crate::config::is_dns_label;

/// id-ce-subjectDirectoryAttributes.
pub(super) const EXTENSION: [u64; 4] = [2, 5, 29, 9];
/// The same and id-aca-group (1.3.6.1.5.5.7.10.4), as DER has them.
const EXTENSION_DER: &[u8] = &[0x55, 29, 9];
const GROUP_DER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 10, 4];
/// Most groups of one node.
pub const MAX_GROUPS: usize = 64;

const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// What is wrong with the names of groups, if anything is.
pub fn check(groups: &BTreeSet<String>) -> Result<(), String> {
    if groups.len() > MAX_GROUPS {
        return Err(format!("there are more than {MAX_GROUPS} groups"));
    }
    match groups.iter().find(|group| !is_dns_label(group)) {
        Some(group) => Err(format!(
            "`{group}` is no group: it must be 1 to 63 lower-case letters, digits or inner hyphens"
        )),
        None => Ok(()),
    }
}

/// The extension's value (DER).
pub(super) fn write(groups: &BTreeSet<String>) -> Vec<u8> {
    let names = groups.iter();
    let names: Vec<u8> = names
        .flat_map(|group| tlv(UTF8_STRING, group.as_bytes()))
        .collect();
    // IetfAttrSyntax without a policyAuthority: values are names of this authority.
    let syntax = tlv(SEQUENCE, &tlv(SEQUENCE, &names));
    let attribute = [tlv(OBJECT_IDENTIFIER, GROUP_DER), tlv(SET, &syntax)].concat();
    tlv(SEQUENCE, &tlv(SEQUENCE, &attribute))
}

/// The groups of a certificate; the error says what is wrong.
pub(super) fn read(certificate: &X509Certificate<'_>) -> Result<BTreeSet<String>, String> {
    let mut extensions = certificate.extensions().iter();
    let Some(extension) = extensions.find(|e| e.oid.as_bytes() == EXTENSION_DER) else {
        return Ok(BTreeSet::new());
    };
    let groups = parse(extension.value)
        .ok_or_else(|| "its subjectDirectoryAttributes cannot be read".to_owned())?;
    check(&groups).map(|()| groups)
}

fn parse(der: &[u8]) -> Option<BTreeSet<String>> {
    let mut groups = BTreeSet::new();
    for attribute in children(&whole(der)?, Tag::Sequence)? {
        let [kind, values] = <[_; 2]>::try_from(children(&attribute, Tag::Sequence)?).ok()?;
        if kind.tag() != Tag::Oid || kind.data != GROUP_DER {
            continue;
        }
        for syntax in children(&values, Tag::Set)? {
            // One with a policyAuthority is about groups of somebody else.
            let [names] = <[_; 1]>::try_from(children(&syntax, Tag::Sequence)?).ok()?;
            for name in children(&names, Tag::Sequence)? {
                let is_text = name.class() == Class::Universal && name.tag() == Tag::Utf8String;
                let text = std::str::from_utf8(name.data).ok().filter(|_| is_text)?;
                groups.insert(text.to_owned());
            }
        }
    }
    Some(groups)
}

/// The one value that `der` is.
fn whole(der: &[u8]) -> Option<Any<'_>> {
    let (rest, any) = Any::from_der(der).ok()?;
    rest.is_empty().then_some(any)
}

/// What is in a value of that type.
fn children<'a>(any: &Any<'a>, tag: Tag) -> Option<Vec<Any<'a>>> {
    if any.class() != Class::Universal || any.tag() != tag {
        return None;
    }
    let mut rest = any.data;
    let mut children = Vec::new();
    while !rest.is_empty() {
        let child;
        (rest, child) = Any::from_der(rest).ok()?;
        children.push(child);
    }
    Some(children)
}

/// Tag, length and content.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    let len = content.len();
    match u8::try_from(len) {
        Ok(len) if len < 0x80 => der.push(len),
        _ => {
            let bytes = len.to_be_bytes();
            let bytes = &bytes[len.leading_zeros() as usize / 8..];
            der.push(0x80 | bytes.len() as u8);
            der.extend(bytes);
        }
    }
    der.extend(content);
    der
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            groups in prop::collection::btree_set("[a-z]{1,63}", 0..=MAX_GROUPS),
        ) {
            prop_assert_eq!(parse(&write(&groups)), Some(groups));
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let _ = parse(&bytes);
            let mut good = write(&BTreeSet::from(["lake".to_owned()]));
            let at = at.index(good.len());
            good[at] = byte;
            let _ = parse(&good);
            let _ = parse(&good[..at]);
        }
    }
}
