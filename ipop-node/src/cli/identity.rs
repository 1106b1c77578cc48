//! `ipop-node identity`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use ipop_proto::authority::issue::Subject;
use ipop_proto::link::Identity;

use super::{CliError, Exit, print};
use crate::file::{self, SECRET};
use crate::settings::{credentials_directory, read_config, read_identity};

/// Show the fingerprint that peers know a node by, make a new identity, or have it certified.
///
/// An identity is a key and a certificate in one PEM file, self-signed at first. A node whose
/// configuration names that file (`node.identity`) shows the same certificate on every run, so that
/// other nodes can have its fingerprint in their configuration (`peer.fingerprint`) and need no server
/// to meet it. Nothing but the fingerprint is to be passed on: whoever has the file can pass for the
/// node.
///
/// In an overlay with an authority (`[authority]`) the certificate is one that the authority signed:
/// `--request` prints a request for one, and `--install` takes what came of it. A node that runs takes
/// it over on SIGHUP, without losing its links.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLE)]
pub struct Args {
    /// PEM file with a PKCS#8 key (ECDSA P-256) and its certificate.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Make the file, readable for its owner alone; one that exists is not replaced.
    #[arg(long)]
    create: bool,
    /// Print a request for a certificate (PKCS#10, PEM) with the name and the addresses in this
    /// configuration file. The key is not in it.
    #[arg(long, value_name = "CONFIG", conflicts_with_all = ["install", "json"])]
    request: Option<PathBuf>,
    /// What the node does in the overlay, for the certificate.
    #[arg(long, value_name = "ROLE", requires = "request")]
    role: Option<String>,
    /// Put this certificate (PEM), and those that follow it, in the place of the file's. The key
    /// stays, and has to be the certificate's.
    #[arg(long, value_name = "CERTIFICATE", conflicts_with = "create")]
    install: Option<PathBuf>,
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
  endpoints = [\"198.51.100.2:4915\"]   # none for a machine that cannot be reached from outside

A node of an overlay with an authority, whose key never leaves it:
  ipop-node identity --create /etc/ipop/identity.pem --request /etc/ipop/node.toml > a.csr
  ipop-node authority sign --key authority.key --certificate authority.pem a.csr > a.pem   # its owner
  ipop-node identity /etc/ipop/identity.pem --install a.pem
  systemctl kill --signal SIGHUP ipop-node@node      # when it runs already";

pub fn run(args: &Args) -> Result<(), CliError> {
    let identity = match (&args.install, args.create) {
        (Some(certificate), _) => install(&args.file, certificate)?,
        (None, true) => create(&args.file)?,
        (None, false) => read_identity(&args.file)?,
    };
    if let Some(config) = &args.request {
        return print(&request(&identity, config, args.role.clone())?);
    }
    let fingerprint = identity.fingerprint().to_string();
    if args.json {
        let json = serde_json::json!({ "file": args.file, "fingerprint": fingerprint });
        return print(&format!("{json:#}\n"));
    }
    print(&format!("{fingerprint}\n"))
}

fn request(identity: &Identity, config: &Path, role: Option<String>) -> Result<String, CliError> {
    let config = read_config(config, credentials_directory().as_deref())?;
    let subject = Subject {
        name: config.node.name,
        overlay: config.overlay.name,
        addrs: vec![
            config.overlay.ipv4.addr.into(),
            config.overlay.ipv6.addr.into(),
        ],
        role,
        groups: BTreeSet::new(),
    };
    let request = subject.request(identity);
    request.map_err(|error| CliError::of(Exit::System, error))
}

/// Replaces the certificate, at once or not at all: a node may read the file at any moment.
fn install(path: &Path, certificate: &Path) -> Result<Identity, CliError> {
    let text = read("certificate", certificate)?;
    let unusable = |error| {
        let what = format!("the certificate {} cannot be used", certificate.display());
        CliError::new(Exit::Config, what).caused_by(error)
    };
    let identity = read_identity(path)?.certified(&text).map_err(unusable)?;
    let text = identity.to_pem();
    let text = text.map_err(|error| CliError::of(Exit::System, error))?;
    file::replace(path, &text, SECRET).map_err(|error| not_written(path, error))?;
    Ok(identity)
}

fn create(path: &Path) -> Result<Identity, CliError> {
    let defect = |error| CliError::of(Exit::System, error);
    let identity = Identity::generate().map_err(defect)?;
    let text = identity.to_pem().map_err(defect)?;
    match file::create(path, &text, SECRET) {
        Ok(()) => Ok(identity),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let what = format!("the file {} exists and is not replaced", path.display());
            Err(CliError::new(Exit::Config, what)
                .hint("without --create its fingerprint is shown; remove it to make another one"))
        }
        Err(error) => Err(not_written(path, error)),
    }
}

fn not_written(path: &Path, error: io::Error) -> CliError {
    let what = format!("cannot write the identity file {}", path.display());
    CliError::new(Exit::Config, what).caused_by(error)
}

/// Reads a text that was named on the command line.
pub(super) fn read(what: &str, path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| {
        let what = format!("cannot read the {what} {}", path.display());
        CliError::new(Exit::Config, what).caused_by(error)
    })
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
