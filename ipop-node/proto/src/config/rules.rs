//! A file of rules alone, for whoever makes the configurations of several nodes.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{AllowSection, ConfigError};

/// Something in a file of rules is wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct RulesError {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    allow: Vec<Spanned<AllowSection>>,
}

/// Reads a text that has `[[allow]]` as a configuration has it, and nothing else. There may be no rule in
/// it.
pub fn parse_rules(text: &str) -> Result<Vec<AllowSection>, RulesError> {
    let at = |start: usize, problem: String| {
        let before = text.as_bytes().iter().take(start);
        RulesError {
            line: before.filter(|byte| **byte == b'\n').count() + 1,
            problem,
        }
    };
    let file: File = toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        at(start, error.message().to_owned())
    })?;
    let checked = file.allow.into_iter().map(|rule| {
        let start = rule.span().start;
        let rule = rule.into_inner();
        match rule.check() {
            Ok(()) => Ok(rule),
            Err(ConfigError::Value { problem, key }) => Err(at(start, format!("{key}: {problem}"))),
            Err(error @ ConfigError::Syntax(_)) => Err(at(start, error.to_string())),
        }
    });
    checked.collect()
}

/// Writes rules as [`parse_rules`] reads them.
pub fn write_rules(rules: &[AllowSection]) -> Result<String, toml::ser::Error> {
    #[derive(Serialize)]
    struct File<'a> {
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        allow: &'a [AllowSection],
    }
    toml::to_string(&File { allow: rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_a_configuration_has_them() {
        let text = "# who\n[[allow]]\nfrom = \"group:lake\"\nto = \"any\"\nprotocol = \"tcp\"\n\
                    port = [22, \"80-90\"]\n\n[[allow]]\nfrom = \"any\"\nto = \"node:a\"\n";
        let rules = parse_rules(text).expect("rules");
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0].port.to_string(), "22, 80-90");
        let written = write_rules(&rules).expect("written");
        assert_eq!(parse_rules(&written).expect("rules"), rules);
        assert_eq!(parse_rules("").expect("none"), []);
        assert_eq!(write_rules(&[]).expect("written"), "");
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let rule = "[[allow]]\nfrom = \"any\"\nto = \"any\"\n";
        for (text, line, problem) in [
            (format!("{rule}port = 0\n"), 4, "a port is 1 to 65535"),
            (
                format!("{rule}\n[[allow]]\nfrom = \"lake\"\n"),
                6,
                "`lake` must be group:NAME",
            ),
            (
                format!("{rule}{}", "[[allow]]\nto = \"any\"\n"),
                4,
                "missing field `from`",
            ),
            (format!("\n\n{rule}ports = 1\n"), 6, "unknown field `ports`"),
            (
                format!("\n{rule}protocol = \"icmp\"\nport = 1\n"),
                2,
                "allow.port: is of no use with protocol `icmp`",
            ),
            (
                format!("{rule}[node]\nname = \"a\"\n"),
                4,
                "unknown field `node`",
            ),
            ("[[allow\n".to_owned(), 1, "unclosed array table"),
        ] {
            let error = parse_rules(&text).expect_err(&text);
            assert_eq!(error.line, line, "{error}");
            assert!(
                error.problem.contains(problem),
                "{error} instead of {problem}"
            );
        }
    }
}
