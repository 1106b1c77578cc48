//! Two network namespaces joined by a cable: all traffic of a measurement stays in there.

use std::net::Ipv4Addr;
use std::path::Path;

use ipop_testbed::netns::Netns;
use tempfile::TempDir;

use crate::failure::{Result, run};

/// Name of the cable's end in each namespace.
pub const CABLE: &str = "cable";
/// Underlay addresses, of a network of 24 bits.
pub const UNDERLAY: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

/// The sender's and the receiver's namespace, and a directory for files.
#[derive(Debug)]
pub struct Stage {
    /// Namespaces of both sides; what is called sender has index 0.
    pub sides: [Netns; 2],
    dir: TempDir,
}

impl Stage {
    /// Makes them. What they hold is gone when this is dropped.
    pub fn new() -> Result<Self> {
        let sides = [Netns::new("bench-a"), Netns::new("bench-b")];
        sides[0].cable(CABLE, &sides[1], CABLE);
        for (side, address) in sides.iter().zip(UNDERLAY) {
            side.address(CABLE, &format!("{address}/24"));
        }
        Ok(Self {
            sides,
            dir: TempDir::with_prefix("ipop-bench-")?,
        })
    }

    /// Where files of the tunnel under test go.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file there.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.dir().join(name), text)?)
    }

    /// Takes segmentation offload from the cable, for good: packets of the underlay then are of the
    /// size of its MTU everywhere, as on a real network.
    pub fn stop_offload(&self) -> Result<()> {
        for side in &self.sides {
            let features = ["tx-udp-segmentation", "gso", "tso", "gro"];
            let mut command = side.command("ethtool");
            command.args(["-K", CABLE]);
            for feature in features {
                command.args([feature, "off"]);
            }
            run(&mut command)?;
        }
        Ok(())
    }

    /// MTU of an interface of the sender.
    pub fn mtu(&self, interface: &str) -> Result<u32> {
        let mut command = self.sides[0].command("ip");
        let text = run(command.args(["-o", "link", "show", "dev", interface]))?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "mtu");
        Ok(words
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or_default())
    }
}
