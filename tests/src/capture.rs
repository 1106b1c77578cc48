//! What passes an interface, and what it is.

use std::fs;
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::netns::Netns;
use crate::wait_until;

/// STUN's magic cookie (RFC 8489 section 5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    file: NamedTempFile,
}

/// One TCP segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Sender.
    pub from: (IpAddr, u16),
    /// Receiver.
    pub to: (IpAddr, u16),
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Whether it opens the connection.
    pub syn: bool,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What a frame on an Ethernet is.
#[derive(Debug, Clone)]
pub enum Frame {
    /// ARP, ICMPv6 neighbour and router discovery, group membership: the machines', not ours.
    Neighbour,
    /// STUN or TURN (RFC 8489, 8656).
    Stun,
    /// TURN ChannelData (RFC 8656 section 12.4).
    ChannelData,
    /// A DTLS record (RFC 6347).
    Dtls,
    /// ICMP's "destination unreachable" about one of the four above, from a router or a host.
    Unreachable,
    /// TCP.
    Tcp(Segment),
    /// Anything else; the text says what.
    Other(String),
}

impl Capture {
    /// Starts to record everything on an interface, and returns when it does.
    pub fn start(netns: &Netns, interface: &str) -> Self {
        Self::start_where(netns, interface, &[])
    }

    /// The same, of what passes a filter (pcap-filter(7)).
    pub fn start_where(netns: &Netns, interface: &str, filter: &[&str]) -> Self {
        let file = NamedTempFile::new().expect("temporary file");
        let log = NamedTempFile::new().expect("temporary file");
        let child = netns
            .command("tcpdump")
            .args([
                "-i",
                interface,
                "-s",
                "0",
                "-U",
                "--immediate-mode",
                "-Z",
                "root",
                "-w",
            ])
            .arg(file.path())
            .args(filter)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().expect("log file"))
            .spawn()
            .expect("tcpdump");
        wait_until("tcpdump", Duration::from_secs(20), || {
            fs::read_to_string(log.path())
                .expect("log")
                .contains("listening on")
                .then_some(())
        });
        Self { child, file }
    }

    /// Stops recording and gives the raw packets.
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        // SIGTERM, so that what it has buffered is written.
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status();
        assert!(sent.expect("`kill` runs").success());
        wait_until("the end of tcpdump", Duration::from_secs(20), || {
            self.child.try_wait().expect("our child")
        });
        packets(&fs::read(self.file.path()).expect("a capture"))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Splits a file in pcap format of this machine's byte order.
fn packets(mut file: &[u8]) -> Vec<Vec<u8>> {
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes"));
    assert!(
        matches!(word(file), 0xa1b2_c3d4 | 0xa1b2_3c4d),
        "not a capture"
    );
    file = &file[24..];
    let mut packets = Vec::new();
    while file.len() >= 16 {
        let length = word(&file[8..]) as usize;
        let Some(packet) = file.get(16..16 + length) else {
            break;
        };
        packets.push(packet.to_vec());
        file = &file[16 + length..];
    }
    packets
}

/// Says what an Ethernet frame is.
pub fn classify(frame: &[u8]) -> Frame {
    let other = |what: &str| Frame::Other(format!("{what}: {frame:02x?}"));
    let Some((header, packet)) = frame.split_at_checked(14) else {
        return other("short");
    };
    match header[12..] {
        [0x08, 0x06] => Frame::Neighbour,
        [0x08, 0x00] => ipv4(packet),
        [0x86, 0xdd] => ipv6(packet),
        _ => other("not IP"),
    }
}

fn ipv4(packet: &[u8]) -> Frame {
    let parts = || {
        let length = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
        let start = usize::from(packet.first()? & 15) * 4;
        let ip = |at: usize| {
            Some(IpAddr::from(
                <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?,
            ))
        };
        Some((
            *packet.get(9)?,
            ip(12)?,
            ip(16)?,
            packet.get(start..length)?,
        ))
    };
    match parts() {
        Some((protocol, from, to, rest)) => transport(protocol, from, to, rest),
        None => Frame::Other(format!("cut IPv4: {packet:02x?}")),
    }
}

fn ipv6(packet: &[u8]) -> Frame {
    let parts = || {
        let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
        let ip = |at: usize| {
            Some(IpAddr::from(
                <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?,
            ))
        };
        Some((
            *packet.get(6)?,
            ip(8)?,
            ip(24)?,
            packet.get(40..40 + length)?,
        ))
    };
    match parts() {
        Some((protocol, from, to, rest)) => transport(protocol, from, to, rest),
        None => Frame::Other(format!("cut IPv6: {packet:02x?}")),
    }
}

/// ICMP errors quote what they are about.
fn unreachable(quoted: Frame) -> Frame {
    match quoted {
        Frame::Stun | Frame::ChannelData | Frame::Dtls | Frame::Unreachable => Frame::Unreachable,
        Frame::Other(what) => Frame::Other(format!("ICMP about {what}")),
        Frame::Neighbour | Frame::Tcp(_) => Frame::Other(format!("ICMP about {quoted:?}")),
    }
}

fn transport(protocol: u8, from: IpAddr, to: IpAddr, data: &[u8]) -> Frame {
    let other = |what: &str| Frame::Other(format!("{what} {from} -> {to}: {data:02x?}"));
    let port = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
    match protocol {
        // IGMP.
        2 => Frame::Neighbour,
        // IPv6 hop-by-hop: only multicast listener reports, ICMPv6 inside, have it here.
        0 if data.first() == Some(&58) => Frame::Neighbour,
        1 if data.len() > 8 && data[0] == 3 => unreachable(ipv4(&data[8..])),
        58 if data.len() > 8 && data[0] == 1 => unreachable(ipv6(&data[8..])),
        58 if matches!(data.first(), Some(130..=137 | 143)) => Frame::Neighbour,
        17 if data.len() >= 8 => udp(&data[8..]).unwrap_or_else(|| other("UDP")),
        6 if data.len() >= 20 => {
            let start = usize::from(data[12] >> 4) * 4;
            Frame::Tcp(Segment {
                from: (from, port(0)),
                to: (to, port(2)),
                seq: u32::from_be_bytes([data[4], data[5], data[6], data[7]]),
                syn: data[13] & 2 != 0,
                payload: data.get(start..).unwrap_or_default().to_vec(),
            })
        }
        _ => other(&format!("protocol {protocol}")),
    }
}

fn udp(payload: &[u8]) -> Option<Frame> {
    let length = |at: usize| {
        Some(usize::from(u16::from_be_bytes([
            *payload.get(at)?,
            *payload.get(at + 1)?,
        ])))
    };
    match payload.first()? {
        0..=3 if payload.get(4..8)? == COOKIE && payload.len() == 20 + length(2)? => {
            Some(Frame::Stun)
        }
        20..=63 if dtls_records(payload) => Some(Frame::Dtls),
        64..=79 if payload.len() >= 4 + length(2)? => {
            let data = payload.get(4..4 + length(2)?)?;
            udp(data).filter(|inner| matches!(inner, Frame::Stun | Frame::Dtls))?;
            Some(Frame::ChannelData)
        }
        _ => None,
    }
}

/// Whether a datagram is nothing but whole DTLS records.
fn dtls_records(mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let Some(header) = data.get(..13) else {
            return false;
        };
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        if !matches!(header[..3], [20..=23, 0xfe, 0xfd | 0xff]) || data.len() < 13 + length {
            return false;
        }
        data = &data[13 + length..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_dtls_records_are_dtls() {
        let record = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2];
        assert!(dtls_records(&record));
        assert!(!dtls_records(&record[..14]));
        assert!(!dtls_records(b"!plaintext that starts like it!"));
    }

    #[test]
    fn plain_packets_in_udp_are_none_of_the_protocols() {
        assert!(udp(&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0]).is_none());
        assert!(udp(&[0x60, 0, 0, 0]).is_none());
        assert!(udp(&[]).is_none());
    }
}
