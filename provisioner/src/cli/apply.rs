//! What creating, continuing and scaling have in common: options, and how they end.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::Context;
use crate::deploy::apply::Options;
use crate::deploy::interrupt::Interrupt;
use crate::deploy::join::Limits;
use crate::deploy::outcome::{NodeOutcome, Outcome};
use crate::deploy::planner::Plan;
use crate::deploy::preview::Preview;
use crate::error::{CliError, ExitCode};
use crate::provider::Cost;
use crate::report::{Report, table};
use crate::size::duration;

/// How often machines and consoles are looked at.
const POLL: Duration = Duration::from_secs(1);

/// How a deployment is brought to what is wanted.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// How long a node may take to join once its machine runs
    /// [default: 2m with KVM, 15m without]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Be content when the front end and this many workers have joined [default: all]
    #[arg(long, value_name = "COUNT")]
    pub quorum: Option<u32>,
    /// Make another machine for a worker that does not join or whose machine dies, at most this
    /// often in all
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub replace: u32,
    /// Do not wait until nodes have joined: end when the machines are started
    #[arg(long)]
    pub no_wait: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl ApplyArgs {
    /// Refuses a quorum of more workers than there are.
    pub fn check(&self, workers: usize) -> Result<(), CliError> {
        match self.quorum {
            Some(quorum) if quorum as usize > workers => Err(CliError::new(
                ExitCode::Usage,
                format!("{quorum} workers are to join, and there are {workers}"),
            )
            .hint("--quorum takes at most the number of workers")),
            _ => Ok(()),
        }
    }

    /// For the engine; `recorded` is the quorum asked for earlier.
    pub fn options(&self, recorded: Option<u32>) -> Options {
        Options {
            limits: Limits {
                timeout: self.timeout,
                poll: POLL,
            },
            quorum: self.quorum.or(recorded),
            replace: self.replace,
            wait: !self.no_wait,
        }
    }
}

/// Shows a plan that is not carried out.
pub fn show(context: &Context, name: &str, plan: &Plan, costs: BTreeMap<String, Cost>) -> u8 {
    let preview = Preview::new(name, plan, costs);
    if context.global.json {
        println!("{}", serde_json::json!(preview));
    } else {
        print!("{}", preview.text());
    }
    0
}

/// Ends a report with the result, and says how to go on.
pub fn finish(
    report: Report,
    name: &str,
    interrupt: &Interrupt,
    result: Result<Outcome, CliError>,
) -> Result<u8, CliError> {
    match result {
        Ok(outcome) => {
            report.finish(&outcome, table::outcome);
            finished(&outcome)
        }
        Err(error) => {
            // Ends the bars before the error is printed.
            drop(report);
            let error = if interrupt.is_set() {
                CliError::interrupted()
            } else {
                error
            };
            Err(error
                .hint(format!("`provision resume {name}` continues"))
                .hint(format!("`provision destroy {name}` removes what was made")))
        }
    }
}

fn finished(outcome: &Outcome) -> Result<u8, CliError> {
    let name = &outcome.name;
    let stuck: Vec<_> = outcome.nodes.iter().filter(|n| n.stuck.is_some()).collect();
    let (Some(first), false) = (stuck.first(), outcome.enough) else {
        return Ok(0);
    };
    let how_far = |n: &&NodeOutcome| {
        let reached = n.stuck.as_ref().and_then(|s| s.reached);
        let reached = reached.map_or("nothing".to_owned(), |stage| stage.to_string());
        format!("{} (got as far as `{reached}`)", n.name)
    };
    let names: Vec<_> = stuck.iter().map(how_far).collect();
    Err(CliError::new(
        ExitCode::NotJoined,
        format!("of `{name}` did not join in time: {}", names.join(", ")),
    )
    .hint(format!(
        "`provision logs {name}/{}` shows more of what happened",
        first.name
    ))
    .hint(format!(
        "`provision resume {name}` waits again; with --replace COUNT it makes other machines"
    ))
    .hint(format!("`provision destroy {name}` removes the deployment")))
}
