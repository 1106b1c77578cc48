//! A rendezvous of a test's own, below a temporary directory.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use provisioner::layout::Layout;
use provisioner::rendezvous::config::{EmbeddedConfig, RendezvousConfig};
use provisioner::rendezvous::{Endpoint, Rendezvous, RendezvousError};

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A state directory with one rendezvous in it, stopped when dropped.
pub struct Site {
    pub rendezvous: Rendezvous,
    pub name: String,
    pub layout: Layout,
    _dir: tempfile::TempDir,
}

impl Site {
    pub fn new(name: &str) -> Self {
        Self::with(name, EmbeddedConfig::default())
    }

    pub fn with(name: &str, config: EmbeddedConfig) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("rdv")
            .tempdir()
            .expect("temporary directory");
        let layout = Layout {
            state: dir.path().join("state"),
            cache: dir.path().join("cache"),
        };
        layout.create().expect("state directory");
        // As root, the server's user must reach the state directory.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("mode");
        let rendezvous = Rendezvous::open(
            &layout,
            name,
            "0000002a",
            &RendezvousConfig::Embedded(config),
        )
        .expect("nothing to read");
        Self {
            rendezvous,
            name: name.to_owned(),
            layout,
            _dir: dir,
        }
    }

    pub fn try_start(&self) -> Result<Endpoint, RendezvousError> {
        self.try_start_on(&[LOOPBACK])
    }

    pub fn try_start_on(&self, listen: &[IpAddr]) -> Result<Endpoint, RendezvousError> {
        let mut supervisor = Command::new(env!("CARGO_BIN_EXE_provision"));
        supervisor.arg("--state-dir").arg(&self.layout.state).args([
            "rendezvous",
            "run",
            &self.name,
        ]);
        self.rendezvous.start_with(listen, Some(supervisor))
    }

    pub fn start(&self) -> Endpoint {
        self.try_start().expect("it starts")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(error) = self.rendezvous.stop() {
            eprintln!("left behind: {error}");
        }
    }
}
