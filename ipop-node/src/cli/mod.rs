//! The command line. One file per subcommand.

mod approve;
mod authority;
mod check;
mod error;
mod identity;
mod join;
mod metadata;
mod peers;
mod policy;
mod role;
mod run;
mod status;
mod table;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::{CliError, Exit};

/// A node of a private overlay network.
///
/// Gives this machine an IPv4 and an IPv6 address on an overlay and carries packets to the other
/// members over direct, encrypted links (ICE and DTLS), through a TURN relay where there is no
/// direct path. Members find each other by presence on an XMPP server, or know each other by
/// configuration.
#[derive(Debug, Parser)]
#[command(name = "ipop-node", version, max_term_width = 100, after_long_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Status(status::Args),
    Peers(peers::Args),
    Approve(approve::Args),
    Forget(approve::ForgetArgs),
    Role(role::Args),
    Check(check::Args),
    Policy(policy::Args),
    Identity(identity::Args),
    Join(join::Args),
    Leave(join::LeaveArgs),
    Authority(authority::Args),
    #[command(hide = true)]
    Metadata(metadata::Args),
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  an operating system error, or a defect of ipop-node
  2  wrong arguments
  3  the configuration, or a file it names, is defective or cannot be read
  4  another ipop-node already uses the control socket
  5  no ipop-node answers on the control socket
  6  the TUN device cannot be made, for want of permission or because its name is taken
  7  the rendezvous refuses this machine
  8  the machine has joined and is not linked yet
  9  the peer is not one to approve or to forget

Environment:
  CREDENTIALS_DIRECTORY  where relative paths are looked up first (set by systemd)
  NOTIFY_SOCKET          where readiness is reported (set by systemd)
  STATE_DIRECTORY        where the newest revocation list and approved peers are kept (set by
                         systemd), unless authority.keep or pinning.keep says so
  RUST_LOG               what is logged to standard error, unless --log says so

Files:
  /run/ipop-node/control.sock  the control socket, unless node.control says otherwise";

/// Parses the arguments and does what they say.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Peers(args) => peers::run(&args),
        Command::Approve(args) => approve::run(&args),
        Command::Forget(args) => approve::forget(&args),
        Command::Role(args) => role::run(args),
        Command::Check(args) => check::run(&args),
        Command::Policy(args) => policy::run(args),
        Command::Identity(args) => identity::run(&args),
        Command::Join(args) => join::run(&args),
        Command::Leave(args) => join::leave(&args),
        Command::Authority(args) => authority::run(args),
        Command::Metadata(args) => metadata::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(error.exit as u8)
        }
    }
}

/// Writes to standard output. A reader that went away is no error.
fn print(text: &str) -> Result<(), CliError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::new(Exit::System, "cannot write to standard output").caused_by(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_text_is_as_reviewed() {
        let mut command = Cli::command();
        command.build();
        let mut text = command
            .clone()
            .term_width(100)
            .render_long_help()
            .to_string();
        add_help("", &command, &mut text);
        insta::assert_snapshot!(text);
    }

    /// Adds the help of every subcommand below `command`, which is called `path`.
    fn add_help(path: &str, command: &clap::Command, text: &mut String) {
        for subcommand in command.get_subcommands() {
            if subcommand.get_name() == "help" {
                continue;
            }
            let path = format!("{path} {}", subcommand.get_name());
            let help = subcommand.clone().term_width(100).render_long_help();
            text.push_str(&format!("\n---- {} ----\n{help}", path.trim_start()));
            add_help(&path, subcommand, text);
        }
    }
}
