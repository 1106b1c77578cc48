//! The bridge that the TAP device is a port of: Linux's own, or one of Open vSwitch.

mod open_vswitch;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `SIOCBRADDIF` of `linux/sockios.h`: adds a port to a bridge.
const SIOCBRADDIF: libc::Ioctl = 0x89a2;
/// Where the kernel shows its devices.
const DEVICES: &str = "/sys/class/net";

/// A device that is about to become a port of a bridge.
#[derive(Debug)]
pub enum NewPort {
    /// Of a bridge of Linux.
    Linux(LinuxPort),
    /// Of one of Open vSwitch: its name, and the device's.
    OpenVswitch(String, String),
}

/// One of a bridge of Linux.
#[derive(Debug)]
pub struct LinuxPort {
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
        if is_open_vswitch(bridge)? {
            return Ok(Self::OpenVswitch(bridge.to_owned(), device.to_owned()));
        }
        LinuxPort::find(bridge, device).map(Self::Linux)
    }

    /// Makes it one.
    ///
    /// # Errors
    ///
    /// When what is there is no bridge, the device is a port already, or this process may not.
    pub fn join(self) -> io::Result<()> {
        match self {
            Self::Linux(port) => port.join(),
            Self::OpenVswitch(bridge, device) => open_vswitch::join(&bridge, &device),
        }
    }
}

/// Whether there is a device of that name that is no bridge of Linux, and Open vSwitch has such a bridge.
fn is_open_vswitch(bridge: &str) -> io::Result<bool> {
    let device = Path::new(DEVICES).join(bridge);
    Ok(device.exists() && !device.join("bridge").exists() && open_vswitch::has(bridge)?)
}

/// The device is no port of the bridge any more. One of Linux's takes care of that itself, when the device goes.
pub fn leave(bridge: &str, device: &str) -> io::Result<()> {
    if is_open_vswitch(bridge)? {
        open_vswitch::leave(bridge, device)?;
    }
    Ok(())
}

impl LinuxPort {
    fn find(bridge: &str, device: &str) -> io::Result<Self> {
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

    /// The device leaves the bridge when it is removed.
    fn join(self) -> io::Result<()> {
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
    let path = Path::new(DEVICES).join(device);
    path.symlink_metadata()?;
    let master = match std::fs::read_link(path.join("master")) {
        Ok(master) => master.file_name().map(|n| n.to_string_lossy().into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    match master {
        // A port of a bridge that is outside of the kernel has no master there.
        None => open_vswitch::of_port(device),
        Some(master) if master == open_vswitch::MASTER => {
            Ok(open_vswitch::of_port(device)?.or(Some(master)))
        }
        master => Ok(master),
    }
}
