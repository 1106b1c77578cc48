//! `ipop-node authority`.

mod revoke;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use ipop_proto::authority::Validity;
use ipop_proto::authority::issue::{IssueError, Issuer, Subject};

use super::identity::read;
use super::{CliError, Exit, print};
use crate::file::{self, PUBLIC, SECRET};

/// Be the authority of an overlay: say which node has which name and addresses.
///
/// For tests, and for owners of few machines. The key is a file, not encrypted: keep it on a machine
/// that is no node. Whoever has it can be any node of every overlay that believes it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key, readable for its owner alone, and the certificate that nodes have as
    /// `authority.certificate`; files that exist are not replaced.
    Init {
        #[command(flatten)]
        files: Files,
        /// What the authority is called, for people.
        #[arg(long, default_value = "ipop authority")]
        name: String,
        /// For how many days it is valid.
        #[arg(long, default_value_t = 3650, value_parser = days())]
        days: u32,
    },
    /// Print the certificate (PEM) of the node that made a request, and say on standard error whose
    /// it is.
    ///
    /// The node is given the name and the addresses that it asks for: look at what is said, and that
    /// the request comes from that node, before you pass the certificate on.
    Sign {
        #[command(flatten)]
        files: Files,
        /// For how many days it is valid. A node says in its status when a third is left.
        #[arg(long, default_value_t = 90, value_parser = days())]
        days: u32,
        /// A group that the node is in, for rules of who may reach what; once for each. The request does
        /// not ask for groups.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// The request (PKCS#10, PEM), as `ipop-node identity --request` prints it.
        #[arg(value_name = "REQUEST")]
        request: PathBuf,
    },
    Revoke(revoke::Args),
}

#[derive(Debug, clap::Args)]
struct Files {
    /// PEM file with the authority's key (PKCS#8, ECDSA P-256).
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// PEM file with its certificate.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
}

/// By how much a certificate is valid before it is made: clocks differ.
const SKEW: Duration = Duration::from_secs(3600);

pub fn run(args: Args) -> Result<(), CliError> {
    let (now, serial) = (SystemTime::now(), rand::random());
    match args.command {
        Command::Init { files, name, days } => {
            let issuer = Issuer::generate(&name, validity(now, days), serial);
            let issuer = issuer.map_err(not_made)?;
            write(&files.key, &issuer.key_pem(), SECRET)?;
            write(&files.certificate, issuer.certificate_pem(), PUBLIC)
        }
        Command::Sign {
            files,
            days,
            groups,
            request,
        } => {
            let issuer = files.issuer()?;
            let request = read("request", &request)?;
            let (mut subject, key) = Subject::of_request(&request).map_err(not_made)?;
            subject.groups = groups.into_iter().collect();
            let signed = issuer.sign(&subject, &key, validity(now, days), serial);
            let (certificate, certified) = signed.map_err(not_made)?;
            let groups: Vec<_> = certified.groups.iter().map(String::as_str).collect();
            let groups = match groups[..] {
                [] => String::new(),
                _ => format!(", in {}", groups.join(", ")),
            };
            let said = format!(
                "{certified} of overlay {}{groups}, {days} days\n",
                certified.overlay
            );
            // Nobody to tell when standard error is closed.
            let _ = std::io::stderr().write_all(said.as_bytes());
            print(&certificate)
        }
        Command::Revoke(args) => revoke::run(&args, now),
    }
}

impl Files {
    fn issuer(&self) -> Result<Issuer, CliError> {
        let certificate = read("authority's certificate", &self.certificate)?;
        let issuer = Issuer::from_pem(&read("authority's key", &self.key)?, &certificate);
        issuer.map_err(not_made)
    }
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

fn validity(now: SystemTime, days: u32) -> Validity {
    Validity {
        not_before: now - SKEW,
        not_after: now + Duration::from_secs(u64::from(days) * 86_400),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    file::create(path, text, mode).map_err(|error| {
        let what = format!("cannot make the file {}", path.display());
        CliError::new(Exit::Config, what).caused_by(error)
    })
}

fn not_made(error: IssueError) -> CliError {
    CliError::of(Exit::Config, error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_authority_is_made_once_with_a_key_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("directory");
        let [key, certificate] = ["key", "certificate"].map(|name| dir.path().join(name));
        let init = || {
            run(Args {
                command: Command::Init {
                    files: Files {
                        key: key.clone(),
                        certificate: certificate.clone(),
                    },
                    name: "test".to_owned(),
                    days: 1,
                },
            })
        };
        init().expect("made");
        let mode = key.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = [&key, &certificate].map(|path| read("file", path).expect("there"));
        Issuer::from_pem(&text[0], &text[1]).expect("one authority");
        assert!(!text[1].contains("PRIVATE KEY"));
        assert_eq!(init().expect_err("it exists").exit, Exit::Config);
        assert_eq!(read("file", &key).expect("there"), text[0]);
    }
}
