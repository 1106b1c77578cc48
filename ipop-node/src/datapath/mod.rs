//! The seam between the protocol and the machine's packets.
//!
//! [`Datapath`] is all that the rest of the node knows of devices and sockets: what is ready, take
//! it in, put this out. The implementation is the simple one, one system call for each packet; a
//! faster one replaces this module and nothing else.

mod drops;
mod socket;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use ipop_proto::net::Transmit;
use ipop_proto::status::DropReason;
use tun_rs::AsyncDevice;

pub use drops::Drops;
use socket::Socket;

/// Packets taken from one source before others get their turn.
const BATCH: usize = 64;
/// Largest datagram or packet, in bytes.
const LARGEST: usize = 65536;
/// Received datagrams are cut from blocks of this many bytes, one allocation each.
const BLOCK: usize = 256 * 1024;

/// Takes in what the machine received.
pub trait Sink {
    /// One IP packet from the TUN device.
    fn packet(&mut self, now: Instant, packet: &[u8]);
    /// One datagram from the socket bound to `local`.
    fn datagram(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, payload: BytesMut);
    /// What comes out of it; asked until `None`.
    fn next(&mut self) -> Option<Outgoing>;
}

/// What the machine is to send.
#[derive(Debug)]
pub enum Outgoing {
    /// On the underlay.
    Datagram(Transmit),
    /// To the TUN device.
    Packet(BytesMut),
}

/// Where something can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Tun,
    Socket(usize),
}

/// What is ready; to be handed back to [`Datapath::take_in`].
#[derive(Debug, Clone, Copy)]
pub struct Ready(Source);

/// The TUN device and the UDP sockets.
pub struct Datapath {
    tun: AsyncDevice,
    sockets: Vec<Socket>,
    /// Port to bind, 0 for any.
    port: u16,
    /// Where the last search for a ready source ended, so that none is starved.
    turn: usize,
    scratch: Box<[u8]>,
    block: BytesMut,
    drops: Drops,
}

impl Datapath {
    /// A datapath with no sockets yet.
    pub fn new(tun: AsyncDevice, port: u16) -> Self {
        Self {
            tun,
            sockets: Vec::new(),
            port,
            turn: 0,
            scratch: vec![0; LARGEST].into_boxed_slice(),
            block: BytesMut::new(),
            drops: Drops::default(),
        }
    }

    /// Makes the sockets those of `addresses`: keeps what is bound already, closes what is no
    /// longer there. An address that cannot be bound (yet) is left out. Returns whether anything
    /// changed.
    pub fn rebind(&mut self, addresses: &[IpAddr]) -> bool {
        let before = self.sockets.len();
        self.sockets
            .retain(|socket| addresses.contains(&socket.local().ip()));
        let mut changed = self.sockets.len() != before;
        for addr in addresses {
            if self
                .sockets
                .iter()
                .any(|socket| socket.local().ip() == *addr)
            {
                continue;
            }
            match Socket::bind(SocketAddr::new(*addr, self.port)) {
                Ok(socket) => {
                    tracing::debug!(local = %socket.local(), "socket bound");
                    self.sockets.push(socket);
                    changed = true;
                }
                // An IPv6 address is not usable while duplicates of it are looked for.
                Err(error) => tracing::debug!(%addr, %error, "socket not bound"),
            }
        }
        changed
    }

    /// The sockets, each by the address it is bound to.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(Socket::local).collect()
    }

    /// Waits until something can be taken in. May be cancelled.
    pub async fn ready(&mut self) -> io::Result<Ready> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Feeds what is ready into `sink`, at most [`BATCH`] items, and sends what comes out. An error
    /// means that the TUN device is gone.
    pub fn take_in(&mut self, ready: Ready, sink: &mut impl Sink) -> io::Result<()> {
        let now = Instant::now();
        for _ in 0..BATCH {
            match ready.0 {
                Source::Tun => match self.tun.try_recv(&mut self.scratch) {
                    Ok(n) => sink.packet(now, &self.scratch[..n]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                },
                Source::Socket(at) => {
                    let Some(socket) = self.sockets.get(at) else {
                        break;
                    };
                    match socket.try_recv(&mut self.scratch) {
                        Ok((n, remote)) => {
                            if self.block.capacity() < n {
                                self.block.reserve(BLOCK);
                            }
                            self.block.extend_from_slice(&self.scratch[..n]);
                            sink.datagram(now, socket.local(), remote, self.block.split());
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        // An ICMP error that some earlier datagram brought: ICE finds out itself.
                        Err(error) => tracing::trace!(%error, "receive error ignored"),
                    }
                }
            }
            self.put_out(sink);
        }
        Ok(())
    }

    /// Sends everything that `sink` has to send.
    pub fn put_out(&mut self, sink: &mut impl Sink) {
        while let Some(outgoing) = sink.next() {
            match outgoing {
                Outgoing::Datagram(transmit) => self.send(&transmit),
                Outgoing::Packet(packet) => self.deliver(&packet),
            }
        }
    }

    /// What was dropped here, not by the protocol.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    fn send(&mut self, transmit: &Transmit) {
        let Some(socket) = self.sockets.iter().find(|s| s.local() == transmit.local) else {
            tracing::debug!(local = %transmit.local, "no socket to send from");
            self.drops.count(DropReason::SendFailed);
            return;
        };
        if let Err(error) = socket.send(&transmit.payload, transmit.remote) {
            tracing::trace!(remote = %transmit.remote, %error, "datagram not sent");
            self.drops.count_error(&error);
        }
    }

    fn deliver(&mut self, packet: &[u8]) {
        if let Err(error) = self.tun.try_send(packet) {
            tracing::trace!(%error, "packet not delivered");
            self.drops.count_error(&error);
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        let sources = self.sockets.len() + 1;
        for step in 0..sources {
            let at = (self.turn + step) % sources;
            let found = match at.checked_sub(1) {
                None => self.tun.poll_readable(cx).map_ok(|()| Source::Tun),
                Some(at) => self.sockets[at]
                    .poll_readable(cx)
                    .map_ok(|()| Source::Socket(at)),
            };
            if let Poll::Ready(found) = found {
                self.turn = at + 1;
                return Poll::Ready(found.map(Ready));
            }
        }
        Poll::Pending
    }
}
