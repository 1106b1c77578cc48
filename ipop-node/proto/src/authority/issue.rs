//! Requests for certificates (PKCS#10, RFC 2986) and certificates, for tests and for owners whose
//! authority is a file.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};

use super::certified::{self, Signer, read_name};
use super::{Certified, Validity, dns_name, groups};
use crate::link::Identity;

/// A request or a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A text cannot be read, or the crypto library refuses.
    #[error("cannot {what}: {source}")]
    Made {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: rcgen::Error,
    },
    /// The request is for something that no node may be.
    #[error("the request cannot be granted: {0}")]
    Request(String),
    /// What was signed would be refused by the authority's own nodes: its certificate, or the
    /// validity that was asked for, is not what it should be.
    #[error("the certificate that came out would be refused")]
    Useless(#[source] super::Refused),
    /// The authority's certificate cannot be used.
    #[error(transparent)]
    Authority(#[from] super::AuthorityError),
    /// Key and certificate are of two authorities.
    #[error("the key is not that of the authority's certificate")]
    OtherKey,
    /// The certificate is none that could be revoked.
    #[error("the certificate cannot be revoked: {0}")]
    Certificate(String),
    /// The list before cannot be followed, or the one that came out would not be taken.
    #[error("the revocation list cannot be used")]
    List(#[source] super::ListError),
}

/// Who a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// `node.name`.
    pub name: String,
    /// `overlay.name`.
    pub overlay: String,
    /// Overlay addresses.
    pub addrs: Vec<IpAddr>,
    /// What it does in the overlay.
    pub role: Option<String>,
    /// The groups that it is in. No request asks for them: whoever signs says.
    pub groups: BTreeSet<String>,
}

/// A key that certificates are signed with (ECDSA P-256), and its own certificate.
pub struct Issuer {
    issuer: rcgen::Issuer<'static, KeyPair>,
    certificate: String,
}

impl Subject {
    /// A PKCS#10 request of the node with `identity`, as PEM. The key stays where it is.
    pub fn request(&self, identity: &Identity) -> Result<String, IssueError> {
        let key = identity.key_pair().map_err(made("use the key"))?;
        self.params()?
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .map_err(made("make a request"))
    }

    /// What a request asks for, if it is signed with its own key; and that key.
    pub fn of_request(pem: &str) -> Result<(Self, impl PublicKeyData + use<>), IssueError> {
        let CertificateSigningRequestParams { params, public_key } =
            CertificateSigningRequestParams::from_pem(pem).map_err(made("read the request"))?;
        let refuse = |problem: String| Err(IssueError::Request(problem));
        if *public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return refuse("its key is not an ECDSA key on P-256".to_owned());
        }
        let (mut node, mut addrs) = (None, Vec::new());
        for name in &params.subject_alt_names {
            match name {
                SanType::DnsName(name) if node.is_none() => {
                    node = Some(read_name(name.as_str()).map_err(IssueError::Request)?);
                }
                SanType::IpAddress(ip) => addrs.push(*ip),
                other => return refuse(format!("it asks for another name, {other:?}")),
            }
        }
        let Some((name, overlay)) = node else {
            return refuse("it asks for no name".to_owned());
        };
        let role = params
            .distinguished_name
            .get(&DnType::OrganizationalUnitName);
        let role = match role {
            Some(rcgen::DnValue::Utf8String(role)) => Some(role.clone()),
            Some(_) => return refuse("the role that it asks for is no UTF8String".to_owned()),
            None => None,
        };
        let subject = Self {
            name,
            overlay,
            addrs,
            role,
            groups: BTreeSet::new(),
        };
        Ok((subject, public_key))
    }

    fn params(&self) -> Result<CertificateParams, IssueError> {
        let name = dns_name(&self.name, &self.overlay);
        let name = name.try_into().map_err(made("write the name"))?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = self.addrs.iter().copied().map(SanType::IpAddress).collect();
        params.subject_alt_names.insert(0, SanType::DnsName(name));
        params.distinguished_name = named(&self.name);
        if let Some(role) = &self.role {
            let role = role.as_str();
            let attributes = &mut params.distinguished_name;
            attributes.push(DnType::OrganizationalUnitName, role);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Ok(params)
    }
}

impl Issuer {
    /// Makes a key and a certificate for it, with `name` for people and a random `serial`.
    pub fn generate(name: &str, validity: Validity, serial: [u8; 16]) -> Result<Self, IssueError> {
        let key = KeyPair::generate().map_err(made("make a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        // Nodes' certificates are signed by it, and nothing is in between.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        date(&mut params, validity, serial);
        let certificate = params
            .self_signed(&key)
            .map_err(made("make a certificate"))?;
        Ok(Self {
            certificate: certificate.pem(),
            issuer: rcgen::Issuer::new(params, key),
        })
    }

    /// Reads the PEM texts of a key (PKCS#8) and its certificate.
    pub fn from_pem(key: &str, certificate: &str) -> Result<Self, IssueError> {
        let key = KeyPair::from_pem(key).map_err(made("read the authority's key"))?;
        let certified = pem::parse(certificate)
            .map_err(|error| super::AuthorityError::Pem(error.to_string()))?;
        let (_, certified) = x509_parser::parse_x509_certificate(certified.contents())
            .map_err(|error| super::AuthorityError::Pem(error.to_string()))?;
        if certified.public_key().raw != key.subject_public_key_info() {
            return Err(IssueError::OtherKey);
        }
        let issuer = rcgen::Issuer::from_ca_cert_pem(certificate, key);
        Ok(Self {
            issuer: issuer.map_err(made("read the authority's certificate"))?,
            certificate: certificate.to_owned(),
        })
    }

    /// What signs.
    pub(super) fn issuer(&self) -> &rcgen::Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// How what it signs names it.
    pub(super) fn signer(&self) -> Result<(Signer, Validity), IssueError> {
        let unusable = |problem| super::AuthorityError::Unusable { at: 1, problem };
        let certificate = pem::parse(&self.certificate)
            .map_err(|error| super::AuthorityError::Pem(error.to_string()))?;
        Ok(certified::authority(certificate.contents()).map_err(unusable)?)
    }

    /// The key as PEM. It is a secret.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The certificate as PEM: what nodes have as `authority.certificate`.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// A certificate for `subject` and its key, as PEM, with a random `serial`; and what it says. It
    /// has been looked at as a node would at the beginning and at the end of its validity.
    pub fn sign(
        &self,
        subject: &Subject,
        key: &impl PublicKeyData,
        validity: Validity,
        serial: [u8; 16],
    ) -> Result<(String, Certified), IssueError> {
        let mut params = subject.params()?;
        params.is_ca = IsCa::ExplicitNoCa;
        groups::check(&subject.groups).map_err(IssueError::Request)?;
        if !subject.groups.is_empty() {
            let groups = groups::write(&subject.groups);
            let extension = CustomExtension::from_oid_content(&groups::EXTENSION, groups);
            params.custom_extensions.push(extension);
        }
        date(&mut params, validity, serial);
        let signed = params
            .signed_by(key, &self.issuer)
            .map_err(made("sign the certificate"))?;
        let authority = super::Authority::from_pem(&self.certificate, &subject.overlay)?;
        let at = |time| authority.certify(&[signed.der()], time);
        let certified = at(validity.not_before).and(at(validity.not_after));
        Ok((signed.pem(), certified.map_err(IssueError::Useless)?))
    }
}

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut attributes = rcgen::DistinguishedName::new();
    attributes.push(DnType::CommonName, name);
    attributes
}

fn date(params: &mut CertificateParams, validity: Validity, serial: [u8; 16]) {
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

pub(super) fn made(what: &'static str) -> impl Fn(rcgen::Error) -> IssueError {
    move |source| IssueError::Made { what, source }
}
