//! Where a destination is routed: the longest prefix that contains it.
//!
//! Built once, then only read: whoever changes routes builds another table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Values by prefix, for both versions of IP.
#[derive(Debug, Clone)]
pub struct PrefixTable<T> {
    v4: Family<u32, T>,
    v6: Family<u128, T>,
}

/// One hash table for each prefix length in use, longest first. Overlays have hosts and a few
/// networks, so that there are one or two lengths.
#[derive(Debug, Clone)]
struct Family<A, T> {
    lengths: Vec<(u8, HashMap<A, T>)>,
}

impl<T> Default for PrefixTable<T> {
    fn default() -> Self {
        Self {
            v4: Family {
                lengths: Vec::new(),
            },
            v6: Family {
                lengths: Vec::new(),
            },
        }
    }
}

impl<T> PrefixTable<T> {
    /// Routes what shares the first `length` bits with `addr`; a longer length than the address
    /// has means all of them. The value that was there is replaced.
    pub fn insert(&mut self, addr: IpAddr, length: u8, value: T) {
        match addr {
            IpAddr::V4(addr) => {
                let length = length.min(32);
                self.v4.insert(length, mask4(addr, length), value);
            }
            IpAddr::V6(addr) => {
                let length = length.min(128);
                self.v6.insert(length, mask6(addr, length), value);
            }
        }
    }

    /// The value of the longest prefix that contains `addr`.
    #[inline]
    pub fn route(&self, addr: IpAddr) -> Option<&T> {
        match addr {
            IpAddr::V4(addr) => self
                .v4
                .lengths
                .iter()
                .find_map(|(length, table)| table.get(&mask4(addr, *length))),
            IpAddr::V6(addr) => self
                .v6
                .lengths
                .iter()
                .find_map(|(length, table)| table.get(&mask6(addr, *length))),
        }
    }
}

impl<A: Eq + std::hash::Hash, T> Family<A, T> {
    fn insert(&mut self, length: u8, addr: A, value: T) {
        let at = self.lengths.partition_point(|(l, _)| *l > length);
        if self.lengths.get(at).is_none_or(|(l, _)| *l != length) {
            self.lengths.insert(at, (length, HashMap::new()));
        }
        self.lengths[at].1.insert(addr, value);
    }
}

const fn mask4(addr: Ipv4Addr, length: u8) -> u32 {
    match u32::MAX.checked_shl(32 - length as u32) {
        Some(mask) => addr.to_bits() & mask,
        None => 0,
    }
}

const fn mask6(addr: Ipv6Addr, length: u8) -> u128 {
    match u128::MAX.checked_shl(128 - length as u32) {
        Some(mask) => addr.to_bits() & mask,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn the_longest_prefix_wins_in_whatever_order_they_came() {
        let prefixes = [
            ("10.1.2.3", 32, "host"),
            ("0.0.0.0", 0, "default"),
            ("10.1.0.0", 16, "site"),
            ("fd00::", 8, "all6"),
            ("fd00::1", 128, "host6"),
        ];
        for turn in 0..prefixes.len() {
            let mut table = PrefixTable::default();
            let (late, early) = prefixes.split_at(turn);
            for (addr, length, value) in early.iter().chain(late) {
                table.insert(ip(addr), *length, *value);
            }
            for (addr, value) in [
                ("10.1.2.3", Some("host")),
                ("10.1.2.4", Some("site")),
                ("10.2.0.0", Some("default")),
                ("fd00::1", Some("host6")),
                ("fdff::", Some("all6")),
                ("fe80::1", None),
            ] {
                assert_eq!(table.route(ip(addr)), value.as_ref(), "{addr}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_looking_at_every_prefix(
            prefixes in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..40),
            addrs in prop::collection::vec(any::<u32>(), 1..40),
        ) {
            let mut table = PrefixTable::default();
            for (at, (addr, length)) in prefixes.iter().enumerate() {
                table.insert(IpAddr::V4((*addr).into()), *length, at);
            }
            // Addresses near the prefixes, or nothing would ever match.
            let near = prefixes.iter().map(|(addr, _)| addr ^ 1);
            for addr in addrs.iter().copied().chain(near) {
                let longest = prefixes
                    .iter()
                    .enumerate()
                    .filter(|(_, (p, l))| (u64::from(p ^ addr)) >> (32 - u32::from(*l)) == 0)
                    .max_by_key(|(at, (_, l))| (*l, *at))
                    .map(|(at, _)| at);
                prop_assert_eq!(table.route(IpAddr::V4(addr.into())).copied(), longest);
            }
        }
    }
}
