//! A front end of our own and a gateway, launched by `provision cluster`: each has a card on a bridge of this
//! machine. Needs a running libvirt, and the binaries that `scripts/test` builds.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ipop_proto::status::NodeStatus;
use ipop_tests::netns::Netns;
use ipop_tests::node::binary;
use ipop_tests::outside::{Outside, Run};
use ipop_tests::wait_until;
use provisioner::image::{self, BuildOptions};
use tempfile::TempDir;

use crate::guest::BOOT;

/// The front end's address on the LAN.
pub const ADDRESS: &str = "10.1.0.254";

/// A bridge of this machine; removed when dropped.
pub struct Bridge(String);

impl Bridge {
    /// Makes one whose name begins with `label`, of at most five letters.
    pub fn new(label: &str) -> Self {
        let bridge = Self(format!("{label}{}", std::process::id()));
        // One of that name is of a process that was killed, whose number we have now.
        let _ = Command::new("ip").args(["link", "del", &bridge.0]).output();
        bridge.ip(&["link", "add", &bridge.0, "type", "bridge"]);
        bridge.ip(&["link", "set", &bridge.0, "up"]);
        bridge
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Plugs a namespace in, whose interface is `there`.
    pub fn plug(&self, netns: &Netns, there: &str) {
        let port = format!("p{}", self.0);
        let far = ["peer", "name", there, "netns", netns.name()];
        self.ip(&[&["link", "add", &port, "type", "veth"], &far[..]].concat());
        self.ip(&["link", "set", &port, "master", &self.0, "up"]);
        netns.run(&["ip", "link", "set", there, "up"]);
    }

    fn ip(&self, words: &[&str]) {
        let output = Command::new("ip").args(words).output();
        let output = output.expect("`ip` runs; is the package `iproute2` installed?");
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = Command::new("ip").args(["link", "del", &self.0]).output();
    }
}

/// The sites: the front end's, and one with a gateway. Both are this machine.
pub fn sites(own: &str, lab: &str) -> String {
    format!(
        r#"
[site.local]
kind = "libvirt"
[site.local.lan]
bridge = "{own}"
address = "{ADDRESS}/24"
addresses = "10.1.0.128/26"
machines = "10.1.0.96/27"

[site.lab]
kind = "libvirt"
lan = {{ bridge = "{lab}" }}
"#
    )
}

/// A cluster of the two, destroyed when dropped.
pub struct FrontEnd {
    outside: Outside,
    _dir: TempDir,
}

impl FrontEnd {
    /// Launches nothing yet.
    pub fn new(sites: &str) -> Self {
        let dir = TempDir::with_prefix("ipop-frontend-").expect("temporary directory");
        let file = dir.path().join("sites.toml");
        fs::write(&file, sites).expect("written");
        Self {
            outside: Outside::new("diskless").with_sites(&file),
            _dir: dir,
        }
    }

    /// Runs `provision cluster` to its end.
    pub fn launch(&self) -> Run {
        self.outside.provision(&[
            "cluster",
            "--name",
            &self.outside.name,
            "--frontend",
            "local",
            "--lan",
            "--gateways",
            "lab",
            "--scheduler",
            "slurm",
            "--memory",
            "768M",
        ])
    }

    /// What the gateway's node says of itself.
    pub fn gateway(&self) -> NodeStatus {
        let status = self.outside.node_status("gateway-0");
        serde_json::from_value(status).expect("a status")
    }

    /// Has machines boot the role `worker` from it, as docs/pxe.md says.
    pub fn give_boot_files(&self) {
        let dir = TempDir::with_prefix("ipop-boot-").expect("temporary directory");
        let built = image::build_netboot("worker", &options(), &|_| {}).expect("an image");
        image::netboot::install(&built.dir, dir.path()).expect("installed");
        let tar = Command::new("tar")
            .args(["-c", "."])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn();
        let mut tar = tar.expect("tar runs");
        let command = "tar -x --no-same-owner -C /srv/boot/worker";
        let unpacked = self
            .ssh(command)
            .stdin(tar.stdout.take().expect("a pipe"))
            .output();
        let unpacked = unpacked.expect("provision runs");
        assert!(unpacked.status.success(), "{command}: {unpacked:?}");
        assert!(tar.wait().expect("an end").success());
    }

    /// Runs a command of a shell as root and gives what came out.
    pub fn output(&self, command: &str) -> Output {
        self.ssh(command).output().expect("provision runs")
    }

    /// The same, of one that must succeed: its standard output.
    pub fn run(&self, command: &str) -> String {
        let output = self.output(command);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, of one that succeeds in the end.
    pub fn until(&self, command: &str) -> String {
        wait_until(command, BOOT, || {
            let output = self.output(command);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            output.status.success().then_some(said)
        })
    }

    /// Destroys the cluster: nothing of it is left.
    pub fn destroy(&self) {
        let run = self.outside.provision(&["destroy", &self.outside.name]);
        run.expect_code(0);
        self.outside.assert_nothing_left();
    }

    fn ssh(&self, command: &str) -> Command {
        let place = format!("{}/frontend-0", self.outside.name);
        self.outside
            .provision_command(&["ssh", &place, "--", command])
    }
}

/// Where images are kept for the next test.
pub fn options() -> BuildOptions {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-cache/images");
    let mut options = BuildOptions::from_env(cache);
    options.node_binary = Some(binary());
    options
}
