//! Which IP addresses the frames of a peer may come from.
//!
//! An address that somebody vouches for belongs to one peer, or to this node; frames of nobody else come
//! from it. Built once, then only read: whoever changes anything builds another table.

use std::net::IpAddr;

use thiserror::Error;

use crate::prefix::PrefixTable;
use crate::stations::PeerIndex;

/// The table. An empty one refuses nothing.
#[derive(Debug, Default)]
pub struct Holders {
    held: PrefixTable<Held>,
    /// By number.
    confined: Vec<bool>,
}

/// Who may use an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    by: PeerIndex,
    also: Option<PeerIndex>,
}

/// Why a peer may not use an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotItsOwn {
    /// It belongs to another peer.
    #[error("the address belongs to peer {0}")]
    Held(PeerIndex),
    /// Nobody has it, and the peer may use none of these.
    #[error("the peer may use its own addresses only")]
    Confined,
}

impl Holders {
    /// The address belongs to `by` (or [`LOCAL`](crate::stations::LOCAL), or
    /// [`NOBODY`](crate::stations::NOBODY)), and `also` may use it.
    pub fn hold(&mut self, ip: IpAddr, by: PeerIndex, also: Option<PeerIndex>) {
        // Longer than any address: all of it.
        self.held.insert(ip, u8::MAX, Held { by, also });
    }

    /// Of what nobody holds the peer may use nothing but link-local addresses.
    pub fn confine(&mut self, peer: PeerIndex) {
        let at = usize::from(peer);
        if self.confined.len() <= at {
            self.confined.resize(at + 1, false);
        }
        self.confined[at] = true;
    }

    /// Whether a frame that came from the peer `from`, or from the device when that is
    /// [`LOCAL`](crate::stations::LOCAL), may have `source` as its IP address. Everybody may use those that mean
    /// something on one link alone, and the unspecified one.
    ///
    /// # Errors
    ///
    /// When it may not.
    #[inline]
    pub fn admit(&self, from: PeerIndex, source: IpAddr) -> Result<(), NotItsOwn> {
        match self.held.route(source) {
            Some(held) if held.by == from || held.also == Some(from) => Ok(()),
            Some(held) => Err(NotItsOwn::Held(held.by)),
            None if !self.is_confined(from) || is_of_the_link(source) => Ok(()),
            None => Err(NotItsOwn::Confined),
        }
    }

    fn is_confined(&self, peer: PeerIndex) -> bool {
        self.confined.get(usize::from(peer)) == Some(&true)
    }
}

/// Unspecified (a station that has no address yet) and link-local (RFC 3927, RFC 4291 section 2.5.6).
fn is_of_the_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stations::LOCAL;

    const OWN: &str = "10.1.0.1";
    const A: &str = "10.1.0.2";
    const B: &str = "fd00::3";
    const STRANGE: &str = "10.1.0.99";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Peer 7 has A, and 9 may use it; 8 has B and is confined.
    fn holders() -> Holders {
        let mut holders = Holders::default();
        holders.hold(ip(OWN), LOCAL, None);
        holders.hold(ip(A), 7, Some(9));
        holders.hold(ip(B), 8, None);
        holders.confine(8);
        holders
    }

    #[test]
    fn an_address_is_used_by_who_has_it_and_whom_it_is_lent_to() {
        let holders = holders();
        for (from, source) in [(LOCAL, OWN), (7, A), (9, A), (8, B)] {
            assert_eq!(holders.admit(from, ip(source)), Ok(()), "{from} {source}");
        }
        for (from, source, holder) in [(7, OWN, LOCAL), (LOCAL, A, 7), (8, A, 7), (9, B, 8)] {
            let refused = Err(NotItsOwn::Held(holder));
            assert_eq!(holders.admit(from, ip(source)), refused, "{from} {source}");
        }
    }

    #[test]
    fn what_nobody_has_is_used_by_those_who_carry_for_others() {
        let holders = holders();
        for from in [LOCAL, 7, 9] {
            assert_eq!(holders.admit(from, ip(STRANGE)), Ok(()));
        }
        assert_eq!(holders.admit(8, ip(STRANGE)), Err(NotItsOwn::Confined));
        for source in ["0.0.0.0", "169.254.3.4", "::", "fe80::1"] {
            assert_eq!(holders.admit(8, ip(source)), Ok(()), "{source}");
        }
    }
}
