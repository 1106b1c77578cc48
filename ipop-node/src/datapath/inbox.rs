//! What the threads leave to the node's task.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use ipop_proto::overlay::PeerKey;
use tokio::sync::mpsc;

/// Things that wait for the task at the most.
const WAITING: usize = 1024;

/// Something that was taken in.
#[derive(Debug)]
pub enum Taken {
    /// An IP packet from the device that has no way yet.
    Packet(BytesMut),
    /// A datagram of signalling, or of a peer that is not known by it yet.
    Datagram {
        /// Address of the socket it came to.
        local: SocketAddr,
        /// Who sent it.
        remote: SocketAddr,
        /// UDP payload.
        payload: BytesMut,
    },
    /// A record of a peer made with newer keys than before was opened.
    NewKeys(PeerKey),
    /// There is something for the switch: see [`Datapath::try_next_handed`](super::Datapath).
    Handed,
    /// The device is gone.
    Lost(io::Error),
}

/// Where the threads put it.
#[derive(Debug, Clone)]
pub struct Inbox(mpsc::Sender<Taken>);

impl Inbox {
    /// An inbox and where it is read.
    pub fn new() -> (Self, mpsc::Receiver<Taken>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Whether there was room.
    pub fn put(&self, taken: Taken) -> bool {
        self.0.try_send(taken).is_ok()
    }

    /// For what must not be lost; waits for room.
    pub fn insist(&self, taken: Taken) {
        // Nobody reads any more: the node is leaving.
        let _ = self.0.blocking_send(taken);
    }
}
