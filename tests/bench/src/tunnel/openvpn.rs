//! OpenVPN between two machines, over UDP, in user space.

use super::{Ends, Entry, INTERFACES, Layer, OVERLAY, Role, Subject, Tunnel};
use crate::certificate;
use crate::daemon::Daemon;
use crate::failure::Result;
use crate::peers::Peers;
use crate::stage::{Stage, UNDERLAY};

struct OpenVpn {
    peers: Peers,
    device: &'static str,
    fingerprints: [String; 2],
}

pub fn entries(peers: &Peers) -> Vec<Entry> {
    [
        ("openvpn-tun", "tun", Layer::L3),
        ("openvpn-tap", "tap", Layer::L2),
    ]
    .map(|(name, device, layer)| {
        let subject = Subject {
            name: name.to_owned(),
            layers: vec![layer],
            role: Role::Peer,
            configuration: format!(
                "{device}, UDP, TLS with pinned certificates, AES-256-GCM (its default), no kernel offload (DCO)"
            ),
            version: peers.version("openvpn", "openvpn"),
        };
        let peers = peers.clone();
        Entry::new(subject, move || OpenVpn {
            peers: peers.clone(),
            device,
            fingerprints: Default::default(),
        })
    })
    .into()
}

impl Tunnel for OpenVpn {
    fn prepare(&mut self, stage: &Stage) -> Result<()> {
        for (side, fingerprint) in self.fingerprints.iter_mut().enumerate() {
            *fingerprint = certificate::make(stage.dir(), &format!("side-{side}"))?;
        }
        Ok(())
    }

    fn start(&mut self, stage: &Stage) -> Result<Ends> {
        // The TLS server is ready first, as far as that can be without waiting: the client repeats
        // its hello after a second or more.
        let server = self.daemon(stage, 1, &["--tls-server", "--dh", "none"])?;
        let remote = UNDERLAY[1].to_string();
        let client = self.daemon(stage, 0, &["--tls-client", "--remote", &remote])?;
        Ok(Ends::of([client, server]))
    }
}

impl OpenVpn {
    fn daemon(&self, stage: &Stage, side: usize, role: &[&str]) -> Result<Daemon> {
        let second = match self.device {
            "tap" => "255.255.255.0".to_owned(),
            _ => OVERLAY[1 - side].to_string(),
        };
        let program = self.peers.program("openvpn").display().to_string();
        let mut command = stage.sides[side].command(&program);
        command
            .current_dir(stage.dir())
            .args(["--proto", "udp4", "--port", "1194", "--verb", "1"])
            .args(["--dev", INTERFACES[side], "--dev-type", self.device])
            .args(["--ifconfig", &OVERLAY[side].to_string(), &second])
            .args(["--cert", &format!("side-{side}.crt")])
            .args(["--key", &format!("side-{side}.key")])
            .args(["--peer-fingerprint", &self.fingerprints[1 - side]])
            .args(["--disable-dco"])
            .args(role);
        Daemon::start(&mut command, stage.dir().join(format!("daemon-{side}")))
    }
}
