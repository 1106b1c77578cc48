//! Packets, built field by field, and a checksum taken word by word.

use ipop_datapath::inet::{Layer, Version};
use ipop_datapath::segment::Sum;
use ipop_datapath::vnet::{GsoType, VnetHdr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

pub fn plain_sum(bytes: &[u8]) -> u16 {
    let mut total = 0_u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if total > 0xffff {
            total -= 0xffff;
        }
    }
    total as u16
}

pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A TCP or UDP packet, or super-packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Empty on TUN; else two addresses and the VLAN tags, without the EtherType.
    pub link: Vec<u8>,
    pub version: Version,
    pub source: u8,
    pub destination: u8,
    pub tos: u8,
    pub flow_label: u16,
    pub ttl: u8,
    pub identification: u16,
    pub dont_fragment: bool,
    /// IPv4 options, or one IPv6 extension header (destination options).
    pub ip_options: Vec<u8>,
    pub udp: bool,
    pub ports: (u16, u16),
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Default for Packet {
    fn default() -> Self {
        Self {
            link: Vec::new(),
            version: Version::V4,
            source: 1,
            destination: 2,
            tos: 0,
            flow_label: 0,
            ttl: 64,
            identification: 100,
            dont_fragment: true,
            ip_options: Vec::new(),
            udp: false,
            ports: (40_000, 5001),
            sequence: 1000,
            acknowledgement: 77,
            flags: ACK,
            window: 501,
            urgent: 0,
            tcp_options: Vec::new(),
            payload: vec![0x55; 100],
        }
    }
}

impl Packet {
    pub fn layer(&self) -> Layer {
        if self.link.is_empty() {
            Layer::Ip
        } else {
            Layer::Ethernet
        }
    }

    pub fn ip_at(&self) -> usize {
        if self.link.is_empty() {
            0
        } else {
            self.link.len() + 2
        }
    }

    pub fn transport_at(&self) -> usize {
        let plain = if self.version == Version::V4 { 20 } else { 40 };
        self.ip_at() + plain + self.ip_options.len()
    }

    pub fn header_len(&self) -> usize {
        self.transport_at()
            + if self.udp {
                8
            } else {
                20 + self.tcp_options.len()
            }
    }

    pub fn checksum_at(&self) -> usize {
        self.transport_at() + if self.udp { 6 } else { 16 }
    }

    /// The bytes, with the transport checksum or with only the pseudo-header's sum.
    pub fn build(&self, sum: Sum) -> Vec<u8> {
        let transport = self.transport_without_checksum();
        let mut pseudo = Vec::new();
        let protocol = if self.udp { 17 } else { 6 };
        let mut bytes = self.link.clone();
        match self.version {
            Version::V4 => {
                if !self.link.is_empty() {
                    bytes.extend([0x08, 0x00]);
                }
                let mut ip = vec![0x45 + (self.ip_options.len() / 4) as u8, self.tos];
                let len = 20 + self.ip_options.len() + transport.len();
                ip.extend((len as u16).to_be_bytes());
                ip.extend(self.identification.to_be_bytes());
                ip.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
                ip.extend([self.ttl, protocol, 0, 0]);
                ip.extend(self.addresses());
                ip.extend(&self.ip_options);
                let checksum = !plain_sum(&ip);
                put16(&mut ip, 10, checksum);
                bytes.extend(ip);
                pseudo.extend(self.addresses());
                pseudo.extend([0, protocol]);
                pseudo.extend((transport.len() as u16).to_be_bytes());
            }
            Version::V6 => {
                if !self.link.is_empty() {
                    bytes.extend([0x86, 0xdd]);
                }
                bytes.extend([0x60 | self.tos >> 4, self.tos << 4]);
                bytes.extend(self.flow_label.to_be_bytes());
                bytes.extend(((self.ip_options.len() + transport.len()) as u16).to_be_bytes());
                bytes.extend([
                    if self.ip_options.is_empty() {
                        protocol
                    } else {
                        60
                    },
                    self.ttl,
                ]);
                bytes.extend(self.addresses());
                if !self.ip_options.is_empty() {
                    bytes.extend([protocol, (self.ip_options.len() / 8 - 1) as u8]);
                    bytes.extend(&self.ip_options[2..]);
                }
                pseudo.extend(self.addresses());
                pseudo.extend((transport.len() as u32).to_be_bytes());
                pseudo.extend([0, 0, 0, protocol]);
            }
        }
        let field = if sum == Sum::Partial {
            plain_sum(&pseudo)
        } else {
            pseudo.extend(&transport);
            match !plain_sum(&pseudo) {
                0 if self.udp => 0xffff,
                checksum => checksum,
            }
        };
        bytes.extend(transport);
        put16(&mut bytes, self.checksum_at(), field);
        bytes
    }

    /// The bytes as a super-packet, with the header that the kernel gives it.
    pub fn build_super(&self, gso_size: usize) -> (VnetHdr, Vec<u8>) {
        let header = VnetHdr {
            needs_csum: true,
            gso: match (self.udp, self.version) {
                (true, _) => GsoType::UdpL4,
                (false, Version::V4) => GsoType::TcpV4,
                (false, Version::V6) => GsoType::TcpV6,
            },
            gso_ecn: !self.udp && self.flags & CWR != 0,
            hdr_len: self.header_len() as u16,
            gso_size: gso_size as u16,
            csum_start: self.transport_at() as u16,
            csum_offset: if self.udp { 6 } else { 16 },
            ..VnetHdr::default()
        };
        (header, self.build(Sum::Partial))
    }

    /// What the super-packet is cut into.
    pub fn cut(&self, gso_size: usize) -> Vec<Self> {
        let chunks: Vec<_> = self.payload.chunks(gso_size).collect();
        let count = chunks.len();
        let segment = |(index, chunk): (usize, &&[u8])| Self {
            payload: chunk.to_vec(),
            identification: self.identification.wrapping_add(index as u16),
            sequence: self.sequence.wrapping_add((index * gso_size) as u32),
            flags: self.flags
                & !if index > 0 { CWR } else { 0 }
                & !if index + 1 < count { FIN | PSH } else { 0 },
            ..self.clone()
        };
        chunks.iter().enumerate().map(segment).collect()
    }

    fn addresses(&self) -> Vec<u8> {
        let address = |last: u8| match self.version {
            Version::V4 => vec![10, 200, 0, last],
            Version::V6 => [&[0xfd, 0x12, 0x34][..], &[0; 12], &[last]].concat(),
        };
        [address(self.source), address(self.destination)].concat()
    }

    fn transport_without_checksum(&self) -> Vec<u8> {
        let mut bytes = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        if self.udp {
            bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
            bytes.extend([0, 0]);
        } else {
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend(self.acknowledgement.to_be_bytes());
            bytes.extend([(5 + self.tcp_options.len() as u8 / 4) << 4, self.flags]);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(self.urgent.to_be_bytes());
            bytes.extend(&self.tcp_options);
        }
        bytes.extend(&self.payload);
        bytes
    }
}
