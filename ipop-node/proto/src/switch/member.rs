//! What comes from members: frames, which go to the LAN or nowhere, and messages.

use std::time::Instant;

use bytes::Bytes;
use ipop_datapath::ethernet::{Class, Header, classify};
use ipop_datapath::stations::{PeerIndex, Station};

use super::guard::{Place, Towards};
use super::membership::Membership;
use super::message::Message;
use super::port::Port;
use super::storm::Flood;
use super::{Action, Refusal, Switch, flood_of, version_of};
use crate::status::DropReason;

impl Switch {
    /// A frame came from a member.
    pub fn frame_from_member(&mut self, member: PeerIndex, frame: Bytes, now: Instant) {
        match self.take_from_member(member, &frame, now) {
            Ok(true) => self.actions.push_back(Action::ToLan(frame)),
            Ok(false) => {}
            Err(refusal) => self.refuse(Port::Member(member), refusal, now),
        }
    }

    /// A message came from a member.
    pub fn message_from_member(&mut self, member: PeerIndex, message: Message, now: Instant) {
        let port = Port::Member(member);
        if !self.members.contains_key(&member) {
            return self.refuse(port, DropReason::NoMember.into(), now);
        }
        match message {
            Message::WhoHas(station) => {
                let is_here =
                    self.is_forwarding() && self.fdb.locate(station, now) == Some(Port::Lan);
                let answer = if is_here {
                    Message::Here(station)
                } else {
                    Message::NotHere(station)
                };
                self.actions.push_back(Action::Tell(member, answer));
            }
            Message::Here(station) if self.search.is_asked(station, member) => {
                if let Err(refusal) = self.learn(station, port, now) {
                    self.refuse(port, refusal, now);
                    self.not_there(station, member, now);
                }
            }
            Message::NotHere(station) => self.not_there(station, member, now),
            // Too late, or nobody asked.
            Message::Here(_) => {}
            Message::Flush => self.forget(port),
            Message::Behind(node) => {
                let lent = self.owners.said_behind(member, node, now);
                self.neighbours.forget_addresses(&lent);
            }
        }
    }

    fn not_there(&mut self, station: Station, member: PeerIndex, now: Instant) {
        let frames = self.search.not_there(station, member, now);
        self.send_to_all(&frames);
    }

    /// Whether the frame goes to the LAN.
    fn take_from_member(
        &mut self,
        member: PeerIndex,
        frame: &Bytes,
        now: Instant,
    ) -> Result<bool, Refusal> {
        let port = Port::Member(member);
        if !self.members.contains_key(&member) {
            return Err(DropReason::NoMember.into());
        }
        let header = Header::parse(frame).map_err(|_| DropReason::Malformed)?;
        let class = classify(&header, frame);
        match class {
            Class::Probe | Class::Reserved => return Err(DropReason::ForBridges.into()),
            Class::Hidden => return Err(DropReason::Hidden.into()),
            _ if !self.is_forwarding() => return Err(DropReason::Blocked.into()),
            _ => {}
        }
        let name = self.members.get(&member).map_or("", String::as_str);
        self.policy.check(class, port, name, header.source)?;
        self.check_source(port, &header, frame)?;
        self.learn(header.sender(), port, now)?;
        self.resolve(class, port, &header, frame, now)?;
        let Some(receiver) = header.receiver() else {
            return self.flood_to_lan(class, &header, port, frame, now);
        };
        match self.fdb.locate(receiver, now) {
            Some(Port::Lan) => {}
            Some(Port::Member(_)) => return Err(DropReason::Returning.into()),
            None => self
                .storm
                .admit(port, Flood::UnknownUnicast, frame.len(), now)?,
        }
        Ok(true)
    }

    fn flood_to_lan(
        &mut self,
        class: Class,
        header: &Header,
        port: Port,
        frame: &Bytes,
        now: Instant,
    ) -> Result<bool, Refusal> {
        self.storm.admit(port, flood_of(header), frame.len(), now)?;
        match self.policy.towards(class) {
            Towards::Place(Place::Here) => return Ok(true),
            Towards::Place(Place::Member(_)) | Towards::Nobody => {
                return Err(DropReason::NotAllowed.into());
            }
            Towards::Everybody => {}
        }
        if !matches!(class, Class::Igmp | Class::Mld) {
            return Ok(self.wanted(header, frame, now).includes(Port::Lan));
        }
        let version = version_of(class);
        match Membership::read(frame) {
            Some(message) => {
                self.groups.heard(header.vlan, version, port, &message, now);
                // Hosts of the older versions keep silent when they hear another one's report.
                let is_report = matches!(message, Membership::Report(_));
                let has_router = self.groups.has_router(header.vlan, version, Port::Lan, now);
                Ok(!is_report || has_router)
            }
            None => Ok(true),
        }
    }
}
