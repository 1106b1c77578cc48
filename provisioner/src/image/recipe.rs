//! Recipes: what an image of a role is made of. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::source::Source;

/// One role's `recipe.toml`, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    extends: Option<String>,
    suite: Option<String>,
    #[serde(default)]
    packages: BTreeSet<String>,
    cmdline: Option<String>,
    #[serde(default)]
    credentials: BTreeSet<String>,
    #[serde(default)]
    mask: BTreeSet<String>,
    #[serde(default)]
    enable: BTreeMap<String, BTreeSet<String>>,
    health: Option<Health>,
}

/// How the machine finds out that its role serves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Absolute path in the guest of a program that exits with 0 when all is well.
    pub command: String,
    /// How long the command may fail before the role is reported as failed.
    pub timeout_seconds: u32,
}

/// A role with everything it extends folded in. Sets are ordered, so equal recipes hash equally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Role.
    pub role: String,
    /// Debian suite (`trixie`).
    pub suite: String,
    /// Packages asked for, without their dependencies.
    pub packages: BTreeSet<String>,
    /// Kernel command line.
    pub cmdline: String,
    /// Credentials a machine of the role must be given.
    pub credentials: BTreeSet<String>,
    /// Units that never start and generators that never run.
    pub mask: BTreeSet<String>,
    /// Units by the target that wants them.
    pub enable: BTreeMap<String, BTreeSet<String>>,
    /// The role's check.
    pub health: Health,
    /// Files by absolute path in the guest.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Files that a machine without a disk has instead, by absolute path; none: the role has no such
    /// form.
    pub netboot: BTreeMap<String, Vec<u8>>,
    /// Templates (minijinja) by the credential that each machine gets them rendered in.
    pub templates: BTreeMap<String, String>,
    /// What the role extends, nearest first.
    pub extends: Vec<String>,
}

/// A recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// There is no such role.
    #[error("no role {role} (there are: {})", known.join(", "))]
    UnknownRole {
        /// What was asked for.
        role: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{file}:{line}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong, naming the key.
        message: String,
    },
    /// A required key is nowhere in the chain of recipes.
    #[error("{file}: key {key} is missing, here and in what it extends")]
    MissingKey {
        /// The role's file.
        file: String,
        /// The key.
        key: &'static str,
    },
    /// A value that can never work.
    #[error("{file}: {key}: {message}")]
    Value {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
}

impl Recipe {
    /// Reads a role and everything it extends.
    pub fn load(source: &Source, role: &str) -> Result<Self, RecipeError> {
        let chain = chain(source, role)?;
        let file = source.display(&recipe_path(role));
        let mut recipe = Self {
            role: role.to_owned(),
            suite: String::new(),
            packages: BTreeSet::new(),
            cmdline: String::new(),
            credentials: BTreeSet::new(),
            mask: BTreeSet::new(),
            enable: BTreeMap::new(),
            health: Health {
                command: String::new(),
                timeout_seconds: 0,
            },
            files: BTreeMap::new(),
            netboot: BTreeMap::new(),
            templates: BTreeMap::new(),
            extends: chain.iter().skip(1).map(|(name, _)| name.clone()).collect(),
        };
        // The ancestor first, so that a role overrides what it extends.
        for (name, part) in chain.into_iter().rev() {
            recipe.packages.extend(part.packages);
            recipe.credentials.extend(part.credentials);
            recipe.mask.extend(part.mask);
            for (target, units) in part.enable {
                recipe.enable.entry(target).or_default().extend(units);
            }
            for (mine, theirs) in [
                (&mut recipe.suite, part.suite),
                (&mut recipe.cmdline, part.cmdline),
            ] {
                if let Some(value) = theirs {
                    *mine = value;
                }
            }
            if let Some(health) = part.health {
                recipe.health = health;
            }
            let [files, netboot, templates] =
                ["files", "netboot", "templates"].map(|folder| format!("{name}/{folder}/"));
            for (path, content) in &source.files {
                if let Some(path) = path.strip_prefix(&files) {
                    recipe.files.insert(format!("/{path}"), content.clone());
                } else if let Some(path) = path.strip_prefix(&netboot) {
                    recipe.netboot.insert(format!("/{path}"), content.clone());
                } else if let Some(file) = path.strip_prefix(&templates) {
                    let text = String::from_utf8_lossy(content).into_owned();
                    recipe.templates.insert(template(source, path, file)?, text);
                }
            }
        }
        recipe.validate(&file)?;
        Ok(recipe)
    }

    /// The form that runs without a disk. `None`: the role has none.
    #[must_use]
    pub fn without_disk(mut self) -> Option<Self> {
        let files = std::mem::take(&mut self.netboot);
        (!files.is_empty()).then(|| {
            self.files.extend(files);
            self
        })
    }

    fn validate(&self, file: &str) -> Result<(), RecipeError> {
        let missing = |key| RecipeError::MissingKey {
            file: file.to_owned(),
            key,
        };
        let value = |key, message| RecipeError::Value {
            file: file.to_owned(),
            key,
            message,
        };
        if self.suite.is_empty() {
            return Err(missing("suite"));
        }
        if self.cmdline.is_empty() {
            return Err(missing("cmdline"));
        }
        if self.health.command.is_empty() {
            return Err(missing("health"));
        }
        if !self.files.contains_key(&self.health.command) {
            let message = format!("{} is not among the role's files", self.health.command);
            return Err(value("health.command", message));
        }
        let word = |s: &str| {
            !s.is_empty()
                && !s.starts_with('-')
                && s.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-+.:@_\\~".contains(c))
        };
        if let Some(bad) = self.packages.iter().chain([&self.suite]).find(|p| !word(p)) {
            return Err(value(
                "packages",
                format!("{bad:?} is not the name of a package"),
            ));
        }
        let units = self
            .enable
            .keys()
            .chain(self.enable.values().flatten())
            .chain(&self.mask);
        if let Some(bad) = units
            .into_iter()
            .find(|u| !word(u) || !(u.contains('.') || u.ends_with("-generator")))
        {
            return Err(value(
                "enable",
                format!("{bad:?} is not the name of a unit"),
            ));
        }
        let given = |name: &&String| self.credentials.contains(*name);
        if let Some(name) = self.templates.keys().find(|name| !given(name)) {
            let message = format!("the template {name}.j2 is for a credential that is not listed");
            return Err(value("credentials", message));
        }
        let both = self
            .enable
            .values()
            .flatten()
            .find(|unit| self.mask.contains(*unit));
        if let Some(unit) = both {
            return Err(value("mask", format!("{unit} is enabled as well")));
        }
        Ok(())
    }
}

/// The credential that a template is for, by the name of its file.
fn template(source: &Source, path: &str, file: &str) -> Result<String, RecipeError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let credential = file
        .strip_suffix(".j2")
        .filter(|name| name.starts_with("ipop.role.") && name.chars().all(allowed));
    credential
        .map(str::to_owned)
        .ok_or_else(|| RecipeError::Value {
            file: source.display(path),
            key: "templates",
            message: "a template is called ipop.role.NAME.j2, after the credential it becomes"
                .to_owned(),
        })
}

fn recipe_path(role: &str) -> String {
    format!("{role}/recipe.toml")
}

/// The role's recipe, then what it extends, and so on.
fn chain(source: &Source, role: &str) -> Result<Vec<(String, RecipeFile)>, RecipeError> {
    let mut chain: Vec<(String, RecipeFile)> = Vec::new();
    let mut next = Some(role.to_owned());
    while let Some(name) = next {
        if chain.iter().any(|(seen, _)| *seen == name) {
            let file = source.display(&recipe_path(role));
            return Err(RecipeError::Value {
                file,
                key: "extends",
                message: format!("{name} extends itself"),
            });
        }
        let path = recipe_path(&name);
        let bytes = source
            .files
            .get(&path)
            .ok_or_else(|| RecipeError::UnknownRole {
                role: name.clone(),
                known: source.roles(),
            })?;
        let part = parse(&source.display(&path), bytes)?;
        next = part.extends.clone();
        chain.push((name, part));
    }
    Ok(chain)
}

fn parse(file: &str, bytes: &[u8]) -> Result<RecipeFile, RecipeError> {
    let text = String::from_utf8_lossy(bytes);
    toml::from_str(&text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        let line = text
            .as_bytes()
            .iter()
            .take(at)
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        RecipeError::Syntax {
            file: file.to_owned(),
            line,
            message: e.message().to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(files: &[(&str, &str)]) -> Source {
        let files = files
            .iter()
            .map(|(p, c)| ((*p).to_owned(), c.as_bytes().to_vec()))
            .collect();
        Source {
            folders: BTreeMap::new(),
            files,
        }
    }

    const BASE: &str = "suite = 'trixie'\ncmdline = 'ro'\npackages = ['b', 'a']\n\
                        [health]\ncommand = '/ok'\ntimeout_seconds = 1\n";

    #[test]
    fn every_recipe_in_the_program_loads() {
        let source = Source::compiled_in();
        let roles = ["base", "frontend", "gateway", "nfs", "share", "worker"];
        assert_eq!(source.roles(), roles);
        for role in source.roles() {
            let recipe = Recipe::load(&source, &role).expect("a usable recipe");
            assert!(
                recipe.packages.contains("linux-image-cloud-amd64"),
                "{role}"
            );
            assert!(
                recipe
                    .files
                    .contains_key("/etc/systemd/system/ipop-node.service"),
                "{role}"
            );
        }
    }

    #[test]
    fn a_role_adds_to_and_overrides_what_it_extends() {
        let source = source(&[
            ("base/recipe.toml", BASE),
            ("base/files/ok", "base"),
            ("base/files/kept", "kept"),
            (
                "w/recipe.toml",
                "extends = 'base'\npackages = ['c']\nsuite = 'forky'\n",
            ),
            ("w/files/ok", "w"),
        ]);
        let recipe = Recipe::load(&source, "w").expect("a usable recipe");
        assert_eq!(
            recipe.packages.into_iter().collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        assert_eq!(recipe.suite, "forky");
        assert_eq!(recipe.files["/ok"], b"w");
        assert_eq!(recipe.files["/kept"], b"kept");
    }

    #[test]
    fn without_a_disk_a_role_has_the_files_that_are_for_that_and_otherwise_it_has_not() {
        let source = source(&[
            ("base/recipe.toml", BASE),
            ("base/files/ok", "base"),
            ("w/recipe.toml", "extends = 'base'"),
            ("w/netboot/ok", "netboot"),
        ]);
        let load = |role| Recipe::load(&source, role).expect("a usable recipe");
        assert_eq!(load("w").files["/ok"], b"base");
        let without = load("w").without_disk().expect("its form");
        assert_eq!(without.files["/ok"], b"netboot");
        assert_eq!(load("base").without_disk(), None);
    }

    #[test]
    fn a_template_is_for_a_credential_that_the_recipe_lists() {
        let role = |recipe: &str, template: &str| {
            let source = source(&[
                ("base/recipe.toml", BASE),
                ("base/files/ok", "base"),
                ("w/recipe.toml", recipe),
                (template, "node {{ node }}"),
            ]);
            Recipe::load(&source, "w").map_err(|e| e.to_string())
        };
        let listed = "extends = 'base'\ncredentials = ['ipop.role.motd']\n";
        let recipe = role(listed, "w/templates/ipop.role.motd.j2").expect("a usable recipe");
        assert_eq!(recipe.templates["ipop.role.motd"], "node {{ node }}");
        assert_eq!(recipe.extends, ["base"]);
        let error = role("extends = 'base'", "w/templates/ipop.role.motd.j2");
        assert_eq!(
            error.expect_err("not listed"),
            "images/w/recipe.toml: credentials: the template ipop.role.motd.j2 is for a credential \
             that is not listed"
        );
        let error = role(listed, "w/templates/ipop.password.j2").expect_err("another's");
        assert!(
            error.starts_with("images/w/templates/ipop.password.j2: templates: "),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        let source = source(&[("w/recipe.toml", "suite = 'trixie'\npackage = ['a']\n")]);
        let error = Recipe::load(&source, "w")
            .expect_err("an unknown key")
            .to_string();
        assert!(
            error.starts_with("images/w/recipe.toml:2: unknown field `package`"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_role_is_answered_with_the_known_ones() {
        let error = Recipe::load(&Source::compiled_in(), "wroker")
            .expect_err("no such role")
            .to_string();
        assert_eq!(
            error,
            "no role wroker (there are: base, frontend, gateway, nfs, share, worker)"
        );
    }

    #[test]
    fn recipes_that_extend_each_other_are_refused() {
        let source = source(&[
            ("a/recipe.toml", "extends = 'b'"),
            ("b/recipe.toml", "extends = 'a'"),
        ]);
        let error = Recipe::load(&source, "a").expect_err("a cycle").to_string();
        assert_eq!(error, "images/a/recipe.toml: extends: a extends itself");
    }

    #[test]
    fn a_health_command_that_is_not_in_the_image_is_refused() {
        let source = source(&[("w/recipe.toml", BASE)]);
        let error = Recipe::load(&source, "w")
            .expect_err("no such file")
            .to_string();
        assert_eq!(
            error,
            "images/w/recipe.toml: health.command: /ok is not among the role's files"
        );
    }

    #[test]
    fn a_package_name_cannot_be_an_option() {
        let recipe = BASE.replace("'a'", "'--hook=x'");
        let source = source(&[("w/recipe.toml", &recipe), ("w/files/ok", "")]);
        let error = Recipe::load(&source, "w")
            .expect_err("not a package")
            .to_string();
        assert_eq!(
            error,
            "images/w/recipe.toml: packages: \"--hook=x\" is not the name of a package"
        );
    }
}
