//! VpnCloud, with TUN and with TAP.

use super::{Ends, Entry, INTERFACES, Layer, OVERLAY, Role, Subject, Tunnel};
use crate::daemon::Daemon;
use crate::failure::{Result, run};
use crate::peers::Peers;
use crate::stage::{CABLE, Stage, UNDERLAY};

const PORT: u16 = 3210;

struct VpnCloud {
    peers: Peers,
    device: &'static str,
}

pub fn entries(peers: &Peers) -> Vec<Entry> {
    [
        ("vpncloud-tun", "tun", Layer::L3),
        ("vpncloud-tap", "tap", Layer::L2),
    ]
    .map(|(name, device, layer)| {
        let subject = Subject {
            name: name.to_owned(),
            layers: vec![layer],
            role: Role::Peer,
            configuration: format!(
                "{device}, shared password, the cipher that it finds fastest when it starts (AES-128-GCM on most machines)"
            ),
            version: peers.version("vpncloud", "vpncloud"),
        };
        let peers = peers.clone();
        Entry::new(subject, move || VpnCloud {
            peers: peers.clone(),
            device,
        })
    })
    .into()
}

impl Tunnel for VpnCloud {
    fn prepare(&mut self, stage: &Stage) -> Result<()> {
        // It asks the kernel which address it would use towards this one, and ends without an
        // answer. No packet is sent there.
        for side in [0, 1] {
            let gateway = UNDERLAY[1 - side].to_string();
            let words = ["route", "add", "8.8.8.8/32", "via", &gateway, "dev", CABLE];
            run(stage.sides[side].command("ip").args(words))?;
        }
        Ok(())
    }

    fn start(&mut self, stage: &Stage) -> Result<Ends> {
        let program = self.peers.program("vpncloud").display().to_string();
        let start = |side: usize| {
            let name = INTERFACES[side];
            // Not its `--ip`: built by a current compiler, version 2.3.0 sets a wrong address.
            let up = format!(
                "ip address add {}/24 dev {name} && ip link set {name} up",
                OVERLAY[side]
            );
            let mut command = stage.sides[side].command(&program);
            command
                .args(["--quiet", "--no-port-forwarding", "--no-auto-claim"])
                .args(["--type", self.device, "--device", name, "--ifup", &up])
                .args(["--listen", &PORT.to_string(), "--password", "not a secret"])
                .args(["--peer", &format!("{}:{PORT}", UNDERLAY[1 - side])]);
            if self.device == "tun" {
                command.args(["--claim", &format!("{}/32", OVERLAY[side])]);
            }
            Daemon::start(&mut command, stage.dir().join(format!("daemon-{side}")))
        };
        Ok(Ends::of([start(0)?, start(1)?]))
    }
}
