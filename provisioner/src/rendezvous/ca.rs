//! A deployment's own certification authority.
//!
//! Nodes pin it and nothing else, so a certificate of any public authority for the same name is
//! worth nothing. Its name constraint (RFC 5280 section 4.2.1.10) makes it worth nothing outside
//! the deployment's domain.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use super::files;
use crate::secret::Secret;

/// A guest's clock may be this far behind ours when it first connects.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 3600);
/// How long the authority is valid.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a server certificate is valid; every start of the server issues a new one.
const SERVER_LIFETIME: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

/// The authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate or key could not be made or parsed.
    #[error("cannot make a certificate of the authority in {}", .dir.display())]
    Certificate {
        /// The authority's directory.
        dir: PathBuf,
        /// What the certificate library says.
        #[source]
        source: rcgen::Error,
    },
    /// A file could not be read or written.
    #[error("cannot read or write {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// An authority whose certificate and key lie in a directory as `ca.pem` (0644) and `ca.key`
/// (0600). The key stays: certificates are issued as long as the deployment lives.
pub struct Ca {
    dir: PathBuf,
    domain: String,
    certificate_pem: String,
    key: KeyPair,
}

/// A certificate with its private key, both PEM.
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// Its key (PKCS #8).
    pub key_pem: Secret<String>,
}

impl Ca {
    /// Opens the authority of `domain` in `dir`, making it on first use.
    pub fn open(dir: &Path, domain: &str, now: SystemTime) -> Result<Self, CaError> {
        let failed = |source| CaError::Certificate {
            dir: dir.to_owned(),
            source,
        };
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        if key.exists() && certificate.exists() {
            return Ok(Self {
                dir: dir.to_owned(),
                domain: domain.to_owned(),
                key: KeyPair::from_pem(&read(&key)?).map_err(failed)?,
                certificate_pem: read(&certificate)?,
            });
        }
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let pem = authority(domain, now)
            .self_signed(&pair)
            .map_err(failed)?
            .pem();
        // The certificate last: both files exist, or the next call starts over.
        write(&key, pair.serialize_pem().as_bytes(), 0o600)?;
        write(&certificate, pem.as_bytes(), 0o644)?;
        Ok(Self {
            dir: dir.to_owned(),
            domain: domain.to_owned(),
            certificate_pem: pem,
            key: pair,
        })
    }

    /// The authority's certificate, to be pinned.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a certificate for the server of the domain.
    pub fn issue_server(&self, now: SystemTime) -> Result<Identity, CaError> {
        let failed = |source| CaError::Certificate {
            dir: self.dir.clone(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::new(vec![self.domain.clone()]).map_err(failed)?;
        params
            .distinguished_name
            .push(DnType::CommonName, self.domain.as_str());
        set_validity(&mut params, now, SERVER_LIFETIME);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // Issuer name, key usages and key identifier are a function of the domain and the key.
        let issuer = Issuer::new(authority(&self.domain, now), &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            key_pem: Secret::new(key.serialize_pem()),
        })
    }
}

fn authority(domain: &str, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{domain} CA").as_str());
    set_validity(&mut params, now, CA_LIFETIME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_owned())],
        excluded_subtrees: Vec::new(),
    });
    params
}

/// Sets the time during which a certificate issued at `now` is valid.
fn set_validity(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since.saturating_sub(CLOCK_SLACK);
    params.not_after = epoch + since + lifetime;
}

fn read(path: &Path) -> Result<String, CaError> {
    std::fs::read_to_string(path).map_err(|source| CaError::File {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), CaError> {
    files::write(path, content, mode).map_err(|source| CaError::File {
        path: path.to_owned(),
        source,
    })
}
