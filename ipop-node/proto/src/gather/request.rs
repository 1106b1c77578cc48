//! The requests of a TURN client (RFC 8656): their methods and attributes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rtc_stun::message::{
    Getter, METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH,
    Message, Method,
};
use rtc_turn::proto::PROTO_UDP;
use rtc_turn::proto::channum::ChannelNumber;
use rtc_turn::proto::lifetime::Lifetime;
use rtc_turn::proto::peeraddr::PeerAddress;
use rtc_turn::proto::reqfamily::REQUESTED_FAMILY_IPV6;
use rtc_turn::proto::reqtrans::RequestedTransport;

use super::stun::Attributes;

/// What a client asks of a TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Allocate,
    Refresh,
    /// A refresh signed with the successor.
    Adopt,
    /// A refresh to zero; a new allocation follows if `again`.
    Release {
        again: bool,
    },
    Permit(IpAddr),
    Bind {
        peer: SocketAddr,
        channel: u16,
    },
}

impl Request {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Allocate => METHOD_ALLOCATE,
            Self::Refresh | Self::Adopt | Self::Release { .. } => METHOD_REFRESH,
            Self::Permit(_) => METHOD_CREATE_PERMISSION,
            Self::Bind { .. } => METHOD_CHANNEL_BIND,
        }
    }

    pub(super) fn attributes(self, ask_family: bool) -> Attributes {
        match self {
            Self::Allocate if ask_family => {
                vec![
                    Box::new(RequestedTransport {
                        protocol: PROTO_UDP,
                    }),
                    Box::new(REQUESTED_FAMILY_IPV6),
                ]
            }
            Self::Allocate => vec![Box::new(RequestedTransport {
                protocol: PROTO_UDP,
            })],
            Self::Refresh | Self::Adopt => Vec::new(),
            Self::Release { .. } => vec![Box::new(Lifetime(Duration::ZERO))],
            Self::Permit(ip) => vec![Box::new(PeerAddress { ip, port: 0 })],
            Self::Bind { peer, channel } => vec![
                Box::new(ChannelNumber(channel)),
                Box::new(PeerAddress {
                    ip: peer.ip(),
                    port: peer.port(),
                }),
            ],
        }
    }
}

/// LIFETIME, unless it says the allocation is gone.
pub(super) fn lifetime(message: &Message) -> Option<Duration> {
    let mut lifetime = Lifetime::default();
    lifetime.get_from(message).ok()?;
    (!lifetime.0.is_zero()).then_some(lifetime.0.max(Duration::from_secs(10)))
}
