//! The sides of a switch.

use std::fmt;

use ipop_datapath::stations::{LOCAL, PeerIndex};

/// Where frames come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// This node's own side: its TAP device, and the LAN that it is bridged to.
    Lan,
    /// A member of the overlay.
    Member(PeerIndex),
}

impl Port {
    /// Its number in the table that the data path reads.
    pub const fn index(self) -> PeerIndex {
        match self {
            Self::Lan => LOCAL,
            Self::Member(index) => index,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lan => f.write_str("the LAN"),
            Self::Member(index) => write!(f, "member {index}"),
        }
    }
}
