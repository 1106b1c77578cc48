//! One UDP socket on one local address.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{SendFlags, sendto, sockopt};
use tokio::net::UdpSocket;

/// Kernel buffer for each direction, in bytes: a burst of a few thousand packets.
const KERNEL_BUFFER: usize = 4 * 1024 * 1024;

/// A bound, non-blocking socket.
pub struct Socket {
    socket: UdpSocket,
    local: SocketAddr,
}

impl Socket {
    /// Binds `addr`; port 0 means any.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(addr)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        enlarge(&socket);
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    /// The address it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether something can be received.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(cx)
    }

    /// Receives one datagram, or says `WouldBlock`.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.try_recv_from(buf)
    }

    /// Sends one datagram, or says `WouldBlock`.
    pub fn send(&self, payload: &[u8], remote: SocketAddr) -> io::Result<()> {
        // Not `try_send_to`: that goes by a readiness that tokio has not seen yet at first.
        let send = || sendto(&self.socket, payload, SendFlags::empty(), &remote);
        match send() {
            // The error belongs to an earlier datagram (ICMP) and has been cleared by this call.
            Err(Errno::CONNREFUSED) => send()?,
            result => result?,
        };
        Ok(())
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
        std::future::poll_fn(|cx| b.poll_readable(cx))
            .await
            .expect("readable");
        let mut buf = [0; 16];
        let (n, from) = b.try_recv(&mut buf).expect("received");
        assert_eq!((&buf[..n], from), (&b"hello"[..], a.local()));
        let error = b.try_recv(&mut buf).expect_err("empty");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
