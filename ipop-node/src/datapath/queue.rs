//! One queue of the TUN or TAP device.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::Arc;

use ipop_datapath::vnet::{Invalid, VnetHdr};
use tun_rs::SyncDevice;

/// Largest packet the device gives: a super-packet.
pub const LARGEST: usize = 65_535 + 14 + 8;

/// A queue: packets for it are written by any thread, read by one.
#[derive(Clone)]
pub struct Queue {
    device: Arc<SyncDevice>,
    /// Packets have a header of their own (`IFF_VNET_HDR`).
    has_header: bool,
}

impl Queue {
    /// A queue of a device that is non-blocking.
    pub fn new(device: SyncDevice, has_header: bool) -> Self {
        Self {
            device: Arc::new(device),
            has_header,
        }
    }

    /// Reads one packet or super-packet, or says `WouldBlock`.
    pub fn read(&self, packet: &mut [u8]) -> io::Result<(Result<VnetHdr, Invalid>, usize)> {
        let mut header = [0; VnetHdr::LEN];
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(packet)];
        let parts = if self.has_header {
            &mut parts[..]
        } else {
            &mut parts[1..]
        };
        let n = rustix::io::readv(self, parts)?;
        if !self.has_header {
            return Ok((Ok(VnetHdr::default()), n));
        }
        let n = n
            .checked_sub(VnetHdr::LEN)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((VnetHdr::parse(&header), n))
    }

    /// Writes one packet or super-packet. `parts` begins with its header.
    pub fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let parts = if self.has_header { parts } else { &parts[1..] };
        rustix::io::writev(self, parts)?;
        Ok(())
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the device lives as long as the borrow of this queue.
        unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("has_header", &self.has_header)
            .finish_non_exhaustive()
    }
}
