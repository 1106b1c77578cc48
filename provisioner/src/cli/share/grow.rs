//! `provision share grow`.

use clap::Args;
use serde::Serialize;

use super::machine::{self, Space};
use super::{ShareTarget, find, record, with_engine};
use crate::cli::Context;
use crate::deploy::fault;
use crate::deploy::interrupt::Interrupt;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::plan::SHARE;
use crate::plan::share::Share;
use crate::provider::MachineState;
use crate::report::Report;
use crate::size::Gibibytes;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

const EXAMPLES: &str = "\
Examples:
  provision share grow lake/lake-data --size 40G

The volume and its file system grow while the share serves, and what has it mounted goes on. If its
machine does not run, the file system grows at its next start. No share is ever made smaller. What
was stopped is finished by the same command again, or by `provision resume lake`.";

/// See [`super::ShareCommand::Grow`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GrowArgs {
    /// The deployment and the share
    #[arg(value_name = "NAME/SHARE")]
    pub target: ShareTarget,
    /// How large it shall be: its old size and what is to come
    #[arg(long, value_name = "SIZE")]
    pub size: Gibibytes,
}

/// How large a share is now.
#[derive(Debug, Serialize)]
pub(super) struct Grown {
    pub deployment: String,
    #[serde(flatten)]
    pub share: Share,
    /// How full it is; unknown while its machine does not run, whose start grows the file system.
    pub space: Option<Space>,
}

/// Runs the command.
pub fn run(context: &Context, args: GrowArgs) -> Result<u8, CliError> {
    let interrupt = Interrupt::listen()?;
    let database = context.database()?;
    let ShareTarget { deployment, share } = &args.target;
    let (_lock, deployment) = context.locked_to_change(&database, deployment)?;
    let nodes = database.nodes(deployment.id)?;
    let (share, node) = find(&deployment, &nodes, share)?;
    let share = larger(&deployment.name, share, args.size)?;
    // First: a machine that is made meanwhile, or later, has a volume of that size.
    record(&database, &deployment, &share)?;
    fault::at("grow-recorded");
    let name = &deployment.name;
    interrupt.advise(format!("provision resume {name}"));
    let report = Report::new(context.mode(), &[]);
    let deployment = context.deployment(&database, name)?;
    let serves = carry_out(
        context,
        &database,
        &deployment,
        (&node, &share),
        (&interrupt, &report),
    )?;
    let space = match serves {
        true => machine::ask(context, &database, &deployment, &nodes, &node)?.space,
        false => None,
    };
    let grown = Grown {
        deployment: deployment.name,
        share: Share {
            growing: false,
            ..share
        },
        space,
    };
    report.finish(&grown, text);
    Ok(0)
}

/// Gives the shares of a deployment the size that they shall have and perhaps have not. The deployment must be
/// locked, and made.
pub fn finish(
    context: &Context,
    database: &Database,
    name: &str,
    (interrupt, report): (&Interrupt, &Report),
) -> Result<(), CliError> {
    let deployment = context.deployment(database, name)?;
    let nodes = database.nodes(deployment.id)?;
    let shares = Settings::of(&deployment)?.shares;
    for share in shares.iter().filter(|share| share.growing) {
        let is_own = |n: &&NodeRecord| n.name == share.name && n.role == SHARE && n.wanted;
        let Some(node) = nodes.iter().find(is_own) else {
            continue;
        };
        // As another share has left it.
        let deployment = context.deployment(database, name)?;
        let what = (node, share);
        carry_out(context, database, &deployment, what, (interrupt, report))?;
    }
    Ok(())
}

/// The share with its new size: what was not finished can be asked for again, less than there is cannot.
fn larger(deployment: &str, share: Share, size: Gibibytes) -> Result<Share, CliError> {
    let (name, has) = (&share.name, share.size_gib);
    if size.0 < has {
        let message = format!("`{deployment}/{name}` has {has} GiB, and never less");
        return Err(CliError::new(ExitCode::Usage, message)
            .hint(format!("give a --size of more than {has}G"))
            .hint("a smaller share is another one, to which a member copies the files"));
    }
    Ok(Share {
        size_gib: size.0,
        growing: true,
        ..share
    })
}

/// Grows the volume, then the file system on it, and records that it is done. Says whether its machine runs.
fn carry_out(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    (node, share): (&NodeRecord, &Share),
    (interrupt, report): (&Interrupt, &Report),
) -> Result<bool, CliError> {
    let bytes = u64::from(share.size_gib) << 30;
    let at = (interrupt, report);
    let runs = with_engine(context, database, deployment, at, |engine| {
        engine.grow_data(node, bytes)?;
        fault::at("volume-grown");
        let provider = engine.parts.provider(engine.settings.site(&node.site)?)?;
        let machines = provider.machines(&deployment.tags())?;
        let own = machines.get(&node.name);
        Ok(own.is_some_and(|m| m.state == MachineState::Running))
    });
    let grown = runs.and_then(|runs| {
        if runs {
            let nodes = database.nodes(deployment.id)?;
            machine::grow(context, database, deployment, &nodes, node, bytes)?;
            fault::at("guest-told");
        }
        Ok(runs)
    });
    let runs = grown.map_err(|error| {
        let name = &deployment.name;
        let hint = format!("its size is recorded: `provision resume {name}` finishes it");
        error.hint(hint)
    })?;
    let done = Share {
        growing: false,
        ..share.clone()
    };
    record(database, deployment, &done)?;
    Ok(runs)
}

pub(super) fn text(grown: &Grown) -> String {
    let (name, size) = (&grown.share.name, grown.share.size_gib);
    let target = format!("{}/{name}", grown.deployment);
    match grown.space {
        Some(space) => format!(
            "`{target}` has {size} GiB now: {} of {} MiB used\n",
            space.used_bytes >> 20,
            space.size_bytes >> 20
        ),
        None => format!(
            "the volume of `{target}` has {size} GiB now; its file system grows when its machine starts\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NodeName;

    fn share() -> Share {
        Share {
            name: NodeName("lake-data".to_owned()),
            size_gib: 20,
            members: ["alice".to_owned()].into(),
            growing: false,
            restoring: None,
        }
    }

    #[test]
    fn a_share_grows_and_is_asked_again_and_never_shrinks() {
        for size in [20, 40] {
            let larger = larger("lake", share(), Gibibytes(size)).expect("larger");
            assert_eq!((larger.size_gib, larger.growing), (size, true));
            assert_eq!(larger.members, share().members);
        }
        let refused = larger("lake", share(), Gibibytes(19)).expect_err("smaller");
        assert_eq!(refused.code, ExitCode::Usage);
        assert!(refused.message.contains("`lake/lake-data` has 20 GiB"));
    }

    #[test]
    fn settings_from_before_shares_grew_are_read_and_written_as_they_were() {
        let old = r#"{"name":"lake-data","size_gib":20,"members":["alice"]}"#;
        let read: Share = serde_json::from_str(old).expect("read");
        assert_eq!(read, share());
        assert_eq!(serde_json::to_string(&read).expect("written"), old);
        let grows = Share {
            growing: true,
            ..share()
        };
        let written = serde_json::to_string(&grows).expect("written");
        let again: Share = serde_json::from_str(&written).expect("read");
        assert_eq!(again, grows);
    }
}
