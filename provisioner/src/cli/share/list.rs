//! `provision share list`.

use clap::Args;
use serde::Serialize;

use super::{member_names, with_engine};
use crate::cli::Context;
use crate::deploy::interrupt::Interrupt;
use crate::deploy::settings::Settings;
use crate::error::CliError;
use crate::event::{Event, Sink};
use crate::plan::share::Share;
use crate::report::Report;
use crate::report::table::table;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

/// See [`super::ShareCommand::List`].
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The deployment [default: all]
    pub name: Option<String>,
}

/// All shares, and data without one.
#[derive(Debug, Default, Serialize)]
pub(super) struct Listed {
    pub shares: Vec<Line>,
    pub kept: Vec<Kept>,
}

#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub deployment: String,
    #[serde(flatten)]
    pub share: Share,
    pub site: String,
    pub ipv4: String,
    pub ipv6: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Kept {
    pub deployment: String,
    pub share: String,
    pub site: String,
    pub volume: String,
}

/// Runs the command.
pub fn run(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let database = context.database()?;
    let deployments = match &args.name {
        Some(name) => vec![context.deployment(&database, name)?],
        None => database.deployments()?,
    };
    let report = Report::new(context.mode(), &[]);
    let mut listed = Listed::default();
    for deployment in &deployments {
        list(context, &database, deployment, &report, &mut listed)?;
    }
    report.finish(&listed, text);
    Ok(0)
}

fn list(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    report: &Report,
    listed: &mut Listed,
) -> Result<(), CliError> {
    let settings = Settings::of(deployment)?;
    let nodes = database.nodes(deployment.id)?;
    let node = |share: &Share| {
        let mut nodes = nodes.iter().filter(|n: &&NodeRecord| n.wanted);
        nodes.find(|n| n.name == share.name)
    };
    for share in &settings.shares {
        let Some(node) = node(share) else { continue };
        listed.shares.push(Line {
            deployment: deployment.name.clone(),
            share: share.clone(),
            site: node.site.clone(),
            ipv4: node.ipv4.clone(),
            ipv6: node.ipv6.clone(),
        });
    }
    let interrupt = Interrupt::default();
    with_engine(
        context,
        database,
        deployment,
        (&interrupt, report),
        |engine| {
            for site in &settings.sites {
                let found = match engine.data_at(&site.name) {
                    Ok(found) => found,
                    Err(error) => {
                        let (site, why) = (&site.name, error.one_line());
                        report.emit(Event::Warning {
                            message: format!(
                                "site {site} cannot be asked what data is kept: {why}"
                            ),
                        });
                        continue;
                    }
                };
                for data in found {
                    let Some(name) = data.node else { continue };
                    if settings.shares.iter().any(|s| s.name == name) {
                        continue;
                    }
                    listed.kept.push(Kept {
                        deployment: deployment.name.clone(),
                        share: name.0,
                        site: site.name.clone(),
                        volume: data.resource.id,
                    });
                }
            }
            Ok(())
        },
    )
}

pub(super) fn text(listed: &Listed) -> String {
    let row = |line: &Line| {
        vec![
            format!("{}/{}", line.deployment, line.share.name),
            line.site.clone(),
            format!("{} GiB", line.share.size_gib),
            line.ipv4.clone(),
            member_names(&line.share),
        ]
    };
    let rows: Vec<_> = listed.shares.iter().map(row).collect();
    let mut out = match rows.is_empty() {
        true => "there are no shares; `provision share create` makes one\n".to_owned(),
        false => table(&["SHARE", "SITE", "SIZE", "IPV4", "MEMBERS"], &rows),
    };
    for kept in &listed.kept {
        let target = format!("{}/{}", kept.deployment, kept.share);
        out += &format!(
            "data of `{target}` is kept on {}, without a share: {}\n",
            kept.site, kept.volume
        );
    }
    out
}
