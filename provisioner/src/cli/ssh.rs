//! `provision ssh`: a shell or a command on a node.

use std::net::IpAddr;
use std::process::Command;

use clap::Args;

use super::Context;
use super::target::{ALL, Target};
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::name::{NodeName, suggestion};
use crate::plan::FRONTEND;
use crate::provider;
use crate::ssh::command::{Hop, arguments};
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

const EXAMPLES: &str = "\
Examples:
  provision ssh cluster/worker-0                        a shell
  provision ssh cluster/worker-0 -- 'ls /share | wc -l' one word: a line of shell
  provision ssh cluster/worker-0 -- touch '/share/a b'  several: a program and its arguments
  provision ssh cluster/all -- uptime                   one node after the other

Workers are reached over the overlay, through the front end. The keys are the deployment's own; host
keys are known beforehand and checked strictly. The exit code is the command's own; 255 is ssh's.";

/// ssh's own failure.
const SSH_FAILED: u8 = 255;

/// Run a command or a shell on a node, over the overlay.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SshArgs {
    /// The node, or `all` for a command on every node
    #[arg(value_name = "NAME/NODE")]
    pub target: Target,
    /// The command [default: a shell]
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// Runs the command.
pub fn run(context: &Context, args: SshArgs) -> Result<u8, CliError> {
    let database = context.database()?;
    let deployment = context.deployment(&database, &args.target.deployment)?;
    let nodes = database.nodes(deployment.id)?;
    if args.target.node != ALL {
        let node = node(&deployment, &nodes, &args.target.node)?;
        let mut ssh = command(context, &database, &deployment, &nodes, node, &args.command)?;
        return status(&mut ssh);
    }
    if args.command.is_empty() {
        return Err(
            CliError::new(ExitCode::Usage, "`all` needs a command").hint(format!(
                "like `provision ssh {}/all -- uptime`",
                deployment.name
            )),
        );
    }
    let mut worst = 0;
    for node in &nodes {
        println!("== {}", node.name);
        let mut ssh = command(context, &database, &deployment, &nodes, node, &args.command)?;
        worst = worst.max(status(&mut ssh)?);
    }
    Ok(worst)
}

/// The node of this name, or which it might have been.
pub fn node<'a>(
    deployment: &Deployment,
    nodes: &'a [NodeRecord],
    name: &str,
) -> Result<&'a NodeRecord, CliError> {
    if let Some(node) = nodes.iter().find(|n| n.name.0 == name) {
        return Ok(node);
    }
    let names: Vec<_> = nodes.iter().map(|n| n.name.0.clone()).collect();
    let error = CliError::new(
        ExitCode::Name,
        format!("`{}` has no node `{name}`", deployment.name),
    );
    Err(match suggestion(name, &names) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("its nodes are {}", names.join(", "))),
    })
}

/// The `ssh` that runs `words` on a node.
pub fn command(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    nodes: &[NodeRecord],
    node: &NodeRecord,
    words: &[String],
) -> Result<Command, CliError> {
    let frontend = nodes.iter().find(|n| n.role == FRONTEND).unwrap_or(node);
    let addr = underlay(context, database, deployment, frontend)?;
    let front = Hop {
        node: frontend.name.clone(),
        addr: addr.to_string(),
    };
    let dir = context.layout.ssh(&deployment.name);
    let args = if node.name == frontend.name {
        arguments(&dir, &deployment.name, None, &front, words)
    } else {
        let target = Hop {
            node: node.name.clone(),
            addr: node.ipv4.clone(),
        };
        arguments(&dir, &deployment.name, Some(&front), &target, words)
    };
    let mut command = Command::new("ssh");
    command.args(args);
    Ok(command)
}

/// The front end's address on its host's network: asked for, and kept for when the host cannot be
/// asked.
fn underlay(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    node: &NodeRecord,
) -> Result<IpAddr, CliError> {
    let settings = Settings::of(deployment)?;
    let asked = provider::open(&context.layout, settings.site(&node.site)?)
        .and_then(|provider| provider.machines(&deployment.tags()))
        .map(|machines| machines.get(&node.name).and_then(|m| m.underlay));
    let kept = node.underlay.as_deref().and_then(|a| a.parse().ok());
    match (asked, kept) {
        (Ok(Some(addr)), _) => {
            database.set_underlay(deployment.id, &node.name, &addr.to_string())?;
            Ok(addr)
        }
        (_, Some(kept)) => Ok(kept),
        (Ok(None), None) => Err(no_address(deployment, &node.name)),
        (Err(error), None) => Err(error),
    }
}

fn no_address(deployment: &Deployment, node: &NodeName) -> CliError {
    let name = &deployment.name;
    CliError::new(
        ExitCode::Unavailable,
        format!("`{name}/{node}` has no address on its host"),
    )
    .hint(format!("`provision status {name}` shows whether it runs"))
    .hint(format!(
        "`provision logs {name}/{node} --console` shows how far it came"
    ))
}

/// Runs `ssh` and passes its exit status on.
fn status(ssh: &mut Command) -> Result<u8, CliError> {
    let status = ssh
        .status()
        .map_err(|e| CliError::program("ssh", "openssh-client", e))?;
    Ok(status
        .code()
        .and_then(|c| u8::try_from(c).ok())
        .unwrap_or(SSH_FAILED))
}
