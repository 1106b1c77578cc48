//! What this node's owner sees of who waits to be approved, and says.

use super::Overlay;
use super::pinning::NO_KEY;
use super::table::bare;
use crate::authority::Claim;
use crate::pinning::{ComparisonCode, Pin, Pins, Standing};
use crate::signal::Fingerprint;
use crate::status::{PinnedStatus, PinningStatus};

/// By what the owner knows the peer that is to be approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Both owners have read it to each other.
    Code(ComparisonCode),
    /// The peer's owner has told it.
    Fingerprint(Fingerprint),
}

/// Nobody is approved, or forgotten, by this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// It is not how this node knows its peers.
    #[error("this node approves nobody: there is no [pinning] in its configuration")]
    Off,
    /// There is no such peer.
    #[error("nobody by the name or account `{0}` waits to be approved")]
    Nobody(String),
    /// There is nothing to do.
    #[error("`{0}` is approved already")]
    Already(String),
    /// It cannot be approved.
    #[error("`{account}` cannot be approved: {why}")]
    Refused {
        /// Whose presence it is.
        account: String,
        /// Why not.
        why: String,
    },
    /// Somebody else is meant.
    #[error("`{who}` is not the one with this {what}: the one who waits has {has}")]
    Other {
        /// Who was named.
        who: String,
        /// By what.
        what: &'static str,
        /// What there is in its place.
        has: String,
    },
    /// More than one is meant.
    #[error("more than one who waits is called `{who}`: {accounts}")]
    Several {
        /// Who was named.
        who: String,
        /// Whose presences they are.
        accounts: String,
    },
    /// There is no such pin.
    #[error("nobody by the name or account `{0}` was approved")]
    Unknown(String),
}

/// Somebody who can be approved.
struct Applicant<'a> {
    account: &'a str,
    claim: Claim,
    key: Option<Fingerprint>,
    changed: Option<String>,
}

impl Overlay {
    /// Whom this node's owner means by `who`, a node name or an account that waits; and the pins with it. They
    /// are to be kept, and then put in force by [`Self::set_pins`].
    ///
    /// # Errors
    ///
    /// When it is not exactly one, when it is another one by `proof`, or when it cannot be approved.
    pub fn approve(&self, who: &str, proof: Proof) -> Result<(Pin, Pins), ApprovalError> {
        let approvals = self.approvals.as_ref().ok_or(ApprovalError::Off)?;
        let who = || who.to_owned();
        let mut found: Vec<_> = self.applicants().collect();
        found.retain(|it| it.account == who() || it.claim.name == who());
        if found.iter().any(|it| it.account == who()) {
            found.retain(|it| it.account == who());
        }
        if found.is_empty() {
            return Err(self.why_nobody(&who(), &approvals.pins));
        }
        let has = |it: &Applicant<'_>| match proof {
            Proof::Code(_) => self.code(it).map(|code| code.to_string()),
            Proof::Fingerprint(_) => it.key.map(|key| key.to_string()),
        };
        let (what, wanted) = match proof {
            Proof::Code(code) => ("comparison code", code.to_string()),
            Proof::Fingerprint(fingerprint) => ("fingerprint", fingerprint.to_string()),
        };
        let there: Vec<_> = found.iter().filter_map(has).collect();
        found.retain(|it| has(it).as_ref() == Some(&wanted));
        let (account, claim, fingerprint) = match found.as_slice() {
            [one] => match one.key {
                Some(key) => (one.account.to_owned(), one.claim.clone(), key),
                None => return Err(ApprovalError::Nobody(who())),
            },
            [] if there.is_empty() => {
                return Err(ApprovalError::Refused {
                    account: who(),
                    why: NO_KEY.to_owned(),
                });
            }
            [] => {
                return Err(ApprovalError::Other {
                    who: who(),
                    what,
                    has: there.join(", "),
                });
            }
            several => {
                let accounts: Vec<_> = several.iter().map(|it| it.account).collect();
                return Err(ApprovalError::Several {
                    who: who(),
                    accounts: accounts.join(", "),
                });
            }
        };
        let pin = Pin {
            account,
            claim,
            fingerprint,
        };
        match approvals.pins.with(pin.clone()) {
            Ok(pins) => Ok((pin, pins)),
            Err(why) => Err(ApprovalError::Refused {
                account: pin.account,
                why,
            }),
        }
    }

    /// The pin of `who`, a node name or an account; and the pins without it, see [`Self::approve`].
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn forget(&self, who: &str) -> Result<(Pin, Pins), ApprovalError> {
        let approvals = self.approvals.as_ref().ok_or(ApprovalError::Off)?;
        let pin = approvals.pins.find(who).cloned();
        let pin = pin.ok_or_else(|| ApprovalError::Unknown(who.to_owned()))?;
        let pins = approvals.pins.without(&pin.account);
        Ok((pin, pins))
    }

    /// Who was approved, and who waits; none where nobody has to be.
    pub fn pinning(&self) -> Option<PinningStatus> {
        let approvals = self.approvals.as_ref()?;
        let mut waiting: Vec<_> = self
            .applicants()
            .map(|it| PinnedStatus {
                account: it.account.to_owned(),
                name: it.claim.name.clone(),
                ipv4: it.claim.ipv4,
                ipv6: it.claim.ipv6,
                fingerprint: it.key,
                code: self.code(&it).map(|code| code.to_string()),
                changed: it.changed,
            })
            .collect();
        waiting.sort_by(|a, b| (&a.name, &a.account).cmp(&(&b.name, &b.account)));
        let approved = approvals.pins.iter().map(|pin| PinnedStatus {
            account: pin.account.clone(),
            name: pin.claim.name.clone(),
            ipv4: pin.claim.ipv4,
            ipv6: pin.claim.ipv6,
            fingerprint: Some(pin.fingerprint),
            code: None,
            changed: None,
        });
        Some(PinningStatus {
            fingerprint: self.identity.fingerprint(),
            waiting,
            unheard: approvals.unheard,
            approved: approved.collect(),
        })
    }

    /// Everybody who can be approved, or could if it said which key it has.
    fn applicants(&self) -> impl Iterator<Item = Applicant<'_>> {
        let resources = self.table.iter().flat_map(|peer| peer.resources.iter());
        let mut seen: Vec<(&str, Claim, Option<Fingerprint>)> = Vec::new();
        resources.filter_map(move |(jid, advertisement)| {
            let account = bare(jid);
            let changed = match self.advertised(account, advertisement)? {
                Standing::Waits => None,
                Standing::Changed(why) => Some(why),
                Standing::Approved | Standing::Refused(_) => return None,
            };
            let claim = Claim::of(advertisement);
            let key = advertisement.fingerprint;
            let this = (account, claim.clone(), key);
            if seen.contains(&this) {
                return None;
            }
            seen.push(this);
            Some(Applicant {
                account,
                claim,
                key,
                changed,
            })
        })
    }

    fn code(&self, of: &Applicant<'_>) -> Option<ComparisonCode> {
        let addrs = &self.config.addrs;
        let own = Claim {
            name: self.config.name.clone(),
            ipv4: addrs.ipv4.addr,
            ipv6: addrs.ipv6.addr,
        };
        let own = (&own, self.identity.fingerprint());
        Some(ComparisonCode::of(own, (&of.claim, of.key?)))
    }

    fn why_nobody(&self, who: &str, pins: &Pins) -> ApprovalError {
        let resources = self.table.iter().flat_map(|peer| peer.resources.iter());
        let refused = resources
            .filter(|(jid, it)| bare(jid) == who || it.name == who)
            .find_map(|(jid, it)| match self.advertised(bare(jid), it) {
                Some(Standing::Refused(why)) => Some((bare(jid).to_owned(), why)),
                _ => None,
            });
        match refused {
            Some((account, why)) => ApprovalError::Refused { account, why },
            None if pins.find(who).is_some() => ApprovalError::Already(who.to_owned()),
            None => ApprovalError::Nobody(who.to_owned()),
        }
    }
}
