//! `provision logs`: what a node said on its console, and what its service logged.

use clap::Args;

use super::Context;
use super::target::Target;
use crate::deploy::join::last_lines;
use crate::deploy::settings::Settings;
use crate::error::CliError;
use crate::provider;

const EXAMPLES: &str = "\
Examples:
  provision logs cluster/worker-0
  provision logs cluster/worker-0 --console -n 200";

/// Bytes of a console that are read.
const CONSOLE_BYTES: usize = 4 << 20;

/// Show the console and the service log of a node.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LogsArgs {
    /// The node
    #[arg(value_name = "NAME/NODE")]
    pub target: Target,
    /// Only the console, which also a node that cannot be reached has
    #[arg(long)]
    pub console: bool,
    /// Only this many lines of each log, from its end
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub lines: Option<usize>,
}

/// Runs the command.
pub fn run(context: &Context, args: LogsArgs) -> Result<u8, CliError> {
    let database = context.database()?;
    let deployment = context.deployment(&database, &args.target.deployment)?;
    let nodes = database.nodes(deployment.id)?;
    let node = super::ssh::node(&deployment, &nodes, &args.target.node)?;
    let settings = Settings::of(&deployment)?;
    let console = provider::open(&context.layout, settings.site(&node.site)?)
        .and_then(|provider| provider.console(&deployment.tags(), &node.name, CONSOLE_BYTES));
    if !args.console {
        println!("== console of {}", node.name);
    }
    match console {
        Ok(text) => {
            let lines = last_lines(&text, args.lines.unwrap_or(usize::MAX));
            lines.iter().for_each(|line| println!("{line}"));
        }
        Err(error) if args.console => return Err(error),
        Err(error) => eprintln!("warning: {}", error.message),
    }
    if args.console {
        return Ok(0);
    }
    println!("== ipop-node of {}", node.name);
    let count = args
        .lines
        .map_or("all".to_owned(), |lines| lines.to_string());
    let words = [format!(
        "journalctl --no-pager -o short-iso -u ipop-node -n {count}"
    )];
    let output = super::ssh::command(context, &database, &deployment, &nodes, node, &words)
        .and_then(|mut ssh| {
            ssh.output()
                .map_err(|e| CliError::program("ssh", "openssh-client", e))
        });
    match output {
        Ok(output) if output.status.success() => {
            print!("{}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            eprintln!("warning: {} cannot be reached: {}", node.name, why.trim());
        }
        Err(error) => eprintln!("warning: {}", error.message),
    }
    Ok(0)
}
