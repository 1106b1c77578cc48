//! `provision policy NAME set`.

use std::path::{Path, PathBuf};

use clap::Args;
use ipop_proto::config::AllowSection;
use serde::Serialize;

use super::tell::{Told, tell};
use crate::cli::Context;
use crate::cli::revoked::joined;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::plan::ClusterPlan;
use crate::plan::policy::read_rules;
use crate::plan::reach::{Change, changes};
use crate::report::Report;

const EXAMPLES: &str = "\
Examples:
  provision policy lake set --rules rules.toml --dry-run    what would change, for whom
  provision policy lake set --rules rules.toml
  provision policy lake set --none                          everybody reaches everybody

The rules are recorded first: machines and invitations that are made from now on have them. Then each
machine is told over SSH; what its node carries goes by them at once, and no link ends. Whoever was not
told is named, and told by `provision resume`. People's own machines keep to the rules of their
invitations as well: both ends have to allow what passes.";

/// See [`super::PolicyCommand::Set`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SetArgs {
    /// A file of rules: all that shall be in force, as [[allow]] and nothing else
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "none",
        conflicts_with = "none"
    )]
    pub rules: Option<PathBuf>,
    /// Have no rules: everybody reaches everybody
    #[arg(long)]
    pub none: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What became of it.
#[derive(Debug, Serialize)]
struct Set {
    name: String,
    /// How many rules there are now.
    rules: usize,
    changes: Vec<Change>,
    /// None where nothing was to be changed.
    #[serde(flatten)]
    told: Option<Told>,
}

/// Reads a file of rules.
pub(in crate::cli) fn read(path: &Path) -> Result<Vec<AllowSection>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|e| CliError::file("read", path, e))?;
    read_rules(&text, &path.display().to_string())
}

/// Runs the command. The exit code says whether all machines were told.
pub fn run(context: &Context, name: &str, args: &SetArgs) -> Result<u8, CliError> {
    let rules = match &args.rules {
        Some(path) => read(path)?,
        None => Vec::new(),
    };
    let database = context.database()?;
    let (_lock, deployment) = context.locked_to_change(&database, name)?;
    let nodes = database.nodes(deployment.id)?;
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    check(&plan, &rules)?;
    let mut set = Set {
        name: name.to_owned(),
        rules: rules.len(),
        changes: changes(&plan.members(), &plan.rules, &rules),
        told: None,
    };
    let report = Report::new(context.mode(), &[]);
    if args.dry_run {
        report.finish(&set, text);
        return Ok(0);
    }
    let settings = Settings {
        rules,
        ..Settings::of(&deployment)?
    };
    // First: a machine that is made meanwhile, or later, has the same.
    if settings.rules != plan.rules {
        database.set_rules(deployment.id, &settings.to_json()?, &plan.rules)?;
    }
    let deployment = context.deployment(&database, name)?;
    // Also who has them already, by what is recorded: somebody on a machine may have changed them there.
    let told = tell(context, &database, &deployment, &nodes, true)?;
    let is_partial = !told.silent.is_empty();
    set.told = Some(told);
    report.finish(&set, text);
    Ok(match is_partial {
        true => ExitCode::Unavailable as u8,
        false => 0,
    })
}

/// Checks that there may be such rules in the deployment.
fn check(plan: &ClusterPlan, rules: &[AllowSection]) -> Result<(), CliError> {
    let refused = |message: String, hint: &str| {
        Err(CliError::new(ExitCode::Usage, message).hint(hint.to_owned()))
    };
    if rules.is_empty() {
        return Ok(());
    }
    if plan.lan.is_some() {
        let message = format!(
            "`{}` extends the LAN of its front end: there are no rules in such an overlay",
            plan.name
        );
        return refused(
            message,
            "a cluster whose front end is on another site can have rules",
        );
    }
    if !plan.authority {
        let message = format!(
            "nobody says in `{}` who a member is, and in which groups",
            plan.name
        );
        return refused(
            message,
            "there are rules in clusters that this version of provision made",
        );
    }
    Ok(())
}

fn text(set: &Set) -> String {
    let Set { name, changes, .. } = set;
    let mut out = String::new();
    for Change {
        from,
        to,
        now,
        no_more,
    } in changes
    {
        let parts = [("-", no_more), ("+", now)];
        for (sign, what) in parts {
            if let Some(what) = what {
                out += &format!("{sign} {from} -> {to}: {what}\n");
            }
        }
    }
    if changes.is_empty() {
        out += "for those that are there nothing changes\n";
    }
    let Some(told) = &set.told else {
        return out + "nothing was changed: --dry-run\n";
    };
    let (have, all) = (told.told.len(), told.told.len() + told.silent.len());
    let rules = match set.rules {
        0 => "no rules are".to_owned(),
        1 => "1 rule is".to_owned(),
        count => format!("{count} rules are"),
    };
    out += &format!("{rules} in force on {have} of {all} machines\n");
    for (node, why) in &told.silent {
        out += &format!("not told: {node}: {why}\n");
    }
    if !told.silent.is_empty() {
        out += &format!(
            "`provision resume {name}` tells them; until then each keeps to its older rules\n"
        );
    }
    if !told.own.is_empty() {
        let own = joined(&told.own);
        out += &format!(
            "people's own, with the rules of their invitations besides: {own}\n\
             there, write the new ones into /etc/ipop-node/{name}/node.toml and run\n  \
             systemctl kill --signal SIGHUP ipop-node@{name}\n\
             or join again with another invitation (`provision user invite {name} PERSON --again`)\n"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NodeName;
    use crate::plan::tests::{demo, rules};

    #[test]
    fn rules_are_refused_where_nobody_could_go_by_them() {
        let plan = demo();
        check(&plan, &rules()).expect("an authority, and no LAN");
        let without = ClusterPlan {
            authority: false,
            ..plan.clone()
        };
        check(&without, &[]).expect("no rules");
        let error = check(&without, &rules()).expect_err("no authority");
        assert_eq!(error.code, ExitCode::Usage);
        assert!(error.message.contains("`demo`"), "{error}");
    }

    #[test]
    fn what_changes_and_who_was_told_is_said() {
        let plan = demo();
        let name = |name: &str| NodeName(name.to_owned());
        let mut set = Set {
            name: "demo".to_owned(),
            rules: 2,
            changes: vec![Change {
                from: "alice".to_owned(),
                to: "frontend-0".to_owned(),
                now: Some("udp/53".to_owned()),
                no_more: Some("tcp/22".to_owned()),
            }],
            told: Some(Told {
                told: plan.nodes[..1]
                    .iter()
                    .map(|node| node.name.clone())
                    .collect(),
                silent: [(name("worker-0"), "no answer in time".to_owned())].into(),
                own: vec![name("alice")],
            }),
        };
        insta::assert_snapshot!("set", text(&set));
        insta::assert_json_snapshot!("set_json", set);
        set.told = None;
        insta::assert_snapshot!("set_dry_run", text(&set));
    }
}
