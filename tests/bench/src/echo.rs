//! ICMP echo: round-trip times, and how soon a tunnel carries anything. `ping` would take longer
//! to start than some tunnels, and says no percentiles.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::failure::{During, Result};
use crate::statistics::quantile;

/// Distance of two attempts to get a first reply.
const ATTEMPT: Duration = Duration::from_millis(2);
/// How long after the last request replies are waited for.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// IPv4 header without options, which is what the kernel sends, and the ICMP header.
const HEADERS: (usize, usize) = (20, 8);
/// Bytes of an echo request: as long as `ping` makes them.
const REQUEST: usize = 64;

/// Round-trip times of one series.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Median, microseconds.
    pub p50_us: f64,
    /// 99th percentile of the answered ones, microseconds.
    pub p99_us: f64,
    /// Share of requests that nobody answered.
    pub lost: f64,
}

/// Sends requests through `interface`, from the time it exists, until one is answered. To be called
/// inside a namespace. Gives nothing when that takes longer than `limit`, or `stop` says so.
pub fn first_reply(
    interface: &str,
    to: Ipv4Addr,
    limit: Duration,
    stop: impl Fn() -> bool,
) -> Option<Instant> {
    let began = Instant::now();
    let mut socket: Option<(u32, Pinger)> = None;
    let mut sequence = 0u16;
    while began.elapsed() < limit && !stop() {
        let index = index(interface);
        if index == 0 {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        if socket.as_ref().is_none_or(|(of, _)| *of != index) {
            ask_neighbours_often(interface);
            socket = Pinger::new(interface).ok().map(|pinger| (index, pinger));
        }
        if let Some((_, pinger)) = &socket {
            sequence = sequence.wrapping_add(1);
            // Errors are what a device gives that is not up yet.
            let _ = pinger.send(to, sequence);
            let until = Instant::now() + ATTEMPT;
            if pinger.reply(until).is_some() {
                return Some(Instant::now());
            }
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }
    None
}

/// Sends a request every `interval` for `length` and measures the replies. To be called inside a
/// namespace.
pub fn round_trips(
    interface: &str,
    to: Ipv4Addr,
    interval: Duration,
    length: Duration,
) -> Result<RoundTrips> {
    let pinger = Pinger::new(interface).during("raw socket")?;
    let mut sent = BTreeMap::new();
    let mut times = Vec::new();
    let mut record = |sequence: u16, sent: &mut BTreeMap<u16, Instant>| {
        if let Some(at) = sent.remove(&sequence) {
            times.push(at.elapsed().as_secs_f64() * 1e6);
        }
    };
    let began = Instant::now();
    let mut count = 0u16;
    while began.elapsed() < length && count < u16::MAX {
        count += 1;
        sent.insert(count, Instant::now());
        pinger.send(to, count).during("echo request")?;
        let next = began + interval * count.into();
        while let Some(sequence) = pinger.reply(next) {
            record(sequence, &mut sent);
        }
    }
    let end = Instant::now() + STRAGGLERS;
    while !sent.is_empty() {
        let Some(sequence) = pinger.reply(end) else {
            break;
        };
        record(sequence, &mut sent);
    }
    let answered = times.len();
    let (Some(p50_us), Some(p99_us)) = (quantile(&times, 0.5), quantile(&times, 0.99)) else {
        return Err(crate::failure::Failure("no echo reply".to_owned()));
    };
    Ok(RoundTrips {
        p50_us,
        p99_us,
        lost: 1.0 - answered as f64 / f64::from(count),
    })
}

/// A raw ICMP socket that sees the replies to its own requests.
struct Pinger {
    socket: OwnedFd,
    identifier: u16,
}

impl Pinger {
    fn new(interface: &str) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: numbers only; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_ICMP) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let pinger = Self {
            socket,
            identifier: std::process::id() as u16,
        };
        pinger.set(
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            interface.as_bytes(),
        )?;
        // ICMP_FILTER of linux/icmp.h: a mask of the types that are not wanted. All but 0.
        pinger.set(libc::SOL_RAW, 1, &(!1u32).to_ne_bytes())?;
        Ok(pinger)
    }

    fn set(&self, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of a live slice.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                value.as_ptr().cast(),
                value.len() as libc::socklen_t,
            )
        };
        if set == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn send(&self, to: Ipv4Addr, sequence: u16) -> io::Result<()> {
        let packet = request(self.identifier, sequence);
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(to.octets()),
            },
            sin_zero: [0; 8],
        };
        // SAFETY: both pointers are to live values of the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// The sequence number of the next reply to this process, if one comes before `until`.
    fn reply(&self, until: Instant) -> Option<u16> {
        let mut buffer = [0u8; 256];
        loop {
            // SAFETY: the pointer and the length are those of a live array.
            let length = unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                )
            };
            match usize::try_from(length) {
                Ok(length) => {
                    if let Some((identifier, sequence)) = parse(&buffer[..length])
                        && identifier == self.identifier
                    {
                        return Some(sequence);
                    }
                }
                Err(_) => {
                    let left = until.checked_duration_since(Instant::now())?;
                    self.wait(left);
                }
            }
        }
    }

    fn wait(&self, limit: Duration) {
        let mut poll = libc::pollfd {
            fd: self.socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let limit = libc::timespec {
            tv_sec: limit.as_secs() as libc::time_t,
            tv_nsec: limit.subsec_nanos().into(),
        };
        // SAFETY: one live pollfd and one live timespec; no signal mask.
        unsafe { libc::ppoll(&raw mut poll, 1, &raw const limit, std::ptr::null()) };
    }
}

/// An echo request (RFC 792).
fn request(identifier: u16, sequence: u16) -> [u8; REQUEST] {
    let mut packet = [0u8; REQUEST];
    packet[0] = 8;
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum: u32 = packet
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Identifier and sequence number of an echo reply with its IPv4 header.
fn parse(packet: &[u8]) -> Option<(u16, u16)> {
    let icmp = packet.get(HEADERS.0..HEADERS.0 + HEADERS.1)?;
    let number = |at: usize| u16::from_be_bytes([icmp[at], icmp[at + 1]]);
    (icmp[0] == 0).then(|| (number(4), number(6)))
}

fn index(interface: &str) -> u32 {
    let name = CString::new(interface).unwrap_or_default();
    // SAFETY: a C string that lives through the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// A layer 2 tunnel loses the first ARP requests while it connects, and the kernel would repeat
/// them once a second, which would hide how soon the tunnel was up.
fn ask_neighbours_often(interface: &str) {
    // Where the kernel does not let it be set, layer 2 tunnels look slower to start than they are.
    let file = format!("/proc/sys/net/ipv4/neigh/{interface}/retrans_time_ms");
    let _ = std::fs::write(file, "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_checksum_that_adds_up() {
        let packet = request(0x1234, 7);
        let sum: u32 = packet
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn a_reply_is_told_from_a_request() {
        let mut packet = vec![0u8; 20];
        packet.extend(request(5, 6));
        assert_eq!(parse(&packet), None);
        packet[20] = 0;
        assert_eq!(parse(&packet), Some((5, 6)));
        assert_eq!(parse(&packet[..24]), None);
    }
}
