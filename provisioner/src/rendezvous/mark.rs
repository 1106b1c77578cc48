//! Tags in a line of text, for things that have a description and no tags.

use crate::provider::Tags;

const WORD: &str = "ipop-provision";

/// The line.
pub fn write(tags: &Tags) -> String {
    let Tags {
        owner,
        deployment,
        uid,
    } = tags;
    format!("{WORD} owner={owner} deployment={deployment} uid={uid}")
}

/// The tags of a line, if it has them.
pub fn read(line: &str) -> Option<Tags> {
    let mut words = line.split_whitespace();
    if words.next()? != WORD {
        return None;
    }
    let mut value = |key: &str| {
        let value = words.next()?.strip_prefix(key)?.strip_prefix('=')?;
        Some(value.to_owned())
    };
    Some(Tags {
        owner: value("owner")?,
        deployment: value("deployment")?,
        uid: value("uid")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_back_as_they_were_written_and_other_lines_have_none() {
        let tags = Tags {
            owner: "00000000000000aa".to_owned(),
            deployment: "lake-1".to_owned(),
            uid: "00000000000000bb".to_owned(),
        };
        assert_eq!(read(&write(&tags)), Some(tags));
        for other in ["", "members of an overlay", "ipop-provision owner=a uid=b"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
