//! The switch of a node that carries frames: what the threads hand over goes in, what it decides is
//! done.

use std::time::Instant;

use bytes::Bytes;
use ipop_datapath::envelope::Kind;
use ipop_datapath::stations::PeerIndex;
use ipop_proto::config::{NodeConfig, OverlayMode};
use ipop_proto::overlay::{PeerKey, PeerPath};
use ipop_proto::status::SwitchStatus;
use ipop_proto::switch::alarm::{Alarm, Trouble};
use ipop_proto::switch::journal::Journal;
use ipop_proto::switch::loops::Change;
use ipop_proto::switch::port::Port;
use ipop_proto::switch::{Action, Settings, Switch};

use super::Node;
use crate::datapath::{Datapath, Handed, Matter};

/// Frames and messages handled before others get their turn.
const BATCH: usize = 64;

/// The switch, and what it said of late.
#[derive(Debug)]
pub(super) struct Switching {
    switch: Switch,
    journal: Journal,
}

impl Switching {
    /// The one that the configuration wants, if it wants one.
    pub(super) fn new(config: &NodeConfig, datapath: &Datapath) -> Option<Self> {
        if config.overlay.mode != OverlayMode::Switch {
            return None;
        }
        let (stations, started) = datapath.stations();
        Some(Self {
            switch: Switch::new(Settings::default(), stations, None, started),
            journal: Journal::default(),
        })
    }

    /// When [`Node::switch_timeout`] is to be called next.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.switch.poll_timeout()
    }

    pub(super) fn status(&self, now: Instant) -> SwitchStatus {
        SwitchStatus {
            is_forwarding: self.switch.is_forwarding(),
            stations: self.switch.stations().into_iter().collect(),
            alarms: self.journal.status(now),
        }
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
                switching.switch.member_joined(member, name, now);
            }
            (Some(member), None) => switching.switch.member_left(member, now),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Feeds the switch with what the threads handed over, some of it.
    pub(super) fn take_handed(&mut self) {
        let Some(switching) = &mut self.switching else {
            return;
        };
        let now = Instant::now();
        for _ in 0..BATCH {
            let Some(Handed { from, what }) = self.datapath.try_next_handed() else {
                break;
            };
            // By the name that is nobody else's: its link may be gone, and its number another's.
            let member = from.map(|way| self.datapath.index_of(way.peer));
            if member != Some(None) {
                switching.take(member.flatten(), what, now);
            }
        }
        switching.put_out(&mut self.datapath, now);
    }

    /// Does what is due.
    pub(super) fn switch_timeout(&mut self, now: Instant) {
        if let Some(switching) = &mut self.switching {
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
