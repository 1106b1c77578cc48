//! What the threads leave to the node's switch, frames that are not plain, known and where they were,
//! and messages of other switches; and what other nodes tell this one, whatever it carries.
//!
//! It is apart from the task's [inbox](super::inbox), so that no flood of frames keeps a link from
//! what it needs. Each peer, and the device, has its own share here, and is served in turn: whoever
//! floods loses its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ipop_datapath::backlog::{Backlog, Limits};
use ipop_datapath::stations::LOCAL;
use ipop_proto::overlay::Traffic;
use ipop_proto::status::DropReason;
use ipop_proto::switch::Matter;
use ipop_proto::switch::message::LONGEST;
use tokio::sync::Notify;

use super::map::Way;

/// Some thousand frames of one peer, which is what the task does in a few milliseconds.
const LIMITS: Limits = Limits {
    peer: 512 * 1024,
    total: 4 * 1024 * 1024,
    quantum: 16 * 1024,
};
/// What a frame costs besides its bytes.
const OVERHEAD: usize = 192;

/// Something for the node's task that can wait.
#[derive(Debug)]
pub struct Handed {
    /// Which peer it came from; none for the device.
    pub from: Option<Arc<Way>>,
    /// What it is.
    pub what: What,
}

/// Whose business it is.
#[derive(Debug)]
pub enum What {
    /// The switch's.
    Switch(Matter),
    /// The overlay's: what the peer's node says.
    Control(Bytes),
}

/// Where the threads put it and the task finds it.
#[derive(Debug)]
pub struct HandedOver {
    waiting: Mutex<Backlog<Handed>>,
    arrived: Notify,
    /// Drops that belong to no peer.
    drops: Arc<Traffic>,
}

impl HandedOver {
    /// Nothing yet. What the device's share has no room for is counted in `drops`.
    pub fn new(drops: Arc<Traffic>) -> Self {
        Self {
            waiting: Mutex::new(Backlog::new(LIMITS)),
            arrived: Notify::new(),
            drops,
        }
    }

    /// Adds something. What has to go instead is counted where it came from.
    pub fn put(&self, handed: Handed) {
        let bytes = match &handed.what {
            What::Switch(Matter::Frame(frame)) => frame.len(),
            What::Switch(Matter::Message(_)) => LONGEST,
            What::Control(message) => message.len(),
        };
        let index = handed.from.as_ref().map_or(LOCAL, |way| way.index);
        self.waiting()
            .push(index, OVERHEAD + bytes, handed, |lost| {
                let traffic = lost.from.as_ref().map(|way| &way.path.traffic);
                traffic
                    .unwrap_or(&self.drops)
                    .dropped(DropReason::QueueFull);
            });
        self.arrived.notify_one();
    }

    /// The next one, if there is one.
    pub fn take(&self) -> Option<Handed> {
        self.waiting().pop()
    }

    /// Returns when there is something. May be cancelled.
    pub async fn arrived(&self) {
        while self.waiting().is_empty() {
            self.arrived.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Backlog<Handed>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
