//! `provision share snapshot`.

use std::collections::BTreeMap;

use clap::Args;
use ipop_proto::config::is_dns_label;
use serde::Serialize;

use super::{ShareTarget, find, machine, restore, with_engine};
use crate::cli::Context;
use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::name::suggestion;
use crate::provider::{Found, Health, MachineState};
use crate::report::Report;
use crate::report::table::table;

const EXAMPLES: &str = "\
Examples:
  provision share snapshot lake/lake-data before-the-move
  provision share snapshot lake/lake-data                    called 1, or the next number
  provision share snapshot lake/lake-data --list
  provision share snapshot lake/lake-data --delete before-the-move
  provision share snapshot lake/lake-data --restore before-the-move

A snapshot is a whole copy of the share's volume beside it, as the volume was at one moment; the
share serves meanwhile. To go back to one, its machine is stopped and started. Snapshots are kept
and deleted as the data is: `destroy` keeps them, `--delete-data` does not.";

/// See [`super::ShareCommand::Snapshot`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SnapshotArgs {
    /// The deployment and the share
    #[arg(value_name = "NAME/SHARE")]
    pub target: ShareTarget,
    /// What the snapshot shall be called [default: the next number]
    #[arg(value_name = "LABEL", value_parser = label)]
    pub label: Option<String>,
    /// Show the snapshots there are, and make none
    #[arg(long, conflicts_with_all = ["label", "delete", "restore"])]
    pub list: bool,
    /// Delete this snapshot, and make none
    #[arg(long, value_name = "LABEL", conflicts_with = "label")]
    pub delete: Option<String>,
    /// Go back to this snapshot, and make none: what the share has now is lost
    #[arg(long, value_name = "LABEL", conflicts_with_all = ["label", "delete"])]
    pub restore: Option<String>,
    /// Go back without asking
    #[arg(long, requires = "restore")]
    pub yes: bool,
}

fn label(text: &str) -> Result<String, String> {
    match is_dns_label(text) {
        true => Ok(text.to_owned()),
        false => Err("use 1 to 63 lower-case letters, digits and inner hyphens".to_owned()),
    }
}

/// One snapshot.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Snapshot {
    pub label: String,
    /// As its site calls it.
    pub volume: String,
    /// False of one whose copying was stopped: it is of no use.
    pub whole: bool,
}

impl Snapshot {
    fn of(label: &str, found: &Found) -> Self {
        Self {
            label: label.to_owned(),
            volume: found.resource.id.clone(),
            whole: found.health == Health::Present,
        }
    }
}

/// What the command did and what there is.
#[derive(Debug, Serialize)]
pub(super) struct Snapshots {
    pub deployment: String,
    pub share: String,
    /// The label of the one that was made.
    pub made: Option<String>,
    /// The label of the one that was deleted.
    pub deleted: Option<String>,
    pub snapshots: Vec<Snapshot>,
}

/// Runs the command.
pub fn run(context: &Context, args: SnapshotArgs) -> Result<u8, CliError> {
    if let Some(label) = &args.restore {
        return restore::run(context, &args.target, label, args.yes);
    }
    let interrupt = Interrupt::listen()?;
    let database = context.database()?;
    let ShareTarget { deployment, share } = &args.target;
    let (_lock, deployment) = match args.list {
        true => (None, context.deployment(&database, deployment)?),
        false => {
            let (lock, deployment) = context.locked_to_change(&database, deployment)?;
            (Some(lock), deployment)
        }
    };
    let nodes = database.nodes(deployment.id)?;
    let (share, node) = find(&deployment, &nodes, share)?;
    let report = Report::new(context.mode(), &[]);
    let at = (&interrupt, &report);
    let (mut made, mut deleted) = (None, None);
    let found = with_engine(context, &database, &deployment, at, |engine| {
        let found = engine.snapshots(&node)?;
        if args.list {
            return Ok(found);
        }
        if let Some(label) = &args.delete {
            let Some(snapshot) = found.get(label) else {
                return Err(unknown(&args.target, label, &found));
            };
            engine.delete_found(&node.site, snapshot)?;
            deleted = Some(label.clone());
            return engine.snapshots(&node);
        }
        let label = args.label.clone().unwrap_or_else(|| next(&found));
        check_free(&args.target, &label, &found)?;
        let provider = engine.parts.provider(engine.settings.site(&node.site)?)?;
        let machines = provider.machines(&engine.tags())?;
        if machines
            .get(&node.name)
            .is_some_and(|m| m.state == MachineState::Running)
            && let Err(error) = machine::sync(context, &database, &deployment, &nodes, &node)
        {
            let why = error.one_line();
            report.emit(Event::Warning {
                message: format!("the snapshot has what is on the disk, and what its machine still holds in memory may be missing: {why}"),
            });
        }
        engine.snapshot_data(&node, &label)?;
        made = Some(label);
        engine.snapshots(&node)
    })?;
    let snapshots = Snapshots {
        deployment: deployment.name,
        share: share.name.0,
        made,
        deleted,
        snapshots: found
            .iter()
            .map(|(label, f)| Snapshot::of(label, f))
            .collect(),
    };
    report.finish(&snapshots, text);
    Ok(0)
}

/// One more than the largest number that is a label.
fn next(found: &BTreeMap<String, Found>) -> String {
    let numbers = found.keys().filter_map(|label| label.parse::<u32>().ok());
    let next = numbers.max().unwrap_or(0).saturating_add(1);
    next.to_string()
}

/// A whole snapshot is never replaced; what is left of one that was stopped is.
fn check_free(
    target: &ShareTarget,
    label: &str,
    found: &BTreeMap<String, Found>,
) -> Result<(), CliError> {
    let is_whole = |f: &Found| f.health == Health::Present;
    if !found.get(label).is_some_and(is_whole) {
        return Ok(());
    }
    let ShareTarget { deployment, share } = target;
    let message = format!("`{deployment}/{share}` has a snapshot `{label}` already");
    let command = format!("provision share snapshot {deployment}/{share} --delete {label}");
    Err(CliError::new(ExitCode::Name, message)
        .hint(format!("choose another label, or delete it: `{command}`")))
}

pub(super) fn unknown(
    target: &ShareTarget,
    label: &str,
    found: &BTreeMap<String, Found>,
) -> CliError {
    let ShareTarget { deployment, share } = target;
    let message = format!("`{deployment}/{share}` has no snapshot `{label}`");
    let error = CliError::new(ExitCode::Name, message);
    match suggestion(label, found.keys()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!(
            "`provision share snapshot {deployment}/{share} --list` shows those there are"
        )),
    }
}

pub(super) fn text(all: &Snapshots) -> String {
    let target = format!("{}/{}", all.deployment, all.share);
    let mut out = String::new();
    if let Some(label) = &all.made {
        out += &format!("made: snapshot `{label}` of `{target}`\n");
    }
    if let Some(label) = &all.deleted {
        out += &format!("deleted: snapshot `{label}` of `{target}`\n");
    }
    let row = |snapshot: &Snapshot| {
        let state = match snapshot.whole {
            true => "whole",
            false => "not whole: its copying was stopped",
        };
        let Snapshot { label, volume, .. } = snapshot;
        vec![label.clone(), state.to_owned(), volume.clone()]
    };
    let rows: Vec<_> = all.snapshots.iter().map(row).collect();
    match rows.is_empty() {
        true => out + &format!("there are no snapshots of `{target}`\n"),
        false => out + &table(&["LABEL", "STATE", "VOLUME"], &rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NodeName;
    use crate::provider::{DATA, Resource};

    fn found(labels: &[(&str, Health)]) -> BTreeMap<String, Found> {
        let one = |&(label, health): &(&str, Health)| {
            let resource = Resource {
                kind: DATA.to_owned(),
                id: format!("ipop/ipop-lake.lake-data.0123456789abcdef.{label}.data"),
            };
            let found = Found {
                resource,
                handle: None,
                tags: None,
                node: Some(NodeName("lake-data".to_owned())),
                health,
            };
            (label.to_owned(), found)
        };
        labels.iter().map(one).collect()
    }

    #[test]
    fn a_snapshot_without_a_label_has_the_next_number() {
        assert_eq!(next(&found(&[])), "1");
        let whole = Health::Present;
        let some = found(&[("before", whole), ("2", whole), ("10", Health::Broken)]);
        assert_eq!(next(&some), "11");
        assert!(label("before-2").is_ok());
        for wrong in ["", "Before", "a.b", "-a", "a/b"] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_whole_snapshot_stays_and_half_of_one_is_made_anew() {
        let target: ShareTarget = "lake/lake-data".parse().expect("valid");
        let some = found(&[("before", Health::Present), ("half", Health::Broken)]);
        let refused = check_free(&target, "before", &some).expect_err("there is one");
        assert_eq!(refused.code, ExitCode::Name);
        for free in ["half", "other"] {
            check_free(&target, free, &some).expect(free);
        }
        let near = unknown(&target, "befor", &some);
        assert!(near.to_string().contains("`before`"), "{near}");
    }

    #[test]
    fn people_read_which_snapshots_there_are_and_which_are_of_use() {
        let some = found(&[("before", Health::Present), ("half", Health::Broken)]);
        let all = Snapshots {
            deployment: "lake".to_owned(),
            share: "lake-data".to_owned(),
            made: Some("before".to_owned()),
            deleted: None,
            snapshots: some.iter().map(|(l, f)| Snapshot::of(l, f)).collect(),
        };
        let none = Snapshots {
            deployment: "lake".to_owned(),
            share: "lake-data".to_owned(),
            made: None,
            deleted: Some("before".to_owned()),
            snapshots: Vec::new(),
        };
        insta::assert_snapshot!([text(&all), text(&none)].join("---\n"), @r"
        made: snapshot `before` of `lake/lake-data`
        LABEL   STATE                               VOLUME
        before  whole                               ipop/ipop-lake.lake-data.0123456789abcdef.before.data
        half    not whole: its copying was stopped  ipop/ipop-lake.lake-data.0123456789abcdef.half.data
        ---
        deleted: snapshot `before` of `lake/lake-data`
        there are no snapshots of `lake/lake-data`
        ");
    }
}
