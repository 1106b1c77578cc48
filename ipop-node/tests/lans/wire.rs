//! An Ethernet interface as one of its stations has it: sends any frame, and hears every frame that
//! comes in.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use ipop_testbed::netns::Netns;

/// Bytes that wait to be read, so that a flood loses none of what is looked for.
const BUFFER: libc::c_int = 64 << 20;

/// A packet socket (packet(7)).
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens it on an interface of a namespace.
    pub fn open(netns: &Netns, interface: &str) -> Self {
        let path = format!("/sys/class/net/{interface}/ifindex");
        let index = netns.run(&["cat", &path]).trim().parse().expect("a number");
        let open = || open(index);
        let socket = netns.inside(open).expect("a packet socket");
        Self { socket }
    }

    /// Sends a frame; waits while the interface has no room.
    pub fn send(&self, frame: &[u8]) {
        let (at, len) = (frame.as_ptr().cast(), frame.len());
        // SAFETY: the descriptor is open, and the pointer and length are of a slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), at, len, 0) };
        assert_eq!(sent, len as isize, "{}", io::Error::last_os_error());
    }

    /// The next frame that came in, if there is one.
    pub fn heard(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65_536];
        let (at, len) = (frame.as_mut_ptr().cast(), frame.len());
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: the descriptor is open, and the pointer and length are of a slice.
        let len = unsafe { libc::recv(self.socket.as_raw_fd(), at, len, flags) };
        frame.truncate(usize::try_from(len).ok()?);
        Some(frame)
    }
}

fn open(index: i32) -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no memory is involved.
    let socket = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol.into(),
        )
    };
    check(socket)?;
    // SAFETY: it was just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
    // What others send from here does not come in.
    set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    // SAFETY: all zero is a valid address, and the fields that matter are set next.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value is valid for its length.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            len,
        )
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
