//! Filters and pages of the `Describe…` actions.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::Refusal;
use super::params::Params;

/// Tags of a resource.
pub(super) type TagSet = BTreeMap<String, String>;

/// Most filters and most values of a filter that EC2 takes.
const MOST: usize = 200;

/// The filters of a call; all of them must match.
#[derive(Debug)]
pub(super) struct Filters(Vec<(String, Vec<String>)>);

impl Filters {
    /// Reads `Filter.N`. One that is neither in `known` nor on tags is refused.
    pub fn take(params: &mut Params, known: &[&str]) -> Result<Self, Refusal> {
        let mut filters = Vec::new();
        for mut filter in params.structures("Filter")? {
            let name = filter.require("Name")?;
            let values = filter.values("Value")?;
            filter.finish()?;
            let tag = name == "tag-key" || name.starts_with("tag:");
            if !tag && !known.contains(&name.as_str()) {
                let text = format!("The filter '{name}' is invalid");
                return Err(Refusal::new("InvalidParameterValue", text));
            }
            if values.is_empty() || values.len() > MOST {
                let text = format!("The filter '{name}' has {} values", values.len());
                return Err(Refusal::new("InvalidParameterValue", text));
            }
            filters.push((name, values));
        }
        Ok(Self(filters))
    }

    /// Whether a resource matches, of which `field` tells the values that a filter looks at.
    pub fn match_all(&self, tags: &TagSet, field: impl Fn(&str) -> Vec<String>) -> bool {
        self.0.iter().all(|(name, patterns)| {
            let values = match (name.as_str(), name.strip_prefix("tag:")) {
                (_, Some(key)) => tags.get(key).cloned().into_iter().collect(),
                ("tag-key", None) => tags.keys().cloned().collect(),
                (name, None) => field(name),
            };
            let any = |value: &String| patterns.iter().any(|pattern| like(pattern, value));
            values.iter().any(any)
        })
    }
}

/// Whether `text` is like `pattern`, in which `*` stands for anything and `?` for one character.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for p in pattern {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match p {
                '*' => reached[at] || (at > 0 && next[at - 1]),
                _ => at > 0 && reached[at - 1] && (p == '?' || p == text[at - 1]),
            };
        }
        reached = next;
    }
    reached[text.len()]
}

/// Which part of a list is wanted.
#[derive(Debug)]
pub(super) struct Page {
    size: usize,
    after: Option<String>,
}

impl Page {
    /// Reads `MaxResults` and `NextToken`. Pages are never larger than `largest`, whatever is
    /// asked for: a client that does not follow `NextToken` sees too little.
    pub fn take(params: &mut Params, largest: usize) -> Result<Self, Refusal> {
        let asked: Option<usize> = params.parsed("MaxResults")?;
        if let Some(asked) = asked.filter(|asked| !(5..=1000).contains(asked)) {
            return Err(Refusal::value("MaxResults", asked, "Expecting 5 to 1000."));
        }
        let after = params.take("NextToken").map(|token| {
            let bytes = STANDARD.decode(&token).ok();
            bytes
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .and_then(|text| Some(text.strip_prefix("after ")?.to_owned()))
                .ok_or_else(|| Refusal::new("InvalidNextToken", "The token is not valid."))
        });
        Ok(Self {
            size: asked.unwrap_or(largest).min(largest),
            after: after.transpose()?,
        })
    }

    /// Everything.
    pub fn all() -> Self {
        Self {
            size: usize::MAX,
            after: None,
        }
    }

    /// The part of `items`, which are in the order of what `id` gives, and the next token.
    pub fn cut<T>(&self, items: Vec<T>, id: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
        let mut rest: Vec<T> = items
            .into_iter()
            .skip_while(|item| self.after.as_ref().is_some_and(|after| id(item) <= *after))
            .collect();
        if rest.len() <= self.size {
            return (rest, None);
        }
        rest.truncate(self.size);
        let token = rest
            .last()
            .map(|last| STANDARD.encode(format!("after {}", id(last))));
        (rest, token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_in_ec2() {
        for (pattern, text, matches) in [
            ("ipop-*", "ipop-demo", true),
            ("ipop-*", "ipo-demo", false),
            ("w?", "w1", true),
            ("w?", "w", false),
            ("*a*b", "xaxb", true),
            ("", "", true),
        ] {
            assert_eq!(like(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn pages_hold_everything_once() {
        let mut after = None;
        let mut seen = Vec::new();
        loop {
            let page = Page { size: 3, after };
            let all: Vec<String> = ('a'..='h').map(String::from).collect();
            let (part, token) = page.cut(all, String::clone);
            assert!(part.len() <= 3);
            seen.extend(part);
            let Some(token) = token else { break };
            let mut params = Params::parse(format!("NextToken={token}").as_bytes()).expect("form");
            after = Page::take(&mut params, 3).expect("our token").after;
        }
        assert_eq!(seen.concat(), "abcdefgh");
    }
}
