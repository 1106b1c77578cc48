//! Datagrams in bulk: UDP segmentation offload on the way out, several messages and UDP receive
//! offload on the way in (`udp(7)`: UDP_SEGMENT, UDP_GRO), with their congestion marks (`ip(7)`:
//! IP_TOS, IP_RECVTOS; `ipv6(7)`: IPV6_TCLASS, IPV6_RECVTCLASS).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use ipop_datapath::ecn::Ecn;

/// Segments that one call may send (`UDP_MAX_SEGMENTS` of older kernels).
pub const MAX_SEGMENTS: usize = 64;
/// Bytes that one call may send: what one UDP datagram over IPv4 could hold.
pub const MAX_SEND: usize = 65_507;
/// Bytes of one received message: what a UDP length can say.
pub const MESSAGE: usize = 65_536;

/// Room for two control messages with an `int` each, aligned for them.
type ControlBuffer = [u64; 6];

/// Sends what `parts` say to `remote`, as datagrams of `segment` bytes of which the last may be
/// shorter, each with the field `ecn`.
///
/// # Errors
///
/// Those of `sendmsg(2)`. EIO and EINVAL with more than one segment mean that the way there has no
/// segmentation offload for this; EINVAL with one segment and a field, that the kernel takes the
/// field from the socket only (IPv4 before Linux 3.13).
pub fn send(
    socket: BorrowedFd<'_>,
    remote: &Name,
    parts: &[IoSlice<'_>],
    segment: usize,
    ecn: Ecn,
) -> io::Result<()> {
    let mut control = Control::default();
    let len: usize = parts.iter().map(|part| part.len()).sum();
    // SAFETY: all zeros is a valid value of this plain C structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = ptr::from_ref(&remote.storage).cast_mut().cast();
    message.msg_namelen = remote.len;
    // An `IoSlice` is an `iovec` in memory.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len() as _;
    if segment < len {
        let size = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, size);
    }
    if ecn != Ecn::NotEct {
        let class = ecn as libc::c_int;
        match remote.storage.ss_family.into() {
            libc::AF_INET => control.push(libc::IPPROTO_IP, libc::IP_TOS, class),
            _ => control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class),
        }
    }
    if control.used > 0 {
        message.msg_control = control.buffer.as_mut_ptr().cast();
        message.msg_controllen = control.used as _;
    }
    // SAFETY: every pointer in `message` is to something that lives until after the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Control messages for one call.
#[derive(Default)]
struct Control {
    buffer: ControlBuffer,
    /// Bytes.
    used: usize,
}

impl Control {
    /// Adds one; there may be two, none larger than an `int`.
    fn push<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        let len = size_of::<T>() as u32;
        // SAFETY: these two only compute.
        let (space, len) = unsafe { (libc::CMSG_SPACE(len), libc::CMSG_LEN(len)) };
        let end = self.used + space as usize;
        assert!(end <= size_of::<ControlBuffer>(), "two control messages");
        // SAFETY: header and value lie before `end`, within the buffer, and `used` is a multiple of
        // what a header is aligned to, as the buffer is.
        unsafe {
            let header = self.buffer.as_mut_ptr().byte_add(self.used);
            let header = header.cast::<libc::cmsghdr>();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = len as _;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        }
        self.used = end;
    }
}

/// A socket address in the kernel's form.
#[derive(Clone, Copy)]
pub struct Name {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.addr())
    }
}

impl From<SocketAddr> for Name {
    fn from(addr: SocketAddr) -> Self {
        // SAFETY: all zeros is a valid value of this plain C structure.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let len = match addr {
            SocketAddr::V4(addr) => {
                let name = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: addr.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: addr.ip().to_bits().to_be(),
                    },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is larger than, and aligned for, every socket address.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(name) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(addr) => {
                let name = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: addr.port().to_be(),
                    sin6_flowinfo: addr.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: addr.ip().octets(),
                    },
                    sin6_scope_id: addr.scope_id(),
                };
                // SAFETY: as above.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(name) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self {
            storage,
            len: len as libc::socklen_t,
        }
    }
}

impl Name {
    /// The address, if it is of IPv4 or IPv6.
    fn addr(&self) -> Option<SocketAddr> {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says which structure the kernel wrote, and it has room.
                let name = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in>().read() };
                let ip = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let name = unsafe {
                    (&raw const self.storage)
                        .cast::<libc::sockaddr_in6>()
                        .read()
                };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                let port = u16::from_be(name.sin6_port);
                Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// One message that came in: one datagram, or several of one sender.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Who sent it.
    pub remote: SocketAddr,
    /// Bytes in the message's part of the buffer.
    pub len: usize,
    /// Bytes of every datagram but the last.
    pub segment: usize,
    /// The congestion mark of all of them.
    pub ecn: Ecn,
}

/// What receiving several messages at once needs; made once, used again and again.
pub struct Receiver {
    names: Vec<Name>,
    controls: Vec<ControlBuffer>,
    iovs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    received: Vec<Option<Received>>,
}

// SAFETY: the pointers inside are set anew, to parts of this very value and of the caller's
// buffer, by each call that uses them.
unsafe impl Send for Receiver {}

impl Receiver {
    /// For so many messages at once, with a buffer of [`MESSAGE`] bytes for each.
    pub fn new(messages: usize) -> Self {
        // SAFETY: all zeros is a valid value of these plain C structures.
        let (name, iov, header) = unsafe {
            (
                MaybeUninit::<Name>::zeroed().assume_init(),
                MaybeUninit::<libc::iovec>::zeroed().assume_init(),
                MaybeUninit::<libc::mmsghdr>::zeroed().assume_init(),
            )
        };
        Self {
            names: vec![name; messages],
            controls: vec![ControlBuffer::default(); messages],
            iovs: vec![iov; messages],
            headers: vec![header; messages],
            received: Vec::with_capacity(messages),
        }
    }

    /// Receives what is there, message `i` at `i * MESSAGE` in `buffer`, and gives how many
    /// that are.
    ///
    /// # Errors
    ///
    /// Those of `recvmmsg(2)`; `WouldBlock` when there is nothing.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.headers.len().min(buffer.len() / MESSAGE);
        for (i, part) in buffer.chunks_exact_mut(MESSAGE).take(count).enumerate() {
            self.iovs[i].iov_base = part.as_mut_ptr().cast();
            self.iovs[i].iov_len = part.len();
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.names[i].storage).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut self.iovs[i];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[i].as_mut_ptr().cast();
            header.msg_controllen = size_of::<ControlBuffer>() as _;
            header.msg_flags = 0;
        }
        // SAFETY: the first `count` headers point to names, buffers and control buffers that live
        // until after the call and are as long as the headers say.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.received.clear();
        for i in 0..received {
            let len = self.headers[i].msg_len as usize;
            let (segment, ecn) = notes(&self.headers[i].msg_hdr);
            let segment = segment.filter(|size| *size > 0).unwrap_or(len);
            self.received
                .push(self.names[i].addr().map(|remote| Received {
                    remote,
                    len,
                    segment,
                    ecn,
                }));
        }
        Ok(received)
    }

    /// Message `at` of the last call; `None` for one that is no IP datagram.
    pub fn message(&self, at: usize) -> Option<Received> {
        self.received.get(at).copied().flatten()
    }

    /// Messages that one call can take.
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }
}

/// The size of the datagrams in a message, when the kernel put several together, and their mark.
fn notes(message: &libc::msghdr) -> (Option<usize>, Ecn) {
    let mut segment = None;
    let mut ecn = Ecn::NotEct;
    // SAFETY: the kernel wrote the control buffer and set its length; the macros stay within it.
    // The payloads of UDP_GRO and IPV6_TCLASS are ints, that of IP_TOS is a byte.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(current) = header.as_ref() {
            let data = libc::CMSG_DATA(current);
            match (current.cmsg_level, current.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = data.cast::<libc::c_int>().read_unaligned();
                    segment = usize::try_from(size).ok();
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => ecn = Ecn::of_class(*data),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class = data.cast::<libc::c_int>().read_unaligned();
                    ecn = Ecn::of_class(class as u8);
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(message, current);
        }
    }
    (segment, ecn)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn addresses_are_the_same_after_both_ways() {
        for text in ["192.0.2.7:65535", "[2001:db8::7]:1", "[fe80::1%3]:9"] {
            let addr: SocketAddr = text.parse().expect("valid");
            assert_eq!(Name::from(addr).addr(), Some(addr));
        }
    }

    #[test]
    fn segments_arrive_as_the_datagrams_they_were_cut_into() {
        let a = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let b = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let to = Name::from(b.local_addr().expect("bound"));
        let bytes: Vec<u8> = (0..3333_u32).map(|n| n as u8).collect();
        let parts = [IoSlice::new(&bytes[..1000]), IoSlice::new(&bytes[1000..])];
        send(a.as_fd(), &to, &parts, 1000, Ecn::NotEct).expect("sent");
        let mut receiver = Receiver::new(4);
        let mut buffer = vec![0; 4 * MESSAGE];
        let mut got = Vec::new();
        let received = receiver.receive(b.as_fd(), &mut buffer).expect("received");
        for i in 0..received {
            let message = receiver.message(i).expect("IPv4");
            assert_eq!(message.remote, a.local_addr().expect("bound"));
            let part = &buffer[i * MESSAGE..][..message.len];
            got.extend(part.chunks(message.segment).map(<[u8]>::to_vec));
        }
        let expected: Vec<_> = bytes.chunks(1000).map(<[u8]>::to_vec).collect();
        assert_eq!(got, expected);
        let error = receiver.receive(b.as_fd(), &mut buffer).expect_err("empty");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
