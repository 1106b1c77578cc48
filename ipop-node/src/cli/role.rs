//! `ipop-node role`.

use std::path::PathBuf;

use clap::Subcommand;
use ipop_proto::status::RoleState;

use super::CliError;
use crate::control::{self, Request};

/// Longest detail told to the other members, in characters.
const LONGEST_DETAIL: usize = 200;

/// Report whether the services of this machine's role work.
///
/// Called by the role's health check. The running node tells the other members, and whoever waits
/// for the cluster to come up.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    state: State,
    /// Control socket of the node.
    #[arg(long, value_name = "PATH", default_value_os_t = control::default_path(), global = true)]
    control: PathBuf,
}

#[derive(Debug, Subcommand)]
enum State {
    /// The role's services work.
    Ready,
    /// They do not.
    Failed {
        /// What is wrong, in one line; the beginning is shown to whoever waits for the node.
        #[arg(long, value_name = "TEXT", default_value = "")]
        detail: String,
    },
}

pub fn run(args: Args) -> Result<(), CliError> {
    let role = match args.state {
        State::Ready => RoleState::Ready,
        State::Failed { detail } => RoleState::Failed {
            detail: one_line(&detail),
        },
    };
    control::ask(&args.control, &Request::Role { role })?;
    Ok(())
}

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(LONGEST_DETAIL).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_becomes_one_short_line() {
        assert_eq!(
            one_line(" mount failed:\n  timeout\n"),
            "mount failed: timeout"
        );
        assert_eq!(one_line(&"ä".repeat(300)).chars().count(), LONGEST_DETAIL);
    }
}
