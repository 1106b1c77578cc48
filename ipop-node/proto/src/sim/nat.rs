//! NATs in the words of RFC 4787.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use rand::RngExt as _;
use rand::rngs::StdRng;

/// When two sessions of one internal socket share an external port (RFC 4787 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// Always.
    EndpointIndependent,
    /// Only towards the same address.
    AddressDependent,
    /// Only towards the same address and port.
    AddressAndPortDependent,
}

/// Which external senders reach a mapping (RFC 4787 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// All.
    EndpointIndependent,
    /// Those whose address was sent to.
    AddressDependent,
    /// Those whose address and port were sent to.
    AddressAndPortDependent,
}

/// A NAT's behaviour. All of them hairpin (RFC 4787 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatKind {
    /// Mapping behaviour.
    pub mapping: Mapping,
    /// Filtering behaviour.
    pub filtering: Filtering,
}

impl NatKind {
    /// What most home routers are: endpoint-independent mapping, strict filtering.
    pub const HOME: Self = Self {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
    };
    /// What cannot be traversed without a relay when both sides have it.
    pub const SYMMETRIC: Self = Self {
        mapping: Mapping::AddressAndPortDependent,
        filtering: Filtering::AddressAndPortDependent,
    };
}

/// One NAT with one external address.
pub(super) struct Nat {
    kind: NatKind,
    external: IpAddr,
    /// By internal socket and the part of the destination the mapping depends on.
    ports: HashMap<(SocketAddr, Option<IpAddr>, Option<u16>), u16>,
    mappings: HashMap<u16, Session>,
}

/// Who is behind an external port, and whom it has sent to.
struct Session {
    internal: SocketAddr,
    sent_to: HashSet<SocketAddr>,
}

impl Nat {
    pub(super) fn new(kind: NatKind, external: IpAddr) -> Self {
        Self {
            kind,
            external,
            ports: HashMap::new(),
            mappings: HashMap::new(),
        }
    }

    pub(super) fn external(&self) -> IpAddr {
        self.external
    }

    pub(super) fn forget(&mut self) {
        self.ports.clear();
        self.mappings.clear();
    }

    /// The source a datagram has outside.
    pub(super) fn outbound(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        rng: &mut StdRng,
    ) -> SocketAddr {
        let key = match self.kind.mapping {
            Mapping::EndpointIndependent => (from, None, None),
            Mapping::AddressDependent => (from, Some(to.ip()), None),
            Mapping::AddressAndPortDependent => (from, Some(to.ip()), Some(to.port())),
        };
        let port = *self.ports.entry(key).or_insert_with(|| {
            loop {
                let port = rng.random_range(1024..=u16::MAX);
                if !self.mappings.contains_key(&port) {
                    break port;
                }
            }
        });
        self.mappings
            .entry(port)
            .or_insert_with(|| Session {
                internal: from,
                sent_to: HashSet::new(),
            })
            .sent_to
            .insert(to);
        SocketAddr::new(self.external, port)
    }

    /// Who gets a datagram that arrived at an external port.
    pub(super) fn inbound(&self, from: SocketAddr, port: u16) -> Option<SocketAddr> {
        let session = self.mappings.get(&port)?;
        let admitted = match self.kind.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => {
                session.sent_to.iter().any(|known| known.ip() == from.ip())
            }
            Filtering::AddressAndPortDependent => session.sent_to.contains(&from),
        };
        admitted.then_some(session.internal)
    }
}
