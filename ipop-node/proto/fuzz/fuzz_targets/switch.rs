//! Any frames and messages, from the LAN and from members that come and go: nothing panics, the
//! threads carry what the switch would, and what a member sends reaches no other member.
//!
//! An input is a list of steps. No fuzzer finds the key of probes, so that one may be the probe that
//! the switch sent last, coming back from somewhere.
#![no_main]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipop_datapath::carry::{Carry, carry};
use ipop_datapath::holders::Holders;
use ipop_datapath::published::Reader;
use ipop_datapath::stations::LOCAL;
use ipop_proto::switch::arp::Arp;
use ipop_proto::switch::discovery::Discovered;
use ipop_proto::switch::guard::{Allowed, Policy};
use ipop_proto::switch::loops::{LoopGuard, Timing};
use ipop_proto::switch::membership::Membership;
use ipop_proto::switch::message::Message;
use ipop_proto::switch::probe::{NodeId, Probe, ProbeKey};
use ipop_proto::switch::owners::{Carriers, Own};
use ipop_proto::switch::{Action, Settings, Switch, Tables};
use libfuzzer_sys::fuzz_target;

const MEMBERS: u16 = 3;
/// Bits of a step. The lowest two are the member it comes from, or more than there are: the LAN.
const IS_MESSAGE: u8 = 4;
const IS_PROBE: u8 = 8;
const IS_LINK: u8 = 16;
const IS_LONG: u8 = 64;
const PASSES: u8 = 128;
/// Bits of the first byte.
const IS_BRIDGED: u8 = 1;
const IS_TRUSTING: u8 = 2;
const IS_OWNING: u8 = 4;
const IS_CONFINED: u8 = 8;

fuzz_target!(|input: &[u8]| {
    let Some((&options, input)) = input.split_first() else {
        return;
    };
    let mut world = World::new(options);
    for (step, bytes) in steps(input) {
        world.take(step, bytes);
    }
});

/// Steps: what happens, and with which bytes, of which there are as many as the second byte says.
fn steps(mut input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[step, len], rest) = input.split_first_chunk()?;
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(len)));
        input = rest;
        Some((step, bytes))
    })
}

struct World {
    started: Instant,
    now: Instant,
    tables: Tables,
    holders: Reader<Holders>,
    switch: Switch,
    members: BTreeSet<u16>,
    /// Frames that came from there.
    of_the_lan: BTreeSet<Bytes>,
    /// The last frame that the switch made for the LAN itself.
    probe: Bytes,
}

impl World {
    fn new(options: u8) -> Self {
        let now = Instant::now();
        let tables = Tables::default();
        let guard = || LoopGuard::new(NodeId([1; 16]), 1, [2; 6], key(), Timing::default());
        let loops = (options & IS_BRIDGED != 0).then(guard);
        let policy = if options & IS_TRUSTING != 0 {
            Policy {
                dhcp: Allowed::Anybody,
                dhcpv6: Allowed::Anybody,
                router: Allowed::Anybody,
            }
        } else {
            Policy::default()
        };
        let own = Own {
            id: NodeId([1; 16]),
            addresses: vec![[10, 1, 0, 9].into()],
        };
        let settings = Settings {
            policy,
            own: (options & IS_OWNING != 0).then_some(own),
            carriers: if options & IS_CONFINED != 0 {
                Carriers::Only(["node-0".to_owned()].into())
            } else {
                Carriers::Anybody
            },
            ..Settings::default()
        };
        let mut world = Self {
            started: now,
            now,
            tables: tables.clone(),
            holders: Reader::new(tables.holders.clone()),
            switch: Switch::new(settings, tables, loops, now),
            members: BTreeSet::new(),
            of_the_lan: BTreeSet::new(),
            probe: Bytes::new(),
        };
        for member in 0..MEMBERS {
            world.join_or_leave(member);
        }
        world
    }

    fn take(&mut self, step: u8, bytes: &[u8]) {
        let from = u16::from(step & 3);
        let is_lan = from >= MEMBERS;
        if step & IS_LINK != 0 {
            if !is_lan {
                self.join_or_leave(from);
            }
        } else if step & IS_PROBE != 0 {
            let probe = self.probe.clone();
            self.frame(from, probe);
        } else if step & IS_MESSAGE == 0 {
            self.frame(from, Bytes::copy_from_slice(bytes));
        } else if let Some(message) = Message::read(bytes) {
            assert_eq!(message.bytes(), bytes);
            // What a link's owner gives the switch has a member.
            if self.members.contains(&from) {
                self.switch.message_from_member(from, message, self.now);
                self.check(None);
            }
        }
        if step & PASSES != 0 {
            let time = if step & IS_LONG != 0 { 7000 } else { 100 };
            self.now += Duration::from_millis(time);
            self.switch.handle_timeout(self.now);
            assert!(self.switch.poll_timeout() > self.now, "it spins");
            self.check(None);
        }
    }

    fn join_or_leave(&mut self, member: u16) {
        if self.members.remove(&member) {
            self.switch.member_left(member, self.now);
        } else {
            self.members.insert(member);
            let name = format!("node-{member}");
            let addresses = [IpAddr::from([10, 1, 0, member as u8])];
            self.switch
                .member_joined(member, &name, &addresses, self.now);
        }
        self.check(None);
    }

    fn frame(&mut self, from: u16, frame: Bytes) {
        read(&frame);
        let now_s = (self.now - self.started).as_secs() as u32;
        let (from, is_lan) = match from {
            from if from >= MEMBERS => (LOCAL, true),
            from if self.members.contains(&from) => (from, false),
            _ => return,
        };
        self.holders.refresh();
        let holders = self.holders.get();
        let carried = carry(&self.tables.stations, holders, from, &frame, now_s);
        if is_lan {
            self.of_the_lan.insert(frame.clone());
            self.switch.frame_from_lan(frame.clone(), self.now);
        } else {
            self.switch.frame_from_member(from, frame.clone(), self.now);
        }
        let given = is_lan.then_some(&frame);
        let actions = self.check(given);
        let expected = match carried {
            Carry::HandOver => return,
            Carry::Stays => Vec::new(),
            Carry::ToDevice => vec![Action::ToLan(frame)],
            Carry::ToPeer(peer) => vec![Action::ToMember(peer, frame)],
        };
        assert_eq!(actions, expected, "the threads would do something else");
    }

    /// What the switch wants done, after it was given this frame of the LAN, or something else.
    fn check(&mut self, given: Option<&Bytes>) -> Vec<Action> {
        let actions: Vec<_> = std::iter::from_fn(|| self.switch.poll_action()).collect();
        let mut to = BTreeSet::new();
        for action in &actions {
            match action {
                Action::ToMember(member, frame) => {
                    assert!(self.of_the_lan.contains(frame), "not the LAN's");
                    assert!(self.members.contains(member) && self.switch.is_forwarding());
                    assert!(given != Some(frame) || to.insert(*member), "twice to one");
                }
                Action::ToLan(frame) => {
                    assert!(given != Some(frame), "back to the LAN");
                    self.probe = frame.clone();
                }
                Action::Tell(member, _) => assert!(self.members.contains(member)),
                Action::Drop(..) => {}
            }
        }
        self.switch.take_alarms();
        actions
    }
}

/// The readers take any bytes, those as well that a switch would not give them.
fn read(frame: &[u8]) {
    let _ = Arp::read(frame);
    let _ = Discovered::read(frame);
    let _ = Membership::read(frame);
    let _ = Probe::read(frame, &key());
}

fn key() -> ProbeKey {
    ProbeKey::new(b"overlay")
}
