//! How the authority makes its revocation list.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};

use super::issue::{IssueError, Issuer, made};
use super::{CERTIFICATE, ListError, RevocationList, Serial, certified};

/// When the next list comes is not known: 99991231235959Z, as RFC 5280 section 4.1.2.5 has it for
/// what has no end.
const NO_END: Duration = Duration::from_secs(253_402_300_799);

impl Issuer {
    /// The list that follows `previous`: with what was on that, and with `serials`, which are revoked
    /// `now`. It has the next number.
    ///
    /// The first list of an authority follows none. Whoever has lost the last one must not begin
    /// anew: nodes take no list with a number that is not higher, and what was revoked would be
    /// good again.
    ///
    /// # Errors
    ///
    /// When `previous` is not this authority's, or nodes would not take what came out.
    pub fn revoke(
        &self,
        previous: Option<&RevocationList>,
        serials: &[Serial],
        now: SystemTime,
    ) -> Result<RevocationList, IssueError> {
        self.revise(previous, serials, None, now)
    }

    /// The same, without what came on the list before `ended`: whoever never signs for longer knows
    /// that those certificates have ended, and are refused for that.
    ///
    /// # Errors
    ///
    /// Those of [`Self::revoke`].
    pub fn revise(
        &self,
        previous: Option<&RevocationList>,
        serials: &[Serial],
        ended: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<RevocationList, IssueError> {
        let (signer, _) = self.signer()?;
        let is_own = |list: &RevocationList| list.is_signed_by(&signer.subject, &signer.key);
        if !previous.is_none_or(is_own) {
            return Err(IssueError::List(ListError::Stranger));
        }
        let mut revoked = previous
            .map(|list| list.revoked().clone())
            .unwrap_or_default();
        if let Some(ended) = ended {
            revoked.retain(|_, since| *since >= ended);
        }
        for serial in serials {
            revoked.entry(serial.clone()).or_insert(now);
        }
        let number = previous.map_or(0, RevocationList::number).checked_add(1);
        let number = number.ok_or(IssueError::List(ListError::NoNumber))?;
        let entry = |(serial, time): (&Serial, &SystemTime)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial.octets()),
            revocation_time: (*time).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (UNIX_EPOCH + NO_END).into(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(self.issuer());
        let list = list.map_err(made("sign the revocation list"))?;
        let list = RevocationList::from_der(list.der()).map_err(IssueError::List)?;
        match signer.signs_lists && is_own(&list) {
            true => Ok(list),
            false => Err(IssueError::List(ListError::Stranger)),
        }
    }

    /// The serial number of the first certificate in a PEM text, which this authority has to have
    /// signed.
    pub fn serial_of(&self, pem: &str) -> Result<Serial, IssueError> {
        let refuse = |problem: String| IssueError::Certificate(problem);
        let parts = pem::parse_many(pem).map_err(|error| refuse(error.to_string()))?;
        let certificate = parts.iter().find(|part| part.tag() == CERTIFICATE);
        let certificate = certificate.ok_or_else(|| refuse("there is none".to_owned()))?;
        let (signer, _) = self.signer()?;
        certified::serial(certificate.contents(), &signer).map_err(refuse)
    }
}
