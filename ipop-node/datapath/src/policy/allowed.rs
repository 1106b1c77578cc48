//! What one of two nodes may begin with the other.

/// What may be begun; by default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// TCP connections to these ports.
    pub tcp: Ports,
    /// UDP datagrams to these ports.
    pub udp: Ports,
    /// ICMP and ICMPv6 messages: echo requests above all.
    pub icmp: bool,
    /// Packets of every other protocol, and those of which it cannot be told what they are.
    pub others: bool,
}

impl Allowed {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            tcp: Ports::all(),
            udp: Ports::all(),
            icmp: true,
            others: true,
        }
    }

    /// Whether there is nothing that may not be begun.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::everything()
    }

    /// What of it `other` has not.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self {
            tcp: self.tcp.without(&other.tcp),
            udp: self.udp.without(&other.udp),
            icmp: self.icmp && !other.icmp,
            others: self.others && !other.others,
        }
    }

    /// Whether there is nothing that may be begun.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A set of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// First and last ones, in order, with a gap between any two.
    ranges: Vec<(u16, u16)>,
}

impl Ports {
    /// Every port.
    #[must_use]
    pub fn all() -> Self {
        Self {
            ranges: vec![(0, u16::MAX)],
        }
    }

    /// Adds the ports from `first` to `last`, both included.
    pub fn add(&mut self, first: u16, last: u16) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        // Those that overlap or touch become one.
        self.ranges.retain(|(from, to)| {
            let is_apart =
                u32::from(*to) + 1 < u32::from(first) || u32::from(last) + 1 < u32::from(*from);
            if !is_apart {
                (first, last) = (first.min(*from), last.max(*to));
            }
            is_apart
        });
        let at = self.ranges.partition_point(|(from, _)| *from < first);
        self.ranges.insert(at, (first, last));
    }

    /// Those that `other` has not.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (first, last) in &self.ranges {
            // The first one of which it is not known yet; none after the last port there is.
            let mut next = Some(*first);
            for (from, to) in &other.ranges {
                let Some(begin) = next.filter(|next| to >= next && from <= last) else {
                    continue;
                };
                if begin < *from {
                    left.add(begin, *from - 1);
                }
                next = to.checked_add(1);
            }
            if let Some(begin) = next {
                left.add(begin, *last);
            }
        }
        left
    }

    /// First and last ones, in order.
    #[must_use]
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.ranges
    }

    /// Whether `port` is one of them.
    #[inline]
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        let at = self.ranges.partition_point(|(_, last)| *last < port);
        self.ranges.get(at).is_some_and(|(first, _)| *first <= port)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[(u16, u16)]) -> Ports {
        let mut ports = Ports::default();
        for (first, last) in ranges {
            ports.add(*first, *last);
        }
        ports
    }

    #[test]
    fn nothing_is_left_of_a_set_without_all() {
        let some = set(&[(0, 5), (22, 22), (65_000, u16::MAX)]);
        assert_eq!(some.without(&Ports::all()), Ports::default());
        assert_eq!(Ports::all().without(&some), set(&[(6, 21), (23, 64_999)]));
        assert_eq!(some.without(&Ports::default()), some);
        let all = Allowed::everything();
        assert!(all.without(&all).is_nothing());
        assert_eq!(all.without(&Allowed::default()), all);
    }

    proptest! {
        #[test]
        fn what_is_left_of_a_set_is_what_the_other_has_not(
            a in prop::collection::vec((0_u16..60, 0_u16..8), 0..8),
            b in prop::collection::vec((0_u16..60, 0_u16..8), 0..8),
        ) {
            let [a, b] = [a, b].map(|ranges| {
                let ranges: Vec<_> = ranges.iter().map(|(first, more)| (*first, first + more)).collect();
                set(&ranges)
            });
            let left = a.without(&b);
            for port in 0..80 {
                prop_assert_eq!(left.has(port), a.has(port) && !b.has(port), "{}", port);
            }
        }

        #[test]
        fn a_set_has_what_was_added_and_nothing_else(
            ranges in prop::collection::vec((0_u16..60, 0_u16..8), 0..12),
        ) {
            let mut ports = Ports::default();
            let mut model = HashSet::new();
            for (first, more) in ranges {
                ports.add(first, first + more);
                model.extend(first..=first + more);
            }
            for port in 0..80 {
                prop_assert_eq!(ports.has(port), model.contains(&port), "{}", port);
            }
            // What touches is one, so that equal sets are equal.
            for pair in ports.ranges.windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0);
            }
        }
    }

    #[test]
    fn the_first_and_the_last_port_are_ports() {
        let all = Ports::all();
        assert!(all.has(0) && all.has(u16::MAX));
        let mut ports = Ports::default();
        ports.add(u16::MAX, u16::MAX);
        ports.add(1, 0);
        assert!(ports.has(u16::MAX) && !ports.has(0) && !ports.has(1));
        ports.add(0, u16::MAX - 1);
        assert_eq!(ports, all);
    }
}
