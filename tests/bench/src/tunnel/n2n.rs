//! n2n: two edges, and the supernode that introduces them.

use super::{Ends, Entry, INTERFACES, Layer, OVERLAY, Role, Subject, Tunnel};
use crate::daemon::Daemon;
use crate::failure::Result;
use crate::peers::Peers;
use crate::stage::{Stage, UNDERLAY};

const PORT: u16 = 7654;

struct N2n {
    peers: Peers,
    supernode: Option<Daemon>,
}

pub fn entries(peers: &Peers) -> Vec<Entry> {
    let subject = Subject {
        name: "n2n".to_owned(),
        layers: vec![Layer::L2],
        role: Role::Peer,
        configuration:
            "two edges with a direct link, ChaCha20 without authentication (the fastest of \
            its ciphers here), supernode beside the second and not counted"
                .to_owned(),
        version: peers.version("n2n", "edge"),
    };
    let peers = peers.clone();
    vec![Entry::new(subject, move || N2n {
        peers: peers.clone(),
        supernode: None,
    })]
}

impl Tunnel for N2n {
    fn prepare(&mut self, stage: &Stage) -> Result<()> {
        let program = self.peers.program("supernode").display().to_string();
        let mut command = stage.sides[1].command(&program);
        command.args(["-f", "-p", &PORT.to_string()]);
        let log = stage.dir().join("supernode");
        self.supernode = Some(Daemon::start(&mut command, log)?);
        // Nothing tells when it is ready; it only binds a socket.
        std::thread::sleep(std::time::Duration::from_millis(500));
        Ok(())
    }

    fn start(&mut self, stage: &Stage) -> Result<Ends> {
        let program = self.peers.program("edge").display().to_string();
        let start = |side: usize| {
            let mut command = stage.sides[side].command(&program);
            command
                .args(["-f", "-d", INTERFACES[side]])
                .args(["-a", &format!("static:{}/24", OVERLAY[side])])
                .args(["-c", "bench", "-k", "not a secret", "-A4"])
                .args(["-l", &format!("{}:{PORT}", UNDERLAY[1])]);
            Daemon::start(&mut command, stage.dir().join(format!("daemon-{side}")))
        };
        Ok(Ends::of([start(0)?, start(1)?]))
    }
}
