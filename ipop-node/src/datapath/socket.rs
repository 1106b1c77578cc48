//! One UDP socket on one local address, shared by the task that signals and the threads that carry.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipop_datapath::ecn::Ecn;
use ipop_proto::config::OffloadSection;
use ipop_proto::status::DropReason;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket as Socket2, Type};

use super::message::{self, MAX_SEGMENTS, Name};

/// Kernel buffer for what was received, in bytes: a burst of a few thousand packets.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Kernel buffer for what is sent, in bytes. What waits here waits longer for nothing, so that it
/// holds a few batches and no more; then they wait by peer (`uplink`).
const SEND_BUFFER: usize = 1024 * 1024;
/// Datagrams of signalling that wait at the most.
const MAX_WAITING: usize = 256;

/// A bound, non-blocking socket.
#[derive(Debug)]
pub struct Socket {
    socket: std::net::UdpSocket,
    local: SocketAddr,
    /// Whether the kernel cuts batches into datagrams.
    segments: AtomicBool,
    /// Whether the kernel puts datagrams together.
    coalesces: bool,
    /// Whether the kernel takes a congestion mark with a call.
    marks: AtomicBool,
    /// Signalling that the kernel had no room for: without it a link that is busy would end.
    waiting: Mutex<VecDeque<(Name, Vec<u8>)>>,
    /// Whether there is any, for those that would not take the lock for nothing.
    has_waiting: AtomicBool,
}

/// How far a batch came.
#[derive(Debug, Default)]
pub struct Sent {
    /// Bytes that are dealt with.
    pub bytes: usize,
    /// The kernel has no room for the rest.
    pub is_full: bool,
    /// Datagrams among those dealt with that were lost, and why the last one was.
    pub lost: Option<(usize, io::Error)>,
}

impl Sent {
    /// With what became of the next `count` datagrams, of `len` bytes together.
    fn and(mut self, result: io::Result<()>, len: usize, count: usize) -> Self {
        match result {
            Ok(()) => self.bytes += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_full = true,
            Err(error) => {
                self.bytes += len;
                let before = self.lost.map_or(0, |(lost, _)| lost);
                self.lost = Some((before + count, error));
            }
        }
        self
    }
}

impl Socket {
    /// Binds `addr`; port 0 means any. With `shared` several sockets may be bound to one address,
    /// among which the kernel spreads the peers.
    pub fn bind(addr: SocketAddr, shared: bool, offload: OffloadSection) -> io::Result<Self> {
        let socket = Socket2::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        socket.set_nonblocking(true)?;
        enlarge(&socket);
        may_fragment(&socket, addr);
        hear_marks(&socket, addr);
        // Refused by kernels before 5.0.
        let coalesces =
            offload.coalescing && set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        // Refused by kernels before 4.18; harmless, 0 is what it is.
        let segments =
            offload.segmentation && set_int(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        let socket = std::net::UdpSocket::from(socket);
        let local = socket.local_addr()?;
        Ok(Self {
            socket,
            local,
            segments: AtomicBool::new(segments),
            coalesces,
            marks: AtomicBool::new(true),
            waiting: Mutex::default(),
            has_waiting: AtomicBool::new(false),
        })
    }

    /// The address it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Closes it now, whoever still holds it: threads do until they look for a newer map, and its
    /// address can be bound again before that. What they send by it fails.
    pub fn close(&self) -> io::Result<()> {
        let nothing = eventfd(0, EventfdFlags::CLOEXEC)?;
        let (nothing, own) = (nothing.as_raw_fd(), self.socket.as_raw_fd());
        // SAFETY: both descriptors are open, and `own` stays so: only what it stands for is another.
        match unsafe { libc::dup3(nothing, own, libc::O_CLOEXEC) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether batches are cut by the kernel, and received ones put together.
    pub fn offloads(&self) -> (bool, bool) {
        (self.segments.load(Ordering::Relaxed), self.coalesces)
    }

    /// Sends one datagram before those of batches that wait. When the kernel has no room it waits
    /// for [`Self::send_waiting`], or for the next of these.
    pub fn send(&self, payload: &[u8], remote: SocketAddr) -> io::Result<()> {
        let remote = remote.into();
        self.send_waiting();
        match self.retried(
            &remote,
            &[IoSlice::new(payload)],
            payload.len(),
            Ecn::NotEct,
        ) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut waiting = self.waiting();
                if waiting.len() == MAX_WAITING {
                    return Err(error);
                }
                waiting.push_back((remote, payload.to_vec()));
                self.has_waiting.store(true, Ordering::Release);
                Ok(())
            }
            result => result,
        }
    }

    /// Sends what [`Self::send`] found no room for, as far as there is room now.
    pub fn send_waiting(&self) {
        if !self.has_waiting.load(Ordering::Acquire) {
            return;
        }
        let mut waiting = self.waiting();
        while let Some((remote, payload)) = waiting.front() {
            let result = self.retried(remote, &[IoSlice::new(payload)], payload.len(), Ecn::NotEct);
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => tracing::trace!(?remote, %error, "datagram not sent"),
                Ok(()) => {}
            }
            waiting.pop_front();
        }
        self.has_waiting.store(false, Ordering::Release);
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Name, Vec<u8>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends datagrams of `segment` bytes, of which the last may be shorter, each with the field
    /// `ecn`. No datagram is in two parts.
    pub fn send_batch(
        &self,
        remote: &Name,
        parts: &[IoSlice<'_>],
        segment: usize,
        ecn: Ecn,
    ) -> Sent {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let count = len.div_ceil(segment);
        if count == 1 || self.segments.load(Ordering::Relaxed) {
            match self.retried(remote, parts, segment, ecn) {
                Err(error) if count > 1 && is_unsupported(&error) => {
                    // EIO: the device cannot. EINVAL: a segment is larger than this path's MTU,
                    // which only this batch has to do with.
                    if error.raw_os_error() == Some(libc::EIO) {
                        tracing::info!(local = %self.local, "no segmentation offload");
                        self.segments.store(false, Ordering::Relaxed);
                    }
                }
                result => return Sent::default().and(result, len, count),
            }
        }
        debug_assert!(count <= MAX_SEGMENTS);
        let datagrams = parts.iter().flat_map(|part| part.chunks(segment));
        datagrams.fold(Sent::default(), |sent, datagram| {
            if sent.is_full {
                return sent;
            }
            let result = self.retried(remote, &[IoSlice::new(datagram)], datagram.len(), ecn);
            sent.and(result, datagram.len(), 1)
        })
    }

    fn retried(
        &self,
        remote: &Name,
        parts: &[IoSlice<'_>],
        segment: usize,
        ecn: Ecn,
    ) -> io::Result<()> {
        let ecn = match self.marks.load(Ordering::Relaxed) {
            true => ecn,
            false => Ecn::NotEct,
        };
        let is_one = || parts.iter().map(|part| part.len()).sum::<usize>() <= segment;
        let send = |ecn| message::send(self.socket.as_fd(), remote, parts, segment, ecn);
        match send(ecn) {
            // The error belongs to an earlier datagram (ICMP) and has been cleared by this call.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => send(ecn),
            // With more than one datagram it is segmentation that is refused.
            Err(error)
                if ecn != Ecn::NotEct && error.raw_os_error() == Some(libc::EINVAL) && is_one() =>
            {
                send(Ecn::NotEct)?;
                tracing::info!(local = %self.local, "no congestion marks");
                self.marks.store(false, Ordering::Relaxed);
                Ok(())
            }
            result => result,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

/// What a datagram that was not sent counts as. ENOBUFS is what a full queue of a network device says.
pub fn drop_reason(error: &io::Error) -> DropReason {
    if error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS) {
        DropReason::QueueFull
    } else {
        DropReason::SendFailed
    }
}

/// The forced option needs CAP_NET_ADMIN, which a node has; without it the system's limit applies.
fn enlarge(socket: &Socket2) {
    let receive = sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER));
    let send = sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER);
    if let Err(error) = receive.and(send) {
        tracing::debug!(%error, "socket buffers not enlarged");
    }
}

/// Datagrams may be fragmented on paths with an MTU below what the overlay's MTU needs: slow, but
/// nothing vanishes.
fn may_fragment(socket: &Socket2, addr: SocketAddr) {
    let set = if addr.is_ipv4() {
        set_int(
            socket,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DONT,
        )
    } else {
        set_int(
            socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_DONT,
        )
    };
    if let Err(error) = set {
        tracing::debug!(%error, "fragmentation of datagrams not allowed");
    }
}

/// Asks for the congestion mark of what is received (RFC 6040 wants it of a tunnel's end). Every
/// kernel since 2.6.14 has it.
fn hear_marks(socket: &Socket2, addr: SocketAddr) {
    let set = if addr.is_ipv4() {
        set_int(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)
    } else {
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)
    };
    if let Err(error) = set {
        tracing::warn!(%error, "congestion marks of the underlay are not heard");
    }
}

fn set_int(
    socket: &Socket2,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> Result<(), Errno> {
    // SAFETY: the option's value is an int that lives until after the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{MESSAGE, Receiver};
    use super::*;

    fn bind(addr: &str, shared: bool) -> io::Result<Socket> {
        let addr = addr.parse().expect("valid");
        Socket::bind(addr, shared, OffloadSection::default())
    }

    fn bound() -> Socket {
        bind("127.0.0.1:0", false).expect("bound")
    }

    /// Lengths of the next datagrams, however the kernel put them together.
    fn received(socket: &Socket, count: usize) -> Vec<usize> {
        let mut receiver = Receiver::new(4);
        let mut buffer = vec![0; 4 * MESSAGE];
        let mut lengths = Vec::new();
        while lengths.len() < count {
            let messages = receiver
                .receive(socket.as_fd(), &mut buffer)
                .expect("loopback delivers at once");
            for at in 0..messages {
                let message = receiver.message(at).expect("IPv4");
                let part = &buffer[at * MESSAGE..][..message.len];
                lengths.extend(part.chunks(message.segment).map(<[u8]>::len));
            }
        }
        lengths
    }

    #[test]
    fn a_batch_arrives_with_and_without_segmentation_offload() {
        let (a, b) = (bound(), bound());
        let to = Name::from(b.local());
        for offload in [true, false] {
            a.segments.store(offload, Ordering::Relaxed);
            let batches = [&[&[7; 100][..], &[8; 150]][..], &[&[3; 10]]];
            for (parts, segment) in batches.into_iter().zip([100, 10]) {
                let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
                let sent = a.send_batch(&to, &parts, segment, Ecn::NotEct);
                assert!(!sent.is_full && sent.lost.is_none(), "{sent:?}");
            }
            assert_eq!(received(&b, 4), [100, 100, 50, 10], "offload {offload}");
        }
    }

    #[test]
    fn a_batch_keeps_its_mark_and_is_not_put_together_with_another() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let [a, b] = [address; 2].map(|address| bind(address, false).expect("bound"));
            let to = Name::from(b.local());
            for offload in [true, false] {
                a.segments.store(offload, Ordering::Relaxed);
                for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ce, Ecn::Ect1] {
                    let sent = a.send_batch(&to, &[IoSlice::new(&[7; 250])], 100, ecn);
                    assert!(!sent.is_full && sent.lost.is_none(), "{sent:?}");
                }
                assert!(a.marks.load(Ordering::Relaxed));
                let mut receiver = Receiver::new(16);
                let mut buffer = vec![0; 16 * MESSAGE];
                let messages = receiver
                    .receive(b.as_fd(), &mut buffer)
                    .expect("loopback delivers at once");
                let messages = (0..messages).map(|at| receiver.message(at).expect("IP"));
                let mut marks: Vec<_> = messages.map(|message| message.ecn).collect();
                marks.dedup();
                assert_eq!(marks, [Ecn::NotEct, Ecn::Ect0, Ecn::Ce, Ecn::Ect1]);
            }
        }
    }

    #[test]
    fn what_the_kernel_refuses_counts_as_full_or_as_failed() {
        for (errno, reason) in [
            (libc::EAGAIN, DropReason::QueueFull),
            (libc::ENOBUFS, DropReason::QueueFull),
            // A firewall, no route, a device that is down or gone, a datagram that is too long.
            (libc::EPERM, DropReason::SendFailed),
            (libc::EACCES, DropReason::SendFailed),
            (libc::ENETUNREACH, DropReason::SendFailed),
            (libc::EHOSTUNREACH, DropReason::SendFailed),
            (libc::ENETDOWN, DropReason::SendFailed),
            (libc::ENODEV, DropReason::SendFailed),
            (libc::EMSGSIZE, DropReason::SendFailed),
        ] {
            assert_eq!(drop_reason(&io::Error::from_raw_os_error(errno)), reason);
        }
    }

    #[test]
    fn a_closed_socket_frees_its_address_at_once_and_sends_no_more() {
        let [held, other] = [bound(), bound()];
        let same = held.local().to_string();
        bind(&same, false).expect_err("in use");
        held.close().expect("closed");
        bind(&same, false).expect("free");
        let error = held.send(b"late", other.local()).expect_err("closed");
        assert_eq!(drop_reason(&error), DropReason::SendFailed);
    }

    #[test]
    fn several_sockets_share_an_address_when_asked_to() {
        let first = bind("127.0.0.1:0", true).expect("bound");
        let same = first.local().to_string();
        bind(&same, true).expect("shared");
        bind(&same, false).expect_err("not shared");
    }
}
