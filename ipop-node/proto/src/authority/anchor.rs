//! One certificate that paths end at, and the revocation list of its key.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::{CertificateDer, TrustAnchor};
use sha2::{Digest as _, Sha256};
use webpki::{RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert};

use super::{ListError, RevocationList, Validity, certified};

/// Names an authority among nodes: SHA-256 over its subjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityId(pub [u8; 32]);

impl fmt::Debug for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "AuthorityId({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Anchor {
    pub(super) id: AuthorityId,
    pub(super) validity: Validity,
    trusted: TrustAnchor<'static>,
    signer: certified::Signer,
    list: RwLock<Option<Arc<RevocationList>>>,
}

impl Anchor {
    /// Reads a certificate (DER); the error says why it cannot be one.
    pub(super) fn new(der: &[u8]) -> Result<Self, String> {
        let (signer, validity) = certified::authority(der)?;
        let trusted = CertificateDer::from(der);
        let trusted = anchor_from_trusted_cert(&trusted).map_err(|error| error.to_string())?;
        Ok(Self {
            id: AuthorityId(Sha256::digest(&signer.key).into()),
            validity,
            trusted: trusted.to_owned(),
            signer,
            list: RwLock::default(),
        })
    }

    /// The list that counts, if there is one.
    pub(super) fn list(&self) -> Option<Arc<RevocationList>> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.clone()
    }

    /// Whether the list is this authority's to make.
    pub(super) fn has_signed(&self, list: &RevocationList) -> bool {
        self.signer.signs_lists && list.is_signed_by(&self.signer.subject, &self.signer.key)
    }

    /// Takes a list that [it has signed](Self::has_signed) if it is newer than the one there is;
    /// whether it was.
    pub(super) fn take(&self, list: &Arc<RevocationList>) -> Result<bool, ListError> {
        let mut current = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let held = current.as_ref().map(|list| list.number());
        match held {
            Some(held) if list.number() < held => Err(ListError::Old {
                number: list.number(),
                held,
            }),
            Some(held) if list.number() == held => Ok(false),
            _ => {
                *current = Some(list.clone());
                Ok(true)
            }
        }
    }

    /// Has `check` validate a path that ends here, against the list that there is. A certificate that
    /// the list is not about, since somebody between it and the authority has signed it, is not
    /// refused for that.
    pub(super) fn validate<E>(
        &self,
        check: impl FnOnce(
            &[TrustAnchor<'static>],
            Option<webpki::RevocationOptions<'_>>,
        ) -> Result<(), E>,
    ) -> Result<(), E> {
        let anchors = std::slice::from_ref(&self.trusted);
        let list = self.list();
        let Some(list) = &list else {
            return check(anchors, None);
        };
        let lists = [list.crl()];
        let options = RevocationOptionsBuilder::new(&lists).ok();
        let options = options.map(|options| {
            let options = options.with_status_policy(UnknownStatusPolicy::Allow);
            options.build()
        });
        check(anchors, options)
    }
}
