//! `provision share snapshot --restore`: a share's data as it was.

use serde::Serialize;

use super::create::{hinted, stuck};
use super::snapshot::unknown;
use super::{ShareTarget, find, record, with_engine};
use crate::cli::Context;
use crate::cli::apply::ApplyArgs;
use crate::cli::confirm::Confirm;
use crate::deploy::apply::Options;
use crate::deploy::fault;
use crate::deploy::interrupt::Interrupt;
use crate::deploy::settings::Settings;
use crate::error::CliError;
use crate::plan::SHARE;
use crate::plan::share::Share;
use crate::provider::Health;
use crate::report::Report;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Restored {
    pub deployment: String,
    pub share: String,
    /// The snapshot that its data is a copy of.
    pub restored: String,
}

/// Makes the data what it was when the snapshot was made.
pub(super) fn run(
    context: &Context,
    target: &ShareTarget,
    label: &str,
    yes: bool,
) -> Result<u8, CliError> {
    let interrupt = Interrupt::listen()?;
    let database = context.database()?;
    let ShareTarget { deployment, share } = target;
    let (_lock, deployment) = context.locked_to_change(&database, deployment)?;
    let nodes = database.nodes(deployment.id)?;
    let (share, node) = find(&deployment, &nodes, share)?;
    let report = Report::new(context.mode(), &[]);
    let at = (&interrupt, &report);
    let found = with_engine(context, &database, &deployment, at, |engine| {
        engine.snapshots(&node)
    })?;
    let whole = |label: &str| {
        found
            .get(label)
            .is_some_and(|f| f.health == Health::Present)
    };
    if !whole(label) {
        return Err(unknown(target, label, &found));
    }
    if !yes {
        confirm(target, label)?;
    }
    let share = Share {
        restoring: Some(label.to_owned()),
        ..share
    };
    // First: between the old data and the copy there is none.
    record(&database, &deployment, &share)?;
    fault::at("restore-recorded");
    let name = &deployment.name;
    interrupt.advise(format!("provision resume {name}"));
    let deployment = context.deployment(&database, name)?;
    carry_out(context, &database, &deployment, (&node, &share), at)?;
    let waiting = ApplyArgs {
        timeout: None,
        quorum: None,
        replace: 0,
        no_wait: false,
        dry_run: false,
    };
    // For a machine that was not there. One that was stopped for this is seen as joined until the rendezvous misses
    // it, so that nobody waits for it here. The share is not one of the workers of which some are enough.
    let options = Options {
        quorum: Some(u32::MAX),
        ..waiting.options(None)
    };
    let deployment = context.deployment(&database, name)?;
    let result = with_engine(context, &database, &deployment, at, |e| e.apply(&options));
    let outcome = result.map_err(|error| match interrupt.is_set() {
        true => CliError::interrupted(),
        false => hinted(error, target),
    })?;
    let own = outcome.nodes.iter().find(|n| n.name == node.name);
    let stuck = stuck(&outcome, own, target);
    let restored = Restored {
        deployment: deployment.name,
        share: share.name.0,
        restored: label.to_owned(),
    };
    report.finish(&restored, text);
    stuck.map_or(Ok(0), Err)
}

/// Finishes what was begun of that in a deployment. It must be locked.
pub fn finish(
    context: &Context,
    database: &Database,
    name: &str,
    (interrupt, report): (&Interrupt, &Report),
) -> Result<(), CliError> {
    let shares = Settings::of(&context.deployment(database, name)?)?.shares;
    for share in shares.iter().filter(|share| share.restoring.is_some()) {
        // As another share has left it.
        let deployment = context.deployment(database, name)?;
        let nodes = database.nodes(deployment.id)?;
        let is_own = |n: &&NodeRecord| n.name == share.name && n.role == SHARE && n.wanted;
        if let Some(node) = nodes.iter().find(is_own) {
            let what = (node, share);
            carry_out(context, database, &deployment, what, (interrupt, report))?;
        }
    }
    Ok(())
}

fn carry_out(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    (node, share): (&NodeRecord, &Share),
    at: (&Interrupt, &Report),
) -> Result<(), CliError> {
    let Some(label) = &share.restoring else {
        return Ok(());
    };
    let bytes = u64::from(share.size_gib) << 30;
    let done = Share {
        restoring: None,
        ..share.clone()
    };
    let restored = with_engine(context, database, deployment, at, |engine| {
        let done = || record(database, deployment, &done);
        engine.restore_data(node, (label, bytes), done)
    });
    restored.map_err(|error| {
        let name = &deployment.name;
        let hint = format!("it is recorded: `provision resume {name}` finishes it");
        error.hint(hint)
    })
}

fn confirm(target: &ShareTarget, label: &str) -> Result<(), CliError> {
    let ShareTarget { deployment, share } = target;
    let name = format!("`{deployment}/{share}`");
    Confirm {
        question: format!("what {name} has now is lost by going back to `{label}`: go on?"),
        stakes: format!("what {name} has now would be lost"),
        hint: "add --yes to go back to the snapshot",
        declined: "nothing was changed: it was not confirmed",
    }
    .ask()
}

pub(super) fn text(restored: &Restored) -> String {
    let Restored {
        deployment,
        share,
        restored,
    } = restored;
    format!(
        "`{deployment}/{share}` has the data of its snapshot `{restored}`; its machine was started again\n\
         `provision share status {deployment}/{share}` shows when it serves\n"
    )
}
