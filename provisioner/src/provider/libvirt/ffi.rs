//! What of libvirt's C interface the crate `virt` does not bind.

use std::ffi::CStr;
use std::net::IpAddr;
use std::ptr;

use virt::error::Error;
use virt::network::Network;
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
