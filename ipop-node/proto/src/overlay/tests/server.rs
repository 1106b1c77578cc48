//! An overlay with an authority whose server does what it likes with what is said: loses it, says it
//! again, late, in another order and to others, and makes up members.

use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::authority::world;
use super::world::{World, XMPP, addrs};
use crate::authority::tests::Office;
use crate::signal::{Fingerprint, Signal};
use crate::status::{Advertisement, RoleState};

const NODES: u8 = 3;
/// How long the server lies.
const HOSTILE: Duration = Duration::from_secs(60);

/// Somebody who is not there, and says it has an address that may be a node's.
fn ghost(number: u8) -> (String, Advertisement) {
    let claimed = number % 8 + 1;
    let advertisement = Advertisement {
        name: format!("node-{}", number % 5),
        addrs: addrs(claimed),
        role: RoleState::Ready,
        linked: Vec::new(),
        version: "0".to_owned(),
        fingerprint: None,
    };
    (format!("ghost-{number}@demo/r"), advertisement)
}

/// That nobody has a way to anybody but members, each by its own addresses.
fn check_ways(world: &World) {
    for node in &world.nodes {
        for (peer, path) in &node.paths {
            let last = path.addrs.ipv4.addr.octets()[3];
            assert!((1..=NODES).contains(&last), "a way to {}", path.addrs.ipv4);
            let name = node.overlay.vouched_name(*peer).expect("a name");
            assert_eq!(name, format!("node-{}", last - 1));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_server_does_with_what_is_said_nobody_but_members_has_a_link_and_they_have_theirs_after(
        seed in any::<u64>(),
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let office = Office::new();
        let mut world = world(&office, NODES, |_| None);
        let mut fates = StdRng::seed_from_u64(rng.random());
        world.delays = Box::new(move || {
            let times = fates.random_range(0..4);
            let delay = |_| Duration::from_millis(fates.random_range(1..3000));
            (0..times).map(delay).collect()
        });
        let mut lies = StdRng::seed_from_u64(rng.random());
        world.tamper = Box::new(move |signal: &mut Signal| {
            if let Signal::Initiate { description, .. } | Signal::Accept { description, .. } = signal
                && lies.random_ratio(1, 4)
            {
                description.fingerprint = Fingerprint(lies.random());
            }
        });
        world.sign_in_all();
        let end = world.now + HOSTILE;
        while world.now < end {
            world.run(Duration::from_millis(rng.random_range(10..1000)));
            check_ways(&world);
            let now = world.now;
            let whom = rng.random_range(0..usize::from(NODES));
            let overlay = &mut world.nodes[whom].overlay;
            match rng.random_range(0..4) {
                0 => {
                    let (jid, advertisement) = ghost(rng.random_range(0..32));
                    overlay.peer_present(now, jid, advertisement);
                }
                1 => overlay.peer_gone(now, &ghost(rng.random_range(0..32)).0),
                // What was said once, in anybody's name.
                2 if !world.signals.is_empty() => {
                    let which = rng.random_range(0..world.signals.len());
                    let (from, _, signal) = world.signals[which].clone();
                    let ghost = ghost(rng.random_range(0..32)).0;
                    let from = if rng.random() { from } else { ghost };
                    overlay.handle_signal(now, &from, signal);
                }
                _ => {
                    let gone = rng.random_range(0..NODES);
                    overlay.peer_gone(now, &format!("node-{gone}@demo/r"));
                }
            }
        }
        // It is honest again, and says who is there.
        world.delays = Box::new(|| vec![XMPP]);
        world.tamper = Box::new(|_| {});
        for i in 0..usize::from(NODES) {
            world.sign_out(i, true);
        }
        world.sign_in_all();
        let up = world.run_until(Duration::from_secs(300), World::all_up);
        prop_assert!(
            up,
            "{:?}",
            world.nodes.iter().map(|n| n.overlay.peers(world.now)).collect::<Vec<_>>()
        );
        check_ways(&world);
        world.check_every_path();
    }
}
