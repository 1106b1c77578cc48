//! Whom an allocation may talk to: permissions (RFC 8656 section 9) and channels (section 12).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;

/// Permissions last 300 s, channels 600 s; both are renewed well before.
const RENEW: Duration = Duration::from_secs(200);
/// One that carried nothing for this long is let go.
const IDLE: Duration = Duration::from_secs(300);
/// Before a refused peer is asked for again.
const REFUSED: Duration = Duration::from_secs(60);
/// Datagrams kept for a peer while its permission is asked for.
const QUEUE: usize = 16;
/// RFC 8656 section 12: 0x4000 to 0x4FFF.
const CHANNELS: std::ops::Range<u16> = 0x4000..0x5000;

/// What has to be asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Permit(IpAddr),
    Bind { peer: SocketAddr, channel: u16 },
}

/// How a datagram to a peer goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In a channel message.
    Channel(u16, BytesMut),
    /// In a Send indication.
    Indication(BytesMut),
    /// It waits for a permission.
    Queued,
    /// It waits, and pushed out an older one.
    Overflowed,
    /// The server refused this peer.
    Refused,
}

/// The permissions and channels of one allocation.
#[derive(Debug, Default)]
pub(super) struct Peers {
    permissions: HashMap<IpAddr, Permission>,
    channels: HashMap<SocketAddr, Channel>,
    numbers: HashMap<u16, SocketAddr>,
    bound_so_far: u16,
}

#[derive(Debug)]
struct Permission {
    state: PermissionState,
    used: Instant,
    queue: VecDeque<(SocketAddr, BytesMut)>,
}

#[derive(Debug)]
enum PermissionState {
    Asked,
    Granted { renew: Instant },
    Refused { until: Instant },
}

#[derive(Debug)]
struct Channel {
    number: u16,
    bound: bool,
    used: Instant,
    renew: Instant,
}

impl Peers {
    /// Finds the way for one datagram; `lasting` peers get a channel.
    pub(super) fn send(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        payload: BytesMut,
        lasting: bool,
        asks: &mut Vec<Ask>,
    ) -> Way {
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.used = now;
            if channel.bound {
                if let Some(permission) = self.permissions.get_mut(&peer.ip()) {
                    permission.used = now;
                }
                return Way::Channel(channel.number, payload);
            }
        }
        let permission = self.permissions.entry(peer.ip()).or_insert_with(|| {
            asks.push(Ask::Permit(peer.ip()));
            Permission {
                state: PermissionState::Asked,
                used: now,
                queue: VecDeque::new(),
            }
        });
        permission.used = now;
        match permission.state {
            PermissionState::Asked => {
                permission.queue.push_back((peer, payload));
                if permission.queue.len() > QUEUE {
                    permission.queue.pop_front();
                    return Way::Overflowed;
                }
                Way::Queued
            }
            PermissionState::Refused { .. } => Way::Refused,
            PermissionState::Granted { .. } => {
                if lasting && !self.channels.contains_key(&peer) {
                    asks.extend(self.bind(now, peer));
                }
                Way::Indication(payload)
            }
        }
    }

    /// The server granted a permission; what waited for it may go.
    pub(super) fn permitted(
        &mut self,
        now: Instant,
        ip: IpAddr,
    ) -> VecDeque<(SocketAddr, BytesMut)> {
        let Some(permission) = self.permissions.get_mut(&ip) else {
            return VecDeque::new();
        };
        permission.state = PermissionState::Granted { renew: now + RENEW };
        std::mem::take(&mut permission.queue)
    }

    /// The server refused a permission, or did not answer. Gives how many datagrams waited.
    pub(super) fn refused(&mut self, now: Instant, ip: IpAddr) -> usize {
        let Some(permission) = self.permissions.get_mut(&ip) else {
            return 0;
        };
        permission.state = PermissionState::Refused {
            until: now + REFUSED,
        };
        std::mem::take(&mut permission.queue).len()
    }

    /// The server bound a channel.
    pub(super) fn bound(&mut self, now: Instant, peer: SocketAddr) {
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.bound = true;
            channel.renew = now + RENEW;
        }
    }

    /// The server refused a channel. The entry stays unbound, so that indications are used and it
    /// is not asked for with every datagram.
    pub(super) fn unbound(&mut self, now: Instant, peer: SocketAddr) {
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.bound = false;
            channel.renew = now + RENEW;
        }
    }

    /// The peer behind a channel number.
    pub(super) fn peer_of(&self, channel: u16) -> Option<SocketAddr> {
        self.numbers.get(&channel).copied()
    }

    /// The number of the channel to `peer`, once it is bound.
    pub(super) fn channel_to(&self, peer: SocketAddr) -> Option<u16> {
        let channel = self.channels.get(&peer)?;
        channel.bound.then_some(channel.number)
    }

    /// Whether datagrams from `ip` may be expected.
    pub(super) fn permits(&self, ip: IpAddr) -> bool {
        self.permissions.contains_key(&ip)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let permissions = self.permissions.values().filter_map(|p| match p.state {
            PermissionState::Asked => None,
            PermissionState::Granted { renew } => Some(renew),
            PermissionState::Refused { until } => Some(until),
        });
        permissions
            .chain(self.channels.values().map(|c| c.renew))
            .min()
    }

    /// Renews what is in use, lets go of what is not.
    pub(super) fn handle_timeout(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        self.permissions
            .retain(|ip, permission| match &mut permission.state {
                PermissionState::Granted { renew } if *renew <= now => {
                    if now.duration_since(permission.used) > IDLE {
                        return false;
                    }
                    *renew = now + RENEW;
                    asks.push(Ask::Permit(*ip));
                    true
                }
                PermissionState::Refused { until } => now < *until,
                _ => true,
            });
        let numbers = &mut self.numbers;
        self.channels.retain(|peer, channel| {
            if now < channel.renew {
                return true;
            }
            // A number must rest for 5 minutes after its channel expired (RFC 8656 section 12):
            // the channel expires at most 600 s after the last renewal, which was before `used`
            // plus IDLE. So an idle one is forgotten late, and its number is then free.
            if now.duration_since(channel.used) > IDLE {
                channel.bound = false;
                if now.duration_since(channel.used) > IDLE + Duration::from_secs(1200) {
                    numbers.remove(&channel.number);
                    return false;
                }
                channel.renew = now + RENEW;
                return true;
            }
            channel.renew = now + RENEW;
            asks.push(Ask::Bind {
                peer: *peer,
                channel: channel.number,
            });
            true
        });
    }

    fn bind(&mut self, now: Instant, peer: SocketAddr) -> Option<Ask> {
        let span = CHANNELS.end - CHANNELS.start;
        let number = (0..span)
            .map(|i| CHANNELS.start + (self.bound_so_far + i) % span)
            .find(|n| !self.numbers.contains_key(n))?;
        self.bound_so_far = (number - CHANNELS.start + 1) % span;
        self.numbers.insert(number, peer);
        self.channels.insert(
            peer,
            Channel {
                number,
                bound: false,
                used: now,
                renew: now + RENEW,
            },
        );
        Some(Ask::Bind {
            peer,
            channel: number,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        "192.0.2.9:700".parse().expect("valid")
    }

    fn payload(byte: u8) -> BytesMut {
        BytesMut::from(&[byte][..])
    }

    #[test]
    fn datagrams_wait_for_the_permission_and_then_go_in_order() {
        let (now, mut peers, mut asks) = (Instant::now(), Peers::default(), Vec::new());
        assert_eq!(
            peers.send(now, peer(), payload(1), false, &mut asks),
            Way::Queued
        );
        assert_eq!(
            peers.send(now, peer(), payload(2), false, &mut asks),
            Way::Queued
        );
        assert_eq!(asks, [Ask::Permit(peer().ip())]);
        let queue: Vec<_> = peers.permitted(now, peer().ip()).into();
        assert_eq!(queue, [(peer(), payload(1)), (peer(), payload(2))]);
        assert_eq!(
            peers.send(now, peer(), payload(3), false, &mut asks),
            Way::Indication(payload(3))
        );
    }

    #[test]
    fn a_lasting_peer_gets_a_channel_once() {
        let (now, mut peers, mut asks) = (Instant::now(), Peers::default(), Vec::new());
        peers.send(now, peer(), payload(1), true, &mut asks);
        peers.permitted(now, peer().ip());
        peers.send(now, peer(), payload(2), true, &mut asks);
        peers.send(now, peer(), payload(3), true, &mut asks);
        assert_eq!(
            asks[1..],
            [Ask::Bind {
                peer: peer(),
                channel: 0x4000
            }]
        );
        peers.bound(now, peer());
        assert_eq!(
            peers.send(now, peer(), payload(4), true, &mut asks),
            Way::Channel(0x4000, payload(4))
        );
        assert_eq!(peers.peer_of(0x4000), Some(peer()));
    }

    #[test]
    fn used_permissions_are_renewed_and_idle_ones_let_go() {
        let (start, mut peers, mut asks) = (Instant::now(), Peers::default(), Vec::new());
        peers.send(start, peer(), payload(1), false, &mut asks);
        peers.permitted(start, peer().ip());
        asks.clear();
        let due = peers.poll_timeout().expect("a renewal");
        assert!(due - start < Duration::from_secs(300));
        peers.handle_timeout(due, &mut asks);
        assert_eq!(asks, [Ask::Permit(peer().ip())]);
        peers.handle_timeout(start + Duration::from_secs(900), &mut asks);
        assert!(!peers.permits(peer().ip()));
    }

    #[test]
    fn a_refused_peer_is_not_asked_for_with_every_datagram() {
        let (now, mut peers, mut asks) = (Instant::now(), Peers::default(), Vec::new());
        peers.send(now, peer(), payload(1), false, &mut asks);
        assert_eq!(peers.refused(now, peer().ip()), 1);
        assert_eq!(
            peers.send(now, peer(), payload(2), false, &mut asks),
            Way::Refused
        );
        assert_eq!(asks.len(), 1);
        peers.handle_timeout(now + REFUSED, &mut asks);
        peers.send(now + REFUSED, peer(), payload(3), false, &mut asks);
        assert_eq!(asks.len(), 2);
    }
}
