//! The node's certificate in an overlay with an authority, and how it gets another one.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipop_proto::audit::{Event, Record};
use ipop_proto::authority::{ListError, RevocationList, dns_name};
use ipop_proto::overlay::Identity;
use ipop_proto::status::{CertificateStatus, RevocationListStatus};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::Node;
use crate::backoff::Backoff;
use crate::requester::Requester;
use crate::settings::{Membership, SettingsError, own_certificate, read_identity};
use crate::xmpp::{RevocationsAnswer, Session};

/// Between looks whether it is time for another certificate.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3600);
/// After the first question for one, which fails when nobody is there yet to answer it.
const RENEWAL_RETRY: Duration = Duration::from_secs(5);

/// When to look whether it is time for another certificate: every hour, and while it is and none has
/// come, after pauses that grow from seconds to that.
#[derive(Debug)]
pub(super) struct Renewals {
    next: Instant,
    pauses: Backoff,
}

impl Renewals {
    fn new(now: Instant) -> Self {
        Self {
            next: now + RENEWAL_INTERVAL,
            pauses: Backoff::new(RENEWAL_RETRY, RENEWAL_INTERVAL),
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Somebody was asked.
    fn asked(&mut self, now: Instant, random: f64) {
        self.next = now + self.pauses.pause(random);
    }

    /// There is nothing to ask for.
    fn rest(&mut self, now: Instant) {
        self.pauses.reset();
        self.next = now + RENEWAL_INTERVAL;
    }
}

/// That there is another certificate in the identity file, another revocation list, or that there are other
/// rules: who put them there sends SIGHUP, or is the node itself.
pub(super) struct Renewal {
    hangup: Signal,
    renewed: Arc<Notify>,
}

impl Renewal {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            renewed: Arc::default(),
        })
    }

    /// The next one.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.hangup.recv() => {}
            () = self.renewed.notified() => {}
        }
    }
}

impl Node {
    /// Believes the authority, and nobody else, about who peers are.
    pub(super) fn believe(&mut self, membership: Membership) {
        let authority = membership.authority.clone();
        self.overlay
            .set_authority(Instant::now(), authority, SystemTime::now());
        let requester = membership.requester.as_ref();
        self.renewals = requester.map(|_| Renewals::new(Instant::now()));
        self.membership = Some(membership);
        self.keep_lists();
    }

    /// Reads again what whoever runs this node may have changed.
    pub(super) fn reload(&mut self) {
        self.overlay.set_time(SystemTime::now());
        self.read_lists();
        self.renew_certificate();
        self.reload_rules();
        self.put_out();
    }

    fn read_lists(&mut self) {
        let Some(membership) = &self.membership else {
            return;
        };
        match membership.lists.installed() {
            Ok(lists) => {
                for list in lists {
                    let number = list.number();
                    if let Err(error) = self.overlay.revoke(Instant::now(), list) {
                        tracing::warn!(number, %error, "revocation list not taken");
                    }
                }
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "revocation list not read");
            }
        }
    }

    /// Takes a revocation list (DER) that `from` tells, if that is who signs for the authority. Whether it
    /// is one says the authority's signature alone.
    pub(super) fn told_list(&mut self, now: Instant, from: &str, der: &[u8]) -> RevocationsAnswer {
        let requester = self.membership.as_ref().and_then(|m| m.requester.as_ref());
        if requester.is_none_or(|requester| requester.issuer() != from) {
            tracing::debug!(from, "revocation list of somebody who does not sign");
            return RevocationsAnswer::Forbidden;
        }
        self.overlay.set_time(SystemTime::now());
        let taken = RevocationList::from_der(der).and_then(|list| self.overlay.revoke(now, list));
        match taken {
            Ok(_) | Err(ListError::Old { .. }) => RevocationsAnswer::InForce,
            Err(error) => {
                tracing::warn!(from, %error, "revocation list not taken");
                RevocationsAnswer::Refused
            }
        }
    }

    /// A newer revocation list is in force. Where somebody signs for this node, there may be another
    /// certificate in place of one that is on it: with other groups, for one.
    pub(super) fn revoked(&mut self, list: &RevocationList, from: Option<&str>) {
        let (number, count) = (list.number(), list.revoked().len());
        tracing::info!(number, count, from, "revocation list taken");
        self.record_own(Event::ListInForce, |record| Record {
            list: Some(number),
            ..record
        });
        self.keep_lists();
        if self.overlay.is_revoked() {
            tracing::error!("this node's own certificate is revoked: no peer has a link with it");
            self.look_for_renewal(Instant::now());
        }
    }

    fn keep_lists(&self) {
        let Some(membership) = &self.membership else {
            return;
        };
        if let Err(error) = membership.lists.keep(&membership.authority) {
            let file = membership.lists.kept.display();
            tracing::error!(%file, %error, "revocation list not kept: a restart forgets it");
        }
    }

    /// Looks at once whether it is time for another certificate, since there may be somebody to ask.
    pub(super) fn look_for_renewal(&mut self, now: Instant) {
        if let Some(renewals) = &mut self.renewals {
            renewals.next = now;
        }
    }

    /// Asks for another certificate when no more than a third of this one's validity is left, or it is
    /// revoked.
    pub(super) fn ask_for_renewal(&mut self, now: Instant, renewal: &Renewal) {
        let Some(renewals) = self.renewals.as_mut().filter(|r| r.next <= now) else {
            return;
        };
        let membership = self.membership.as_ref();
        let certified = membership.and_then(|m| m.certified.as_ref());
        let is_due = certified.is_some_and(|c| c.validity.is_due(SystemTime::now()));
        if !is_due && !self.overlay.is_revoked() {
            return renewals.rest(now);
        }
        renewals.asked(now, rand::random());
        let requester = membership.and_then(|m| m.requester.clone());
        let (Some(requester), Some(session)) = (requester, self.session.clone()) else {
            return;
        };
        let renewed = renewal.renewed.clone();
        tokio::spawn(async move {
            match renew(&session, &requester).await {
                Ok(()) => renewed.notify_one(),
                Err(error) => {
                    tracing::warn!(
                        error = &*error,
                        "there is no other certificate yet in place of one that ends or is revoked"
                    );
                }
            }
        });
    }

    /// Shows the certificate that is in the identity file now. One that peers would refuse is left
    /// where it is.
    pub(super) fn renew_certificate(&mut self) {
        let before = self.serial();
        match self.read_certificate() {
            Ok(Some(identity)) => {
                tracing::info!(fingerprint = %identity.fingerprint(), "certificate renewed");
                let serial = self.serial();
                // The file is also read when something else has changed.
                if serial != before {
                    self.record_own(Event::CertificateRenewed, |record| Record {
                        key: identity.key_id(),
                        serial,
                        ..record
                    });
                }
                self.overlay.set_identity(identity);
                self.apply_rules();
            }
            Ok(None) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "certificate not renewed, the old one stays");
            }
        }
    }

    /// The serial number of this node's certificate.
    fn serial(&self) -> Option<String> {
        let certified = self.membership.as_ref()?.certified.as_ref()?;
        Some(certified.serial.to_string())
    }

    fn read_certificate(&mut self) -> Result<Option<Identity>, SettingsError> {
        let Some(Membership {
            authority,
            certified,
            identity: path,
            ..
        }) = &mut self.membership
        else {
            return Ok(None);
        };
        let identity = read_identity(path)?;
        *certified = Some(own_certificate(&self.config, authority, path, &identity)?);
        Ok(Some(identity))
    }

    /// For the node's administrator.
    pub(super) fn certificate(&self) -> Option<CertificateStatus> {
        let membership = self.membership.as_ref()?;
        let certified = membership.certified.as_ref()?;
        let now = SystemTime::now();
        Some(CertificateStatus {
            name: dns_name(&certified.name, &certified.overlay),
            role: certified.role.clone(),
            groups: certified.groups.clone(),
            left_s: certified.validity.left(now).as_secs(),
            is_due: certified.validity.is_due(now),
            is_revoked: self.overlay.is_revoked(),
            lists: membership
                .authority
                .lists()
                .iter()
                .map(|(_, list)| RevocationListStatus {
                    number: list.number(),
                    revoked: list.revoked().len(),
                })
                .collect(),
        })
    }
}

/// Gets another certificate and keeps it.
async fn renew(
    session: &Session,
    requester: &Requester,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let request = requester.request()?;
    let asked = session.query_certificate(requester.issuer(), request);
    Ok(requester.take(&asked.await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_does_not_come_is_asked_for_again_soon_and_then_less_often() {
        let mut now = Instant::now();
        let mut renewals = Renewals::new(now);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            renewals.asked(now, 1.0);
            pauses.push((renewals.next() - now).as_secs());
            now = renewals.next();
        }
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[10..], [3600, 3600]);
        renewals.rest(now);
        assert_eq!(renewals.next() - now, RENEWAL_INTERVAL);
        renewals.asked(now, 1.0);
        assert_eq!(renewals.next() - now, RENEWAL_RETRY);
    }
}
