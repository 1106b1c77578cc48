//! `provision share destroy`.

use clap::Args;
use serde::Serialize;

use super::{ShareTarget, find, kept, with_engine};
use crate::cli::{Context, user};
use crate::deploy::data::Deleted;
use crate::deploy::destroy::plain;
use crate::deploy::interrupt::Interrupt;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::plan::SHARE;
use crate::provider::Resource;
use crate::report::Report;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

const EXAMPLES: &str = "\
Examples:
  provision share destroy lake/lake-data
  provision share destroy lake/lake-data --delete-data

The data is kept, and named: `provision share create lake/lake-data` has it again. With --delete-data
it is deleted, also when the share, or the whole deployment, is gone already.";

/// See [`super::ShareCommand::Destroy`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DestroyArgs {
    /// The deployment and the share
    #[arg(value_name = "NAME/SHARE")]
    pub target: ShareTarget,
    /// Delete the data too, for good
    #[arg(long)]
    pub delete_data: bool,
}

/// What became of a share.
#[derive(Debug, Default, Serialize)]
pub(super) struct Ended {
    pub deployment: String,
    pub share: String,
    /// Whether there was a machine.
    pub machine_removed: bool,
    /// Volumes with data that are gone.
    pub deleted: Vec<Resource>,
    /// Volumes with data that are there.
    pub kept: Vec<Resource>,
}

/// Runs the command.
pub fn run(context: &Context, args: DestroyArgs) -> Result<u8, CliError> {
    let interrupt = Interrupt::listen()?;
    let database = context.database()?;
    let ShareTarget { deployment, share } = &args.target;
    let mut ended = Ended {
        deployment: deployment.clone(),
        share: share.0.clone(),
        ..Ended::default()
    };
    if args.delete_data && database.deployment(deployment)?.is_none() {
        let deleted = kept::delete(context, &database, deployment, Some(share))?;
        if deleted.deleted.is_empty() && deleted.failed.is_empty() {
            return Err(nothing(&args.target));
        }
        return finish(Report::new(context.mode(), &[]), ended, deleted);
    }
    let (_lock, deployment) = context.locked_to_change(&database, deployment)?;
    let report = Report::new(context.mode(), &[]);
    let nodes = database.nodes(deployment.id)?;
    let is_own = |n: &&NodeRecord| n.name == *share && n.role == SHARE;
    let own = nodes.iter().find(is_own);
    match own {
        Some(node) => {
            remove_machine(context, &database, &deployment, (node, &report))?;
            ended.machine_removed = true;
        }
        // Only what it left may be there.
        None if args.delete_data => {}
        None => return find(&deployment, &nodes, share).map(|_| 0),
    }
    let deployment = context.deployment(&database, &deployment.name)?;
    let sites = Settings::of(&deployment)?.sites;
    let mut deleted = Deleted::default();
    with_engine(
        context,
        &database,
        &deployment,
        (&interrupt, &report),
        |engine| {
            if args.delete_data {
                for site in &sites {
                    let of_site = engine.delete_data_at(&site.name, Some(share))?;
                    deleted.deleted.extend(of_site.deleted);
                    deleted.failed.extend(of_site.failed);
                }
            } else if let Some(node) = own {
                // Where it was: two sites may be one host, and have the same data.
                let data = engine.data_at(&node.site)?.into_iter();
                let own = data.filter(|data| data.node.as_ref() == Some(share));
                ended.kept.extend(own.map(|data| data.resource));
            }
            Ok(())
        },
    )?;
    if !ended.machine_removed && deleted.deleted.is_empty() && deleted.failed.is_empty() {
        return Err(nothing(&args.target));
    }
    finish(report, ended, deleted)
}

fn remove_machine(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    (node, report): (&NodeRecord, &Report),
) -> Result<(), CliError> {
    let mut settings = Settings::of(deployment)?;
    settings.shares.retain(|share| share.name != node.name);
    let names = std::slice::from_ref(&node.name);
    database.rescale(deployment.id, &settings.to_json()?, &[], names)?;
    user::settle(context, database, deployment, report)
}

fn nothing(target: &ShareTarget) -> CliError {
    let ShareTarget { deployment, share } = target;
    let message = format!("there is no share `{deployment}/{share}`, and no data of one");
    CliError::new(ExitCode::Name, message)
        .hint("`provision share list` and `provision gc --dry-run` show what there is")
}

fn finish(report: Report, ended: Ended, deleted: Deleted) -> Result<u8, CliError> {
    let Deleted { deleted, failed } = deleted;
    let target = format!("{}/{}", ended.deployment, ended.share);
    let mut ended = Ended { deleted, ..ended };
    ended.kept.extend(failed.iter().map(|(r, _)| r.clone()));
    report.finish(&ended, text);
    let Some((resource, error)) = failed.into_iter().next() else {
        return Ok(0);
    };
    let message = format!(
        "{} `{}` could not be deleted",
        plain(&resource.kind),
        resource.id
    );
    Err(CliError::new(ExitCode::Leftover, message)
        .caused_by(error.one_line())
        .hint(format!(
            "repair the cause and run `provision share destroy {target} --delete-data` again"
        )))
}

pub(super) fn text(ended: &Ended) -> String {
    let target = format!("{}/{}", ended.deployment, ended.share);
    let mut out = String::new();
    if ended.machine_removed {
        out += &format!("removed: the machine of `{target}`\n");
    }
    for data in &ended.deleted {
        out += &format!("deleted: {} `{}`\n", plain(&data.kind), data.id);
    }
    for data in &ended.kept {
        out += &format!("kept: {} `{}`\n", plain(&data.kind), data.id);
    }
    if !ended.kept.is_empty() {
        out += &format!(
            "`provision share create {target}` has the data again; \
             `provision share destroy {target} --delete-data` deletes it\n"
        );
    }
    out
}
