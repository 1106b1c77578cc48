//! `ipop-node authority revoke`.

use std::path::PathBuf;
use std::time::SystemTime;

use ipop_proto::authority::{ListError, RevocationList, Serial};

use super::{Files, not_made};
use crate::cli::identity::read;
use crate::cli::{CliError, Exit, print};
use crate::file::{self, PUBLIC};

/// Revoke certificates: put them on the authority's revocation list (X.509 CRL, PEM), which is a file
/// beside its key.
///
/// Give the list to one member (`authority.revoked` in its configuration, then SIGHUP): members pass it
/// on to each other, and end their links to whoever is on it, without any server.
///
/// There is no way back: a revoked certificate stays so. Whoever was revoked by mistake makes a request
/// for another one. Do not lose the list: nodes take no list with a lower number than they have, and one
/// that was begun anew would not have what was revoked before.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLE)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// The list; beside the key, with the extension `crl`, when none is named. It is made when it is
    /// not there.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// A certificate to revoke (PEM), signed by this authority; of several in one file the first.
    #[arg(value_name = "CERTIFICATE", required_unless_present = "serials")]
    certificates: Vec<PathBuf>,
    /// The serial number of a certificate to revoke, in hexadecimal digits.
    #[arg(long = "serial", value_name = "HEX")]
    serials: Vec<Serial>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
A laptop is lost; on the owner's machine, to any member:
  ipop-node authority revoke --key authority.key --certificate authority.pem laptop.pem
  scp authority.crl root@member:/etc/ipop/authority.crl
  ssh root@member systemctl kill --signal SIGHUP ipop-node@node";

pub(super) fn run(args: &Args, now: SystemTime) -> Result<(), CliError> {
    let issuer = args.files.issuer()?;
    let path = args.list.clone();
    let path = path.unwrap_or_else(|| args.files.key.with_extension("crl"));
    let unusable = |error| {
        let what = format!("the revocation list {} cannot be used", path.display());
        CliError::new(Exit::Config, what).caused_by(error)
    };
    let previous = match path.exists() {
        true => Some(only(&read("revocation list", &path)?).map_err(unusable)?),
        false => None,
    };
    let mut serials = args.serials.clone();
    for certificate in &args.certificates {
        let serial = issuer.serial_of(&read("certificate", certificate)?);
        serials.push(serial.map_err(|error| {
            let what = format!("cannot revoke {}", certificate.display());
            CliError::new(Exit::Config, what).caused_by(error)
        })?);
    }
    let is_known = |list: &RevocationList| serials.iter().all(|s| list.revoked().contains_key(s));
    let list = match previous {
        Some(list) if is_known(&list) => list,
        previous => {
            let list = issuer.revoke(previous.as_ref(), &serials, now);
            let list = list.map_err(not_made)?;
            file::replace(&path, &list.pem(), PUBLIC).map_err(|error| {
                let what = format!("cannot write the revocation list {}", path.display());
                CliError::new(Exit::Config, what).caused_by(error)
            })?;
            list
        }
    };
    let (number, count) = (list.number(), list.revoked().len());
    let serials: Vec<_> = serials.iter().map(Serial::to_string).collect();
    if args.json {
        let json = serde_json::json!({
            "list": path,
            "number": number,
            "certificates": count,
            "revoked": serials,
        });
        return print(&format!("{json:#}\n"));
    }
    let revoked = serials
        .iter()
        .map(|serial| format!("{serial} is revoked\n"));
    let path = path.display();
    print(&format!(
        "{}list {number} in {path} has {count} of this authority's certificates\n",
        revoked.collect::<String>()
    ))
}

/// The list in a file that has one.
fn only(text: &str) -> Result<RevocationList, ListError> {
    let mut lists = RevocationList::from_pem(text)?;
    match lists.len() {
        1 => Ok(lists.remove(0)),
        count => Err(ListError::Pem(format!("it has {count} lists"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ipop_proto::authority::Validity;
    use ipop_proto::authority::issue::{Issuer, Subject};
    use ipop_proto::link::Identity;

    use super::*;

    #[test]
    fn certificates_are_added_to_the_list_beside_the_key_and_never_taken_away() {
        let dir = tempfile::tempdir().expect("directory");
        let file = |name: &str| dir.path().join(name);
        let now = SystemTime::now();
        let validity = Validity {
            not_before: now,
            not_after: now + Duration::from_secs(3600),
        };
        let longer = Validity {
            not_after: now + Duration::from_secs(7200),
            ..validity
        };
        let issuer = Issuer::generate("test", longer, [1; 16]).expect("an authority");
        let write = |name: &str, text: &str| std::fs::write(file(name), text).expect("written");
        write("a.key", &issuer.key_pem());
        write("a.pem", issuer.certificate_pem());
        let subject = Subject {
            name: "b".to_owned(),
            overlay: "demo".to_owned(),
            addrs: vec![[10, 73, 0, 2].into(), "fd5a::2".parse().expect("valid")],
            role: None,
            groups: Default::default(),
        };
        let request = subject.request(&Identity::generate().expect("an identity"));
        let (subject, key) = Subject::of_request(&request.expect("a request")).expect("the same");
        let signed = issuer.sign(&subject, &key, validity, [0xab; 16]);
        let (certificate, certified) = signed.expect("signed");
        write("b.pem", &certificate);
        let revoke = |certificates: &[&str], serials: &[&str]| {
            let args = Args {
                files: Files {
                    key: file("a.key"),
                    certificate: file("a.pem"),
                },
                list: None,
                certificates: certificates.iter().map(|name| file(name)).collect(),
                serials: serials.iter().map(|s| s.parse().expect("valid")).collect(),
                json: false,
            };
            run(&args, now)
        };
        let list = || only(&read("list", &file("a.crl")).expect("there")).expect("one");
        revoke(&[], &["07"]).expect("made");
        assert_eq!((list().number(), list().revoked().len()), (1, 1));
        revoke(&["b.pem"], &["07"]).expect("made");
        assert_eq!((list().number(), list().revoked().len()), (2, 2));
        assert!(list().revoked().contains_key(&certified.serial));
        let before = list();
        revoke(&["b.pem"], &[]).expect("known already");
        assert_eq!(list().der(), before.der());
        // Not the authority's own to revoke.
        let stranger = Identity::generate().and_then(|other| other.to_pem());
        write("c.pem", &stranger.expect("PEM"));
        assert_eq!(
            revoke(&["c.pem"], &[]).expect_err("another's").exit,
            Exit::Config
        );
        // What cannot be followed is not begun anew.
        for text in [
            "",
            &before.pem()[..100],
            &[before.pem(), before.pem()].concat(),
        ] {
            write("a.crl", text);
            assert_eq!(
                revoke(&[], &["08"]).expect_err("no list").exit,
                Exit::Config
            );
            assert_eq!(read("list", &file("a.crl")).expect("there"), text);
        }
    }
}
