//! Addresses by role: what lives on the overlay is never mixed up with the underlay.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipop_datapath::stations::is_station;
use serde::{Deserialize, Serialize};

/// An IPv4 address on the overlay with the overlay's prefix length, written `10.73.0.2/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Overlay4 {
    /// The node's own address.
    pub addr: Ipv4Addr,
    /// Prefix length in bits, 1 to 30.
    pub prefix: u8,
}

/// An IPv6 address on the overlay with the overlay's prefix length, written `fd00::2/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Overlay6 {
    /// The node's own address.
    pub addr: Ipv6Addr,
    /// Prefix length in bits, 8 to 126.
    pub prefix: u8,
}

/// An overlay address could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `/` in the text.
    #[error("`{0}` has no prefix length; write it as address/length")]
    NoPrefix(String),
    /// The part before the `/` is not an address of the family.
    #[error("`{0}` is not an {1} address")]
    NotAnAddress(String, &'static str),
    /// The part after the `/` is not a number in range.
    #[error("`{0}` is not a prefix length between {1} and {2}")]
    PrefixOutOfRange(String, u8, u8),
    /// No MAC address, or one that no single station has.
    #[error("`{0}` is not the MAC address of a station, like 02:49:0a:01:80:02")]
    NotAStation(String),
}

impl Overlay4 {
    /// Whether `other` lies in this address's overlay network.
    pub fn contains(&self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.prefix));
        u32::from(self.addr) & mask == u32::from(other) & mask
    }
}

impl Overlay6 {
    /// Whether `other` lies in this address's overlay network.
    pub fn contains(&self, other: Ipv6Addr) -> bool {
        let mask = u128::MAX << (128 - u32::from(self.prefix));
        u128::from(self.addr) & mask == u128::from(other) & mask
    }
}

/// Splits `address/length`, checking the length against `min..=max`.
fn split<A: FromStr>(
    text: &str,
    family: &'static str,
    min: u8,
    max: u8,
) -> Result<(A, u8), AddressError> {
    let (addr, prefix) = text
        .split_once('/')
        .ok_or_else(|| AddressError::NoPrefix(text.to_owned()))?;
    let addr = addr
        .parse()
        .map_err(|_| AddressError::NotAnAddress(addr.to_owned(), family))?;
    let prefix = prefix
        .parse()
        .ok()
        .filter(|p| (min..=max).contains(p))
        .ok_or_else(|| AddressError::PrefixOutOfRange(prefix.to_owned(), min, max))?;
    Ok((addr, prefix))
}

impl FromStr for Overlay4 {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        split(text, "IPv4", 1, 30).map(|(addr, prefix)| Self { addr, prefix })
    }
}

impl FromStr for Overlay6 {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        split(text, "IPv6", 8, 126).map(|(addr, prefix)| Self { addr, prefix })
    }
}

impl fmt::Display for Overlay4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl fmt::Display for Overlay6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// The address of a station on an Ethernet, written `02:49:0a:01:80:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl FromStr for MacAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError::NotAStation(text.to_owned());
        let is_byte = |w: &&str| w.len() == 2 && w.bytes().all(|b| b.is_ascii_hexdigit());
        let mut bytes = [0; 6];
        let mut words = text.split(':');
        for byte in &mut bytes {
            let word = words.next().filter(is_byte).ok_or_else(bad)?;
            *byte = u8::from_str_radix(word, 16).map_err(|_| bad())?;
        }
        if words.next().is_some() || !is_station(bytes) {
            return Err(bad());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The overlay addresses of one node; an overlay always carries both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OverlayAddrs {
    /// IPv4 address and prefix.
    pub ipv4: Overlay4,
    /// IPv6 address and prefix.
    pub ipv6: Overlay6,
}

impl OverlayAddrs {
    /// Both.
    pub const fn all(&self) -> [IpAddr; 2] {
        [IpAddr::V4(self.ipv4.addr), IpAddr::V6(self.ipv6.addr)]
    }

    /// Whether `addr` is exactly one of this node's two addresses.
    pub fn is(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) => self.ipv4.addr == v4,
            IpAddr::V6(v6) => self.ipv6.addr == v6,
        }
    }
}

/// Serialises through `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($($t:ty),*) => {$(
        impl Serialize for $t {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Overlay4, Overlay6, MacAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_same_network_contain_each_other() {
        let a: Overlay4 = "10.73.0.2/24".parse().expect("valid");
        assert!(a.contains(Ipv4Addr::new(10, 73, 0, 254)));
        assert!(!a.contains(Ipv4Addr::new(10, 73, 1, 2)));
        let b: Overlay6 = "fd5a:1::2/64".parse().expect("valid");
        assert!(b.contains("fd5a:1::ffff".parse().expect("valid")));
        assert!(!b.contains("fd5a:2::2".parse().expect("valid")));
    }

    #[test]
    fn each_defect_of_an_address_is_named() {
        for (text, message) in [
            (
                "10.0.0.1",
                "`10.0.0.1` has no prefix length; write it as address/length",
            ),
            ("10.0.0/24", "`10.0.0` is not an IPv4 address"),
            (
                "10.0.0.1/31",
                "`31` is not a prefix length between 1 and 30",
            ),
        ] {
            assert_eq!(
                text.parse::<Overlay4>().expect_err("defective").to_string(),
                message
            );
        }
    }

    #[test]
    fn a_mac_address_is_that_of_one_station() {
        let text = "02:49:0a:01:80:02";
        let mac: MacAddr = text.parse().expect("valid");
        assert_eq!(mac.0, [2, 0x49, 10, 1, 128, 2]);
        assert_eq!(mac.to_string(), text);
        for wrong in [
            "",
            "02:49:0a:01:80",
            "02:49:0a:01:80:02:03",
            "2:49:0a:01:80:02",
            "+2:49:0a:01:80:02",
            "03:49:0a:01:80:02",
            "00:00:00:00:00:00",
            "02-49-0a-01-80-02",
        ] {
            wrong.parse::<MacAddr>().expect_err(wrong);
        }
    }
}
