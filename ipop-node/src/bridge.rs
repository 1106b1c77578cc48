//! The Linux bridge that the TAP device is a port of.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `SIOCBRADDIF` of `linux/sockios.h`: adds a port to a bridge.
const SIOCBRADDIF: libc::Ioctl = 0x89a2;

/// A device that is about to become a port of a bridge.
#[derive(Debug)]
pub struct NewPort {
    socket: OwnedFd,
    bridge: String,
    device: u32,
}

impl NewPort {
    /// Looks for both.
    ///
    /// # Errors
    ///
    /// When one of them is not there.
    pub fn find(bridge: &str, device: &str) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        name_to_index(&socket, bridge)?;
        Ok(Self {
            device: name_to_index(&socket, device)?,
            bridge: bridge.to_owned(),
            socket,
        })
    }

    /// Makes it one. The device leaves the bridge when it is removed.
    ///
    /// # Errors
    ///
    /// When what is there is no bridge, the device is a port already, or this process may not.
    pub fn join(self) -> io::Result<()> {
        // SAFETY: all zero is a valid request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays zero: the kernel knows no longer name.
        let name = &mut request.ifr_name[..libc::IFNAMSIZ - 1];
        for (to, from) in name.iter_mut().zip(self.bridge.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_ifindex = self.device.cast_signed();
        // SAFETY: the descriptor is open, and the request is of the kind that this call reads.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCBRADDIF, &raw mut request) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The bridge, or whatever it is, that `device` is a port of.
///
/// # Errors
///
/// When that cannot be known.
pub fn of_port(device: &str) -> io::Result<Option<String>> {
    let device = Path::new("/sys/class/net").join(device);
    device.symlink_metadata()?;
    match std::fs::read_link(device.join("master")) {
        Ok(master) => Ok(master.file_name().map(|n| n.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
