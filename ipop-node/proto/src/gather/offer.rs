//! From what was gathered to what is offered (RFC 8445 section 5.1).

use std::net::SocketAddr;

use super::allocation::Allocation;
use super::preference::{self, Foundations};
use super::reflexive::Reflexive;
use crate::candidate::{Candidate, CandidateKind, LocalCandidate};

/// Every candidate there should be, redundant ones left out (RFC 8445 section 5.1.3).
pub(super) fn candidates(
    sockets: &[SocketAddr],
    reflexive: &[Reflexive],
    allocations: &[Allocation],
    foundations: &mut Foundations,
) -> Vec<LocalCandidate> {
    let mut make = |kind, addr, base: SocketAddr, via: SocketAddr, server: Option<SocketAddr>| {
        let preference = preference::local_preference(via, sockets);
        LocalCandidate {
            candidate: Candidate {
                foundation: foundations.of(kind, base.ip(), server.map(|s| s.ip())),
                kind,
                addr,
                priority: preference::priority(kind, preference),
                related: None,
            },
            base,
        }
    };
    let mut wanted: Vec<LocalCandidate> = Vec::new();
    for socket in sockets.iter().filter(|s| is_offered(**s)) {
        wanted.push(make(CandidateKind::Host, *socket, *socket, *socket, None));
    }
    for reflexive in reflexive {
        let (socket, server) = (reflexive.socket, reflexive.server);
        let Some(addr) = reflexive.mapped else {
            continue;
        };
        if !wanted
            .iter()
            .any(|c| c.candidate.addr == addr && c.base == socket)
        {
            let mut c = make(CandidateKind::Srflx, addr, socket, socket, Some(server));
            c.candidate.related = Some(socket);
            wanted.push(c);
        }
    }
    for allocation in allocations {
        let Some(addr) = allocation.relayed() else {
            continue;
        };
        let (socket, server) = (allocation.socket, allocation.server);
        let mut c = make(CandidateKind::Relay, addr, addr, socket, Some(server));
        c.candidate.related = Some(allocation.mapped().unwrap_or(socket));
        wanted.push(c);
    }
    wanted
}

/// Whether a socket's own address is worth telling a peer: a scope id does not travel, and an
/// unspecified address is none.
pub(super) fn is_offered(socket: SocketAddr) -> bool {
    let link_local = match socket {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(v6) => v6.ip().is_unicast_link_local(),
    };
    !socket.ip().is_unspecified() && !link_local
}
