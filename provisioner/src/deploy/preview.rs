//! What would be done, for `--dry-run`.

use serde::Serialize;

use super::destroy::plain;
use super::planner::{Action, Plan, Why};
use crate::report::table::table;

/// A plan that is shown and not carried out.
#[derive(Debug, Serialize)]
pub struct Preview<'a> {
    /// The deployment.
    pub name: &'a str,
    /// What would be done; the first may begin at once.
    pub actions: &'a [Action],
}

impl<'a> Preview<'a> {
    /// The plan for a deployment.
    pub fn new(name: &'a str, plan: &'a Plan) -> Self {
        Self {
            name,
            actions: &plan.actions,
        }
    }

    /// As people read it.
    pub fn text(&self) -> String {
        if self.actions.is_empty() {
            return format!("nothing to do for `{}`\n", self.name);
        }
        let row = |action: &Action| {
            vec![
                action.verb.to_string(),
                plain(&action.key.resource.kind).to_owned(),
                action.key.resource.id.clone(),
                action.node().map_or("-".to_owned(), ToString::to_string),
                action.key.owner.to_string(),
                words(action.why).to_owned(),
            ]
        };
        let rows: Vec<_> = self.actions.iter().map(row).collect();
        let header = ["ACTION", "KIND", "NAME", "NODE", "WHERE", "WHY"];
        let count = |verb| self.actions.iter().filter(|a| a.verb == verb).count();
        let makes = count(crate::state::record::Verb::Make);
        format!(
            "{}\n{makes} to make, {} to remove; nothing was changed\n",
            table(&header, &rows),
            self.actions.len() - makes
        )
    }
}

fn words(why: Why) -> &'static str {
    match why {
        Why::New => "is not there",
        Why::Unfinished => "was not finished",
        Why::Gone => "is gone",
        Why::Replaced => "is replaced",
        Why::Shared => "is shared, and checked",
        Why::Unwanted => "is not wanted",
    }
}
