//! Address resolution: hears ARP and Neighbour Discovery, and answers what is known.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use ipop_datapath::ethernet::{Class, Discovery, Header};
use ipop_datapath::stations::Mac;

use super::alarm::Trouble;
use super::arp::{Arp, Operation};
use super::discovery::Discovered;
use super::neighbours::{Claim, Neighbour};
use super::port::Port;
use super::{Refusal, Switch};
use crate::status::DropReason;

/// What becomes of a frame that the switch understands.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It goes where it is addressed.
    Pass,
    /// It goes nowhere: this is the answer.
    Answered(Bytes),
    /// It concerns only the side it came from.
    Stays,
}

impl Switch {
    /// Hears a frame, if it is one of address resolution, and answers it if it can.
    pub(super) fn resolve(
        &mut self,
        class: Class,
        port: Port,
        header: &Header,
        frame: &[u8],
        now: Instant,
    ) -> Result<Verdict, Refusal> {
        match class {
            Class::Arp => self.arp(port, header, frame, now),
            Class::NeighbourDiscovery(
                Discovery::NeighbourSolicitation | Discovery::NeighbourAdvertisement,
            ) => self.discovery(port, header, frame, now),
            _ => Ok(Verdict::Pass),
        }
    }

    fn arp(
        &mut self,
        port: Port,
        header: &Header,
        frame: &[u8],
        now: Instant,
    ) -> Result<Verdict, Refusal> {
        let arp = Arp::read(&frame[header.payload_at..]).ok_or(DropReason::Malformed)?;
        let sender_ip = IpAddr::V4(arp.sender_ip);
        is_own(header, Some(arp.sender_mac), sender_ip)?;
        if !arp.is_probe() {
            self.claim(header, port, sender_ip, false, now)?;
        }
        let is_question = arp.operation == Operation::Request && header.receiver().is_none();
        if port != Port::Lan || !is_question || arp.is_announcement() {
            return Ok(Verdict::Pass);
        }
        Ok(self.answer(header, arp.target_ip.into(), now, |holder| {
            arp.answer(header, frame, holder.mac)
        }))
    }

    fn discovery(
        &mut self,
        port: Port,
        header: &Header,
        frame: &[u8],
        now: Instant,
    ) -> Result<Verdict, Refusal> {
        match Discovered::read(frame).ok_or(DropReason::Malformed)? {
            Discovered::Advertisement(advertisement) => {
                let ip = IpAddr::V6(advertisement.target);
                is_own(header, advertisement.link_layer, ip)?;
                self.claim(header, port, ip, advertisement.is_router, now)?;
                Ok(Verdict::Pass)
            }
            Discovered::Solicitation(solicitation) => {
                let ip = IpAddr::V6(solicitation.source);
                is_own(header, solicitation.link_layer, ip)?;
                if !solicitation.is_detection() {
                    let known = self.neighbours.find(header.vlan, ip, &self.fdb, now);
                    let is_router = known.is_some_and(|known| known.is_router);
                    self.claim(header, port, ip, is_router, now)?;
                }
                if port != Port::Lan || header.receiver().is_some() {
                    return Ok(Verdict::Pass);
                }
                Ok(
                    self.answer(header, solicitation.target.into(), now, |holder| {
                        solicitation.answer(header, frame, holder.mac, holder.is_router)
                    }),
                )
            }
        }
    }

    fn claim(
        &mut self,
        header: &Header,
        port: Port,
        ip: IpAddr,
        is_router: bool,
        now: Instant,
    ) -> Result<(), Refusal> {
        let station = header.sender();
        self.may_use(port, station, ip)?;
        let claim = Claim {
            station,
            port,
            ip,
            is_router,
        };
        self.neighbours
            .claim(claim, &self.fdb, now)
            .map_err(|refused| Refusal::Said(Trouble::Address { station, refused }))
    }

    /// What becomes of a question from the LAN for an address.
    fn answer(
        &self,
        header: &Header,
        ip: IpAddr,
        now: Instant,
        answer: impl FnOnce(Neighbour) -> Bytes,
    ) -> Verdict {
        match self.neighbours.find(header.vlan, ip, &self.fdb, now) {
            // One that asks for its own address wants to know who else has it.
            Some(holder) if holder.mac != header.source => match holder.port {
                Port::Lan => Verdict::Stays,
                Port::Member(_) => Verdict::Answered(answer(holder)),
            },
            _ => Verdict::Pass,
        }
    }
}

/// A station speaks of no link-layer address but its own.
fn is_own(header: &Header, link_layer: Option<Mac>, ip: IpAddr) -> Result<(), Refusal> {
    if link_layer.is_none_or(|mac| mac == header.source) {
        return Ok(());
    }
    let station = header.sender();
    Err(Refusal::Said(Trouble::Spoofed { station, ip }))
}
