//! nebula, without a lighthouse.

use std::process::Command;

use super::{Ends, Entry, INTERFACES, Layer, OVERLAY, Role, Subject, Tunnel};
use crate::daemon::Daemon;
use crate::failure::{Result, run};
use crate::peers::Peers;
use crate::stage::{Stage, UNDERLAY};

const PORT: u16 = 4242;

struct Nebula {
    peers: Peers,
}

pub fn entries(peers: &Peers) -> Vec<Entry> {
    let subject = Subject {
        name: "nebula".to_owned(),
        layers: vec![Layer::L3],
        role: Role::Peer,
        configuration: "static host map, AES-256-GCM (its default), everything allowed".to_owned(),
        version: peers.version("nebula", "nebula"),
    };
    let peers = peers.clone();
    vec![Entry::new(subject, move || Nebula {
        peers: peers.clone(),
    })]
}

impl Tunnel for Nebula {
    fn prepare(&mut self, stage: &Stage) -> Result<()> {
        let sign = |words: &str| {
            let mut command = Command::new(self.peers.program("nebula-cert"));
            run(command.args(words.split(' ')).current_dir(stage.dir()))
        };
        sign("ca -name bench")?;
        for side in [0, 1] {
            let there = 1 - side;
            sign(&format!(
                "sign -name side-{side} -networks {}/24",
                OVERLAY[side]
            ))?;
            stage.write(
                &format!("{side}.yml"),
                &format!(
                    r#"
pki: {{ ca: {dir}/ca.crt, cert: {dir}/side-{side}.crt, key: {dir}/side-{side}.key }}
static_host_map: {{ "{other}": ["{endpoint}:{PORT}"] }}
lighthouse: {{ am_lighthouse: false }}
listen: {{ host: 0.0.0.0, port: {PORT} }}
tun: {{ dev: {interface} }}
logging: {{ level: error }}
firewall:
  outbound: [{{ port: any, proto: any, host: any }}]
  inbound: [{{ port: any, proto: any, host: any }}]
"#,
                    dir = stage.dir().display(),
                    other = OVERLAY[there],
                    endpoint = UNDERLAY[there],
                    interface = INTERFACES[side],
                ),
            )?;
        }
        Ok(())
    }

    fn start(&mut self, stage: &Stage) -> Result<Ends> {
        let program = self.peers.program("nebula").display().to_string();
        let start = |side: usize| {
            let mut command = stage.sides[side].command(&program);
            command
                .arg("-config")
                .arg(stage.dir().join(format!("{side}.yml")));
            Daemon::start(&mut command, stage.dir().join(format!("daemon-{side}")))
        };
        Ok(Ends::of([start(0)?, start(1)?]))
    }
}
