use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::double::{Peer, socket};
use super::super::message::{MAX_SEGMENTS, MAX_SEND};
use super::*;

const MARKS: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];

fn batches() -> Batches {
    Batches::new(Uplinks::default())
}

fn seal(batches: &mut Batches, peer: &Peer, ecn: Ecn, content: &[u8]) {
    let socket = &peer.way.sockets[0];
    let write = |out: &mut [u8]| out.copy_from_slice(content);
    batches
        .seal(socket, &peer.way, ecn, content.len(), write)
        .expect("sealed");
}

#[test]
fn each_peers_records_arrive_in_the_order_in_which_they_were_sealed() {
    let mut rng = StdRng::seed_from_u64(7);
    let from = socket();
    let peers: Vec<_> = (0..24)
        .map(|at| Peer::new(at + 1, at.into(), &from))
        .collect();
    let mut sealed = vec![Vec::new(); peers.len()];
    let mut got = sealed.clone();
    let mut batches = batches();
    // Three times what there is room for, so that some leave because there is none.
    let mut bytes = 0;
    for turn in 0.. {
        if bytes >= 3 * ROOM {
            break;
        }
        let at = rng.random_range(0..peers.len());
        // Runs of one size, of less and of more, and now and then another mark.
        let len = [1300, 1300, 1300, 200, 1400][rng.random_range(0..5)];
        let ecn = MARKS[if rng.random_range(0..8) == 0 { 1 } else { 0 }];
        let content: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        seal(&mut batches, &peers[at], ecn, &content);
        bytes += len;
        sealed[at].push(Some(content));
        if turn % 300 == 0 {
            batches.flush();
        }
        if turn % 50 == 0 {
            for (got, peer) in got.iter_mut().zip(&peers) {
                got.extend(peer.got());
            }
        }
    }
    batches.flush();
    for ((peer, sealed), mut got) in peers.iter().zip(sealed).zip(got) {
        got.extend(peer.got());
        assert!(sealed.len() > 10);
        assert!(got == sealed, "{} of {}", got.len(), sealed.len());
    }
}

#[test]
fn a_batch_is_no_more_than_one_call_may_send() {
    let mut rng = StdRng::seed_from_u64(8);
    let (mut by_count, mut by_len) = (0, 0);
    for sizes in [100..101, 60..100, 1000..1400, 1437..1438, 1..1438] {
        let mut batch = Batch::default();
        let mut lens: Vec<usize> = Vec::new();
        for _ in 0..2000 {
            let len = rng.random_range(sizes.clone());
            let ecn = MARKS[usize::from(rng.random_range(0..50) == 0)];
            if !batch.has_room(ecn, len) {
                let is_last_like_all = lens.last() == lens.first();
                by_count += usize::from(lens.len() == MAX_SEGMENTS);
                by_len += usize::from(is_last_like_all && batch.len + len > MAX_SEND);
                batch.clear();
                lens.clear();
            }
            batch.add(ecn, batch.len..batch.len + len);
            lens.push(len);
            assert_eq!(ecn, batch.ecn, "one mark");
            assert!(lens.len() <= MAX_SEGMENTS);
            assert!(lens.iter().sum::<usize>() <= MAX_SEND);
            let (last, others) = lens.split_last().expect("one");
            assert!(others.iter().all(|len| *len == batch.segment));
            assert!(*last <= batch.segment);
            assert_eq!((batch.count, batch.len), (lens.len(), lens.iter().sum()));
        }
    }
    assert!(by_count > 0 && by_len > 0, "both limits were met");
}

#[test]
fn records_of_a_peer_that_is_removed_and_of_the_one_that_has_its_number_then_go_to_either() {
    let from = socket();
    let [gone, new] = [1, 2].map(|name| Peer::new(name, 7, &from));
    let mut batches = batches();
    seal(&mut batches, &gone, Ecn::NotEct, b"for the first");
    seal(&mut batches, &new, Ecn::NotEct, b"for the other");
    seal(&mut batches, &new, Ecn::NotEct, b"and one more");
    seal(&mut batches, &gone, Ecn::NotEct, b"and the last");
    batches.flush();
    let content = |text: &[u8]| Some(text.to_vec());
    let expected = [content(b"for the first"), content(b"and the last")];
    assert_eq!(gone.got(), expected);
    let expected = [content(b"for the other"), content(b"and one more")];
    assert_eq!(new.got(), expected);
}

#[test]
fn a_record_that_cannot_be_sealed_takes_no_room_and_nothing_else_with_it() {
    let from = socket();
    let peer = Peer::new(1, 0, &from);
    let mut batches = batches();
    seal(&mut batches, &peer, Ecn::NotEct, b"before");
    let used = batches.used;
    let keys = &peer.way.path.keys.sending;
    while keys.reserve(u16::MAX).is_some() {}
    let refused = batches.seal(&from, &peer.way, Ecn::NotEct, 5, |_| {});
    assert_eq!(refused, Err(DropReason::KeysWorn));
    assert_eq!(batches.used, used);
    batches.flush();
    assert_eq!(peer.got(), [Some(b"before".to_vec())]);
}
