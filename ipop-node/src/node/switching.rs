//! The switch of a node that carries frames: what the threads hand over goes in, what it decides is
//! done.
//!
//! A device that is a port of a bridge is one of maybe several nodes' on one LAN: the switch then
//! forwards only if none of the others does. Where the configuration names the bridge, the device
//! becomes a port of it when there is a first link, and the switch is told before.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ipop_datapath::envelope::Kind;
use ipop_datapath::stations::PeerIndex;
use ipop_proto::address::OverlayAddrs;
use ipop_proto::config::{NodeConfig, OverlayMode};
use ipop_proto::overlay::{PeerKey, PeerPath};
use ipop_proto::status::{DropReason, SwitchStatus};
use ipop_proto::switch::alarm::{Alarm, Trouble};
use ipop_proto::switch::journal::Journal;
use ipop_proto::switch::loops::{Change, LoopGuard, Timing};
use ipop_proto::switch::port::Port;
use ipop_proto::switch::probe::{NodeId, ProbeKey};
use ipop_proto::switch::{Action, Matter, Switch};

use super::Node;
use crate::bridge::{self, NewPort};
use crate::datapath::{Datapath, Handed, What};

/// Frames and messages handled before others get their turn.
const BATCH: usize = 64;
/// When a bridge that could not be joined is tried again, if nothing of this machine's links changes before.
const RETRY: Duration = Duration::from_secs(5);

/// The switch, and what it said of late.
#[derive(Debug)]
pub(super) struct Switching {
    switch: Switch,
    journal: Journal,
    device: String,
    /// The bridge to be a port of.
    wanted: Option<String>,
    /// The bridge that the device is a port of, as of the last look.
    bridge: Option<String>,
    /// Why it is not the one that is wanted.
    failure: Option<String>,
    /// When to try again.
    retry_at: Option<Instant>,
    /// Which node this is, and which run of it.
    me: (NodeId, u64),
    key: ProbeKey,
}

impl Switching {
    /// The one that the configuration wants, if it wants one.
    pub(super) fn new(config: &NodeConfig, datapath: &Datapath) -> Option<Self> {
        if config.overlay.mode != OverlayMode::Switch {
            return None;
        }
        let (tables, started) = datapath.tables();
        let name = &config.node.name;
        let settings = config.switch.settings(name, config.addrs());
        Some(Self {
            switch: Switch::new(settings, tables, None, started),
            journal: Journal::default(),
            device: config.overlay.interface.clone(),
            wanted: config.switch.bridge.clone(),
            bridge: None,
            failure: None,
            retry_at: None,
            me: (NodeId::of_name(name), rand::random()),
            // No secret: it keeps overlays apart and nothing else.
            key: ProbeKey::new(config.overlay.name.as_bytes()),
        })
    }

    /// When [`Node::switch_timeout`] is to be called next.
    pub(super) fn poll_timeout(&self) -> Instant {
        let due = self.switch.poll_timeout();
        self.retry_at.map_or(due, |at| at.min(due))
    }

    pub(super) fn status(&self, now: Instant) -> SwitchStatus {
        SwitchStatus {
            is_forwarding: self.switch.is_forwarding(),
            bridge: self.bridge.clone(),
            stations: self.switch.stations().into_iter().collect(),
            alarms: self.journal.status(now),
        }
    }

    /// Joins the bridge that is wanted, if it is there.
    fn join(&mut self, now: Instant) {
        self.retry_at = None;
        let Some(wanted) = self.wanted.clone().filter(|_| self.bridge.is_none()) else {
            return;
        };
        let joined = NewPort::find(&wanted, &self.device).and_then(|port| {
            // Before anything can come from there, so as not to close a loop.
            self.set_bridge(Some(wanted.clone()), now);
            port.join()
        });
        match joined {
            Ok(()) => {
                tracing::info!(bridge = wanted, device = self.device, "bridged");
                self.failure = None;
            }
            Err(error) => {
                self.set_bridge(None, now);
                let text = error.to_string();
                // It is tried again and again.
                if self.failure.as_ref() != Some(&text) {
                    tracing::warn!(bridge = wanted, %error, "the device cannot join the bridge");
                }
                self.failure = Some(text);
                self.retry_at = Some(now + RETRY);
            }
        }
    }

    fn set_bridge(&mut self, bridge: Option<String>, now: Instant) {
        if bridge.is_some() != self.bridge.is_some() {
            let (node, run) = self.me;
            let key = self.key.clone();
            let guard = || LoopGuard::new(node, run, node.mac(), key, Timing::default());
            self.switch.set_loops(bridge.is_some().then(guard), now);
        }
        self.bridge = bridge;
    }

    fn take(&mut self, from: Option<PeerIndex>, what: Matter, now: Instant) {
        match (from, what) {
            (None, Matter::Frame(frame)) => self.switch.frame_from_lan(frame, now),
            (Some(member), Matter::Frame(frame)) => {
                self.switch.frame_from_member(member, frame, now);
            }
            (Some(member), Matter::Message(message)) => {
                self.switch.message_from_member(member, message, now);
            }
            // No device speaks like a switch.
            (None, Matter::Message(_)) => {}
        }
    }

    /// Does everything that it wants done, and says what it found.
    fn put_out(&mut self, datapath: &mut Datapath, now: Instant) {
        while let Some(action) = self.switch.poll_action() {
            match action {
                Action::ToLan(frame) => datapath.deliver(&frame),
                Action::ToMember(member, frame) => datapath.order(member, Kind::Frame, frame),
                Action::Tell(member, message) => {
                    let message = Bytes::copy_from_slice(&message.bytes());
                    datapath.order(member, Kind::Message, message);
                }
                Action::Drop(Port::Lan, reason) => datapath.dropped(None, reason),
                Action::Drop(Port::Member(member), reason) => {
                    datapath.dropped(Some(member), reason);
                }
            }
        }
        datapath.wake();
        for alarm in self.switch.take_alarms() {
            say(&alarm);
            self.journal.note(alarm, now);
        }
    }
}

impl Node {
    /// Tells the switch whose link came up or went down, and the threads the way.
    pub(super) fn set_path(&mut self, peer: PeerKey, path: Option<PeerPath>) {
        let change = self.datapath.set_path(peer, path);
        let Some(switching) = &mut self.switching else {
            return;
        };
        let now = Instant::now();
        match change {
            (None, Some(member)) => {
                let name = self.overlay.vouched_name(peer).unwrap_or_default();
                let addrs = self.overlay.vouched_addrs(peer);
                let addresses = addrs.iter().flat_map(OverlayAddrs::all).collect::<Vec<_>>();
                switching
                    .switch
                    .member_joined(member, name, &addresses, now);
                switching.join(now);
            }
            (Some(member), None) => switching.switch.member_left(member, now),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Looks whether the device is a port of a bridge: links of this machine have changed.
    pub(super) fn look_for_bridge(&mut self) {
        let Some(switching) = &mut self.switching else {
            return;
        };
        let now = Instant::now();
        match bridge::of_port(&switching.device) {
            Ok(bridge) => switching.set_bridge(bridge, now),
            Err(error) => tracing::debug!(%error, "whose port the device is cannot be told"),
        }
        if switching.switch.has_members() {
            switching.join(now);
        }
        switching.put_out(&mut self.datapath, now);
    }

    /// Feeds the switch with what came from a peer and was opened by the task.
    pub(super) fn take_opened(&mut self, peer: PeerKey, matter: Matter) {
        let Some(switching) = &mut self.switching else {
            return;
        };
        match self.datapath.index_of(peer) {
            Some(member) => switching.take(Some(member), matter, Instant::now()),
            // Through a relay, with no channel yet: no way leads back there.
            None => self.datapath.dropped(None, DropReason::NoLink),
        }
    }

    /// Feeds the switch, and the overlay, with what the threads handed over, some of it.
    pub(super) fn take_handed(&mut self) {
        let now = Instant::now();
        for _ in 0..BATCH {
            let Some(Handed { from, what }) = self.datapath.try_next_handed() else {
                break;
            };
            // Its link may be gone, and its number another's.
            let member = from.as_ref().map(|way| self.datapath.index_of(way.peer));
            match (from, member, what) {
                (Some(way), Some(None), _) => way.path.traffic.dropped(DropReason::NoLink),
                (Some(way), _, What::Control(message)) => {
                    self.overlay.handle_control(now, way.peer, &message);
                    self.put_out();
                }
                (_, member, What::Switch(matter)) => {
                    if let Some(switching) = &mut self.switching {
                        switching.take(member.flatten(), matter, now);
                    }
                }
                // No device speaks like a node.
                (None, _, What::Control(_)) => {}
            }
        }
        self.put_out_frames();
    }

    /// Does what is due.
    pub(super) fn switch_timeout(&mut self, now: Instant) {
        if let Some(switching) = &mut self.switching {
            if switching.retry_at.is_some_and(|at| at <= now) {
                switching.retry_at = None;
                if switching.switch.has_members() {
                    switching.join(now);
                }
            }
            switching.switch.handle_timeout(now);
        }
    }

    /// Does what the switch wants done.
    pub(super) fn put_out_frames(&mut self) {
        if let Some(switching) = &mut self.switching {
            switching.put_out(&mut self.datapath, Instant::now());
        }
    }
}

fn say(alarm: &Alarm) {
    let Alarm {
        origin,
        trouble,
        holder,
    } = alarm;
    match trouble {
        Trouble::Lan(Change::Forwards) => {
            tracing::info!("this node forwards for its LAN");
        }
        trouble => tracing::warn!(origin, %trouble, holder, "the switch has found something"),
    }
}
