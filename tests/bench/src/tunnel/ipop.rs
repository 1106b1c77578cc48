//! `ipop-node`: signed in over XMPP with links by ICE, and with peers named in its configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ipop_testbed::ejabberd::{DOMAIN, Ejabberd, Options};

use super::{Ends, Entry, INTERFACES, Layer, OVERLAY, Role, Subject, Tunnel};
use crate::certificate;
use crate::daemon::Daemon;
use crate::failure::{Result, run};
use crate::peers::Peers;
use crate::stage::{Stage, UNDERLAY};

/// Signed in over XMPP.
pub const SIGNED_IN: &str = "ipop";
/// Peers by configuration.
pub const STATIC: &str = "ipop-static";
/// Peers by configuration, carrying Ethernet frames.
pub const SWITCH: &str = "ipop-switch";

const PORT: u16 = 4915;
const PASSWORD: &str = "not a secret";

/// How a node finds its peer.
#[derive(Clone, Copy)]
enum Finding {
    Xmpp,
    Static,
}

struct Ipop {
    program: PathBuf,
    finding: Finding,
    mode: Option<&'static str>,
    server: Option<Ejabberd>,
}

pub fn entries(_peers: &Peers) -> Vec<Entry> {
    let program = program();
    let version = version(&program);
    let entry = |name: &str, layer, finding, mode, configuration: &str| {
        let subject = Subject {
            name: name.to_owned(),
            layers: vec![layer],
            role: Role::Ours,
            configuration: configuration.to_owned(),
            version: version.clone(),
        };
        let program = program.clone();
        Entry::new(subject, move || Ipop {
            program: program.clone(),
            finding,
            mode,
            server: None,
        })
    };
    let (xmpp, fixed) = (Finding::Xmpp, Finding::Static);
    vec![
        entry(
            SIGNED_IN,
            Layer::L3,
            xmpp,
            None,
            "XMPP sign-in and ICE; ejabberd beside the second and not counted",
        ),
        entry(
            STATIC,
            Layer::L3,
            fixed,
            None,
            "peers in the configuration, no server",
        ),
        entry(
            SWITCH,
            Layer::L2,
            fixed,
            Some("switch"),
            "mode `switch`, peers in the configuration, no server",
        ),
    ]
}

impl Tunnel for Ipop {
    fn prepare(&mut self, stage: &Stage) -> Result<()> {
        for side in [0, 1] {
            fs::create_dir(dir(stage, side))?;
        }
        let finding = match self.finding {
            Finding::Xmpp => self.prepare_server(stage)?,
            Finding::Static => prepare_identities(stage)?,
        };
        for (side, how) in finding.into_iter().enumerate() {
            let text = format!(
                r#"[node]
name = "node-{side}"
control = "{control}"
{node}
[overlay]
name = "bench"
interface = "{interface}"
{mode}
ipv4 = "{ipv4}/24"
ipv6 = "{ipv6}/64"
{rest}"#,
                control = dir(stage, side).join("control.sock").display(),
                node = how.node,
                interface = INTERFACES[side],
                mode = self
                    .mode
                    .map_or_else(String::new, |mode| format!("mode = \"{mode}\"")),
                ipv4 = OVERLAY[side],
                ipv6 = ipv6(side),
                rest = how.rest,
            );
            fs::write(dir(stage, side).join("ipop.config"), text)?;
        }
        Ok(())
    }

    fn start(&mut self, stage: &Stage) -> Result<Ends> {
        let program = self.program.display().to_string();
        let start = |side: usize| {
            let mut command = stage.sides[side].command(&program);
            command
                .args(["run", "--config", "ipop.config", "--log", "warn"])
                .env("CREDENTIALS_DIRECTORY", dir(stage, side));
            Daemon::start(&mut command, stage.dir().join(format!("daemon-{side}")))
        };
        Ok(Ends::of([start(0)?, start(1)?]))
    }
}

/// What makes a node find the other: keys of `[node]`, and the sections after `[overlay]`.
struct How {
    node: String,
    rest: String,
}

impl Ipop {
    fn prepare_server(&mut self, stage: &Stage) -> Result<[How; 2]> {
        let prefix = ["ip", "netns", "exec", stage.sides[1].name()];
        let server = Ejabberd::start_with(Options {
            listen: vec![UNDERLAY[1].into()],
            prefix: prefix.map(str::to_owned).to_vec(),
            tls13: true,
        });
        let mut how = Vec::new();
        for side in [0, 1] {
            let user = format!("node-{side}");
            server.register(&user, PASSWORD);
            server.join(&user);
            fs::write(dir(stage, side).join("ipop.ca"), server.ca_pem())?;
            fs::write(dir(stage, side).join("ipop.password"), PASSWORD)?;
            how.push(How {
                node: String::new(),
                rest: format!(
                    r#"[xmpp]
jid = "{user}@{DOMAIN}"
servers = {servers:?}
password_file = "ipop.password"
ca_file = "ipop.ca"
"#,
                    servers = server.servers()
                ),
            });
        }
        self.server = Some(server);
        let second = how.remove(1);
        Ok([how.remove(0), second])
    }
}

/// An identity for each side, and the other's fingerprint in its configuration.
fn prepare_identities(stage: &Stage) -> Result<[How; 2]> {
    let mut fingerprints = Vec::new();
    for side in [0, 1] {
        let dir = dir(stage, side);
        fingerprints.push(certificate::make(&dir, "identity")?);
        let part = |name: &str| fs::read_to_string(dir.join(name));
        let identity = part("identity.key")? + &part("identity.crt")?;
        fs::write(dir.join("ipop.identity"), identity)?;
    }
    Ok([0, 1].map(|side| How {
        node: format!("identity = {:?}", dir(stage, side).join("ipop.identity")),
        rest: format!(
            r#"[ice]
port = {PORT}
[[peer]]
name = "node-{there}"
ipv4 = "{ipv4}"
ipv6 = "{ipv6}"
fingerprint = "sha-256 {fingerprint}"
endpoints = ["{endpoint}:{PORT}"]
"#,
            there = 1 - side,
            ipv4 = OVERLAY[1 - side],
            ipv6 = ipv6(1 - side),
            fingerprint = fingerprints[1 - side],
            endpoint = UNDERLAY[1 - side],
        ),
    }))
}

fn dir(stage: &Stage, side: usize) -> PathBuf {
    stage.dir().join(format!("node-{side}"))
}

fn ipv6(side: usize) -> String {
    format!("fd73:5a::{}", side + 1)
}

/// `$IPOP_NODE_BINARY`, otherwise what `scripts/build-node` made.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("IPOP_NODE_BINARY") {
        return path.into();
    }
    let here = std::env::current_exe().unwrap_or_default();
    let target = here.ancestors().nth(2).unwrap_or(Path::new("target"));
    target.join("x86_64-unknown-linux-gnu/release/ipop-node")
}

/// Its version, and the commit that is checked out.
fn version(program: &Path) -> Option<String> {
    let version = run(Command::new(program).arg("--version")).ok()?;
    let version = version.trim().trim_start_matches("ipop-node").trim();
    let mut git = Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always"]);
    match run(git.arg("--dirty")) {
        Ok(commit) => Some(format!("{version} ({})", commit.trim())),
        Err(_) => Some(version.to_owned()),
    }
}
