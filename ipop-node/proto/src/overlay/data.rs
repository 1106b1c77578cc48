//! Datagrams and packets on their way through.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use bytes::BytesMut;
use ipop_datapath::policy::Direction;

use super::icmp::{self, Unreachable};
use super::packet::Addresses;
use super::peer::{Peer, PeerId};
use super::{Output, Overlay};
use crate::config::OverlayMode;
use crate::gather::Inbound;
use crate::link::{Link, LinkEvent, stun_username};
use crate::net::{DatagramClass, Transmit};
use crate::signal::TerminateReason;
use crate::status::{DropReason, LinkState};
use crate::switch::Matter;
use crate::switch::message::Message;

impl Overlay {
    pub(super) fn datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
    ) {
        let inbound = self.gatherer.handle_datagram(now, local, remote, payload);
        match inbound {
            Inbound::Direct(payload) => self.deliver(now, local, remote, payload),
            Inbound::Relayed {
                local,
                remote,
                payload,
            } => {
                self.deliver(now, local, remote, payload);
            }
            Inbound::Consumed => self.drain_gatherer(now),
            Inbound::Unknown => self.drop(DropReason::UnknownDatagram),
        }
    }

    /// Gives a datagram to the link it belongs to.
    fn deliver(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, payload: BytesMut) {
        let pair = (local, remote);
        match DatagramClass::of(&payload) {
            DatagramClass::Stun => {
                let id = match stun_username(&payload) {
                    Some((ufrag, _)) => self.demux.by_ufrag(ufrag),
                    None => self.demux.by_pair(pair).iter().copied().find(|id| {
                        let session = self.table.get(*id).and_then(|p| p.session.as_ref());
                        session.is_some_and(|s| s.link.awaits_response(&payload))
                    }),
                };
                match id {
                    Some(id) => self.hand(now, id, local, remote, payload),
                    None => self.drop(DropReason::UnknownDatagram),
                }
            }
            DatagramClass::Dtls => match *self.demux.by_pair(pair) {
                [] => self.drop(DropReason::UnknownDatagram),
                [id] => self.hand(now, id, local, remote, payload),
                _ => self.hand_to_all(now, local, remote, &payload),
            },
            DatagramClass::TurnChannel | DatagramClass::Unknown => {
                self.drop(DropReason::UnknownDatagram);
            }
        }
    }

    fn hand(
        &mut self,
        now: Instant,
        id: PeerId,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
    ) {
        let is_stun = DatagramClass::of(&payload) == DatagramClass::Stun;
        let Some(peer) = self.table.get_mut(id) else {
            return self.drop(DropReason::UnknownDatagram);
        };
        let Some(session) = &mut peer.session else {
            return peer.traffic.dropped(DropReason::NoLink);
        };
        match session.link.handle_datagram(now, local, remote, payload) {
            Ok(()) if is_stun => self.demux.add_pair((local, remote), id),
            Ok(()) => {}
            Err(reason) => peer.traffic.dropped(reason),
        }
        self.advance(now, id);
    }

    /// Several peers signalled one address: each link is asked, and takes what it can verify.
    fn hand_to_all(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &BytesMut,
    ) {
        let mut taken = false;
        for id in self.demux.by_pair((local, remote)).to_vec() {
            let session = self.table.get_mut(id).and_then(|p| p.session.as_mut());
            taken |= session.is_some_and(|s| {
                s.link
                    .handle_datagram(now, local, remote, payload.clone())
                    .is_ok()
            });
            self.advance(now, id);
        }
        if !taken {
            self.drop(DropReason::UnknownDatagram);
        }
    }

    pub(super) fn packet(&mut self, now: Instant, packet: &[u8]) {
        let Some(addresses) = Addresses::of(packet) else {
            return self.drop(DropReason::Malformed);
        };
        if self.is_multicast(addresses.destination) {
            return self.drop(DropReason::Multicast);
        }
        let Some(id) = self.whose(addresses.destination) else {
            self.drop(DropReason::NoMember);
            return self.unreachable(now, packet, addresses, Unreachable::NoMember);
        };
        let is_up = self.table.get(id).is_some_and(Peer::is_up);
        if is_up && !self.admits(now, id, Direction::Out, packet) {
            return self.prohibit(now, id, packet, addresses);
        }
        let Some(peer) = self.table.get_mut(id) else {
            return self.drop(DropReason::NoMember);
        };
        if packet.len() > usize::from(self.config.mtu) {
            peer.traffic.dropped(DropReason::TooBig);
            let error = icmp::error(packet, addresses, Unreachable::TooBig(self.config.mtu));
            self.outputs.extend(error.map(Output::Packet));
            return;
        }
        let sent = match &mut peer.session {
            Some(session) => session.link.send(packet),
            None => Err(DropReason::NoLink),
        };
        if let Err(reason) = sent {
            return peer.traffic.dropped(reason);
        }
        peer.traffic.sent(1, packet.len() as u64);
        self.flush_link(now, id);
    }

    /// Puts on its way what was just sealed for a peer. No timer changes by sending, so the peer need
    /// not be filed anew.
    pub(super) fn flush_link(&mut self, now: Instant, id: PeerId) {
        while let Some(transmit) = self
            .table
            .get_mut(id)
            .and_then(|p| p.session.as_mut()?.link.poll_transmit())
        {
            self.send(now, id, transmit);
        }
    }

    /// Takes out what a peer's link has: datagrams, packets, and how it fares.
    pub(super) fn drain_link(&mut self, now: Instant, id: PeerId) {
        while let Some(transmit) = self
            .table
            .get_mut(id)
            .and_then(|p| p.session.as_mut()?.link.poll_transmit())
        {
            self.demux.add_pair((transmit.local, transmit.remote), id);
            self.send(now, id, transmit);
        }
        loop {
            let Some(peer) = self.table.get_mut(id) else {
                return;
            };
            let Some(session) = &mut peer.session else {
                return;
            };
            match session.link.poll_event() {
                None => return,
                Some(LinkEvent::Packet(packet)) => self.arrived(now, id, packet),
                Some(LinkEvent::Frame(frame)) => self.frame_arrived(id, frame),
                Some(LinkEvent::Message(message)) => self.message_arrived(id, &message),
                Some(LinkEvent::Control(message)) => self.control_arrived(now, id, &message),
                Some(LinkEvent::State(LinkState::Up)) => {
                    if let Err(why) = self.grant(now, id) {
                        return self.fail(now, id, why, Some(TerminateReason::GeneralError));
                    }
                    let Some(peer) = self.table.get_mut(id) else {
                        return;
                    };
                    if let Some(session) = &mut peer.session {
                        session.came_up(now);
                    }
                    peer.failure = None;
                    peer.backoff.reset();
                    peer.setup = Some(now.duration_since(peer.since));
                    let link = peer.session.as_ref().map(|session| &session.link);
                    let key = link.and_then(Link::shown_key);
                    peer.denied.key.clone_from(&key);
                    self.outputs.push_back(Output::LinkUp {
                        peer: peer.name.clone(),
                        fingerprint: link.and_then(Link::shown),
                        key,
                    });
                    self.gossip_linked(now, id);
                }
                Some(LinkEvent::State(_) | LinkEvent::PairSelected { .. }) => {}
                Some(LinkEvent::Failed {
                    why,
                    reason,
                    untrusted,
                }) => {
                    if untrusted {
                        self.refuse(now, id, &why);
                    }
                    // A peer that said good-bye needs no answer.
                    let tell = Some(reason).filter(|r| *r != TerminateReason::Success);
                    return self.fail(now, id, why, tell);
                }
            }
        }
    }

    /// Puts a link's datagram on its way, through a relay if it says so.
    pub(super) fn send(&mut self, now: Instant, id: PeerId, transmit: Transmit) {
        if let Err(reason) = self.gatherer.send(now, transmit) {
            match self.table.get_mut(id) {
                Some(peer) => peer.traffic.dropped(reason),
                None => self.drop(reason),
            }
        }
        while let Some(transmit) = self.gatherer.poll_transmit() {
            self.outputs.push_back(Output::Transmit(transmit));
        }
    }

    /// A packet from a peer, decrypted.
    fn arrived(&mut self, now: Instant, id: PeerId, packet: BytesMut) {
        let me = self.config.addrs;
        let Some(peer) = self.in_mode(OverlayMode::Route, id) else {
            return;
        };
        let dropped = match Addresses::of(&packet) {
            None => Some(DropReason::Malformed),
            Some(a) if !peer.addrs.is(a.source) => Some(DropReason::WrongSource),
            Some(a) if !me.is(a.destination) => Some(DropReason::WrongDestination),
            Some(_) => None,
        };
        let traffic = peer.traffic.clone();
        if let Some(reason) = dropped {
            return traffic.dropped(reason);
        }
        if !self.admits(now, id, Direction::In, &packet) {
            return traffic.dropped(DropReason::NotAllowed);
        }
        traffic.received(1, packet.len() as u64);
        self.outputs.push_back(Output::Packet(packet));
    }

    /// A frame from a peer, decrypted. Whether it may be from there is the switch's to say.
    fn frame_arrived(&mut self, id: PeerId, frame: BytesMut) {
        let Some(peer) = self.in_mode(OverlayMode::Switch, id) else {
            return;
        };
        peer.traffic.received(1, frame.len() as u64);
        self.outputs.push_back(Output::Switch {
            peer: id.into(),
            matter: Matter::Frame(frame.freeze()),
        });
    }

    /// What a peer's switch says, decrypted.
    fn message_arrived(&mut self, id: PeerId, message: &[u8]) {
        let Some(peer) = self.in_mode(OverlayMode::Switch, id) else {
            return;
        };
        let Some(message) = Message::read(message) else {
            return peer.traffic.dropped(DropReason::UnknownContent);
        };
        self.outputs.push_back(Output::Switch {
            peer: id.into(),
            matter: Matter::Message(message),
        });
    }

    /// The peer, if what it sent is of the mode that this node is in.
    fn in_mode(&mut self, mode: OverlayMode, id: PeerId) -> Option<&Peer> {
        let peer = self.table.get(id)?;
        if self.config.mode != mode {
            peer.traffic.dropped(DropReason::WrongMode);
            return None;
        }
        Some(peer)
    }

    fn is_multicast(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) => {
                let own = self.config.addrs.ipv4;
                let hosts = u32::MAX.checked_shr(u32::from(own.prefix)).unwrap_or(0);
                let broadcast = Ipv4Addr::from(u32::from(own.addr) | hosts);
                v4.is_multicast() || v4.is_broadcast() || v4 == broadcast
            }
            IpAddr::V6(v6) => v6.is_multicast(),
        }
    }
}
