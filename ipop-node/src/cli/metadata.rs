//! `ipop-node metadata`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{CliError, Exit, print};
use crate::metadata::{self, ENDPOINT, MetadataError};

/// Fetch this EC2 instance's user data and write the credentials in it, for root alone.
///
/// For the image's own unit: it speaks version 2 of the instance metadata service, and asks again
/// until the service answers or the time is over.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to write the credentials to; what is in it is replaced.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Where the service answers.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = ENDPOINT)]
    endpoint: SocketAddr,
    /// Longest time to ask for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
}

pub fn run(args: &Args) -> Result<(), CliError> {
    let user_data = metadata::fetch(args.endpoint, Duration::from_secs(args.limit))?;
    let count = metadata::install(&user_data, &args.to)?;
    print(&format!("{count} credentials in {}\n", args.to.display()))
}

impl From<MetadataError> for CliError {
    fn from(error: MetadataError) -> Self {
        let (exit, hint) = match &error {
            MetadataError::NoAnswer { .. } => (
                Exit::System,
                "is the network up, and the metadata service on, with a hop limit of at least 1?",
            ),
            MetadataError::Refused { .. } => (
                Exit::System,
                "switch the instance's metadata service on, and its version 2",
            ),
            MetadataError::Absent | MetadataError::UserData(_) => (
                Exit::Config,
                "this image is started by `provision`, which writes the user data",
            ),
            MetadataError::Write { .. } => (Exit::System, "run this as root"),
        };
        Self::of(exit, error).hint(hint)
    }
}
