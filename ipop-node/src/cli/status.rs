//! `ipop-node status`.

use std::path::{Path, PathBuf};

use ipop_proto::status::NodeStatus;

use super::table::table;
use super::{CliError, Exit, print};
use crate::control::{self, Answer, Request};

/// Show how the running node is.
///
/// Addresses, standing with the XMPP server, every peer with the state of its link, the candidate
/// pair in use, round-trip time and traffic, why a peer has no link, and what was dropped and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print everything as one JSON object.
    #[arg(long)]
    json: bool,
    /// Control socket of the node.
    #[arg(long, value_name = "PATH", default_value_os_t = control::default_path())]
    control: PathBuf,
}

/// Asks the node with this control socket.
pub(super) fn ask(control: &Path) -> Result<NodeStatus, CliError> {
    match control::ask(control, &Request::Status)? {
        Answer::Status(status) => Ok(*status),
        _ => Err(CliError::new(
            Exit::NoNode,
            "the node answered something else than its status",
        )),
    }
}

pub fn run(args: &Args) -> Result<(), CliError> {
    let status = ask(&args.control)?;
    if args.json {
        let json = serde_json::to_string_pretty(&status).map_err(|error| {
            CliError::new(Exit::System, "cannot write the status as JSON").caused_by(error)
        })?;
        return print(&format!("{json}\n"));
    }
    print(&table(&status))
}
