//! Frames that come from the LAN.

use std::time::Instant;

use bytes::Bytes;
use ipop_datapath::ethernet::{Class, Header, classify};
use ipop_datapath::stations::Station;

use super::groups::Wanted;
use super::guard::{Place, Towards};
use super::membership::Membership;
use super::message::Message;
use super::port::Port;
use super::resolution::Verdict;
use super::search::Sought;
use super::storm::Flood;
use super::{Action, Refusal, Switch, flood_of, version_of};
use crate::status::DropReason;

impl Switch {
    /// A frame came from the TAP device.
    pub fn frame_from_lan(&mut self, frame: Bytes, now: Instant) {
        if let Err(refusal) = self.take_from_lan(&frame, now) {
            self.refuse(Port::Lan, refusal, now);
        }
    }

    fn take_from_lan(&mut self, frame: &Bytes, now: Instant) -> Result<(), Refusal> {
        let header = Header::parse(frame).map_err(|_| DropReason::Malformed)?;
        let class = classify(&header, frame);
        match class {
            Class::Probe => return self.probe_from_lan(&frame[header.payload_at..], now),
            Class::Reserved => return Err(DropReason::ForBridges.into()),
            Class::Hidden => return Err(DropReason::Hidden.into()),
            _ if !self.is_forwarding() => return Err(DropReason::Blocked.into()),
            _ => {}
        }
        self.policy.check(class, Port::Lan, "", header.source)?;
        self.check_source(Port::Lan, &header, frame)?;
        self.learn(header.sender(), Port::Lan, now)?;
        match self.resolve(class, Port::Lan, &header, frame, now)? {
            Verdict::Pass => {}
            Verdict::Stays => return Ok(()),
            Verdict::Answered(answer) => {
                self.actions.push_back(Action::ToLan(answer));
                return Ok(());
            }
        }
        match header.receiver() {
            Some(receiver) => self.unicast(receiver, frame, now),
            None => self.flood(class, &header, frame, now),
        }
    }

    fn probe_from_lan(&mut self, payload: &[u8], now: Instant) -> Result<(), Refusal> {
        let Some(loops) = &mut self.loops else {
            return Err(DropReason::ForBridges.into());
        };
        let heard = loops.handle_probe(payload, now);
        self.follow_loops(now);
        heard.map_err(|_| DropReason::ForBridges.into())
    }

    fn unicast(&mut self, to: Station, frame: &Bytes, now: Instant) -> Result<(), Refusal> {
        match self.fdb.locate(to, now) {
            // It got there without this node.
            Some(Port::Lan) => return Ok(()),
            Some(Port::Member(member)) => {
                self.actions
                    .push_back(Action::ToMember(member, frame.clone()));
                return Ok(());
            }
            None => {}
        }
        self.storm
            .admit(Port::Lan, Flood::UnknownUnicast, frame.len(), now)?;
        let members = self.members.keys().copied();
        match self.search.look_for(to, frame.clone(), members, now) {
            Sought::Ask => {
                for member in self.members.keys() {
                    let question = Message::WhoHas(to);
                    self.actions.push_back(Action::Tell(*member, question));
                }
            }
            Sought::Waits => {}
            Sought::Flood(frame) => self.send_to_all(&[frame]),
            Sought::Dropped => return Err(DropReason::QueueFull.into()),
        }
        Ok(())
    }

    /// A frame for more than one.
    fn flood(
        &mut self,
        class: Class,
        header: &Header,
        frame: &Bytes,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.storm
            .admit(Port::Lan, flood_of(header), frame.len(), now)?;
        let to = match self.policy.towards(class) {
            Towards::Place(Place::Here) => return Ok(()),
            Towards::Nobody => return Err(DropReason::NoMember.into()),
            Towards::Place(Place::Member(name)) => {
                let mut members = self.members.iter();
                let (member, _) = members
                    .find(|(_, member)| *member == name)
                    .ok_or(DropReason::NoLink)?;
                Wanted::Only([Port::Member(*member)].into())
            }
            Towards::Everybody if matches!(class, Class::Igmp | Class::Mld) => {
                if let Some(message) = Membership::read(frame) {
                    let version = version_of(class);
                    self.groups
                        .heard(header.vlan, version, Port::Lan, &message, now);
                }
                // Every switch has to know who wants what.
                Wanted::Everywhere
            }
            Towards::Everybody => self.wanted(header, frame, now),
        };
        for member in self.members.keys() {
            if to.includes(Port::Member(*member)) {
                self.actions
                    .push_back(Action::ToMember(*member, frame.clone()));
            }
        }
        Ok(())
    }
}
