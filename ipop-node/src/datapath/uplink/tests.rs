use super::super::double::{Peer, socket};
use super::*;

/// Uplinks of a socket that the kernel has no room for.
fn full(socket: &Arc<Socket>) -> Uplinks {
    Uplinks {
        full: vec![Uplink {
            socket: socket.clone(),
            backlog: Backlog::new(LIMITS),
        }],
    }
}

/// Has records with these contents sent in one batch.
fn send(uplinks: &mut Uplinks, peer: &Peer, contents: &[&[u8]]) {
    let records: Vec<_> = contents.iter().map(|bytes| peer.sealed(bytes)).collect();
    let parts: Vec<_> = records.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let segment = records[0].len();
    let socket = &peer.way.sockets[0];
    uplinks.send(socket, &peer.way, &parts, segment, Ecn::NotEct);
}

fn numbered(n: u32) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

#[test]
fn what_waits_keeps_each_peers_order_and_leaves_when_there_is_room() {
    let from = socket();
    let peers = [1, 2, 3].map(|name| Peer::new(name, name.into(), &from));
    let mut uplinks = full(&from);
    for n in 0..60 {
        let [first, second] = [2 * n, 2 * n + 1].map(numbered);
        send(&mut uplinks, &peers[n as usize % 3], &[&first, &second]);
    }
    assert!(peers.iter().all(|peer| peer.got().is_empty()));
    assert_eq!(uplinks.full().count(), 1);
    uplinks.resume();
    assert!(uplinks.is_empty());
    for (at, peer) in (0..).zip(&peers) {
        let own = (0..60).filter(|n| n % 3 == at);
        let expected: Vec<_> = own
            .flat_map(|n| [2 * n, 2 * n + 1])
            .map(|n| Some(numbered(n)))
            .collect();
        assert_eq!(peer.got(), expected);
        assert!(peer.way.path.traffic.drops().is_empty());
    }
    // Nothing waits before it now.
    send(&mut uplinks, &peers[0], &[b"at once"]);
    assert_eq!(peers[0].got(), [Some(b"at once".to_vec())]);
}

#[test]
fn a_batch_of_which_some_was_sent_goes_on_where_it_stopped() {
    let from = socket();
    let peer = Peer::new(1, 0, &from);
    let mut uplinks = full(&from);
    let contents: Vec<_> = (0..5).map(numbered).collect();
    let contents: Vec<_> = contents.iter().map(Vec::as_slice).collect();
    send(&mut uplinks, &peer, &contents);
    let sealed = uplinks.full[0].backlog.front().expect("it waits");
    sealed.done = 2 * sealed.segment;
    assert_eq!(sealed.count(), 3);
    uplinks.resume();
    let expected: Vec<_> = (2..5).map(|n| Some(numbered(n))).collect();
    assert_eq!(peer.got(), expected);
}

#[test]
fn whoever_is_sent_too_much_loses_its_oldest_and_nobody_else_anything() {
    let from = socket();
    let [flooded, other] = [1, 2].map(|name| Peer::new(name, name.into(), &from));
    let mut uplinks = full(&from);
    send(&mut uplinks, &other, &[b"a word"]);
    let large = vec![9; 1300];
    let sent = 400;
    for n in 0..sent {
        let content = [&numbered(n)[..], &large].concat();
        send(&mut uplinks, &flooded, &[&content]);
    }
    let lost = flooded.dropped(DropReason::QueueFull) as u32;
    assert!(lost > 100, "{lost}");
    assert!(uplinks.full[0].backlog.bytes_of(1) <= LIMITS.peer);
    uplinks.resume();
    assert_eq!(other.got(), [Some(b"a word".to_vec())]);
    assert!(other.way.path.traffic.drops().is_empty());
    let got: Vec<_> = flooded.got().into_iter().flatten().collect();
    let numbers = got.iter().map(|content| content[..4].to_vec());
    assert!(numbers.eq((lost..sent).map(numbered)));
}

#[test]
fn what_waits_for_a_peer_that_is_removed_is_not_given_to_the_next_with_its_number() {
    let from = socket();
    let [gone, new] = [1, 2].map(|name| Peer::new(name, 7, &from));
    let mut uplinks = full(&from);
    send(&mut uplinks, &gone, &[b"for the first"]);
    send(&mut uplinks, &new, &[b"for the other"]);
    uplinks.resume();
    assert_eq!(gone.got(), [Some(b"for the first".to_vec())]);
    assert_eq!(new.got(), [Some(b"for the other".to_vec())]);
}

#[test]
fn what_waits_for_a_socket_that_is_gone_is_counted() {
    let [gone, kept] = [(); 2].map(|()| socket());
    let [lost, other] = [(1, &gone), (2, &kept)].map(|(name, from)| Peer::new(name, 0, from));
    let mut uplinks = full(&gone);
    uplinks.full.extend(full(&kept).full);
    let contents = [&[1; 100][..], &[2; 100], &[3; 50]];
    send(&mut uplinks, &lost, &contents);
    send(&mut uplinks, &other, &contents);
    uplinks.retain(|socket| Arc::ptr_eq(socket, &kept));
    assert_eq!(lost.dropped(DropReason::SendFailed), 3);
    assert_eq!(uplinks.full().count(), 1);
    uplinks.resume();
    assert_eq!(lost.got(), []);
    assert_eq!(other.got().len(), 3);
}
