//! A node's place in an overlay with an authority, as its files have it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ipop_proto::authority::{Authority, Certified, Claim};
use ipop_proto::config::{AuthoritySection, NodeConfig};
use ipop_proto::link::Identity;

use super::{SettingsError, locate, read_authority, read_identity, read_secret, state_directory};
use crate::requester::Requester;
use crate::revocation::Lists;

/// A node's place in an overlay with an authority.
#[derive(Debug)]
pub struct Membership {
    /// Who says which node has which name and addresses, and who is revoked.
    pub authority: Arc<Authority>,
    /// What it says of this one; nothing before it has asked for its certificate.
    pub certified: Option<Certified>,
    /// The file with this node's key and certificate, found.
    pub identity: PathBuf,
    /// How it gets certificates, where somebody signs for it while it runs.
    pub requester: Option<Requester>,
    /// The files with revocation lists.
    pub lists: Lists,
}

/// Reads it, and the node's identity, which is in the file `path`. Without a certificate there is one only
/// where somebody can be asked for it, with a key that is made now if need be.
pub(super) fn membership(
    config: &NodeConfig,
    section: &AuthoritySection,
    path: PathBuf,
    credentials: Option<&Path>,
) -> Result<(Membership, Identity), SettingsError> {
    let authority = locate(&section.certificate, credentials);
    let authority = Arc::new(read_authority(&authority, &config.overlay.name)?);
    let lists = Lists {
        installed: section.revoked.clone(),
        credentials: credentials.map(Path::to_owned),
        kept: section
            .keep
            .clone()
            .or_else(|| Some(state_directory()?.join("revoked.crl")))
            .unwrap_or_else(|| path.with_extension("revoked")),
    };
    lists.load(&authority)?;
    let certified = |path: &Path| {
        let identity = read_identity(path)?;
        let certified = own_certificate(config, &authority, path, &identity)?;
        Ok::<_, SettingsError>((identity, certified))
    };
    let Some(issuer) = &section.issuer else {
        let (identity, certified) = certified(&path)?;
        let membership = Membership {
            authority,
            certified: Some(certified),
            identity: path,
            requester: None,
            lists,
        };
        return Ok((membership, identity));
    };
    let token = section.token_file.as_ref();
    let token = token
        .map(|token| read_secret("token for the certificate", &locate(token, credentials)))
        .transpose()?;
    let requester = Requester::new(issuer, token, config, &authority, &path);
    if certified(&path).is_err() {
        let given = section
            .given
            .as_ref()
            .map(|given| locate(given, credentials));
        // What is given is as old as the machine; its key is what the issuer knows.
        let given = given.filter(|given| !path.exists() || certified(given).is_ok());
        let begun = match given {
            Some(given) => requester.begin_with(&read_identity(&given)?),
            None => requester.make_key(),
        };
        begun.map_err(|source| SettingsError::Key {
            path: path.clone(),
            source: Box::new(source),
        })?;
    }
    let identity = read_identity(&path)?;
    let membership = Membership {
        certified: own_certificate(config, &authority, &path, &identity).ok(),
        authority,
        identity: path,
        requester: Some(requester),
        lists,
    };
    Ok((membership, identity))
}

/// What the node says of itself.
pub fn claim(config: &NodeConfig) -> Claim {
    Claim {
        name: config.node.name.clone(),
        ipv4: config.overlay.ipv4.addr,
        ipv6: config.overlay.ipv6.addr,
    }
}

/// What the authority says of this node now, if that is what the configuration says.
pub fn own_certificate(
    config: &NodeConfig,
    authority: &Authority,
    path: &Path,
    identity: &Identity,
) -> Result<Certified, SettingsError> {
    let claim = claim(config);
    let certified = authority.certify(identity.chain(), SystemTime::now());
    certified
        .and_then(|certified| certified.grants(&claim).map(|()| certified))
        .map_err(|source| SettingsError::Certificate {
            path: path.to_owned(),
            source,
        })
}
