//! tinc, as a router and as a switch.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::{Ends, Entry, INTERFACES, Layer, OVERLAY, Role, Subject, Tunnel};
use crate::daemon::Daemon;
use crate::failure::{Result, run};
use crate::peers::Peers;
use crate::stage::{Stage, UNDERLAY};

const NAMES: [&str; 2] = ["left", "right"];

struct Tinc {
    peers: Peers,
    mode: &'static str,
}

pub fn entries(peers: &Peers) -> Vec<Entry> {
    [
        ("tinc-router", "router", Layer::L3),
        ("tinc-switch", "switch", Layer::L2),
    ]
    .map(|(name, mode, layer)| {
        let subject = Subject {
            name: name.to_owned(),
            layers: vec![layer],
            role: Role::Peer,
            configuration: format!(
                "Mode = {mode}, ChaCha20-Poly1305 (the default of its protocol 17), the first connects to the second"
            ),
            version: peers.version("tinc", "tincd"),
        };
        let peers = peers.clone();
        Entry::new(subject, move || Tinc {
            peers: peers.clone(),
            mode,
        })
    })
    .into()
}

impl Tunnel for Tinc {
    fn prepare(&mut self, stage: &Stage) -> Result<()> {
        for side in [0, 1] {
            self.tinc(stage, side, &["init", NAMES[side]])?;
            for (key, value) in [
                ("Mode", self.mode),
                ("Interface", INTERFACES[side]),
                ("AddressFamily", "ipv4"),
            ] {
                self.tinc(stage, side, &["set", key, value])?;
            }
            let address = format!("{}.Address", NAMES[side]);
            self.tinc(stage, side, &["set", &address, &UNDERLAY[side].to_string()])?;
            if self.mode == "router" {
                let subnet = format!("{}.Subnet", NAMES[side]);
                self.tinc(stage, side, &["set", &subnet, &OVERLAY[side].to_string()])?;
            }
            let up = stage.dir().join(NAMES[side]).join("tinc-up");
            let script = format!(
                "#!/bin/sh\nip address add {}/24 dev $INTERFACE\nip link set $INTERFACE up\n",
                OVERLAY[side]
            );
            std::fs::write(&up, script)?;
            std::fs::set_permissions(&up, PermissionsExt::from_mode(0o755))?;
        }
        for side in [0, 1] {
            let there = NAMES[1 - side];
            let hosts = |name: &str| stage.dir().join(name).join("hosts").join(there);
            std::fs::copy(hosts(there), hosts(NAMES[side]))?;
        }
        self.tinc(stage, 0, &["set", "ConnectTo", NAMES[1]])?;
        Ok(())
    }

    fn start(&mut self, stage: &Stage) -> Result<Ends> {
        let program = self.peers.program("tincd").display().to_string();
        let start = |side: usize| {
            let directory = stage.dir().join(NAMES[side]);
            let mut command = stage.sides[side].command(&program);
            command
                .args(["--no-detach", "--debug=0", "--config"])
                .arg(&directory)
                .arg("--pidfile")
                .arg(directory.join("pid"));
            Daemon::start(&mut command, stage.dir().join(format!("daemon-{side}")))
        };
        // In this order, because a connection that is refused is tried again after 5 s.
        let second = start(1)?;
        Ok(Ends::of([start(0)?, second]))
    }
}

impl Tinc {
    fn tinc(&self, stage: &Stage, side: usize, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.peers.program("tinc"));
        command
            .arg("--config")
            .arg(stage.dir().join(NAMES[side]))
            .arg("--batch")
            .args(words)
            .stdin(Stdio::null());
        run(&mut command)
    }
}
