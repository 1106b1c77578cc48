//! Who is heard: the accounts in the roster (RFC 6121 section 2), which a shared roster group
//! fills, and which of their clients are nodes.

use std::collections::{BTreeMap, BTreeSet};

use tokio_xmpp::jid::{BareJid, Jid};
use tokio_xmpp::parsers::roster::{Item, Subscription};

/// The members of this account's overlay.
#[derive(Debug)]
pub(super) struct Members {
    own: BareJid,
    roster: BTreeSet<BareJid>,
    /// Nodes reported as present, by full JID; true when seen since the last sign-in.
    present: BTreeMap<Jid, bool>,
}

/// What an item of a roster changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The account is a member now.
    Joined,
    /// The account was a member.
    Left(BareJid),
    /// The membership is as before.
    None,
}

impl Members {
    pub fn new(own: BareJid) -> Self {
        Self {
            own,
            roster: BTreeSet::new(),
            present: BTreeMap::new(),
        }
    }

    /// Takes a whole roster in place of the one before, and gives those that left.
    pub fn replace(&mut self, items: &[Item]) -> Vec<BareJid> {
        let before = std::mem::take(&mut self.roster);
        for item in items {
            self.update(item);
        }
        before.difference(&self.roster).cloned().collect()
    }

    /// Takes one item of a roster push.
    pub fn update(&mut self, item: &Item) -> Change {
        let is_member = item.subscription == Subscription::Both && item.jid != self.own;
        if is_member && self.roster.insert(item.jid.clone()) {
            Change::Joined
        } else if !is_member && self.roster.remove(&item.jid) {
            Change::Left(item.jid.clone())
        } else {
            Change::None
        }
    }

    /// How many others there are.
    pub fn count(&self) -> usize {
        self.roster.len()
    }

    /// Whether `jid` is a client of another member.
    pub fn contains(&self, jid: &Jid) -> bool {
        self.roster.contains(&jid.to_bare())
    }

    /// Whether `jid` belongs to this account, and not to another member.
    pub fn is_own(&self, jid: &Jid) -> bool {
        jid.to_bare() == self.own
    }

    /// A node is present.
    pub fn appeared(&mut self, jid: Jid) {
        self.present.insert(jid, true);
    }

    /// A node is gone; true when it was present before.
    pub fn vanished(&mut self, jid: &Jid) -> bool {
        self.present.remove(jid).is_some()
    }

    /// Nobody has been seen on the stream that begins.
    pub fn begin(&mut self) {
        self.present.values_mut().for_each(|seen| *seen = false);
    }

    /// Removes and gives the nodes that were present before and have not been seen since
    /// [`Self::begin`], and those that are no longer members.
    pub fn sweep(&mut self) -> Vec<Jid> {
        let roster = &self.roster;
        self.present
            .extract_if(.., |jid, seen| !*seen || !roster.contains(&jid.to_bare()))
            .map(|(jid, _)| jid)
            .collect()
    }

    /// Removes and gives the nodes that are no longer members.
    pub fn expel(&mut self) -> Vec<Jid> {
        let roster = &self.roster;
        self.present
            .extract_if(.., |jid, _| !roster.contains(&jid.to_bare()))
            .map(|(jid, _)| jid)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio_xmpp::parsers::roster::Ask;

    use super::*;

    fn item(jid: &str, subscription: Subscription) -> Item {
        Item {
            jid: BareJid::new(jid).expect("valid"),
            name: None,
            subscription,
            ask: Ask::None,
            groups: Vec::new(),
            approved: None,
        }
    }

    fn jid(text: &str) -> Jid {
        Jid::new(text).expect("valid")
    }

    #[test]
    fn only_accounts_with_a_mutual_subscription_are_members_and_never_oneself() {
        let mut members = Members::new(BareJid::new("me@x").expect("valid"));
        members.replace(&[
            item("a@x", Subscription::Both),
            item("b@x", Subscription::To),
            item("me@x", Subscription::Both),
        ]);
        assert!(members.contains(&jid("a@x/1")));
        assert!(!members.contains(&jid("b@x/1")));
        assert!(!members.contains(&jid("me@x/2")));
        assert!(members.is_own(&jid("me@x/2")));
        let removal = item("a@x", Subscription::Remove);
        let a = BareJid::new("a@x").expect("valid");
        assert_eq!(members.update(&removal), Change::Left(a));
        assert_eq!(members.update(&removal), Change::None);
        assert!(!members.contains(&jid("a@x/1")));
    }

    #[test]
    fn a_new_roster_tells_who_is_missing_from_it() {
        let mut members = Members::new(BareJid::new("me@x").expect("valid"));
        let (a, b) = (
            item("a@x", Subscription::Both),
            item("b@x", Subscription::Both),
        );
        assert!(members.replace(&[a, b.clone()]).is_empty());
        assert_eq!(members.replace(&[b]), [BareJid::new("a@x").expect("valid")]);
    }

    #[test]
    fn nodes_not_seen_again_after_a_sign_in_are_swept() {
        let mut members = Members::new(BareJid::new("me@x").expect("valid"));
        members.replace(&[
            item("a@x", Subscription::Both),
            item("b@x", Subscription::Both),
        ]);
        members.appeared(jid("a@x/1"));
        members.appeared(jid("b@x/1"));
        members.begin();
        members.appeared(jid("b@x/1"));
        assert_eq!(members.sweep(), [jid("a@x/1")]);
        assert!(members.sweep().is_empty());
    }

    #[test]
    fn nodes_of_former_members_are_expelled() {
        let mut members = Members::new(BareJid::new("me@x").expect("valid"));
        members.replace(&[item("a@x", Subscription::Both)]);
        members.appeared(jid("a@x/1"));
        members.update(&item("a@x", Subscription::Remove));
        assert_eq!(members.expel(), [jid("a@x/1")]);
    }
}
