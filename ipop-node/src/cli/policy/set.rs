//! `ipop-node policy set`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use ipop_proto::config::{AllowSection, parse_rules};

use super::super::{CliError, Exit, print};
use crate::control::{Answer, Request, ask};

/// Give the running node other rules, which it keeps.
///
/// They are in force at once, and after a restart, in place of `[[allow]]` in the configuration, which has to
/// say where they are kept: `[policy] keep`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file with `[[allow]]` and nothing else; `-` is standard input.
    #[arg(
        value_name = "RULES",
        required_unless_present = "none",
        conflicts_with = "none"
    )]
    rules: Option<PathBuf>,
    /// Have no rules: everybody reaches everybody.
    #[arg(long)]
    none: bool,
}

pub(super) fn run(set: &Args, args: &super::Args) -> Result<(), CliError> {
    if args.config.is_some() {
        return Err(CliError::new(
            Exit::Usage,
            "it is the running node that takes rules: --config is of no use here",
        ));
    }
    let rules = match &set.rules {
        None => Vec::new(),
        Some(path) => read(path)?,
    };
    let count = rules.len();
    match ask(&args.control, &Request::Rules { rules })? {
        Answer::Done => print(&match (args.json, count) {
            (true, _) => format!("{:#}\n", serde_json::json!({ "rules": count })),
            (false, 0) => "no rules from now on: everybody reaches everybody\n".to_owned(),
            (false, _) => format!("rules in force from now on: {count}\n"),
        }),
        Answer::NotDone { why } => Err(CliError::new(
            Exit::Config,
            format!("the node does not take other rules: {why}"),
        )
        .hint("change [[allow]] in its configuration, and send it SIGHUP")),
        _ => Err(CliError::new(
            Exit::NoNode,
            "the node answered something else than was asked",
        )),
    }
}

fn read(path: &Path) -> Result<Vec<AllowSection>, CliError> {
    let name = path.display();
    let failed = |error| {
        CliError::new(Exit::Config, format!("cannot read the rules in {name}")).caused_by(error)
    };
    let mut text = String::new();
    match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(path).map(|read| text = read),
    }
    .map_err(failed)?;
    let rules = parse_rules(&text).map_err(|error| {
        CliError::new(Exit::Config, format!("unusable rules in {name}")).caused_by(error)
    })?;
    match rules.is_empty() {
        true => Err(CliError::new(
            Exit::Config,
            format!("{name} has no rule: not one [[allow]]"),
        )
        .hint("--none says that everybody reaches everybody")),
        false => Ok(rules),
    }
}
