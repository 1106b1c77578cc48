//! Where a packet or a frame goes, among a thousand peers. Each is asked for in turn, so that no
//! figure depends on where the tables' random seeds put one of them.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipop_datapath::carry::{self, Carry};
use ipop_datapath::holders::Holders;
use ipop_datapath::inet::Version;
use ipop_datapath::prefix::PrefixTable;
use ipop_datapath::segment::Sum;
use ipop_datapath::stations::{LOCAL, Mac, Stations};

use super::packets::Packet;
use super::{Operation, operation};

const PEERS: u16 = 1000;

pub fn route(name: &'static str, version: Version) -> Operation {
    let mut table = PrefixTable::default();
    for peer in 0..PEERS {
        table.insert(v4(peer), 32, peer);
        table.insert(v6(peer), 128, peer);
    }
    let destinations: Vec<_> = match version {
        Version::V4 => (0..PEERS).map(v4).collect(),
        Version::V6 => (0..PEERS).map(v6).collect(),
    };
    operation(name, destinations.len(), move || {
        for destination in &destinations {
            black_box(table.route(black_box(*destination)).expect("a peer's"));
        }
    })
}

/// Finds the peer that a frame's destination is behind.
pub fn locate(name: &'static str) -> Operation {
    let stations = Stations::default();
    learn_all(&stations, 0);
    operation(name, usize::from(PEERS), move || {
        for peer in 0..PEERS {
            black_box(stations.locate(black_box(mac(peer)), 1));
        }
    })
}

/// Notes the peer that a frame's source is behind.
pub fn learn(name: &'static str) -> Operation {
    let stations = Stations::default();
    operation(name, usize::from(PEERS), move || learn_all(&stations, 1))
}

/// Finds where a frame goes, from the device to a peer, that its sender is where it was, and that its IP
/// address is its own among two for each peer.
pub fn carry(name: &'static str) -> Operation {
    let stations = Stations::default();
    learn_all(&stations, 0);
    let own = [2, 1, 0, 0, 0, 1];
    stations.learn(own, LOCAL, 0);
    let mut holders = Holders::default();
    for peer in 0..PEERS {
        holders.hold(v4(peer), peer, None);
        holders.hold(v6(peer), peer, None);
    }
    let packet = Packet::default().build(Sum::Complete);
    let frames: Vec<_> = (0..PEERS)
        .map(|peer| [&mac(peer)[..], &own, &[8, 0], &packet].concat())
        .collect();
    operation(name, frames.len(), move || {
        for frame in &frames {
            let carried = carry::carry(&stations, &holders, LOCAL, black_box(frame), 1);
            assert!(matches!(black_box(carried), Carry::ToPeer(_)));
        }
    })
}

fn v4(peer: u16) -> IpAddr {
    (Ipv4Addr::new(10, 73, 0, 0) | Ipv4Addr::from(u32::from(peer))).into()
}

fn v6(peer: u16) -> IpAddr {
    Ipv6Addr::new(0xfd73, 0x5a, 0, 0, 0, 0, 0, peer).into()
}

fn learn_all(stations: &Stations, now_s: u32) {
    for peer in 0..PEERS {
        stations.learn(black_box(mac(peer)), peer, now_s);
    }
}

fn mac(peer: u16) -> Mac {
    let [high, low] = peer.to_be_bytes();
    [2, 0, 0, 0, high, low]
}
