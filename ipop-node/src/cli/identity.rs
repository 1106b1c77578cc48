//! `ipop-node identity`.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ipop_proto::link::Identity;

use super::{CliError, Exit, print};
use crate::settings::read_identity;

/// Show the fingerprint that peers know a node by, or make a new identity.
///
/// An identity is a key and a self-signed certificate in one PEM file. A node whose configuration
/// names that file (`node.identity`) shows the same certificate on every run, so that other nodes
/// can have its fingerprint in their configuration (`peer.fingerprint`) and need no server to meet
/// it. Nothing but the fingerprint is to be passed on: whoever has the file can pass for the node.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLE)]
pub struct Args {
    /// PEM file with a PKCS#8 key (ECDSA P-256) and its certificate.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Make the file, readable for its owner alone; one that exists is not replaced.
    #[arg(long)]
    create: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Two machines without a server; on each:
  ipop-node identity --create /etc/ipop/identity.pem
and in its configuration, with what that printed on the other machine:
  [node]
  name = \"a\"
  identity = \"/etc/ipop/identity.pem\"
  [ice]
  port = 4915
  [[peer]]
  name = \"b\"
  ipv4 = \"10.73.0.2\"
  ipv6 = \"fd5a::2\"
  fingerprint = \"AA:BB:…\"
  endpoints = [\"198.51.100.2:4915\"]   # none for a machine that cannot be reached from outside";

pub fn run(args: &Args) -> Result<(), CliError> {
    let identity = if args.create {
        create(&args.file)?
    } else {
        read_identity(&args.file)?
    };
    let fingerprint = identity.fingerprint().to_string();
    if args.json {
        let json = serde_json::json!({ "file": args.file, "fingerprint": fingerprint });
        return print(&format!("{json:#}\n"));
    }
    print(&format!("{fingerprint}\n"))
}

fn create(path: &Path) -> Result<Identity, CliError> {
    let defect = |error| CliError::of(Exit::System, error);
    let identity = Identity::generate().map_err(defect)?;
    let text = identity.to_pem().map_err(defect)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(identity),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let what = format!("the file {} exists and is not replaced", path.display());
            Err(CliError::new(Exit::Config, what)
                .hint("without --create its fingerprint is shown; remove it to make another one"))
        }
        Err(error) => {
            let what = format!("cannot write the identity file {}", path.display());
            Err(CliError::new(Exit::Config, what).caused_by(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_identity_is_made_once_for_its_owner_alone_and_read_back() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("identity.pem");
        let made = create(&path).expect("made").fingerprint();
        let mode = path.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(read_identity(&path).expect("read").fingerprint(), made);
        let error = create(&path).expect_err("it exists");
        assert_eq!(error.exit, Exit::Config);
        assert!(error.to_string().contains("is not replaced\nhint: "));
        assert_eq!(read_identity(&path).expect("read").fingerprint(), made);
    }
}
