//! ARP for IPv4 on Ethernet (RFC 826), with probes and announcements (RFC 5227).

use std::net::Ipv4Addr;

use bytes::Bytes;
use ipop_datapath::ethernet::Header;
use ipop_datapath::stations::Mac;

use super::frame::reply_header;

const LEN: usize = 28;
/// Hardware type 1 (Ethernet), protocol IPv4, lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// What for.
    pub operation: Operation,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address; unspecified in a probe.
    pub sender_ip: Ipv4Addr,
    /// Target hardware address; of no meaning in a question.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

/// What an ARP packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target's address?
    Request,
    /// The sender has.
    Reply,
}

impl Arp {
    /// Reads a packet; `None` for other hardware and protocols, which this switch does not carry.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let packet: &[u8; LEN] = payload.first_chunk()?;
        let (kind, rest) = packet.split_first_chunk::<6>()?;
        if *kind != ETHERNET_IPV4 {
            return None;
        }
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender_mac, rest) = rest.split_first_chunk()?;
        let (sender_ip, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk()?;
        let target_ip = rest.first_chunk::<4>()?;
        Some(Self {
            operation: match operation {
                [0, 1] => Operation::Request,
                [0, 2] => Operation::Reply,
                _ => return None,
            },
            sender_mac: *sender_mac,
            sender_ip: Ipv4Addr::from(*sender_ip),
            target_mac: *target_mac,
            target_ip: Ipv4Addr::from(*target_ip),
        })
    }

    /// Whether it asks if the address is free before it is used (RFC 5227 section 2.1.1).
    pub fn is_probe(&self) -> bool {
        self.operation == Operation::Request && self.sender_ip.is_unspecified()
    }

    /// Whether it tells everybody whose the address is (RFC 5227 section 2.3).
    pub fn is_announcement(&self) -> bool {
        self.sender_ip == self.target_ip
    }

    /// The frame by which `holder` would answer this question, in the VLAN where it was asked.
    pub fn answer(&self, question: &Header, frame: &[u8], holder: Mac) -> Bytes {
        let mut answer = reply_header(question, frame, question.source, holder);
        answer.extend(ETHERNET_IPV4);
        answer.extend([0, 2]);
        answer.extend(holder);
        answer.extend(self.target_ip.octets());
        answer.extend(self.sender_mac);
        answer.extend(self.sender_ip.octets());
        answer.into()
    }
}

#[cfg(test)]
mod tests {
    use ipop_datapath::ethernet::{BROADCAST, ETHERTYPE_ARP};
    use proptest::prelude::*;

    use super::*;

    const ASKER: Mac = [2, 0, 0, 0, 0, 1];
    const HOLDER: Mac = [2, 0, 0, 0, 0, 2];

    fn question(tags: &[u8], sender_ip: [u8; 4], target_ip: [u8; 4]) -> Vec<u8> {
        let mut frame = [BROADCAST, ASKER].concat();
        frame.extend(tags);
        frame.extend(ETHERTYPE_ARP.to_be_bytes());
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(ASKER);
        frame.extend(sender_ip);
        frame.extend([0; 6]);
        frame.extend(target_ip);
        frame
    }

    #[test]
    fn a_question_is_answered_in_its_vlan_as_the_holder_would() {
        for tags in [
            &[][..],
            &[0x81, 0, 0, 5],
            &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5],
        ] {
            let frame = question(tags, [10, 0, 0, 1], [10, 0, 0, 2]);
            let header = Header::parse(&frame).expect("whole");
            let arp = Arp::read(&frame[header.payload_at..]).expect("ARP");
            assert!(!arp.is_probe() && !arp.is_announcement());
            let answer = arp.answer(&header, &frame, HOLDER);
            let to = Header::parse(&answer).expect("whole");
            assert_eq!((to.destination, to.source), (ASKER, HOLDER));
            assert_eq!(answer[12..to.payload_at], frame[12..header.payload_at]);
            let expected = Arp {
                operation: Operation::Reply,
                sender_mac: HOLDER,
                sender_ip: arp.target_ip,
                target_mac: ASKER,
                target_ip: arp.sender_ip,
            };
            assert_eq!(Arp::read(&answer[to.payload_at..]), Some(expected));
        }
    }

    #[test]
    fn probes_and_announcements_are_told_from_questions() {
        let read = |sender, target| Arp::read(&question(&[], sender, target)[14..]).expect("ARP");
        let probe = read([0; 4], [10, 0, 0, 2]);
        assert!(probe.is_probe() && !probe.is_announcement());
        let announcement = read([10, 0, 0, 2], [10, 0, 0, 2]);
        assert!(!announcement.is_probe() && announcement.is_announcement());
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic_and_what_is_read_was_there(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            operation in 0_u8..4,
        ) {
            let _ = Arp::read(&bytes);
            let mut marked = [&ETHERNET_IPV4[..], &[0, operation], &bytes].concat();
            let is_whole = marked.len() >= LEN && matches!(operation, 1 | 2);
            prop_assert_eq!(Arp::read(&marked).is_some(), is_whole);
            marked[0] = 9;
            prop_assert_eq!(Arp::read(&marked), None);
        }
    }
}
