//! WireGuard in user space: three programs with the same control socket.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Ends, Entry, INTERFACES, Layer, OVERLAY, Role, Subject, Tunnel};
use crate::daemon::Daemon;
use crate::failure::{Failure, Result, run};
use crate::peers::Peers;
use crate::stage::{Stage, UNDERLAY};

const PORT: u16 = 51820;
/// How long a daemon may take to make its interface and its control socket.
const PATIENCE: Duration = Duration::from_secs(5);

struct WireGuard {
    program: PathBuf,
    arguments: &'static [&'static str],
    public_keys: [String; 2],
}

pub fn entries(peers: &Peers) -> Vec<Entry> {
    let boringtun: &[&str] = &[
        "--foreground",
        "--disable-drop-privileges",
        "--verbosity",
        "error",
    ];
    [
        (
            "wireguard-go",
            "wireguard-go",
            "wireguard-go",
            &["--foreground"][..],
        ),
        ("boringtun", "boringtun-cli", "boringtun-cli", boringtun),
        ("gotatun", "gotatun-cli", "gotatun", boringtun),
    ]
    .map(|(name, package, program, arguments)| {
        let subject = Subject {
            name: name.to_owned(),
            layers: vec![Layer::L3],
            role: Role::Peer,
            configuration: "WireGuard, ChaCha20-Poly1305, defaults, MTU 1420 as `wg-quick` sets it"
                .to_owned(),
            version: peers.version(package, program),
        };
        let program = peers.program(program);
        Entry::new(subject, move || WireGuard {
            program: program.clone(),
            arguments,
            public_keys: Default::default(),
        })
    })
    .into()
}

impl Tunnel for WireGuard {
    fn prepare(&mut self, stage: &Stage) -> Result<()> {
        for (side, public) in self.public_keys.iter_mut().enumerate() {
            let private = run(Command::new("wg").arg("genkey"))?;
            let file = format!("private-{side}");
            stage.write(&file, &private)?;
            let input = std::fs::File::open(stage.dir().join(file))?;
            *public = run(Command::new("wg").arg("pubkey").stdin(input))?
                .trim()
                .to_owned();
        }
        Ok(())
    }

    fn start(&mut self, stage: &Stage) -> Result<Ends> {
        let start = |side: usize| {
            let mut command = stage.sides[side].command(&self.program.display().to_string());
            command.args(self.arguments).arg(INTERFACES[side]);
            command.env("LOG_LEVEL", "error");
            Daemon::start(&mut command, stage.dir().join(format!("daemon-{side}")))
        };
        let mut daemons = [start(0)?, start(1)?];
        // The second side first: a handshake that nobody answers is repeated after 5 s only.
        for side in [1, 0] {
            let socket = format!("/var/run/wireguard/{}.sock", INTERFACES[side]);
            await_socket(Path::new(&socket), &mut daemons[side])?;
            self.configure(stage, side)?;
        }
        Ok(Ends::of(daemons))
    }
}

impl WireGuard {
    fn configure(&self, stage: &Stage, side: usize) -> Result<()> {
        let there = 1 - side;
        let name = INTERFACES[side];
        let private = stage.dir().join(format!("private-{side}"));
        run(Command::new("wg")
            .args(["set", name, "listen-port", &PORT.to_string(), "private-key"])
            .arg(private)
            .args(["peer", &self.public_keys[there]])
            .args(["endpoint", &format!("{}:{PORT}", UNDERLAY[there])])
            .args(["allowed-ips", &format!("{}/32", OVERLAY[there])]))?;
        for words in [
            format!("address add {}/24 dev {name}", OVERLAY[side]),
            format!("link set {name} mtu 1420 up"),
        ] {
            run(stage.sides[side].command("ip").args(words.split(' ')))?;
        }
        Ok(())
    }
}

fn await_socket(socket: &Path, daemon: &mut Daemon) -> Result<()> {
    let began = Instant::now();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        if let Some(ended) = daemon.ended() {
            return Err(Failure(ended));
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure(format!("no control socket within {PATIENCE:?}")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
