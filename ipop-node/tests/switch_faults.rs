//! What hosts and nodes that misbehave can do to LANs that are joined by switches. Needs root,
//! `dnsmasq-base` and `busybox`; see the module of the LANs.

#[expect(dead_code, reason = "shared with other tests")]
mod lans;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ipop_proto::status::DropReason;
use ipop_testbed::{dhcp, wait_until};

use ipop_testbed::dnsmasq::Dnsmasq;
use lans::{BROADCAST, Host, Lans, PATIENCE, frame, name};

/// A DHCP server on a host, which hands out addresses that end in `first` and the nine after it.
fn dhcp_server(host: &Host, first: u8) -> Dnsmasq {
    let last = first + 9;
    let config = format!(
        "port=0\ninterface=eth0\nbind-interfaces\nno-ping\ndhcp-authoritative\n\
         dhcp-range=10.1.0.{first},10.1.0.{last},255.255.255.0,1h\n"
    );
    Dnsmasq::start(&host.netns, &config)
}

/// Asks for an address as a boot ROM does; the last byte of the one that came, if one did.
fn lease(host: &Host) -> Option<u8> {
    // Answers are broadcast (-B): every switch sees them.
    let lease = dhcp::ask(&host.netns, "eth0", &["-B"])?;
    let end = lease.address.rsplit('.').next()?;
    Some(end.parse().expect("a byte"))
}

#[test]
fn a_rogue_dhcp_server_gives_nobody_elses_hosts_a_lease_and_is_named() {
    let allowed = "[switch.dhcp]\nnode = \"node-2\"\n";
    // This one lets its own server out.
    let rogue = "[switch.dhcp]\nnode = \"node-1\"\n";
    let lans = Lans::linked(&[allowed, rogue, allowed]);
    let local = Host::new(&lans.nodes[1], 9);
    let _rogue = dhcp_server(&lans.hosts[1], 100);
    assert!(matches!(lease(&local), Some(100..110)), "on its own LAN");
    for at in [0, 2] {
        let alarm = lans.wait_alarm(at, &name(1), "is not the DHCP server that is allowed");
        let mac = "02:00:00:00:01:02";
        assert!(alarm.trouble.starts_with(mac), "{alarm:?}");
        assert!(lans.dropped(at, Some(1), DropReason::NotAllowed) > 0);
    }
    assert_eq!(lease(&lans.hosts[0]), None, "nobody may answer yet");
    let _allowed = dhcp_server(&lans.hosts[2], 200);
    let leased = wait_until("a lease", PATIENCE, || lease(&lans.hosts[0]));
    assert!((200..210).contains(&leased), "{leased}");
}

/// Ends something when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_flood_of_addresses_costs_its_own_member_and_no_memory() {
    const ADDRESSES: u32 = 100_000;
    const LIMIT: usize = 1024;
    /// Frames after these.
    const MOST: usize = 10_000_000;
    let lans = Lans::linked(&[""; 3]);
    let [a, flooder, c] = &lans.hosts[..] else {
        unreachable!("three hosts")
    };
    for (from, to) in [(a, c), (c, a), (flooder, a)] {
        from.pings(to, &[]);
    }
    let memory = || [0, 1, 2].map(|at: usize| resident_kib(lans.nodes[at].pid()));
    let before = memory();
    let (wire, is_over) = (flooder.wire(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let all = 0..ADDRESSES;
            let more = all
                .clone()
                .cycle()
                .take_while(|_| !is_over.load(Ordering::Relaxed));
            for address in all.chain(more.take(MOST)) {
                let [_, b, c, d] = address.to_be_bytes();
                wire.send(&frame(a.mac(), [2, 1, 0, b, c, d], "a flood"));
            }
        });
        // While it lasts, and not longer, whatever happens.
        let _over = Over(&is_over);
        lans.wait_alarm(0, &name(1), &format!("there are {LIMIT} stations already"));
        for (from, to) in [(a, c), (c, a)] {
            from.pings(to, &[]);
        }
    });
    assert_eq!(lans.switch(0).stations.get(&name(1)), Some(&LIMIT));
    let unlearned = |at, from| lans.dropped(at, from, DropReason::Unlearned);
    assert!(unlearned(0, Some(1)) > 0 && unlearned(1, None) > 0);
    assert_eq!(unlearned(0, Some(2)), 0);
    for (before, after) in before.into_iter().zip(memory()) {
        assert!(after < before + 16 * 1024, "{before} and {after} KiB");
    }
    // What was there before it still is, and what is new elsewhere is learned.
    flooder.pings(a, &[]);
    let newcomer = Host::new(&lans.nodes[2], 9);
    newcomer.pings(a, &[]);
}

#[test]
fn a_storm_of_one_member_is_held_at_what_it_may_send() {
    const SENT: usize = 5000;
    let held = "[switch.storm]\nbroadcast = { frames = 50, bytes = 100000 }\n";
    // This one lets everything out.
    let wild = "[switch.storm]\nbroadcast = { frames = 1000000, bytes = 1000000000 }\n";
    let lans = Lans::linked(&[held, wild, held]);
    let [victim, source, _] = &lans.hosts[..] else {
        unreachable!("three hosts")
    };
    let (ear, wire) = (victim.wire(), source.wire());
    let storm = frame(BROADCAST, source.mac(), "a storm");
    let began = Instant::now();
    for _ in 0..SENT {
        wire.send(&storm);
    }
    lans.wait_alarm(0, &name(1), "more broadcast than is allowed");
    // Frames for one station go on. What is behind a storm in a queue may be lost with it, so that
    // one is sent until it comes.
    let last = frame(victim.mac(), source.mac(), "after it");
    let mut heard = Vec::new();
    wait_until("a frame after the storm", PATIENCE, || {
        wire.send(&last);
        heard.extend(std::iter::from_fn(|| ear.heard()));
        heard.contains(&last).then_some(())
    });
    let passed = lans::count(&heard, &storm);
    let allowed = 100 + 50 * (began.elapsed().as_secs() as usize + 1);
    assert!(passed > 0 && passed <= allowed, "{passed} of {allowed}");
    assert!(lans.dropped(0, Some(1), DropReason::Storm) > 0);
    assert_eq!(lans.dropped(0, Some(2), DropReason::Storm), 0);
}

#[test]
fn an_address_that_is_on_two_machines_is_held_at_one_and_said() {
    let lans = Lans::linked(&[""; 3]);
    let wires = [&lans.hosts[0], &lans.hosts[1]].map(Host::wire);
    let claim = frame(BROADCAST, [2, 0, 0, 0, 8, 8], "it is mine");
    // Whoever of the three sees it in turns often enough holds it, and the others may not.
    let (finder, alarm) = wait_until("an alarm", PATIENCE, || {
        wires.iter().for_each(|wire| wire.send(&claim));
        (0..3).find_map(|at| {
            let mut alarms = lans.switch(at).alarms.into_iter();
            let text = "02:00:00:00:08:08 is somewhere else, too";
            let alarm = alarms.find(|alarm| alarm.trouble == text)?;
            Some((at, alarm))
        })
    });
    let place = |origin: &str| match origin {
        "the LAN" => finder,
        origin => (0..3).find(|at| name(*at) == origin).expect("a node"),
    };
    let claimant = place(&alarm.origin);
    let mut places = [claimant, place(&alarm.holder.expect("one has it"))];
    places.sort_unstable();
    assert_eq!(places, [0, 1]);
    let from = (claimant != finder).then_some(claimant);
    assert!(lans.dropped(finder, from, DropReason::Unlearned) > 0);
}

/// Memory of a process that is in use.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("kilobytes").parse().expect("a number")
}
