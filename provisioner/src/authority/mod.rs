//! The authority of a deployment's overlay: who says which node has which name and addresses.
//!
//! ```text
//! authority/ca.pem            0644  what nodes believe
//! authority/ca.key            0600  what nodes' certificates are signed with; under a passphrase if
//!                                   its owner said so ([`custody`])
//! authority/ca.crl            0644  who is a member no more, once somebody is
//! authority/told.json         0600  which nodes said that they have that list
//! authority/nodes/NAME.json   0600  what is kept of a node, the serial numbers of its certificates too
//! ```
//!
//! The key is made with the deployment and stays here: it is in no database, no image and no
//! machine's personal data. A directory whose certificate is there and whose key is gone is an
//! error, since another authority would keep new nodes apart from those that there are.

pub mod custody;
mod distribution;
mod herald;
mod kept;
mod keyring;
mod refusals;
pub mod registrar;
mod revoke;
mod sealed;
#[cfg(test)]
mod tests;
pub mod told;

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ipop_proto::audit::{self, Record, key_id};
use ipop_proto::authority::issue::{IssueError, Issuer, Subject};
use ipop_proto::authority::{self, ListError, Validity};
use ipop_proto::link::{Identity, IdentityError};
use ipop_proto::stanza::certificate::CertificateRequest;
use rcgen::PublicKeyData;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::audit::Audit;
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::plan::NodePlan;
use crate::rendezvous::{files, password};
use crate::secret::Secret;

use custody::KeyFile;
use kept::{Kept, Token};
pub use keyring::KeyringError;
pub use revoke::{Revocation, list_path, read_list};
pub use sealed::SealError;

/// How far a node's clock may be behind ours when it shows its certificate first.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 3600);
/// How long the authority is valid.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a node's certificate is valid.
pub const NODE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The authority of one deployment.
pub struct Authority {
    dir: PathBuf,
    overlay: String,
    issuer: Issuer,
    audit: Audit,
}

/// The authority cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its certificate is there without the key.
    #[error("the key {} of the overlay's authority is gone", .0.display())]
    NoKey(PathBuf),
    /// The key is under a passphrase, which nobody has given since the machine started.
    #[error("the key {} of the overlay's authority is locked", .0.display())]
    Locked(PathBuf),
    /// The key cannot be encrypted or decrypted.
    #[error("cannot use the key {} of the overlay's authority", path.display())]
    Seal {
        /// The key's file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SealError,
    },
    /// The key cannot be unlocked or locked.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Nothing can be signed.
    #[error("cannot make a certificate of the authority in {}", dir.display())]
    Issue {
        /// The authority's directory.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: IssueError,
    },
    /// A node's key cannot be made or read.
    #[error("cannot use the key of `{node}`")]
    Identity {
        /// The node.
        node: String,
        /// Why not.
        #[source]
        source: IdentityError,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The revocation list cannot be used.
    #[error("the revocation list {} cannot be used", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ListError,
    },
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Entropy(#[source] std::io::Error),
    /// A file is not what was written to it.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        #[source]
        source: serde_json::Error,
    },
}

/// What lets a node ask for its certificate.
pub struct Entry {
    /// The secret that proves who asks.
    pub secret: Secret<String>,
    /// What became of the certificates that the node had before.
    pub revocation: Revocation,
}

/// How far a node is with its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It never had one.
    Absent,
    /// It had one, and has not asked yet for the one that it should have now.
    Lacking,
    /// It was given the one that it should have.
    Certified,
}

/// A certificate is not signed.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// Whoever asks is not who the certificate would be for.
    #[error("{0}")]
    Refused(String),
    /// It cannot be.
    #[error(transparent)]
    Failed(#[from] AuthorityError),
}

impl Authority {
    /// Opens the authority of `overlay` in `dir`, making it on first use. Several processes may do
    /// so at once. What is signed and revoked is written down in `audit`.
    pub fn open(
        dir: &Path,
        overlay: &str,
        audit: Audit,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let issue = |source| AuthorityError::Issue {
            dir: dir.to_owned(),
            source,
        };
        files::private_dir(&dir.join("nodes")).map_err(file(dir))?;
        let _lock = lock(dir)?;
        let issuer = match std::fs::read_to_string(&certificate) {
            Ok(certificate) => {
                let pem = KeyFile::new(dir, &certificate).read()?;
                Issuer::from_pem(pem.expose(), &certificate).map_err(issue)?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let name = format!("{overlay} authority");
                let validity = validity(now, CA_LIFETIME);
                let issuer = Issuer::generate(&name, validity, rand::random()).map_err(issue)?;
                // The certificate last: with it the authority is made.
                files::write(&key, issuer.key_pem().as_bytes(), 0o600).map_err(file(&key))?;
                files::write(&certificate, issuer.certificate_pem().as_bytes(), 0o644)
                    .map_err(file(&certificate))?;
                issuer
            }
            Err(error) => return Err(file(&certificate)(error)),
        };
        Ok(Self {
            dir: dir.to_owned(),
            overlay: overlay.to_owned(),
            issuer,
            audit,
        })
    }

    /// What nodes believe, PEM.
    pub fn certificate_pem(&self) -> &str {
        self.issuer.certificate_pem()
    }

    /// Key and certificate (PEM) of a node whose key is made here: the same ones each time, until a
    /// third of their validity is left or the node is another one by its addresses, role or groups.
    pub fn identity(
        &self,
        node: &NodePlan,
        now: SystemTime,
    ) -> Result<Secret<String>, AuthorityError> {
        let _lock = lock(&self.dir)?;
        let mut kept = Kept::read(&self.dir, &node.name)?;
        let unusable = |source| AuthorityError::Identity {
            node: node.name.0.clone(),
            source,
        };
        let subject = self.subject(node);
        let identity = match &kept.identity {
            Some(pem) => Identity::from_pem(pem).map_err(unusable)?,
            None => Identity::generate().map_err(unusable)?,
        };
        if let Some(pem) = kept
            .identity
            .take_if(|_| self.serves(identity.chain(), &subject, now))
        {
            return Ok(Secret::new(pem));
        }
        let request = subject.request(&identity).and_then(|pem| {
            let (_, key) = Subject::of_request(&pem)?;
            Ok(key)
        });
        let key = request.map_err(|source| self.not_issued(source))?;
        let certificate = self.sign(&mut kept, &subject, &key, now)?;
        let identity = identity.certified(&certificate).map_err(unusable)?;
        let pem = identity.to_pem().map_err(unusable)?;
        kept.identity = Some(pem.clone());
        kept.key = Some(key_id(&key.subject_public_key_info()));
        kept.write(&self.dir, &node.name)?;
        Ok(Secret::new(pem))
    }

    /// The secret by which a node that makes its key itself is known when it asks for its certificate
    /// first. It is the same as long as the account's first password is, which comes with it. With
    /// another password comes another secret, and any key may come with that; certificates of the key
    /// before are revoked.
    pub fn token(
        &self,
        node: &NodePlan,
        password: &Secret<String>,
        now: SystemTime,
    ) -> Result<Entry, AuthorityError> {
        let _lock = lock(&self.dir)?;
        let kept = Kept::read(&self.dir, &node.name)?;
        let digest = hex(password.expose().as_bytes());
        if let Some(token) = kept.token.as_ref().filter(|t| t.password == digest) {
            return Ok(Entry {
                secret: Secret::new(token.secret.clone()),
                revocation: Revocation::default(),
            });
        }
        let secret = password::generate().map_err(AuthorityError::Entropy)?;
        // First: what is on the list is found there again, and what is forgotten is not.
        let why = "another machine may take its place";
        let revocation = self.revoke_kept(&node.name, &kept, &node.role, why, now)?;
        let token = Token {
            password: digest,
            secret: secret.expose().clone(),
        };
        kept.renewed(token).write(&self.dir, &node.name)?;
        Ok(Entry { secret, revocation })
    }

    /// Signs what a node asks for, if that is what it is, and its key is the one that it had before
    /// or it asks for the first time and proves that it is the node.
    pub fn grant(
        &self,
        node: &NodePlan,
        asked: &CertificateRequest,
        now: SystemTime,
    ) -> Result<String, GrantError> {
        let refused = |why: &str| Err(GrantError::Refused(why.to_owned()));
        let (claims, key) = match Subject::of_request(&asked.request) {
            Ok(read) => read,
            Err(error) => return refused(&error.to_string()),
        };
        let subject = self.subject(node);
        if (&claims.name, &claims.overlay, &claims.addrs)
            != (&subject.name, &subject.overlay, &subject.addrs)
        {
            return refused("it asks to be another node, or to have other addresses");
        }
        let _lock = lock(&self.dir)?;
        let mut kept = Kept::read(&self.dir, &node.name)?;
        if kept.is_out {
            return refused("it is revoked");
        }
        match &kept.key {
            Some(known) if *known == key_id(&key.subject_public_key_info()) => {}
            Some(_) => return refused("it has another key than before"),
            None => {
                let proven = kept.token.as_ref().zip(asked.proof.as_ref());
                if !proven.is_some_and(|(t, proof)| proof.proves(&asked.request, &t.secret)) {
                    return refused("it does not prove that it is the node");
                }
                // First: the secret serves one key.
                kept.key = Some(key_id(&key.subject_public_key_info()));
                kept.write(&self.dir, &node.name)?;
            }
        }
        // Whoever asks again and again has one certificate all the same: each takes room on a list.
        if let Some(pem) = kept.certificate.take_if(|pem| {
            let der = CertificateDer::from_pem_slice(pem.as_bytes());
            der.is_ok_and(|der| self.serves(&[der], &subject, now))
        }) {
            return Ok(pem);
        }
        let certificate = self.sign(&mut kept, &subject, &key, now)?;
        kept.write(&self.dir, &node.name)?;
        Ok(certificate)
    }

    /// How far a node is with the certificate that says what it is now.
    pub fn standing(&self, node: &NodePlan, now: SystemTime) -> Result<Standing, AuthorityError> {
        let _lock = lock(&self.dir)?;
        let kept = Kept::read(&self.dir, &node.name)?;
        let Some(pem) = &kept.certificate else {
            return Ok(match kept.key {
                Some(_) => Standing::Lacking,
                None => Standing::Absent,
            });
        };
        let der = CertificateDer::from_pem_slice(pem.as_bytes());
        let serves = der.is_ok_and(|der| self.serves(&[der], &self.subject(node), now));
        Ok(match serves {
            true => Standing::Certified,
            false => Standing::Lacking,
        })
    }

    /// Whether there is no reason to sign another certificate.
    fn serves(&self, chain: &[impl AsRef<[u8]>], subject: &Subject, now: SystemTime) -> bool {
        let authority = authority::Authority::from_pem(self.certificate_pem(), &self.overlay);
        let authority = authority.ok().filter(|authority| {
            // One that is revoked may say all that it should.
            let list = read_list(&self.dir).ok().flatten();
            list.is_none_or(|list| authority.take(list).is_ok())
        });
        let certified = authority.and_then(|authority| authority.certify(chain, now).ok());
        certified.is_some_and(|certified| {
            let says = (&certified.name, &certified.addrs, &certified.role);
            says == (&subject.name, &subject.addrs, &subject.role)
                && certified.groups == subject.groups
                && !certified.validity.is_due(now)
        })
    }

    /// A certificate, noted in what is to be written before anybody is given it.
    fn sign(
        &self,
        kept: &mut Kept,
        subject: &Subject,
        key: &impl PublicKeyData,
        now: SystemTime,
    ) -> Result<String, AuthorityError> {
        let validity = validity(now, NODE_LIFETIME);
        let signed = self.issuer.sign(subject, key, validity, rand::random());
        let (pem, certified) = signed.map_err(|source| self.not_issued(source))?;
        let is_first = kept.certificate.is_none() && kept.identity.is_none();
        self.audit.write(Record {
            node: Some(subject.name.clone()),
            key: Some(key_id(&key.subject_public_key_info())),
            serial: Some(certified.serial.to_string()),
            addrs: subject.addrs.iter().map(IpAddr::to_string).collect(),
            why: Some(if is_first { "first" } else { "renewed" }.to_owned()),
            ..Record::new(audit::Event::Certified, now)
        });
        kept.note(&pem, &certified, now);
        Ok(pem)
    }

    fn not_issued(&self, source: IssueError) -> AuthorityError {
        AuthorityError::Issue {
            dir: self.dir.clone(),
            source,
        }
    }

    fn subject(&self, node: &NodePlan) -> Subject {
        let addrs: [IpAddr; 2] = [node.addrs.ipv4.addr.into(), node.addrs.ipv6.addr.into()];
        Subject {
            name: node.name.0.clone(),
            overlay: self.overlay.clone(),
            addrs: addrs.to_vec(),
            role: Some(node.role.clone()),
            groups: node.certified_groups(),
        }
    }
}

/// Forgets a node whose account is closed, and whose certificates are [revoked](Authority::revoke) if
/// others stay: another one of its name has nothing of it. `dir` is that of an authority, or of none.
pub fn forget(dir: &Path, node: &NodeName) -> Result<(), AuthorityError> {
    if !dir.exists() {
        return Ok(());
    }
    let _lock = lock(dir)?;
    Kept::remove(dir, node)
}

/// The key that a certificate is asked for, where the request can be read.
fn key_of(asked: &CertificateRequest) -> Option<String> {
    let (_, key) = Subject::of_request(&asked.request).ok()?;
    Some(key_id(&key.subject_public_key_info()))
}

/// SHA-256 in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn validity(now: SystemTime, lifetime: Duration) -> Validity {
    Validity {
        not_before: now - CLOCK_SLACK,
        not_after: now + lifetime,
    }
}

/// Keeps other processes from what is kept of nodes.
fn lock(dir: &Path) -> Result<File, AuthorityError> {
    let path = dir.join("lock");
    let locked = File::create(&path).and_then(|lock| lock.lock().map(|()| lock));
    locked.map_err(file(&path))
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> AuthorityError + use<> {
    let path = path.to_owned();
    move |source| AuthorityError::File { path, source }
}

impl From<AuthorityError> for CliError {
    fn from(error: AuthorityError) -> Self {
        let cli = Self::new(ExitCode::Internal, error.to_string());
        match error {
            AuthorityError::NoKey(_) => {
                cli.hint("put it back from a backup: without it no node can be added")
            }
            AuthorityError::Locked(_) => Self {
                code: ExitCode::Missing,
                ..cli.hint("`provision authority unlock NAME` asks for its passphrase")
            },
            AuthorityError::Seal { source, .. } => Self {
                code: ExitCode::Config,
                ..cli.caused_by(source)
            },
            AuthorityError::Keyring(_) => Self {
                code: ExitCode::Missing,
                ..cli.hint("without it the key can only be kept unencrypted")
            },
            AuthorityError::Issue { source, .. } => cli.caused_by(source),
            AuthorityError::Identity { source, .. } => cli.caused_by(source),
            AuthorityError::List { source, .. } => cli.caused_by(source).hint(
                "put it back from a backup, or from a node's `revoked.crl`: one that is begun anew is \
                 refused by nodes",
            ),
            AuthorityError::Entropy(source) => cli.caused_by(source),
            AuthorityError::File { path, source } => Self::file("use", &path, source),
            AuthorityError::Damaged { source, .. } => cli.caused_by(source),
        }
    }
}
