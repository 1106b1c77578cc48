//! Where a frame goes that nobody has to think about.

use crate::ethernet::{Class, Header, classify};
use crate::holders::Holders;
use crate::stations::{LOCAL, PeerIndex, Seen, Stations};

/// What a thread does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// Sends it to the peer.
    ToPeer(PeerIndex),
    /// Writes it to the device.
    ToDevice,
    /// Nothing: its destination is where it came from.
    Stays,
    /// Hands it to the slow path, which knows what to do or what to learn from it.
    HandOver,
}

/// Where `frame` goes, that came from the peer `from`, or from the device when that is [`LOCAL`], at
/// `now_s`.
///
/// Only plain unicast of a station that is where it was, from an IP address that it may use, to one that is
/// known, is carried; and what came from a peer never goes to another one.
#[inline]
pub fn carry(
    stations: &Stations,
    holders: &Holders,
    from: PeerIndex,
    frame: &[u8],
    now_s: u32,
) -> Carry {
    let Ok(header) = Header::parse(frame) else {
        return Carry::HandOver;
    };
    let Some(receiver) = header.receiver() else {
        return Carry::HandOver;
    };
    if classify(&header, frame) != Class::Unicast
        || stations.touch(header.sender(), from, now_s) != Seen::Here
        || is_refused(holders, from, &header, frame)
    {
        return Carry::HandOver;
    }
    match (stations.locate(receiver, now_s), from) {
        (Some(LOCAL), LOCAL) => Carry::Stays,
        (Some(LOCAL), _) => Carry::ToDevice,
        (Some(peer), LOCAL) => Carry::ToPeer(peer),
        (Some(_), _) | (None, _) => Carry::HandOver,
    }
}

fn is_refused(holders: &Holders, from: PeerIndex, header: &Header, frame: &[u8]) -> bool {
    let source = header.ip_source(frame);
    source.is_some_and(|source| holders.admit(from, source).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stations::{AGE_S, Mac};

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];
    const C: Mac = [2, 0, 0, 0, 0, 3];

    fn frame(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
        let mut frame = [to, from].concat();
        frame.extend(ethertype.to_be_bytes());
        frame
    }

    #[test]
    fn plain_frames_between_known_stations_are_carried_and_nothing_else_is() {
        let stations = Stations::default();
        stations.learn(A, LOCAL, 0);
        stations.learn(B, 7, 0);
        stations.learn(C, 8, 0);
        let holders = Holders::default();
        let carry = |from, frame: &[u8], now_s| carry(&stations, &holders, from, frame, now_s);
        assert_eq!(carry(LOCAL, &frame(B, A, 0x1234), 1), Carry::ToPeer(7));
        assert_eq!(carry(7, &frame(A, B, 0x1234), 1), Carry::ToDevice);
        assert_eq!(carry(LOCAL, &frame(A, A, 0x1234), 1), Carry::Stays);
        let handed_over = [
            (LOCAL, frame(B, A, 0x0806)),
            (LOCAL, frame([0xff; 6], A, 0x1234)),
            (LOCAL, frame([2; 6], A, 0x1234)),
            (LOCAL, frame(B, [2; 6], 0x1234)),
            (LOCAL, frame(B, C, 0x1234)),
            (LOCAL, frame(B, A, 0x1234)[..13].to_vec()),
            (7, frame(C, B, 0x1234)),
            (8, frame(A, B, 0x1234)),
        ];
        for (from, frame) in handed_over {
            assert_eq!(carry(from, &frame, 1), Carry::HandOver, "{frame:?}");
        }
    }

    #[test]
    fn packets_from_an_address_of_somebody_else_are_not_carried() {
        let stations = Stations::default();
        stations.learn(A, LOCAL, 0);
        stations.learn(B, 7, 0);
        let mut holders = Holders::default();
        holders.hold([10, 1, 0, 8].into(), 8, None);
        holders.hold([0xfd00, 0, 0, 0, 0, 0, 0, 8].into(), 8, None);
        let v4 = |last: u8| {
            let header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 99, 0, 0, 10, 1, 0, last];
            [frame(A, B, 0x0800), header.to_vec(), vec![10, 1, 0, 1]].concat()
        };
        let v6 = |last: u8| {
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, 59, 64, 0xfd];
            packet.extend([0; 14]);
            packet.push(last);
            packet.extend([0xfd; 16]);
            [frame(A, B, 0x86dd), packet].concat()
        };
        let tagged = |mut frame: Vec<u8>| {
            frame.splice(12..12, [0x81, 0, 0, 0]);
            frame
        };
        let carry = |frame: &[u8]| carry(&stations, &holders, 7, frame, 1);
        for whole in [v4(7), v6(7), tagged(v4(7)), tagged(v6(7))] {
            assert_eq!(carry(&whole), Carry::ToDevice, "{whole:?}");
        }
        for whole in [v4(8), v6(8), tagged(v4(8)), tagged(v6(8))] {
            assert_eq!(carry(&whole), Carry::HandOver, "{whole:?}");
        }
    }

    #[test]
    fn frames_keep_their_sender_known_and_not_their_receiver() {
        let stations = Stations::default();
        stations.learn(A, LOCAL, 0);
        stations.learn(B, 7, 0);
        let frame = frame(B, A, 0x1234);
        let carry = |now_s| carry(&stations, &Holders::default(), LOCAL, &frame, now_s);
        assert_eq!(carry(AGE_S), Carry::ToPeer(7));
        assert_eq!(carry(AGE_S + 1), Carry::HandOver);
        assert_eq!(stations.locate(A, 2 * AGE_S), Some(LOCAL));
    }
}
