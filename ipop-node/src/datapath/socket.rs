//! One UDP socket on one local address.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::task::{Context, Poll, ready};

use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Kernel buffer for each direction, in bytes: a burst of a few thousand packets.
const KERNEL_BUFFER: usize = 4 * 1024 * 1024;

/// A bound, non-blocking socket.
pub struct Socket {
    fd: AsyncFd<UdpSocket>,
    local: SocketAddr,
}

impl Socket {
    /// Binds `addr`; port 0 means any.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(addr)?;
        socket.set_nonblocking(true)?;
        enlarge(&socket);
        let local = socket.local_addr()?;
        Ok(Self { fd: AsyncFd::with_interest(socket, Interest::READABLE)?, local })
    }

    /// The address it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether something can be received.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The guard is dropped without clearing: `try_recv` clears when there is nothing left.
        ready!(self.fd.poll_read_ready(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Receives one datagram, or says `WouldBlock`.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.fd.try_io(Interest::READABLE, |socket| socket.recv_from(buf))
    }

    /// Sends one datagram, or says `WouldBlock`.
    pub fn send(&self, payload: &[u8], remote: SocketAddr) -> io::Result<()> {
        let send = || self.fd.get_ref().send_to(payload, remote).map(|_| ());
        match send() {
            // The error belongs to an earlier datagram (ICMP) and has been cleared by this call.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => send(),
            result => result,
        }
    }
}

/// The forced options need CAP_NET_ADMIN, which a node has; without it the system's limit applies.
fn enlarge(socket: &UdpSocket) {
    let receive = sockopt::set_socket_recv_buffer_size_force(socket, KERNEL_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, KERNEL_BUFFER));
    let send = sockopt::set_socket_send_buffer_size(socket, KERNEL_BUFFER);
    if let Err(error) = receive.and(send) {
        tracing::debug!(%error, "socket buffers not enlarged");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_datagram_is_received_and_the_socket_is_then_empty() {
        let a = Socket::bind("127.0.0.1:0".parse().expect("valid")).expect("bound");
        let b = Socket::bind("127.0.0.1:0".parse().expect("valid")).expect("bound");
        a.send(b"hello", b.local()).expect("sent");
        std::future::poll_fn(|cx| b.poll_readable(cx)).await.expect("readable");
        let mut buf = [0; 16];
        let (n, from) = b.try_recv(&mut buf).expect("received");
        assert_eq!((&buf[..n], from), (&b"hello"[..], a.local()));
        let error = b.try_recv(&mut buf).expect_err("empty");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
