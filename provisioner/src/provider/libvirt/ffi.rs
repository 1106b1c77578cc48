//! What of libvirt's C interface the crate `virt` does not bind.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::ptr;

use virt::domain::Domain;
use virt::error::Error;
use virt::network::Network;
use virt::stream::Stream;
use virt::sys;

/// MAC and IPv4 addresses that a network's DHCP server gave.
pub fn leases(network: &Network) -> Result<Vec<(String, IpAddr)>, Error> {
    let mut list: *mut sys::virNetworkDHCPLeasePtr = ptr::null_mut();
    // SAFETY: the network is alive for the call; a null MAC asks for all leases.
    let count =
        unsafe { sys::virNetworkGetDHCPLeases(network.as_ptr(), ptr::null(), &raw mut list, 0) };
    let Ok(count) = usize::try_from(count) else {
        return Err(Error::last_error());
    };
    let mut leases = Vec::new();
    for i in 0..count {
        // SAFETY: libvirt returned an array of `count` leases, ours to free one by one; their
        // strings are null or end with a zero.
        unsafe {
            let lease = *list.add(i);
            let text = |p: *mut std::os::raw::c_char| {
                (!p.is_null()).then(|| CStr::from_ptr(p).to_string_lossy().into_owned())
            };
            let address = text((*lease).ipaddr).and_then(|a| a.parse::<IpAddr>().ok());
            if let (Some(mac), Some(address)) = (text((*lease).mac), address)
                && address.is_ipv4()
            {
                leases.push((mac, address));
            }
            sys::virNetworkDHCPLeaseFree(lease);
        }
    }
    // SAFETY: the array itself was allocated by libvirt with malloc, as its manual says.
    unsafe { libc::free(list.cast()) };
    Ok(leases)
}

/// What comes next in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// So many bytes.
    Data(u64),
    /// So many zeros that take no space.
    Hole(u64),
}

/// What is at `offset` of a file of `len` bytes, and how far. A file system without holes calls
/// everything data.
pub fn segment(file: &File, offset: u64, len: u64) -> io::Result<Segment> {
    match seek(file, offset, libc::SEEK_DATA) {
        Ok(data) if data > offset => Ok(Segment::Hole(data.min(len) - offset)),
        Ok(_) => {
            let hole = seek(file, offset, libc::SEEK_HOLE)?;
            Ok(Segment::Data(hole.min(len) - offset))
        }
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(Segment::Hole(len - offset)),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(Segment::Data(len - offset)),
        Err(e) => Err(e),
    }
}

fn seek(file: &File, offset: u64, whence: i32) -> io::Result<u64> {
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open as long as `file` is; lseek touches no memory of ours.
    let at = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    u64::try_from(at).map_err(|_| io::Error::last_os_error())
}

/// Sends a hole instead of its zeros.
pub fn send_hole(stream: &Stream, len: u64) -> Result<(), Error> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    // SAFETY: the stream is alive for the call.
    let sent = unsafe { sys::virStreamSendHole(stream.as_ptr(), len, 0) };
    if sent < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

/// What came out of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, in the buffer.
    Data(usize),
    /// A hole.
    Hole(u64),
    /// Nothing more.
    End,
}

/// libvirt's "there is a hole".
const AT_HOLE: i32 = -3;

/// Receives what comes next; of a stream that was not started as sparse there are no holes.
pub fn receive(stream: &Stream, buffer: &mut [u8], sparse: bool) -> Result<Received, Error> {
    let flags = if sparse {
        sys::VIR_STREAM_RECV_STOP_AT_HOLE
    } else {
        0
    };
    // SAFETY: the stream is alive for the call, and libvirt writes no more than the buffer's length.
    let n = unsafe {
        let stream = stream.as_ptr();
        if sparse {
            sys::virStreamRecvFlags(stream, buffer.as_mut_ptr().cast(), buffer.len(), flags)
        } else {
            sys::virStreamRecv(stream, buffer.as_mut_ptr().cast(), buffer.len())
        }
    };
    match usize::try_from(n) {
        Ok(0) => Ok(Received::End),
        Ok(n) => Ok(Received::Data(n)),
        Err(_) if n == AT_HOLE && sparse => {
            let mut len = 0;
            // SAFETY: the stream is alive for the call, `len` is ours.
            let received = unsafe { sys::virStreamRecvHole(stream.as_ptr(), &raw mut len, 0) };
            match u64::try_from(len) {
                Ok(len) if received == 0 => Ok(Received::Hole(len)),
                _ => Err(Error::last_error()),
            }
        }
        Err(_) => Err(Error::last_error()),
    }
}

/// Begins to copy disks of a running domain to files that are there.
pub fn backup_begin(domain: &Domain, xml: &str) -> Result<(), Error> {
    let xml = CString::new(xml)?;
    let flags = sys::VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL;
    // SAFETY: the domain and the text are alive for the call; there is no checkpoint to be made.
    let begun =
        unsafe { sys::virDomainBackupBegin(domain.as_ptr(), xml.as_ptr(), ptr::null(), flags) };
    if begun < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

/// Has a domain's job come to its end at once.
pub fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is alive for the call.
    if unsafe { sys::virDomainAbortJob(domain.as_ptr()) } < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

/// Whether a domain's last job came to its end as it should.
pub fn has_completed_job(domain: &Domain) -> Result<bool, Error> {
    let (mut kind, mut count) = (0, 0);
    let mut params: sys::virTypedParameterPtr = ptr::null_mut();
    let flags = sys::VIR_DOMAIN_JOB_STATS_COMPLETED;
    // SAFETY: the domain is alive for the call, all else is ours. What libvirt allocated is given back to it once.
    let asked = unsafe {
        let domain = domain.as_ptr();
        let asked = sys::virDomainGetJobStats(
            domain,
            &raw mut kind,
            &raw mut params,
            &raw mut count,
            flags,
        );
        sys::virTypedParamsFree(params, count);
        asked
    };
    if asked < 0 {
        return Err(Error::last_error());
    }
    Ok(u32::try_from(kind) == Ok(sys::VIR_DOMAIN_JOB_COMPLETED))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::*;

    #[test]
    fn a_files_holes_are_found_to_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        let (mib, len) = (1 << 20, 4 << 20);
        file.set_len(len).unwrap();
        file.seek(SeekFrom::Start(mib)).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        assert_eq!(segment(&file, 0, len).unwrap(), Segment::Hole(mib));
        assert_eq!(segment(&file, mib, len).unwrap(), Segment::Data(mib));
        assert_eq!(
            segment(&file, 2 * mib, len).unwrap(),
            Segment::Hole(2 * mib)
        );
    }
}
