//! Datagrams of the underlay, and the first-byte classes that share one UDP port (RFC 7983).

use std::net::SocketAddr;

use bytes::BytesMut;

/// A datagram to be sent on the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where it leaves from: the address of a local socket, or a relayed address of this node.
    /// In the second case whoever owns the allocation wraps the payload in TURN.
    pub local: SocketAddr,
    /// Where it goes.
    pub remote: SocketAddr,
    /// UDP payload.
    pub payload: BytesMut,
}

/// How a datagram gets to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The socket it leaves from, by the address it is bound to.
    pub local: SocketAddr,
    /// The peer's address, or its TURN server's.
    pub remote: SocketAddr,
    /// The TURN channel it goes in (RFC 8656 section 12), when it is relayed.
    pub channel: Option<u16>,
}

/// What a datagram is, by its first byte (RFC 7983 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramClass {
    /// 0 to 3: STUN, and TURN's own messages.
    Stun,
    /// 20 to 63: DTLS.
    Dtls,
    /// 64 to 79: a TURN channel message.
    TurnChannel,
    /// Anything else, and an empty datagram.
    Unknown,
}

impl DatagramClass {
    /// Classifies a UDP payload.
    pub fn of(payload: &[u8]) -> Self {
        match payload.first() {
            Some(0..=3) => Self::Stun,
            Some(20..=63) => Self::Dtls,
            Some(64..=79) => Self::TurnChannel,
            _ => Self::Unknown,
        }
    }
}
