//! Priorities and foundations of local candidates (RFC 8445 sections 5.1.1.3 and 5.1.2.1).

use std::net::{IpAddr, SocketAddr};

use crate::candidate::CandidateKind;

/// `(2^24)*type + (2^8)*local + (256 - component)` for component 1.
pub(super) fn priority(kind: CandidateKind, local_preference: u16) -> u32 {
    let kind_preference: u32 = match kind {
        CandidateKind::Host => 126,
        CandidateKind::Prflx => 110,
        CandidateKind::Srflx => 100,
        CandidateKind::Relay => 0,
    };
    (kind_preference << 24) | (u32::from(local_preference) << 8) | 255
}

/// The local preference of `socket` among `sockets`: unique, earlier ones first, the families
/// interleaved with IPv6 ahead (RFC 8421 section 4).
pub(super) fn local_preference(socket: SocketAddr, sockets: &[SocketAddr]) -> u16 {
    let rank = sockets
        .iter()
        .filter(|s| s.is_ipv4() == socket.is_ipv4())
        .position(|s| *s == socket)
        .unwrap_or(0);
    let below = rank.saturating_mul(2) + usize::from(socket.is_ipv4());
    u16::MAX - u16::try_from(below).unwrap_or(u16::MAX)
}

/// Hands out foundations: one short number for each kind, base and server.
#[derive(Debug, Default)]
pub(super) struct Foundations {
    known: Vec<(CandidateKind, IpAddr, Option<IpAddr>)>,
}

impl Foundations {
    pub(super) fn of(
        &mut self,
        kind: CandidateKind,
        base: IpAddr,
        server: Option<IpAddr>,
    ) -> String {
        let key = (kind, base, server);
        let at = self
            .known
            .iter()
            .position(|k| *k == key)
            .unwrap_or_else(|| {
                self.known.push(key);
                self.known.len() - 1
            });
        (at + 1).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_beats_srflx_beats_relay_whatever_the_local_preference() {
        assert!(priority(CandidateKind::Host, 0) > priority(CandidateKind::Prflx, u16::MAX));
        assert!(priority(CandidateKind::Prflx, 0) > priority(CandidateKind::Srflx, u16::MAX));
        assert!(priority(CandidateKind::Srflx, 0) > priority(CandidateKind::Relay, u16::MAX));
        // The example value of RFC 8445's formula for a single-homed host.
        assert_eq!(priority(CandidateKind::Host, 65535), 2_130_706_431);
    }

    #[test]
    fn every_socket_has_its_own_local_preference() {
        let sockets: Vec<SocketAddr> = ["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1", "[fd00::2]:1"]
            .iter()
            .map(|s| s.parse().expect("valid"))
            .collect();
        let mut all: Vec<_> = sockets
            .iter()
            .map(|s| local_preference(*s, &sockets))
            .collect();
        assert_eq!(all, [65534, 65532, 65535, 65533]);
        all.dedup();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn foundations_differ_by_kind_base_and_server_only() {
        let mut f = Foundations::default();
        let a: IpAddr = "10.0.0.1".parse().expect("valid");
        let s: IpAddr = "192.0.2.1".parse().expect("valid");
        let host = f.of(CandidateKind::Host, a, None);
        assert_eq!(host, f.of(CandidateKind::Host, a, None));
        assert_ne!(host, f.of(CandidateKind::Srflx, a, Some(s)));
        assert_ne!(host, f.of(CandidateKind::Host, s, None));
    }
}
