//! What would be done, for `--dry-run`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::destroy::plain;
use super::planner::{Action, Plan, Why};
use crate::provider::Cost;
use crate::report::table::table;

/// A plan that is shown and not carried out.
#[derive(Debug, Serialize)]
pub struct Preview<'a> {
    /// The deployment.
    pub name: &'a str,
    /// What would be done; the first may begin at once.
    pub actions: &'a [Action],
    /// What the deployment costs then, by site, where somebody has to pay.
    pub costs: BTreeMap<String, Cost>,
}

impl<'a> Preview<'a> {
    /// The plan for a deployment.
    pub fn new(name: &'a str, plan: &'a Plan, costs: BTreeMap<String, Cost>) -> Self {
        Self {
            name,
            actions: &plan.actions,
            costs,
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
        let costs: String = self.costs.iter().map(|(s, c)| cost(s, *c) + "\n").collect();
        format!(
            "{}\n{costs}{makes} to make, {} to remove; nothing was changed\n",
            table(&header, &rows),
            self.actions.len() - makes
        )
    }
}

/// A site's cost in words.
pub fn cost(site: &str, cost: Cost) -> String {
    let stored = match cost.usd_per_month_stored {
        0.0 => String::new(),
        stored => format!(", and {stored:.2} a month for what is stored"),
    };
    format!(
        "site {site} costs about {:.2} US dollars an hour{stored}, by the price table",
        cost.usd_per_hour
    )
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
