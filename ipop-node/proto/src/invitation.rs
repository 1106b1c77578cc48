//! An invitation: everything that a machine must know to become a member of an overlay, in one word
//! that a person can pass on.
//!
//! ```text
//! "ipop1-" base64url( JSON, 0x00, certificates (DER), first 4 bytes of SHA-256 of all before )
//! ```
//!
//! The certificates are that of the rendezvous's CA and, in an overlay with an authority, that of the
//! authority after it, with the first one's length in bytes before both (16 bits, big-endian).
//!
//! Who has it can join in the invited machine's place, until somebody has used it or its time is over.
//! The checksum tells a mistyped or cut word from one that the server refuses.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address::{Overlay4, Overlay6};
use crate::config::{
    AllowSection, AuthoritySection, ConfigError, IceSection, NamesSection, NodeConfig, NodeSection,
    OffloadSection, OverlayMode, OverlaySection, SwitchSection, XmppSection,
};

/// What it begins with; another form will have another number.
const PREFIX: &str = "ipop1-";
/// What every form begins with.
const FAMILY: &str = "ipop";
/// Bytes of the checksum.
const CHECKSUM: usize = 4;
/// Longest invitation that is read, in characters.
const LIMIT: usize = 16 * 1024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// What is said in JSON.
    pub terms: Terms,
    /// Certificate of the CA that the rendezvous's certificate chains to, DER.
    pub ca: Vec<u8>,
    /// Certificate of the overlay's authority, DER, where there is one; [`Terms::admission`] is there
    /// then.
    pub authority: Option<Vec<u8>>,
}

/// Who is invited where. Short keys: it is to fit into a QR code on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Overlay name.
    #[serde(rename = "o")]
    pub overlay: String,
    /// Name of the machine in the overlay.
    #[serde(rename = "n")]
    pub node: String,
    /// Its IPv4 overlay address.
    #[serde(rename = "a")]
    pub ipv4: Overlay4,
    /// Its IPv6 overlay address.
    #[serde(rename = "b")]
    pub ipv6: Overlay6,
    /// Bare JID of its account.
    #[serde(rename = "j")]
    pub jid: String,
    /// Where the rendezvous is, `address:port`.
    #[serde(rename = "s")]
    pub servers: Vec<String>,
    /// First password of the account, which the machine exchanges for one of its own.
    #[serde(rename = "t")]
    pub token: String,
    /// When the token dies, seconds since 1970.
    #[serde(rename = "e")]
    pub expires: u64,
    /// The front end, which serves the shared folder.
    #[serde(rename = "f")]
    pub frontend: (Ipv4Addr, Ipv6Addr),
    /// How the machine gets its certificate, in an overlay with an authority.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
    /// The overlay's rules, so that this end keeps to them as well. Who does not know of rules in an
    /// invitation refuses it as a whole.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AllowSection>,
}

/// How an invited machine gets the certificate for the key that it makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// Whom it asks, a full JID.
    #[serde(rename = "i")]
    pub issuer: String,
    /// The secret that it proves itself with, which serves one key.
    #[serde(rename = "t")]
    pub token: String,
}

/// A text is no invitation. It is not shown: it may be one that was cut.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// It begins otherwise.
    #[error("it does not begin with `{PREFIX}`")]
    Prefix,
    /// It is of a form that this program does not know.
    #[error("it is of a later form than this ipop-node knows")]
    Version,
    /// A character is missing, or there is one too many or a wrong one.
    #[error("a part of it is missing or mistyped")]
    Damaged,
    /// It is whole, and what it says is of no use.
    #[error("what it says cannot be used: {0}")]
    Terms(String),
}

/// Where a machine keeps what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Control socket.
    pub control: PathBuf,
    /// Name of the TUN device.
    pub interface: String,
    /// The node's own password, an absolute path.
    pub password: PathBuf,
    /// Its key and certificate, an absolute path.
    pub identity: PathBuf,
}

/// File with the token, beside the configuration.
pub const TOKEN_FILE: &str = "token";
/// File with the CA's certificate, beside the configuration.
pub const CA_FILE: &str = "ca.pem";
/// File with the authority's certificate, beside the configuration.
pub const AUTHORITY_FILE: &str = "authority.pem";
/// File with the secret that the first request for a certificate is proven with.
pub const ADMISSION_FILE: &str = "certificate-token";

impl Invitation {
    /// As it is passed on.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let mut bytes = serde_json::to_vec(&self.terms)?;
        bytes.push(0);
        if let Some(authority) = &self.authority {
            let length = u16::try_from(self.ca.len()).map_err(serde_json::Error::custom)?;
            bytes.extend(length.to_be_bytes());
            bytes.extend(&self.ca);
            bytes.extend(authority);
        } else {
            bytes.extend(&self.ca);
        }
        let checksum = Sha256::digest(&bytes);
        bytes.extend(&checksum[..CHECKSUM]);
        Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads what [`Self::to_text`] wrote; white space that came in between is left out.
    pub fn parse(text: &str) -> Result<Self, InvitationError> {
        let text: String = text.split_whitespace().collect();
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let later = text.strip_prefix(FAMILY).is_some_and(|rest| {
                rest.split_once('-')
                    .is_some_and(|(version, _)| version.parse::<u32>().is_ok())
            });
            return Err(match later {
                true => InvitationError::Version,
                false => InvitationError::Prefix,
            });
        };
        if encoded.len() > LIMIT {
            return Err(InvitationError::Damaged);
        }
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(encoded);
        let bytes = decoded.map_err(|_| InvitationError::Damaged)?;
        let (bytes, checksum) = bytes
            .split_last_chunk::<CHECKSUM>()
            .ok_or(InvitationError::Damaged)?;
        if !Sha256::digest(bytes).starts_with(checksum) {
            return Err(InvitationError::Damaged);
        }
        let mut parts = bytes.splitn(2, |byte| *byte == 0);
        let json = parts.next().unwrap_or_default();
        let certificates = parts.next().unwrap_or_default();
        let wrong = |e: &dyn std::fmt::Display| InvitationError::Terms(e.to_string());
        let terms: Terms = serde_json::from_slice(json).map_err(|e| wrong(&e))?;
        let (ca, authority) = match &terms.admission {
            None => (certificates, None),
            Some(_) => {
                let (ca, authority) = two(certificates).ok_or(InvitationError::Damaged)?;
                (ca, Some(authority.to_vec()))
            }
        };
        let invitation = Self {
            ca: ca.to_vec(),
            authority,
            terms,
        };
        let places = Places {
            control: "/".into(),
            interface: "ipop0".into(),
            password: "/".into(),
            identity: "/".into(),
        };
        invitation.config(&places).map_err(|e| wrong(&e))?;
        Ok(invitation)
    }

    /// The configuration of the machine.
    pub fn config(&self, places: &Places) -> Result<NodeConfig, ConfigError> {
        let terms = &self.terms;
        let config = NodeConfig {
            node: NodeSection {
                name: terms.node.clone(),
                control: places.control.clone(),
                identity: terms.admission.as_ref().map(|_| places.identity.clone()),
                ssh_host_key: None,
                groups: BTreeSet::new(),
            },
            overlay: OverlaySection {
                name: terms.overlay.clone(),
                ipv4: terms.ipv4,
                ipv6: terms.ipv6,
                interface: places.interface.clone(),
                mode: OverlayMode::Route,
                mtu: crate::config::DEFAULT_MTU,
                mac: None,
            },
            xmpp: Some(XmppSection {
                jid: terms.jid.clone(),
                servers: terms.servers.clone(),
                password_file: places.password.clone(),
                enrol_token_file: Some(Path::new(TOKEN_FILE).to_owned()),
                ca_file: Path::new(CA_FILE).to_owned(),
            }),
            ice: IceSection::default(),
            audit: None,
            policy: None,
            pinning: None,
            authority: terms.admission.as_ref().map(|admission| AuthoritySection {
                certificate: AUTHORITY_FILE.into(),
                revoked: None,
                keep: None,
                issuer: Some(admission.issuer.clone()),
                token_file: Some(ADMISSION_FILE.into()),
                given: None,
            }),
            offload: OffloadSection::default(),
            switch: SwitchSection::default(),
            names: Some(NamesSection::default()),
            peers: Vec::new(),
            allow: terms.rules.clone(),
        };
        config.check()?;
        Ok(config)
    }

    /// The CA's certificate as PEM.
    pub fn ca_pem(&self) -> String {
        to_pem(&self.ca)
    }

    /// The authority's certificate as PEM.
    pub fn authority_pem(&self) -> Option<String> {
        self.authority.as_deref().map(to_pem)
    }
}

fn to_pem(der: &[u8]) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", der))
}

/// What has its length before it, and the rest.
fn two(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, bytes) = bytes.split_first_chunk()?;
    bytes.split_at_checked(u16::from_be_bytes(*length).into())
}

/// The first certificate in a PEM text, DER.
pub fn certificate(pem: &str) -> Option<Vec<u8>> {
    let blocks = pem::parse_many(pem).ok()?;
    let mut certificates = blocks.into_iter().filter(|b| b.tag() == "CERTIFICATE");
    certificates.next().map(pem::Pem::into_contents)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            terms: Terms {
                overlay: "lake".into(),
                node: "alice-laptop".into(),
                ipv4: "10.130.2.9/24".parse().expect("an address"),
                ipv6: "fd5a:1:2:3::9/64".parse().expect("an address"),
                jid: "alice-laptop@lake.ipop".into(),
                servers: vec!["192.0.2.1:5222".into(), "[2001:db8::1]:5222".into()],
                token: "sesame".into(),
                expires: 1_800_000_000,
                frontend: (
                    "10.130.2.1".parse().expect("an address"),
                    "fd5a:1:2:3::1".parse().expect("an address"),
                ),
                admission: None,
                rules: Vec::new(),
            },
            ca: vec![0x30, 0x00, 0x00, 0x82],
            authority: None,
        }
    }

    fn certified() -> Invitation {
        let plain = invitation();
        Invitation {
            terms: Terms {
                admission: Some(Admission {
                    issuer: "provision@lake.ipop/issuer".into(),
                    token: "simsim".into(),
                }),
                ..plain.terms
            },
            authority: Some(vec![0x30, 0x01, 0x00]),
            ca: plain.ca,
        }
    }

    fn with_rules() -> Invitation {
        let rules = "[[allow]]\nfrom = \"group:lake\"\nto = \"role:frontend\"\nprotocol = \"tcp\"\n\
                     port = [22, \"8000-8999\"]\n[[allow]]\nfrom = \"any\"\nto = \"any\"\n";
        let certified = certified();
        Invitation {
            terms: Terms {
                rules: crate::config::parse_rules(rules).expect("rules"),
                ..certified.terms
            },
            ..certified
        }
    }

    #[test]
    fn the_machine_keeps_to_the_rules_that_are_in_it() {
        let invitation = with_rules();
        let places = Places {
            control: "/run/control.sock".into(),
            interface: "ipop0".into(),
            password: "/var/lib/password".into(),
            identity: "/var/lib/identity.pem".into(),
        };
        let config = invitation.config(&places).expect("sound");
        assert_eq!(config.allow, invitation.terms.rules);
        let text = toml::to_string(&config).expect("written");
        let read = NodeConfig::parse(&text).expect("the node takes it");
        assert_eq!(read.allow, config.allow);
        // Nobody says who is in which group where there is no authority.
        let mut bad = invitation;
        bad.terms.admission = None;
        bad.config(&places).expect_err("rules of nobody");
    }

    #[test]
    fn an_invitation_is_read_as_it_was_written_and_also_broken_into_lines() {
        for invitation in [invitation(), certified(), with_rules()] {
            let text = invitation.to_text().expect("written");
            assert_eq!(Invitation::parse(&text), Ok(invitation));
        }
        let text = invitation().to_text().expect("written");
        let (front, back) = text.split_at(40);
        let broken = format!("  {front}\n{back}\r\n");
        assert_eq!(Invitation::parse(&broken), Ok(invitation()));
    }

    #[test]
    fn its_configuration_names_the_files_beside_it_and_no_secret() {
        let places = Places {
            control: "/run/ipop-node/control.sock".into(),
            interface: "ipop0".into(),
            password: "/var/lib/ipop-node/lake/password".into(),
            identity: "/var/lib/ipop-node/lake/identity.pem".into(),
        };
        let text = |invitation: Invitation| {
            let config = invitation.config(&places).expect("sound");
            let text = toml::to_string(&config).expect("written");
            assert!(!text.contains("sesame") && !text.contains("simsim"));
            text
        };
        insta::assert_snapshot!(text(invitation()));
        insta::assert_snapshot!("its_configuration_with_an_authority", text(certified()));
    }

    #[test]
    fn what_is_no_invitation_is_told_apart() {
        let error = |text: &str| Invitation::parse(text).expect_err(text);
        assert_eq!(error(""), InvitationError::Prefix);
        assert_eq!(error("eyJvIjo"), InvitationError::Prefix);
        assert_eq!(error("ipop2-abc"), InvitationError::Version);
        assert_eq!(error("ipop1-"), InvitationError::Damaged);
        assert_eq!(error("ipop1-***"), InvitationError::Damaged);
        let text = invitation().to_text().expect("written");
        assert_eq!(error(&text[..text.len() - 4]), InvitationError::Damaged);
        let mut bad = invitation();
        bad.terms.servers.clear();
        let bad = bad.to_text().expect("written");
        let InvitationError::Terms(why) = error(&bad) else {
            panic!("it is whole");
        };
        assert_eq!(why, "xmpp.servers: must name at least one address:port");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(ipop1-)?[A-Za-z0-9_-]{0,200}") {
            let _ = Invitation::parse(&text);
        }

        #[test]
        fn one_wrong_character_is_noticed(at in 0usize..400, to in "[A-Za-z0-9_-]") {
            let text = invitation().to_text().expect("written");
            let at = PREFIX.len() + at % (text.len() - PREFIX.len());
            let mut other = text.clone();
            other.replace_range(at..=at, &to);
            // The last character's low bits may mean nothing.
            prop_assume!(other != text);
            prop_assert!(Invitation::parse(&other) != Ok(invitation()));
        }
    }
}
