//! What somebody should hear of.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipop_datapath::stations::Station;
use thiserror::Error;

use super::fdb::NotLearned;
use super::guard::NotAllowed;
use super::loops::Change;
use super::neighbours;
use super::port::Port;
use super::storm::Storm;
use super::{Action, Refusal, Switch};
use crate::status::DropReason;

/// For how long the same thing is not said again.
const ONCE_IN: Duration = Duration::from_secs(60);
/// Most different things that are said of one place in that time, so that one that makes trouble of
/// every kind hides nobody else's.
const MOST: usize = 8;

/// Something that is not as it should be, and whose doing it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Where it comes from: a member's name, or the LAN.
    pub origin: String,
    /// What it is.
    pub trouble: Trouble,
    /// Where that one is who has what is claimed.
    pub holder: Option<String>,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.trouble)?;
        match &self.holder {
            Some(holder) => write!(f, "; {holder} has it"),
            None => Ok(()),
        }
    }
}

/// What is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Trouble {
    /// A station is in two places, or there are too many.
    #[error(transparent)]
    NotLearned(#[from] NotLearned),
    /// Somebody hands out addresses or is a router.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// Somebody claims an address that is another one's.
    #[error("{station}: {refused}")]
    Address {
        /// Who.
        station: Station,
        /// Why not.
        refused: neighbours::Refused,
    },
    /// A station speaks for another one.
    #[error("{station} says that {ip} is another station's")]
    Spoofed {
        /// Who.
        station: Station,
        /// Of which address.
        ip: IpAddr,
    },
    /// Somebody uses an IP address that is not its own.
    #[error("{station} comes from {ip}, which is not an address of its node")]
    Foreign {
        /// Who.
        station: Station,
        /// Which address.
        ip: IpAddr,
        /// Whose it is; none where its node may use none but its own.
        holder: Option<Port>,
    },
    /// Somebody sends too much to everybody.
    #[error(transparent)]
    Storm(#[from] Storm),
    /// This node carries the LAN's frames, or not any more.
    #[error("{0}")]
    Lan(Change),
}

impl Trouble {
    /// Why the frame was dropped that showed it.
    pub(super) fn reason(&self) -> DropReason {
        match self {
            Self::NotLearned(_) => DropReason::Unlearned,
            Self::NotAllowed(_) | Self::Address { .. } | Self::Spoofed { .. } => {
                DropReason::NotAllowed
            }
            Self::Foreign { .. } => DropReason::WrongSource,
            Self::Storm(_) => DropReason::Storm,
            Self::Lan(_) => DropReason::Blocked,
        }
    }

    /// Where that one is who has what is claimed, if it is about that.
    pub(super) fn holder(&self) -> Option<Port> {
        match self {
            Self::NotLearned(NotLearned::Duplicate { holder, .. }) => Some(*holder),
            Self::Address {
                refused: neighbours::Refused::Taken { at, .. },
                ..
            } => *at,
            Self::Foreign { holder, .. } => *holder,
            _ => None,
        }
    }

    /// Whether it is only about something that was said before.
    fn is_known(&self) -> bool {
        matches!(
            self,
            Self::NotLearned(NotLearned::Duplicate { is_new: false, .. })
        )
    }
}

/// Alarms that were not read yet, and those of late.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    pending: Vec<Alarm>,
    said: Vec<(Alarm, Instant)>,
}

impl Alarms {
    /// Something happened; whether it is said depends on what was said before.
    pub(super) fn raise(&mut self, alarm: Alarm, now: Instant) {
        self.said
            .retain(|(_, at)| now.saturating_duration_since(*at) < ONCE_IN);
        let was_said = self.said.iter().any(|(said, _)| *said == alarm);
        let here = self
            .said
            .iter()
            .filter(|(said, _)| said.origin == alarm.origin);
        if was_said || here.count() >= MOST || alarm.trouble.is_known() {
            return;
        }
        // A node that stands down and takes over again says so each time.
        if !matches!(alarm.trouble, Trouble::Lan(_)) {
            self.said.push((alarm.clone(), now));
        }
        self.pending.push(alarm);
    }

    /// What is to be said.
    pub(super) fn take(&mut self) -> Vec<Alarm> {
        std::mem::take(&mut self.pending)
    }
}

impl Switch {
    pub(super) fn refuse(&mut self, port: Port, refusal: Refusal, now: Instant) {
        let reason = match refusal {
            Refusal::Counted(reason) => reason,
            Refusal::Said(trouble) => {
                let reason = trouble.reason();
                self.raise(port, trouble, now);
                reason
            }
        };
        self.actions.push_back(Action::Drop(port, reason));
    }

    pub(super) fn raise(&mut self, port: Port, trouble: Trouble, now: Instant) {
        let alarm = Alarm {
            origin: self.name(port),
            holder: self.holder(&trouble),
            trouble,
        };
        self.alarms.raise(alarm, now);
    }

    fn holder(&self, trouble: &Trouble) -> Option<String> {
        if let Trouble::Lan(Change::StoodDown { to }) = trouble {
            return self.names.get(to).cloned();
        }
        trouble.holder().map(|port| self.name(port))
    }

    pub(super) fn name(&self, port: Port) -> String {
        let name = match port {
            Port::Lan => None,
            Port::Member(member) => self.members.get(&member).cloned(),
        };
        name.unwrap_or_else(|| port.to_string())
    }
}
