//! `provision share members`, and what follows for shares when members come and go.

use clap::Args;
use serde::Serialize;

use super::status::exported_to;
use super::{ShareTarget, find, machine, member_names, record};
use crate::cli::Context;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::plan::share::{EVERYONE, Share, check_members};
use crate::plan::{ClusterPlan, SHARE};
use crate::report::Report;
use crate::state::Database;
use crate::state::record::NodeRecord;

const EXAMPLES: &str = "\
Examples:
  provision share members lake/lake-data                           who they are
  provision share members lake/lake-data --add bob --add worker-3
  provision share members lake/lake-data --remove all --add alice

It is in force at once: who is a member no more loses what is mounted. It stays so when the share's
machine starts again, or another takes its place. Without a change the machine is told again.";

/// See [`super::ShareCommand::Members`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MembersArgs {
    /// The deployment and the share
    #[arg(value_name = "NAME/SHARE")]
    pub target: ShareTarget,
    /// Who may mount it too: nodes, persons with all their machines, `group:NAME`, or `all` of the
    /// overlay; may be repeated
    #[arg(long, value_name = "WHO", value_delimiter = ',')]
    pub add: Vec<String>,
    /// Who may mount it no more; may be repeated
    #[arg(long, value_name = "WHO", value_delimiter = ',')]
    pub remove: Vec<String>,
}

/// Who the members are now.
#[derive(Debug, Serialize)]
pub(super) struct Changed {
    pub deployment: String,
    #[serde(flatten)]
    pub share: Share,
    pub exported_to: Vec<String>,
}

/// Runs the command.
pub fn run(context: &Context, args: MembersArgs) -> Result<u8, CliError> {
    let database = context.database()?;
    let ShareTarget { deployment, share } = &args.target;
    let (_lock, deployment) = context.locked_to_change(&database, deployment)?;
    let nodes = database.nodes(deployment.id)?;
    let (mut share, node) = find(&deployment, &nodes, share)?;
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    check_members(&plan, &nodes, &args.add.iter().cloned().collect())?;
    if let Some(stranger) = args.remove.iter().find(|m| !share.members.contains(*m)) {
        let message = format!(
            "`{stranger}` is no member of `{}/{}`",
            deployment.name, share.name
        );
        return Err(CliError::new(ExitCode::Name, message)
            .hint(format!("its members are: {}", member_names(&share))));
    }
    share.members.retain(|m| !args.remove.contains(m));
    share.members.extend(args.add);
    // First: a machine that is made meanwhile, or later, is told the same.
    record(&database, &deployment, &share)?;
    let deployment = context.deployment(&database, &deployment.name)?;
    let told = machine::take_exports(context, &database, &deployment, &nodes, &node);
    told.map_err(|error| {
        let again = format!("provision share members {}/{}", deployment.name, share.name);
        error
            .hint("the change is recorded, and its machine does not know of it")
            .hint(format!("`{again}` tells it again"))
    })?;
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    let planned = plan.shares.iter().find(|s| s.share.name == share.name);
    let changed = Changed {
        deployment: deployment.name,
        exported_to: planned.map_or_else(Vec::new, |s| s.exported_to(&plan)),
        share,
    };
    Report::new(context.mode(), &[]).finish(&changed, text);
    Ok(0)
}

pub(super) fn text(changed: &Changed) -> String {
    let target = format!("{}/{}", changed.deployment, changed.share.name);
    let who = match changed.share.members.is_empty() {
        true => "nobody".to_owned(),
        false => member_names(&changed.share),
    };
    let exported_to = exported_to(&changed.exported_to);
    format!("`{target}` may be mounted by: {who}\nexported to: {exported_to}\n")
}

/// After nodes or people came or went: takes those who are no more out of the members, since another may
/// have that name one day, and tells the shares' machines by which addresses their members are known now,
/// since another may have that address. A machine that cannot be told is warned of. The deployment must be
/// locked.
pub fn refresh(
    context: &Context,
    database: &Database,
    name: &str,
    events: &dyn Sink,
) -> Result<(), CliError> {
    let deployment = context.deployment(database, name)?;
    let nodes = database.nodes(deployment.id)?;
    let mut settings = Settings::of(&deployment)?;
    // What is open to everyone does not change.
    let is_open = |share: &Share| share.members.contains(EVERYONE);
    if settings.shares.iter().all(is_open) {
        return Ok(());
    }
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    for share in &mut settings.shares {
        share.members.retain(|m| plan.has_member(&nodes, m));
    }
    let text = settings.to_json()?;
    if text != deployment.settings {
        database.set_settings(deployment.id, &text)?;
    }
    let deployment = context.deployment(database, name)?;
    for share in settings.shares.iter().filter(|share| !is_open(share)) {
        let is_own = |n: &&NodeRecord| n.name == share.name && n.role == SHARE && n.wanted;
        let Some(node) = nodes.iter().find(is_own) else {
            continue;
        };
        let told = machine::take_exports(context, database, &deployment, &nodes, node);
        if let Err(error) = told {
            let (share, why) = (&share.name, error.one_line());
            events.emit(Event::Warning {
                message: format!(
                    "share `{share}` still goes by the addresses that its members had: {why}; \
                     `provision share members {name}/{share}` tells it again"
                ),
            });
        }
    }
    Ok(())
}
