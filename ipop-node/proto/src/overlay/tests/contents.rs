//! What records carry that are sealed as the data path seals them, and opened by the overlay because
//! they arrive while a link comes up or changes its keys.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::BytesMut;
use ipop_datapath::coalesce::complete_sum;
use ipop_datapath::envelope::{ENVELOPE, Envelope, Kind};
use ipop_datapath::fragment::{FragmentHeader, Pieces};
use ipop_datapath::inet::Layer;
use ipop_datapath::record::{ContentType, RecordHeader, TAG};

use super::world::{World, v4};
use crate::config::OverlayMode;
use crate::link::RENEW_EVERY;
use crate::overlay::PeerPath;
use crate::status::DropReason;
use crate::switch::Matter;
use crate::switch::message::Message;

const SECOND: Duration = Duration::from_secs(1);

fn path(world: &World, i: usize) -> &PeerPath {
    world.nodes[i].paths.values().next().expect("a path")
}

/// A record of node `i`.
fn sealed(world: &World, i: usize, envelope: Envelope, content: &[u8]) -> BytesMut {
    let keys = &path(world, i).keys.sending;
    let mut record = BytesMut::zeroed(keys.prefix());
    record.extend_from_slice(&envelope.bytes());
    record.extend_from_slice(content);
    record.extend_from_slice(&[0; TAG]);
    let mut number = keys.reserve(1).expect("a number");
    keys.seal(ContentType::ApplicationData, &mut number, &mut record)
        .expect("sealed");
    record
}

fn plain(kind: Kind) -> Envelope {
    Envelope {
        kind,
        partial_sum: false,
    }
}

/// The same content in two records.
fn in_pieces(world: &World, i: usize, kind: Kind, content: &[u8]) -> [BytesMut; 2] {
    let whole = [&plain(kind).bytes()[..], content].concat();
    let pieces = Pieces::of(whole.len(), whole.len().div_ceil(2)).expect("two");
    let id = path(world, i).fragments.next_id();
    [0, 1].map(|index| {
        let header = FragmentHeader {
            id,
            index,
            count: 2,
        };
        let piece = &whole[pieces.range(index.into())];
        let piece = [&header.bytes()[..], piece].concat();
        sealed(world, i, plain(Kind::Fragment), &piece)
    })
}

fn send(world: &mut World, i: usize, record: BytesMut) {
    let route = path(world, i).route;
    world
        .network
        .send(world.now, route.local, route.remote, record);
}

/// Has node `i` send something small and something large of what `mode` carries, and a message where
/// there are any; all with `n` in them.
fn send_all(world: &mut World, i: usize, mode: OverlayMode, n: u8) {
    let kind = match mode {
        OverlayMode::Route => Kind::Packet,
        OverlayMode::Switch => Kind::Frame,
    };
    let record = sealed(world, i, plain(kind), &small(i, n));
    send(world, i, record);
    for record in in_pieces(world, i, kind, &large(i, n)) {
        send(world, i, record);
    }
    if mode == OverlayMode::Switch {
        let record = sealed(world, i, plain(Kind::Message), &message(n).bytes());
        send(world, i, record);
    }
}

fn small(i: usize, n: u8) -> Vec<u8> {
    v4(i as u8 + 1, 2 - i as u8, &[n; 10])
}

fn large(i: usize, n: u8) -> Vec<u8> {
    v4(i as u8 + 1, 2 - i as u8, &[n; 1480])
}

fn message(n: u8) -> Message {
    Message::WhoHas([2, 0, 0, 0, 0, n].into())
}

/// Whether node `i` has got, and lost nothing of, what was sent with each of `numbers`.
fn assert_got(world: &World, i: usize, mode: OverlayMode, numbers: impl Iterator<Item = u8>) {
    let node = &world.nodes[i];
    let mut numbers = numbers.peekable();
    assert!(numbers.peek().is_some());
    match mode {
        OverlayMode::Route => {
            let expected: Vec<_> = numbers
                .flat_map(|n| [small(1 - i, n), large(1 - i, n)])
                .collect();
            assert!(node.packets == expected, "{} packets", node.packets.len());
        }
        OverlayMode::Switch => {
            let frame = |bytes: Vec<u8>| Matter::Frame(bytes.into());
            let expected: Vec<_> = numbers
                .flat_map(|n| {
                    let (small, large) = (small(1 - i, n), large(1 - i, n));
                    [frame(small), frame(large), Matter::Message(message(n))]
                })
                .collect();
            assert!(node.matters == expected, "{} of them", node.matters.len());
        }
    }
    let mut drops = world.peer(i, 1 - i).expect("known").drops;
    // Connectivity checks whose answer is not waited for any more.
    drops.remove(&DropReason::UnknownDatagram);
    assert!(drops.is_empty(), "{drops:?}");
}

const MODES: [OverlayMode; 2] = [OverlayMode::Route, OverlayMode::Switch];

fn linked(mode: OverlayMode) -> World {
    let mut world = World::open_in(mode, 2);
    world.sign_in_all();
    assert!(world.run_until(5 * SECOND, World::all_up));
    world
}

fn dropped(world: &World, i: usize, reason: DropReason) -> u64 {
    let drops = world.peer(i, 1 - i).expect("known").drops;
    drops.get(&reason).copied().unwrap_or(0)
}

#[test]
fn what_a_peer_sends_as_soon_as_its_link_is_up_is_carried_on() {
    for mode in MODES {
        let mut world = World::open_in(mode, 2);
        world.sign_in_all();
        let has_path = |world: &World, i: usize| !world.nodes[i].paths.is_empty();
        let first = loop {
            world.run(Duration::from_millis(1));
            if let Some(first) = (0..2).find(|i| has_path(&world, *i)) {
                break first;
            }
        };
        assert!(!has_path(&world, 1 - first), "it is not up there yet");
        send_all(&mut world, first, mode, 1);
        world.run(SECOND);
        assert_got(&world, 1 - first, mode, 1..2);
        let received = world.peer(1 - first, first).expect("known").rx_packets;
        assert_eq!(received, 2);
    }
}

#[test]
fn nothing_is_lost_while_keys_change() {
    for mode in MODES {
        let mut world = linked(mode);
        let mut tags = BTreeSet::new();
        for n in 0..220 {
            for i in 0..2 {
                tags.insert((i, path(&world, i).keys.sending.tag()));
                send_all(&mut world, i, mode, n);
            }
            // Dense about the time when there are new keys.
            let until_now = RENEW_EVERY.mul_f32(0.99) / 100;
            world.run(if n < 100 { until_now } else { SECOND / 33 });
        }
        world.run(SECOND);
        assert_eq!(tags.len(), 4, "{tags:?}");
        for i in 0..2 {
            assert_got(&world, i, mode, 0..220);
        }
    }
}

#[test]
fn a_frame_whose_pieces_are_opened_here_and_by_the_data_path_comes_together() {
    let mut world = linked(OverlayMode::Switch);
    let open = |world: &World, mut record: BytesMut| {
        let PeerPath {
            keys, fragments, ..
        } = path(world, 1);
        let header = RecordHeader::read(&record).expect("a record");
        let content = keys.receiving[0].open(&header, &mut record).expect("ours");
        let fragment = &record[content][ENVELOPE..];
        fragments.take(header.sequence, fragment).expect("a piece")
    };
    let frame = large(0, 1);
    let [first, second] = in_pieces(&world, 0, Kind::Frame, &frame);
    assert_eq!(open(&world, first), None);
    send(&mut world, 0, second);
    world.run(SECOND);
    let whole = world.nodes[1].matters.pop();
    assert_eq!(whole, Some(Matter::Frame(frame.clone().into())));

    let [first, second] = in_pieces(&world, 0, Kind::Frame, &frame);
    send(&mut world, 0, first);
    world.run(SECOND);
    let whole = open(&world, second).expect("whole");
    assert_eq!(whole[ENVELOPE..], frame);
    assert_eq!(world.nodes[1].matters, []);
}

#[test]
fn a_frame_whose_checksum_was_left_to_do_reaches_the_switch_with_it() {
    let mut world = linked(OverlayMode::Switch);
    // UDP from port 1 to port 2, with the sum of the pseudo-header.
    let mut frame = [&[2; 12][..], &[8, 0], &v4(1, 2, &[0; 8])].concat();
    frame[14 + 9] = 17;
    frame[34..].copy_from_slice(&[0, 1, 0, 2, 0, 8, 0xa8, 0x01]);
    let mut complete = frame.clone();
    complete_sum(Layer::Ethernet, &mut complete);
    assert_ne!(complete, frame);
    let envelope = Envelope {
        kind: Kind::Frame,
        partial_sum: true,
    };
    let record = sealed(&world, 0, envelope, &frame);
    send(&mut world, 0, record);
    world.run(SECOND);
    assert_eq!(world.nodes[1].matters, [Matter::Frame(complete.into())]);
}

#[test]
fn what_another_mode_carries_is_counted_and_goes_nowhere() {
    for (mode, kinds) in [
        (OverlayMode::Route, [Kind::Frame, Kind::Message]),
        (OverlayMode::Switch, [Kind::Packet, Kind::Packet]),
    ] {
        let mut world = linked(mode);
        for kind in kinds {
            let record = sealed(&world, 0, plain(kind), &small(0, 1));
            send(&mut world, 0, record);
            for record in in_pieces(&world, 0, kind, &small(0, 1)) {
                send(&mut world, 0, record);
            }
        }
        world.run(SECOND);
        assert_eq!(dropped(&world, 1, DropReason::WrongMode), 4);
        assert!(world.nodes[1].packets.is_empty() && world.nodes[1].matters.is_empty());
    }
}

#[test]
fn what_cannot_be_read_is_counted_by_what_is_wrong_with_it() {
    let mut world = linked(OverlayMode::Switch);
    for (kind, content) in [
        (Kind::Message, &b"of a later version"[..]),
        (Kind::Fragment, &[0, 1, 2, 2, 9]),
        (Kind::Fragment, &[0, 1]),
    ] {
        let record = sealed(&world, 0, plain(kind), content);
        send(&mut world, 0, record);
    }
    // A whole that says of itself that it is a piece, and one of a kind that is not known.
    for record in in_pieces(&world, 0, Kind::Fragment, &[0; 20]) {
        send(&mut world, 0, record);
    }
    let header = FragmentHeader {
        id: 9,
        index: 0,
        count: 1,
    };
    let unknown = [&header.bytes()[..], &[99, 0, 1]].concat();
    let record = sealed(&world, 0, plain(Kind::Fragment), &unknown);
    send(&mut world, 0, record);
    world.run(SECOND);
    assert_eq!(dropped(&world, 1, DropReason::UnknownContent), 2);
    assert_eq!(dropped(&world, 1, DropReason::Malformed), 3);
    assert!(world.nodes[1].matters.is_empty());
}
