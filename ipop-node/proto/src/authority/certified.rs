//! What a certificate says.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{Refused, Serial, groups};
use crate::config::is_dns_label;
use crate::status::Advertisement;

/// What the names of all nodes end in. It is no name of the DNS.
pub(crate) const DOMAIN: &str = "ipop";

/// From when until when, both included (RFC 5280 section 4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its beginning.
    pub not_before: SystemTime,
    /// Its end.
    pub not_after: SystemTime,
}

/// What the authority says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// `node.name`.
    pub name: String,
    /// `overlay.name`.
    pub overlay: String,
    /// Overlay addresses that are its own.
    pub addrs: Vec<IpAddr>,
    /// What it does in the overlay, where that is said.
    pub role: Option<String>,
    /// The groups that it is in.
    pub groups: BTreeSet<String>,
    /// For how long that is so.
    pub validity: Validity,
    /// Of the certificate that says so.
    pub serial: Serial,
}

/// What a node says of itself, or somebody of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Node name.
    pub name: String,
    /// Overlay address.
    pub ipv4: Ipv4Addr,
    /// Overlay address.
    pub ipv6: Ipv6Addr,
}

/// The dNSName of a node's certificate.
pub fn dns_name(name: &str, overlay: &str) -> String {
    format!("{name}.{overlay}.{DOMAIN}")
}

impl Validity {
    /// Whether `time` lies in it.
    pub fn has(&self, time: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&time)
    }

    /// What is left of it at `now`.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Whether no more than a third of it is left at `now`: time for another certificate.
    pub fn is_due(&self, now: SystemTime) -> bool {
        let whole = self.not_after.duration_since(self.not_before);
        self.left(now) <= whole.unwrap_or_default() / 3
    }
}

impl Certified {
    /// Reads a certificate (DER), whoever signed it; the error says what is missing.
    pub(super) fn read(der: &[u8]) -> Result<Self, String> {
        let certificate = parse(der)?;
        let usage = certificate.key_usage().map_err(|error| error.to_string())?;
        if !usage.is_some_and(|usage| usage.value.digital_signature()) {
            return Err("its key is not for signatures".to_owned());
        }
        let usage = certificate.extended_key_usage();
        let usage = usage.map_err(|error| error.to_string())?;
        if !usage.is_some_and(|usage| usage.value.server_auth && usage.value.client_auth) {
            return Err("its key is not for both ends of a link".to_owned());
        }
        let names = certificate.subject_alternative_name();
        let names = names.map_err(|error| error.to_string())?;
        let names = names.ok_or("it has no subjectAltName")?;
        let (mut node, mut addrs) = (None, Vec::new());
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) if node.is_none() => node = Some(read_name(name)?),
                GeneralName::DNSName(_) => return Err("it has two dNSNames".to_owned()),
                GeneralName::IPAddress(octets) => addrs.push(read_addr(octets)?),
                other => return Err(format!("it has another name, {other}")),
            }
        }
        let (name, overlay) = node.ok_or("it has no dNSName")?;
        let families = [IpAddr::is_ipv4, IpAddr::is_ipv6];
        if !families.iter().all(|is_of| addrs.iter().any(is_of)) {
            return Err("it has no iPAddress of both families".to_owned());
        }
        let role = certificate.subject().iter_organizational_unit().next();
        let role = role.map(|role| role.as_str().map(str::to_owned));
        Ok(Self {
            name,
            overlay,
            addrs,
            role: role.transpose().map_err(|error| error.to_string())?,
            groups: groups::read(&certificate)?,
            validity: validity(&certificate),
            serial: Serial::new(certificate.raw_serial()).ok_or("its serial number is none")?,
        })
    }

    /// Whether the node is who is claimed, with addresses that are its own.
    pub fn grants(&self, claim: &Claim) -> Result<(), Refused> {
        let text = || (claim.to_string(), self.to_string());
        if self.name != claim.name {
            let (claim, certified) = text();
            return Err(Refused::Name { claim, certified });
        }
        if ![claim.ipv4.into(), claim.ipv6.into()]
            .iter()
            .all(|ip| self.addrs.contains(ip))
        {
            let (claim, certified) = text();
            return Err(Refused::Address { claim, certified });
        }
        Ok(())
    }
}

impl fmt::Display for Certified {
    /// `worker-0 (10.73.0.2, fd5a::2)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut addrs = String::new();
        for (at, ip) in self.addrs.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(addrs, "{comma}{ip}")?;
        }
        write!(f, "{} ({addrs})", self.name)
    }
}

impl Claim {
    /// What a node publishes of itself.
    pub fn of(advertisement: &Advertisement) -> Self {
        let addrs = &advertisement.addrs;
        Self {
            name: advertisement.name.clone(),
            ipv4: addrs.ipv4.addr,
            ipv6: addrs.ipv6.addr,
        }
    }
}

impl fmt::Display for Claim {
    /// As [`Certified`]'s.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.ipv4, self.ipv6)
    }
}

/// Who signs, as certificates and revocation lists name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signer {
    /// Its name (DER).
    pub(super) subject: Vec<u8>,
    /// Its subjectPublicKeyInfo (DER).
    pub(super) key: Vec<u8>,
    /// Its key is for revocation lists.
    pub(super) signs_lists: bool,
}

/// What an authority's certificate (DER) says.
pub(super) fn authority(der: &[u8]) -> Result<(Signer, Validity), String> {
    let certificate = parse(der)?;
    if !certificate.is_ca() {
        return Err("it is no authority's: basicConstraints does not say cA".to_owned());
    }
    let usage = certificate.key_usage().map_err(|error| error.to_string())?;
    let usage = usage.map(|usage| usage.value);
    if usage.is_some_and(|usage| !usage.key_cert_sign()) {
        return Err("its key is not for certificates".to_owned());
    }
    let signer = Signer {
        subject: certificate.subject().as_raw().to_vec(),
        key: certificate.public_key().raw.to_vec(),
        signs_lists: usage.is_none_or(x509_parser::extensions::KeyUsage::crl_sign),
    };
    Ok((signer, validity(&certificate)))
}

/// The serial number of a certificate (DER), whoever it is for, if the one with this name and this
/// key has signed it.
pub(super) fn serial(der: &[u8], signer: &Signer) -> Result<Serial, String> {
    let certificate = parse(der)?;
    let (_, key) = SubjectPublicKeyInfo::from_der(&signer.key).map_err(|e| e.to_string())?;
    let is_signed = certificate.verify_signature(Some(&key)).is_ok();
    if !is_signed || certificate.issuer().as_raw() != signer.subject {
        return Err("it is not this authority's".to_owned());
    }
    Serial::new(certificate.raw_serial()).ok_or_else(|| "its serial number is none".to_owned())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("something follows it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let time = |unix: i64| UNIX_EPOCH + Duration::from_secs(unix.try_into().unwrap_or(0));
    let validity = certificate.validity();
    Validity {
        not_before: time(validity.not_before.timestamp()),
        not_after: time(validity.not_after.timestamp()),
    }
}

/// Name and overlay of `NAME.OVERLAY.ipop`.
pub(super) fn read_name(text: &str) -> Result<(String, String), String> {
    let labels: Vec<_> = text.split('.').collect();
    match labels[..] {
        [name, overlay, DOMAIN] if is_dns_label(name) && is_dns_label(overlay) => {
            Ok((name.to_owned(), overlay.to_owned()))
        }
        _ => Err(format!("`{text}` is not NAME.OVERLAY.{DOMAIN}")),
    }
}

fn read_addr(octets: &[u8]) -> Result<IpAddr, String> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .map_err(|_| "it has an iPAddress that is none".to_owned())
}
