//! Who was approved, in an overlay without an authority: by which key, name and addresses.
//!
//! Trust on first use, and not by itself: a peer that comes by an account has no link before this node's
//! owner has approved its key. What was approved is kept as a [`Pin`]. A pin is never replaced by one
//! of another key: that one has to be forgotten first. Nobody else has the account, the key, the name or an
//! address of a pin, whether its peer is there or not.
//!
//! Both owners see the same [`ComparisonCode`] when nobody between them lies, and read it to each other.
//! This module knows neither time nor files: [`Pins::parse`] and [`Pins::text`] are the form in which a
//! caller keeps them.

mod code;
mod text;

use std::collections::BTreeMap;

pub use self::code::{CodeError, ComparisonCode};
pub use self::text::PinsError;
use crate::authority::Claim;
use crate::signal::Fingerprint;

/// A peer as it was approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its bare JID.
    pub account: String,
    /// Its name and overlay addresses.
    pub claim: Claim,
    /// Of its certificate.
    pub fingerprint: Fingerprint,
}

/// Everybody who was approved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    /// By account. No two have the same key, name or address.
    pins: BTreeMap<String, Pin>,
}

/// What somebody who comes by an account is to the pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// What was approved.
    Approved,
    /// Nobody has approved it, and nothing speaks against it.
    Waits,
    /// It has the approved key and another name or address: it waits, and is no other one meanwhile.
    Changed(String),
    /// It has what somebody else was approved with, or another key. Why.
    Refused(String),
}

impl Pins {
    /// All of them, by account.
    pub fn iter(&self) -> impl Iterator<Item = &Pin> {
        self.pins.values()
    }

    /// By bare JID.
    pub fn of_account(&self, account: &str) -> Option<&Pin> {
        self.pins.get(account)
    }

    /// By account, or by name.
    pub fn find(&self, who: &str) -> Option<&Pin> {
        let named = || self.iter().find(|pin| pin.claim.name == who);
        self.of_account(who).or_else(named)
    }

    /// What the one is that comes by `account`, says that it is `claim`, and has this key.
    pub fn standing(&self, account: &str, claim: &Claim, key: Option<Fingerprint>) -> Standing {
        let Some(pin) = self.pins.get(account) else {
            return match self.holder(account, claim, key) {
                Some(why) => Standing::Refused(why),
                None => Standing::Waits,
            };
        };
        match key {
            None => Standing::Refused(format!(
                "it does not say which key it has, and was approved with {}",
                pin.fingerprint
            )),
            Some(key) if key != pin.fingerprint => Standing::Refused(format!(
                "it has another key than the approved one: fingerprint {key}, approved {}",
                pin.fingerprint
            )),
            Some(_) if *claim == pin.claim => Standing::Approved,
            Some(_) => match self.holder(account, claim, key) {
                Some(why) => Standing::Refused(why),
                None => Standing::Changed(format!(
                    "it now claims to be {claim}, and was approved as {}",
                    pin.claim
                )),
            },
        }
    }

    /// The pins with one more, which takes the place of that of the same account and key.
    ///
    /// # Errors
    ///
    /// When the account is pinned to another key, or somebody else has the key, the name or an address. Why.
    pub fn with(&self, pin: Pin) -> Result<Self, String> {
        let standing = self.standing(&pin.account, &pin.claim, Some(pin.fingerprint));
        if let Standing::Refused(why) = standing {
            return Err(why);
        }
        let mut pins = self.clone();
        pins.pins.insert(pin.account.clone(), pin);
        Ok(pins)
    }

    /// The pins without that of an account.
    #[must_use]
    pub fn without(&self, account: &str) -> Self {
        let mut pins = self.clone();
        pins.pins.remove(account);
        pins
    }

    /// Why somebody by this account cannot have what it says: another one was approved with it.
    fn holder(&self, account: &str, claim: &Claim, key: Option<Fingerprint>) -> Option<String> {
        self.iter()
            .filter(|pin| pin.account != account)
            .find_map(|pin| {
                let other = &pin.account;
                if key == Some(pin.fingerprint) {
                    return Some(format!("it has the key with which {other} was approved"));
                }
                if claim.name == pin.claim.name {
                    let name = &claim.name;
                    return Some(format!("it calls itself {name}, as {other} was approved"));
                }
                let taken = match (claim.ipv4 == pin.claim.ipv4, claim.ipv6 == pin.claim.ipv6) {
                    (true, _) => claim.ipv4.to_string(),
                    (_, true) => claim.ipv6.to_string(),
                    _ => return None,
                };
                Some(format!(
                    "it claims {taken}, with which {other} was approved"
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn pin(n: u8) -> Pin {
        Pin {
            account: format!("node-{n}@demo"),
            claim: claim(n),
            fingerprint: Fingerprint([n; 32]),
        }
    }

    fn claim(n: u8) -> Claim {
        Claim {
            name: format!("node-{n}"),
            ipv4: [10, 73, 0, n].into(),
            ipv6: format!("fd5a::{n:x}").parse().expect("valid"),
        }
    }

    fn pins(of: &[u8]) -> Pins {
        let begin = Pins::default();
        of.iter()
            .fold(begin, |pins, n| pins.with(pin(*n)).expect("nobody else's"))
    }

    fn refused(pins: &Pins, pin: &Pin) -> String {
        let why = pins.with(pin.clone()).expect_err("refused");
        let standing = pins.standing(&pin.account, &pin.claim, Some(pin.fingerprint));
        assert_eq!(standing, Standing::Refused(why.clone()));
        why
    }

    #[test]
    fn who_was_approved_is_that_one_and_nobody_else_is() {
        let pins = pins(&[1, 2]);
        for known in pins.iter() {
            let standing = pins.standing(&known.account, &known.claim, Some(known.fingerprint));
            assert_eq!(standing, Standing::Approved);
            assert_eq!(pins.find(&known.claim.name), Some(known));
            assert_eq!(pins.find(&known.account), Some(known));
        }
        let new = pin(3);
        let standing = pins.standing(&new.account, &new.claim, Some(new.fingerprint));
        assert_eq!(standing, Standing::Waits);
        assert_eq!(
            pins.standing(&new.account, &new.claim, None),
            Standing::Waits
        );
    }

    #[test]
    fn another_key_never_takes_the_place_of_the_approved_one() {
        let pins = pins(&[1, 2]);
        let mut thief = pin(1);
        thief.fingerprint = Fingerprint([9; 32]);
        assert!(refused(&pins, &thief).starts_with("it has another key than the approved one: "));
        let silent = pins.standing(&thief.account, &thief.claim, None);
        assert!(matches!(silent, Standing::Refused(_)), "{silent:?}");
        let forgotten = pins.without("node-1@demo");
        assert_eq!(forgotten.find("node-1"), None);
        let again = forgotten.with(thief.clone()).expect("forgotten before");
        assert_eq!(again.of_account("node-1@demo"), Some(&thief));
    }

    #[test]
    fn what_one_was_approved_with_is_nobody_elses() {
        let pins = pins(&[1, 2]);
        let mut with_key = pin(3);
        with_key.fingerprint = Fingerprint([1; 32]);
        let mut with_name = pin(3);
        with_name.claim.name = "node-1".to_owned();
        let mut with_ipv4 = pin(3);
        with_ipv4.claim.ipv4 = claim(1).ipv4;
        let mut with_ipv6 = pin(3);
        with_ipv6.claim.ipv6 = claim(1).ipv6;
        for (other, what) in [
            (
                with_key,
                "it has the key with which node-1@demo was approved",
            ),
            (
                with_name,
                "it calls itself node-1, as node-1@demo was approved",
            ),
            (
                with_ipv4,
                "it claims 10.73.0.1, with which node-1@demo was approved",
            ),
            (
                with_ipv6,
                "it claims fd5a::1, with which node-1@demo was approved",
            ),
        ] {
            assert_eq!(refused(&pins, &other), what);
        }
    }

    #[test]
    fn an_approved_peer_that_moves_waits_again_and_has_no_address_of_another_one() {
        let pins = pins(&[1, 2]);
        let mut moved = pin(2);
        moved.claim.ipv4 = [10, 73, 0, 9].into();
        let standing = pins.standing(&moved.account, &moved.claim, Some(moved.fingerprint));
        let Standing::Changed(why) = standing else {
            panic!("{standing:?}");
        };
        assert_eq!(
            why,
            "it now claims to be node-2 (10.73.0.9, fd5a::2), and was approved as node-2 (10.73.0.2, \
             fd5a::2)"
        );
        let approved = pins.with(moved.clone()).expect("approved again");
        assert_eq!(approved.of_account("node-2@demo"), Some(&moved));
        moved.claim.ipv4 = claim(1).ipv4;
        refused(&pins, &moved);
    }
}
