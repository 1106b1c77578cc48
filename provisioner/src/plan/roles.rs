//! Which roles there are, and the part that their machines can have in a cluster. Pure.

use std::collections::BTreeMap;

use super::{FRONTEND, GATEWAY, WORKER};
use crate::error::{CliError, ExitCode};
use crate::name::suggestion;

/// What is known of a role: what it extends, nearest first, or why its recipe cannot be used.
pub type Lineage = Result<Vec<String>, String>;

/// The roles by name.
#[derive(Debug, Clone, Default)]
pub struct Roles(BTreeMap<String, Lineage>);

impl Roles {
    /// From what is known of each.
    pub fn new(roles: impl IntoIterator<Item = (String, Lineage)>) -> Self {
        Self(roles.into_iter().collect())
    }

    /// The role whose image a machine starts from that is `part` ([`FRONTEND`], [`WORKER`] or [`GATEWAY`]) of a
    /// cluster: the one that is asked for, or that of the part.
    pub fn image(&self, part: &str, asked: Option<&str>) -> Result<String, CliError> {
        let Some(role) = asked.filter(|role| *role != part) else {
            return Ok(part.to_owned());
        };
        let Some(lineage) = self.0.get(role) else {
            let error = CliError::new(ExitCode::Name, format!("there is no role `{role}`"));
            return Err(match suggestion(role, self.0.keys()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`provision image list` shows the roles and where yours are"),
            });
        };
        let lineage = lineage.as_ref().map_err(|why| {
            CliError::new(
                ExitCode::Config,
                format!("the role `{role}` cannot be used"),
            )
            .caused_by(std::io::Error::other(why.clone()))
        })?;
        let mut all = std::iter::once(role).chain(lineage.iter().map(String::as_str));
        match all.find(|role| [FRONTEND, WORKER, GATEWAY].contains(role)) {
            Some(found) if found == part => Ok(role.to_owned()),
            found => {
                let of = found.map_or("no part".to_owned(), |found| format!("a {found}"));
                let message = format!("the role `{role}` is {of} of a cluster, not a {part}");
                let hint = format!("its recipe must extend `{part}`, or a role that does");
                Err(CliError::new(ExitCode::Usage, message).hint(hint))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_what_it_extends() {
        let named = |names: &[&str]| Ok(names.iter().map(|n| (*n).to_owned()).collect());
        let roles = Roles::new([
            ("base".to_owned(), named(&[])),
            ("frontend".to_owned(), named(&["base"])),
            ("gpu".to_owned(), named(&["big", "worker", "base"])),
            (
                "torn".to_owned(),
                Err("recipe.toml:3: unknown field".to_owned()),
            ),
        ]);
        let image = |part, asked| roles.image(part, asked).map_err(|e| e.to_string());
        assert_eq!(image(WORKER, None).as_deref(), Ok("worker"));
        assert_eq!(image(WORKER, Some("worker")).as_deref(), Ok("worker"));
        assert_eq!(image(WORKER, Some("gpu")).as_deref(), Ok("gpu"));
        let refused = [
            image(FRONTEND, Some("gpu")),
            image(WORKER, Some("frontend")),
            image(WORKER, Some("base")),
            image(WORKER, Some("gpo")),
            image(WORKER, Some("mpi")),
            image(WORKER, Some("torn")),
        ];
        let refused = refused.map(|r| r.expect_err("refused"));
        insta::assert_snapshot!(refused.join("\n\n"));
    }
}
