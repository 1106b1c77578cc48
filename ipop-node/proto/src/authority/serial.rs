//! Serial numbers of certificates.

use std::fmt;
use std::str::FromStr;

/// Most octets of a serial number (RFC 5280 section 4.1.2.2).
const MOST: usize = 20;

/// The serial number of a certificate: a positive integer, the most significant octet first and not
/// zero.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

/// The text is no serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not 1 to {MOST} octets in hexadecimal digits, `0a:bc` or `0abc`, of a number above 0"
)]
pub struct SerialError;

impl Serial {
    /// The number that these octets are; `None` if that is 0, or has more than 20 octets.
    pub fn new(octets: &[u8]) -> Option<Self> {
        let start = octets.iter().position(|octet| *octet != 0)?;
        let octets = &octets[start..];
        (octets.len() <= MOST).then(|| Self(octets.to_vec()))
    }

    /// The octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    /// `0a:bc`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, octet) in self.0.iter().enumerate() {
            let colon = if at > 0 { ":" } else { "" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    /// Colons may be left out, as other programs do.
    fn from_str(text: &str) -> Result<Self, SerialError> {
        let digits: Vec<_> = text.bytes().filter(|c| *c != b':').collect();
        if !digits.len().is_multiple_of(2) {
            return Err(SerialError);
        }
        let octet = |pair: &[u8]| {
            let digit = |c: u8| {
                char::from(c)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            };
            Some(digit(pair[0])? << 4 | digit(pair[1])?)
        };
        let octets: Option<Vec<_>> = digits.chunks_exact(2).map(octet).collect();
        octets
            .and_then(|octets| Self::new(&octets))
            .ok_or(SerialError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_read_as_it_is_written_and_as_others_write_it() {
        let serial = Serial::new(&[0, 10, 0, 0xbc]).expect("a number");
        assert_eq!(serial.to_string(), "0a:00:bc");
        for text in ["0a:00:bc", "0A00BC", "000a00bc"] {
            assert_eq!(text.parse(), Ok(serial.clone()));
        }
        for text in ["", "0", "00", "0a:0", "0g", "ä", &"01".repeat(21)] {
            assert_eq!(text.parse::<Serial>(), Err(SerialError), "{text}");
        }
        assert!("01".repeat(20).parse::<Serial>().is_ok());
    }
}
