//! Where a node keeps the rules that it was told while it ran.

use std::io;
use std::path::{Path, PathBuf};

use ipop_proto::config::{AllowSection, NodeConfig, RulesError, parse_rules, write_rules};

use crate::file::{self, PUBLIC};
use crate::settings::SettingsError;

/// What stands before the rules, so that no file is empty: one that is was not written whole.
const HEAD: &str = "# In place of [[allow]] in the configuration, since `ipop-node policy set`.\n";

/// The file, `policy.keep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile(pub PathBuf);

impl RuleFile {
    /// That of a configuration, if it has one.
    pub fn of(config: &NodeConfig) -> Option<Self> {
        let section = config.policy.as_ref()?;
        Some(Self(section.keep.clone()))
    }

    /// The rules that are kept; none when there is no file, which is not the same as a file without a rule.
    ///
    /// # Errors
    ///
    /// When there is a file that cannot be read, or has anything else in it: nobody comes to reach what was
    /// closed because a disk has lost it.
    pub fn load(&self) -> Result<Option<Vec<AllowSection>>, SettingsError> {
        let Self(path) = self;
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(SettingsError::Read {
                    what: "file of rules",
                    path: path.clone(),
                    source,
                });
            }
        };
        let text = String::from_utf8_lossy(&text);
        let rules = match text.trim().is_empty() {
            true => Err(RulesError {
                line: 1,
                problem: "it is empty".to_owned(),
            }),
            false => parse_rules(&text),
        };
        rules.map(Some).map_err(|source| SettingsError::Rules {
            path: path.clone(),
            source,
        })
    }

    /// Writes rules down, in the place of those that were there.
    ///
    /// # Errors
    ///
    /// Those of writing a file.
    pub fn keep(&self, rules: &[AllowSection]) -> io::Result<()> {
        let rules = write_rules(rules).map_err(io::Error::other)?;
        file::replace(&self.0, &format!("{HEAD}{rules}"), PUBLIC)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// The configuration with the rules that are in force: those that are kept, if some are.
///
/// # Errors
///
/// As for [`RuleFile::load`]; when the configuration is one that can have no such rules.
pub fn in_force(config: NodeConfig) -> Result<NodeConfig, SettingsError> {
    let Some(file) = RuleFile::of(&config) else {
        return Ok(config);
    };
    let Some(rules) = file.load()? else {
        return Ok(config);
    };
    config
        .with_rules(rules)
        .map_err(|source| SettingsError::Config {
            path: file.0,
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{CliError, Exit};

    const RULE: &str =
        "[[allow]]\nfrom = \"group:lake\"\nto = \"any\"\nprotocol = \"tcp\"\nport = 22\n";

    #[test]
    fn what_is_kept_is_there_again_and_no_rules_are_not_the_same_as_none_kept() {
        let dir = tempfile::tempdir().expect("directory");
        let file = RuleFile(dir.path().join("rules.toml"));
        assert_eq!(file.load().expect("none yet"), None);
        let one = parse_rules(RULE).expect("a rule");
        for rules in [&one[..], &[], &one] {
            file.keep(rules).expect("kept");
            assert_eq!(file.load().expect("kept").as_deref(), Some(rules));
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 1);
    }

    #[test]
    fn a_damaged_file_is_named_and_opens_nothing() {
        let dir = tempfile::tempdir().expect("directory");
        let file = RuleFile(dir.path().join("rules.toml"));
        for damaged in ["", "\n", &RULE[..20], "[node]\n"] {
            std::fs::write(file.path(), damaged).expect("written");
            let error = CliError::from(file.load().expect_err("damaged"));
            assert_eq!(error.exit, Exit::Config);
            let text = error.to_string();
            let begin = format!("error: unusable file of rules {}", file.0.display());
            assert!(text.starts_with(&begin), "{text}");
            assert!(text.contains("hint: "), "{text}");
        }
    }
}
