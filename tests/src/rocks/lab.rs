//! A front end, machines elsewhere, and the command that makes them one cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Frontend;
use crate::kill::bench::{Ended, finish};
use crate::sshd::{Machine, MachineOptions, Room};

/// A front end (site `ucsd`), two machines for workers (site `lab`), and `provision` with a state
/// directory of its own, for one deployment.
#[derive(Debug)]
pub struct Lab {
    // Before the room: they may not outlive it.
    /// The front end.
    pub frontend: Frontend,
    /// The machines for workers.
    pub workers: [Machine; 2],
    /// The deployment's name.
    pub name: String,
    _room: Room,
    dir: tempfile::TempDir,
}

impl Lab {
    /// Makes one. `double` is the program `rocks-double`, `options` are the front end's, and `keys`
    /// are lines for its site.
    pub fn new(double: &Path, label: &str, options: MachineOptions, keys: &str) -> Self {
        let room = Room::new(label);
        let frontend = Frontend::new(&room, double, options);
        let workers = ["w0", "w1"].map(|name| room.machine(name));
        // Below a directory that ejabberd's user may pass.
        let dir = tempfile::Builder::new()
            .prefix("ipop-rocks-")
            .tempdir_in("/var/tmp")
            .expect("a temporary directory");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(dir.path(), open).expect("our directory");
        let known = room.known_hosts(&[&frontend.machine, &workers[0], &workers[1]]);
        let ssh = format!(
            "identity = {:?}\nknown_hosts = {known:?}\n",
            room.identity()
        );
        let hosts: Vec<_> = workers.iter().map(Machine::target).collect();
        let sites = format!(
            "[site.ucsd]\nkind = \"rocks\"\nhost = {:?}\nbridge = \"br0\"\n{keys}{ssh}\
             [site.lab]\nkind = \"ssh\"\nhosts = {hosts:?}\nshare = false\n\
             install_packages = false\n{ssh}\
             [rendezvous]\nkind = \"embedded\"\nlisten = [{:?}]\n",
            frontend.machine.target(),
            room.host_address(),
        );
        let lab = Self {
            name: format!("{label}{:x}", std::process::id()),
            frontend,
            workers,
            _room: room,
            dir,
        };
        std::fs::write(lab.sites(), sites).expect("written");
        lab
    }

    fn sites(&self) -> PathBuf {
        self.dir.path().join("sites.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(provision());
        command
            .args(args)
            .arg("--sites")
            .arg(self.sites())
            .env("IPOP_STATE_DIR", self.dir.path().join("state"))
            .env("IPOP_CACHE_DIR", self.dir.path().join("cache"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `provision`.
    pub fn provision(&self, args: &[&str]) -> Ended {
        finish(self.command(args))
    }

    /// Runs `provision`, which must succeed, and gives both its outputs.
    pub fn ok(&self, args: &[&str]) -> String {
        let ended = self.provision(args);
        ended.ok().unwrap_or_else(|why| panic!("{why}"));
        ended.output
    }

    /// `provision cluster` with these workers.
    pub fn cluster(&self, workers: &str) -> Ended {
        let name = self.name.as_str();
        self.provision(&[
            "cluster",
            "--name",
            name,
            "--frontend",
            "ucsd",
            "--workers",
            workers,
        ])
    }

    /// [`Machine::changes`] of the front end and the workers.
    pub fn changes(&self) -> Vec<String> {
        let machines = std::iter::once(&self.frontend.machine).chain(&self.workers);
        machines.map(Machine::changes).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Its ejabberd ends with it.
        let deployments = self.dir.path().join("state/deployments");
        if deployments.join(&self.name).exists() {
            let _ = self.command(&["destroy", &self.name]).status();
        }
    }
}

/// The debug build of `provision`.
fn provision() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let path = test
        .ancestors()
        .nth(2)
        .expect("target directory")
        .join("provision");
    assert!(path.exists(), "run `cargo build -p provisioner` first");
    path
}
