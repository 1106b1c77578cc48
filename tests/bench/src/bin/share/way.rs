//! The ways from the client to the same server.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A way to reach the server, in the order of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// By the overlay, as members mount a share.
    Overlay,
    /// By the site's own network, without encryption.
    Direct,
    /// By WireGuard in the kernels of both machines.
    Wireguard,
}

impl Way {
    /// All, in the order of a round.
    pub const ALL: [Self; 3] = [Self::Overlay, Self::Direct, Self::Wireguard];

    /// Its name in commands, files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Direct => "direct",
            Self::Wireguard => "wireguard",
        }
    }
}
