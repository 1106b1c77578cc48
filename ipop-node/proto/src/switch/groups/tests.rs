use proptest::prelude::*;

use super::*;

const A: Port = Port::Member(1);
const B: Port = Port::Member(2);
const QUERY: Membership = Membership::Query { is_router: true };

fn group(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    IpAddr::from([239, 0, high, low])
}

fn report(n: u16, is_wanted: bool) -> Membership {
    let group = group(n);
    Membership::Report(vec![Record { group, is_wanted }])
}

struct World {
    groups: Groups,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self {
            groups: Groups::default(),
            now: Instant::now(),
        }
    }

    fn heard(&mut self, port: Port, message: &Membership) {
        self.groups.heard(0, Version::V4, port, message, self.now);
    }

    fn wanted(&self, n: u16) -> Vec<Port> {
        match self.groups.wanted(0, group(n), self.now) {
            Wanted::Everywhere => panic!("everywhere"),
            Wanted::Only(ports) => ports.into_iter().collect(),
        }
    }
}

#[test]
fn a_group_goes_to_who_asked_for_it_and_to_routers_while_somebody_asks() {
    let mut world = World::new();
    world.heard(A, &report(1, true));
    assert_eq!(
        world.groups.wanted(0, group(2), world.now),
        Wanted::Everywhere
    );
    world.heard(Port::Lan, &QUERY);
    assert_eq!(world.wanted(1), [Port::Lan, A]);
    assert_eq!(world.wanted(2), [Port::Lan]);
    assert!(
        world
            .groups
            .has_router(0, Version::V4, Port::Lan, world.now)
    );
    assert!(!world.groups.has_router(0, Version::V4, A, world.now));
    assert!(
        !world
            .groups
            .has_router(0, Version::V6, Port::Lan, world.now)
    );
    assert_eq!(
        world.groups.wanted(7, group(1), world.now),
        Wanted::Everywhere
    );
    world.now += QUERIER;
    assert_eq!(
        world.groups.wanted(0, group(1), world.now),
        Wanted::Everywhere
    );
}

#[test]
fn a_switch_that_asks_is_no_router() {
    let mut world = World::new();
    world.heard(B, &Membership::Query { is_router: false });
    assert_eq!(world.wanted(1), []);
}

#[test]
fn groups_of_one_link_go_everywhere() {
    let mut world = World::new();
    world.heard(A, &QUERY);
    world.groups.heard(0, Version::V6, A, &QUERY, world.now);
    for link in ["224.0.0.251", "ff02::1", "ff02::1:ff00:1", "ff01::1"] {
        let wanted = world
            .groups
            .wanted(0, link.parse().expect("valid"), world.now);
        assert_eq!(wanted, Wanted::Everywhere, "{link}");
    }
    let site = world
        .groups
        .wanted(0, "ff05::1:3".parse().expect("valid"), world.now);
    assert_eq!(site, Wanted::Only([A].into()));
}

#[test]
fn a_port_that_left_gets_the_group_until_others_there_had_time_to_say_so() {
    let mut world = World::new();
    world.heard(Port::Lan, &Membership::Query { is_router: false });
    world.heard(A, &report(1, true));
    world.heard(B, &report(1, true));
    world.heard(A, &report(1, false));
    world.heard(B, &report(1, false));
    assert_eq!(world.wanted(1), [A, B]);
    world.now += LAST_MEMBER / 2;
    world.heard(B, &report(1, true));
    world.now += LAST_MEMBER;
    assert_eq!(world.wanted(1), [B]);
    world.heard(Port::Lan, &Membership::Query { is_router: false });
    world.groups.forget_port(B);
    assert_eq!(world.wanted(1), []);
}

#[test]
fn one_that_wants_more_than_is_kept_in_mind_gets_everything() {
    let mut world = World::new();
    world.heard(B, &Membership::Query { is_router: false });
    for n in 0..10_000 {
        world.heard(A, &report(n, true));
    }
    world.heard(B, &report(20_000, true));
    assert_eq!(world.groups.members.len(), MOST_GROUPS + 1);
    assert_eq!(world.wanted(20_000), [A, B]);
    assert_eq!(world.wanted(1), [A]);
    world.now += MEMBERSHIP;
    world.groups.sweep(world.now);
    assert!(world.groups.members.is_empty() && world.groups.greedy.is_empty());
    assert!(world.groups.counts.is_empty());
}

proptest! {
    #[test]
    fn no_port_that_wants_a_group_misses_it(
        steps in proptest::collection::vec((0_u16..3, 0_u16..4, any::<bool>(), 0_u64..100), 1..80),
    ) {
        let mut world = World::new();
        let mut wanted = BTreeMap::new();
        for (port, n, is_wanted, pass) in steps {
            world.heard(Port::Lan, &Membership::Query { is_router: false });
            world.heard(Port::Member(port), &report(n, is_wanted));
            if is_wanted {
                wanted.insert((port, n), world.now + MEMBERSHIP);
            } else {
                wanted.remove(&(port, n));
            }
            world.now += Duration::from_secs(pass);
            if pass % 3 == 0 {
                world.groups.sweep(world.now);
            }
            for ((port, n), until) in &wanted {
                let gets = world.wanted(*n).contains(&Port::Member(*port));
                prop_assert_eq!(gets, world.now < *until);
            }
            let counted: usize = world.groups.counts.values().sum();
            let kept: usize = world.groups.members.values().map(BTreeMap::len).sum();
            prop_assert_eq!(counted, kept);
        }
    }
}
