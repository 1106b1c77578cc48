//! What the node's task wants sent to peers: frames of its switch, and messages to other switches.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use ipop_datapath::envelope::Kind;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;

use super::map::Way;

/// Orders that wait for one thread at the most. Their frames are shared: a frame for everybody is
/// there once.
const WAITING: usize = 4096;

/// Content for a peer.
#[derive(Debug)]
pub struct Order {
    /// The way there.
    pub way: Arc<Way>,
    /// What it is.
    pub kind: Kind,
    /// With a complete checksum.
    pub content: Bytes,
}

/// The task's end.
#[derive(Debug)]
pub struct Orders {
    sender: mpsc::Sender<Order>,
    wake: Arc<OwnedFd>,
    /// There are some that the thread was not woken for.
    is_new: bool,
}

/// The thread's end.
#[derive(Debug)]
pub struct Ordered {
    receiver: mpsc::Receiver<Order>,
    wake: Arc<OwnedFd>,
}

/// Both ends.
pub fn orders() -> io::Result<(Orders, Ordered)> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let orders = Orders {
        sender,
        wake: wake.clone(),
        is_new: false,
    };
    Ok((orders, Ordered { receiver, wake }))
}

impl Orders {
    /// Gives an order; whether there was room. It is carried out after [`Self::wake`].
    pub fn give(&mut self, order: Order) -> bool {
        let is_taken = self.sender.try_send(order).is_ok();
        self.is_new |= is_taken;
        is_taken
    }

    /// Wakes the thread if there is something for it.
    pub fn wake(&mut self) {
        if std::mem::take(&mut self.is_new) {
            // It cannot be so full that this fails, and then the thread is awake.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

impl Ordered {
    /// The next order, if there is one.
    pub fn take(&mut self) -> Option<Order> {
        self.receiver.try_recv().ok()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// The thread is awake: what comes from now on wakes it anew. What came before is to be
    /// [taken](Self::take) after this.
    pub fn awake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}

/// Can be read when there are orders.
impl AsFd for Ordered {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
