//! Links of an overlay with an authority.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::pair::{Node, Pair};
use crate::authority::issue::Subject;
use crate::authority::tests::{DAY, Office, claim, subject};
use crate::authority::{Claim, WallClock};
use crate::link::{IceRole, Identity, RENEW_EVERY, Trust};
use crate::signal::TerminateReason;
use crate::sim::Path;
use crate::status::LinkState;

const SECOND: Duration = Duration::from_secs(1);

/// Two nodes with these identities, each of which believes the same authority about the other.
struct Meeting {
    pair: Pair,
    clock: Arc<WallClock>,
}

fn who(i: usize) -> Subject {
    subject(["a", "b"][i], "demo", i as u8 + 1)
}

fn claimed(i: usize) -> Claim {
    claim(["a", "b"][i], i as u8 + 1)
}

impl Meeting {
    fn new(office: &Office, path: Path, identities: [Identity; 2]) -> Self {
        let mut meeting = Self::prepared(office, path, identities);
        meeting.pair.signal();
        meeting
    }

    /// Neither has the other's half.
    fn prepared(office: &Office, path: Path, identities: [Identity; 2]) -> Self {
        let clock = Arc::new(WallClock::new(Office::today() + DAY));
        let authority = Arc::new(office.authority("demo"));
        let mut pair = Pair::new(51, path);
        let mut rng = StdRng::seed_from_u64(51);
        for (i, identity) in identities.into_iter().enumerate() {
            let role = [IceRole::Controlling, IceRole::Controlled][i];
            let trust = Trust {
                authority: authority.clone(),
                clock: clock.clone(),
                claim: claimed(1 - i),
            };
            let identity = Arc::new(identity);
            pair.nodes[i] = Node::trusting(pair.now, role, identity, Some(trust), &mut rng);
        }
        pair.host(0, "198.51.100.1:4000", None);
        pair.host(1, "198.51.100.2:4000", None);
        Self { pair, clock }
    }

    /// Both are who they are said to be, and have a link.
    fn linked(office: &Office, path: Path) -> Self {
        let identities = [0, 1].map(|i| office.identity(&who(i)));
        let mut meeting = Self::new(office, path, identities);
        assert!(meeting.pair.run_until_up(20 * SECOND));
        meeting
    }

    /// Sends packets both ways every 50 ms for a time; none may be lost.
    fn carry(&mut self, time: Duration) {
        let pair = &mut self.pair;
        let (end, mut sent) = (pair.now + time, 0_u32);
        while pair.now < end {
            for node in &mut pair.nodes {
                node.link.send(&sent.to_be_bytes()).expect("up");
            }
            sent += 1;
            pair.run_for(Duration::from_millis(50));
        }
        pair.run_for(SECOND);
        for node in &mut pair.nodes {
            assert_eq!(node.packets.len() as u32, sent);
            node.packets.clear();
        }
    }
}

#[test]
fn nodes_that_are_who_they_are_said_to_be_link() {
    for loss in [0.0, 0.2] {
        let path = Path {
            latency: Duration::from_millis(20),
            loss,
            ..Path::default()
        };
        let mut meeting = Meeting::linked(&Office::new(), path);
        let one = meeting.pair.nodes[0].link.poll_keys();
        assert!(one.is_some() && meeting.pair.nodes[1].link.poll_keys().is_some());
    }
    Meeting::linked(&Office::new(), Path::default()).carry(SECOND);
}

#[test]
fn a_man_in_the_middle_gets_no_link_on_either_side() {
    // The server has told of his fingerprint, his credentials and his candidates, so that he meets
    // whom he likes: all that he lacks is a certificate of the peer's.
    let office = Office::new();
    let stranger = "the peer is refused: the certificate is not of this overlay's authority";
    for (liar, identity, why) in [0, 1].into_iter().flat_map(|liar| {
        let other = subject("c", "demo", 3);
        let elsewhere = Subject {
            overlay: "other".to_owned(),
            ..who(liar)
        };
        let moved = Subject {
            addrs: other.addrs.clone(),
            ..who(liar)
        };
        [
            (liar, Identity::generate().expect("self-signed"), stranger),
            (liar, Office::new().identity(&who(liar)), stranger),
            (
                liar,
                office.identity(&other),
                "the peer is refused: it calls itself ",
            ),
            (
                liar,
                office.identity(&moved),
                "the peer is refused: it claims the addresses",
            ),
            (
                liar,
                office.identity(&elsewhere),
                "the peer is refused: the certificate is for overlay `other`",
            ),
            (
                liar,
                office.identity_from(&who(liar), Office::today() - 90 * DAY, 90),
                "the peer is refused: the certificate ended on ",
            ),
            (
                liar,
                office.identity_from(&who(liar), Office::today() + 2 * DAY, 90),
                "the peer is refused: the certificate begins on ",
            ),
        ]
    }) {
        let mut honest = Some(office.identity(&who(1 - liar)));
        let mut false_one = Some(identity);
        let identities = [0, 1].map(|i| {
            let of = if i == liar {
                &mut false_one
            } else {
                &mut honest
            };
            of.take().expect("one each")
        });
        let mut meeting = Meeting::new(&office, Path::default(), identities);
        meeting.pair.run_for(5 * SECOND);
        let nodes = &meeting.pair.nodes;
        let (told, reason) = nodes[1 - liar].failed.clone().expect(why);
        assert!(told.starts_with(why), "{told}");
        assert_eq!(reason, TerminateReason::SecurityError);
        assert!(nodes.iter().all(|node| node.up.is_none()), "{why}");
        assert_eq!(meeting.pair.data_records(), 0);
    }
}

#[test]
fn the_signalled_fingerprint_counts_as_well() {
    let office = Office::new();
    let identities = [0, 1].map(|i| office.identity(&who(i)));
    let mut meeting = Meeting::prepared(&office, Path::default(), identities);
    let mut halves = meeting.pair.descriptions();
    // Another certificate that says the same.
    halves[1].fingerprint = office.identity(&who(1)).fingerprint();
    meeting.pair.signal_halves(halves);
    meeting.pair.run_for(5 * SECOND);
    let (why, _) = meeting.pair.nodes[0].failed.clone().expect("refused");
    assert!(
        why.starts_with("the peer's certificate is not the one signalled"),
        "{why}"
    );
    assert!(meeting.pair.nodes.iter().all(|node| node.up.is_none()));
}

#[test]
fn a_renewed_certificate_is_taken_over_without_losing_a_packet() {
    let office = Office::new();
    let mut meeting = Meeting::linked(&office, Path::default());
    for i in 0..2 {
        // Another key, too.
        let identity = office.identity_from(&who(i), Office::today() + DAY, 90);
        meeting.pair.nodes[i].link.set_identity(Arc::new(identity));
    }
    meeting.carry(RENEW_EVERY + 30 * SECOND);
    // The first ones have ended, and the second ones have not.
    meeting.clock.set(Office::today() + 90 * DAY + 60 * SECOND);
    meeting.carry(RENEW_EVERY + 30 * SECOND);
    for node in &meeting.pair.nodes {
        assert_eq!(node.link.state(), &LinkState::Up);
    }
}

#[test]
fn a_link_ends_with_its_peers_certificate() {
    let mut meeting = Meeting::linked(&Office::new(), Path::default());
    meeting.clock.set(Office::today() + 90 * DAY);
    meeting.carry(60 * SECOND);
    meeting.clock.set(Office::today() + 90 * DAY + SECOND);
    meeting.pair.run_for(16 * SECOND);
    let whys = meeting.pair.nodes.each_ref().map(|node| {
        let failed = node.failed.as_ref();
        failed.map(|(why, _)| why.as_str())
    });
    assert!(
        whys.contains(&Some("the peer's certificate has ended")),
        "{whys:?}"
    );
    assert!(whys.iter().all(Option::is_some), "{whys:?}");
}

#[test]
fn a_renewal_with_a_certificate_that_says_something_else_changes_nothing() {
    let office = Office::new();
    for i in 0..2 {
        let mut meeting = Meeting::linked(&office, Path::default());
        let other = office.identity(&subject("c", "demo", 3));
        meeting.pair.nodes[i].link.set_identity(Arc::new(other));
        let tag = |meeting: &mut Meeting| {
            let keys = std::iter::from_fn(|| meeting.pair.nodes[1 - i].link.poll_keys());
            keys.last().map(|keys| keys.sending.tag())
        };
        let first = tag(&mut meeting);
        assert!(first.is_some());
        meeting.carry(RENEW_EVERY + 60 * SECOND);
        assert_eq!(tag(&mut meeting), None, "keys of a stranger");
    }
}
