//! A front end of our own: the image of the role, with a card on the underlay and one on a LAN.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use ipop_tests::netns::Netns;
use ipop_tests::node::binary;
use ipop_tests::wait_until;
use provisioner::bundle::{self, Bundle};
use provisioner::image::{self, BuildOptions};
use provisioner::provider::ImageForm;
use provisioner::provider::libvirt::smbios;
use tempfile::TempDir;

use crate::guest::{BOOT, Card, Guest};
use crate::node::Identity;

/// Its address on the LAN.
pub const ADDRESS: &str = "10.1.0.254";
/// Its MAC address on the underlay.
pub const MAC: &str = "02:00:00:00:02:f1";
/// Bridges of the namespace that its cards are plugged into.
pub const UNDERLAY: &str = "wan";
pub const LAN: &str = "lan";
/// What the role reads of the LAN.
const SETTINGS: &str =
    "LAN_CLUSTER=lake\nLAN_PORT=eth1\nLAN_ADDRESS=10.1.0.254/24\nLAN_MACHINES=10.1.0.101\n";

/// The running front end.
pub struct FrontEnd<'a> {
    guest: Guest,
    netns: &'a Netns,
    dir: TempDir,
}

impl<'a> FrontEnd<'a> {
    /// Starts it; machines boot the role `worker` from it.
    pub fn start(netns: &'a Netns, own: &Identity, gateway: &Identity) -> Self {
        let dir = TempDir::with_prefix("ipop-frontend-").expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["user", "host"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at(name))
                .status();
            assert!(made.expect("ssh-keygen").success());
        }
        let text = |name: &str| fs::read_to_string(at(name)).expect("a key");
        let known = format!("{ADDRESS} {}", text("host.pub"));
        fs::write(at("known_hosts"), known).expect("written");
        let mut personal = Bundle::default();
        for (name, content) in [
            (
                bundle::NODE_CONFIG,
                own.config(gateway, "/run/ipop-node/control.sock"),
            ),
            ("ipop.identity", own.pem.clone()),
            ("ipop.lan", SETTINGS.to_owned()),
            (bundle::SSH_HOST_KEY, text("host")),
            (bundle::SSH_AUTHORIZED_KEYS, text("user.pub")),
        ] {
            personal.set(name, content);
        }
        let structure = smbios::structure(&personal).expect("it fits");
        fs::write(at("smbios"), structure).expect("written");

        let options = options();
        let image = image::build("frontend", ImageForm::Direct, &options, &|_| {});
        let image = image.expect("an image");
        boot_files(&options, &at("boot"), &at("boot.img"));
        let mount = "systemd.mount-extra=/dev/nvme1n1:/srv/boot/worker:ext4:ro";
        let mut more = vec![
            "-kernel".to_owned(),
            image.kernel.display().to_string(),
            "-append".to_owned(),
            format!("{} {mount}", image.cmdline),
            "-smbios".to_owned(),
            format!("file={}", at("smbios").display()),
        ];
        for (id, format, file) in [
            ("root", "qcow2", &image.disk),
            ("boot", "raw", &at("boot.img")),
        ] {
            let file = file.display();
            more.extend([
                "-drive".to_owned(),
                format!("if=none,id={id},format={format},snapshot=on,file={file}"),
                "-device".to_owned(),
                format!("nvme,drive={id},serial={id}"),
            ]);
        }
        let cards = [
            Card {
                mac: MAC,
                bridge: UNDERLAY,
            },
            Card {
                mac: "02:00:00:00:02:f2",
                bridge: LAN,
            },
        ];
        let guest = Guest::start("front", netns, &cards, 1024, &more);
        Self { guest, netns, dir }
    }

    /// Waits until its console has said that it is up.
    pub fn booted(&mut self) -> Duration {
        self.guest.said("ipop: booted")
    }

    /// Runs a command of a shell as root and gives what came out.
    pub fn output(&self, command: &str) -> Output {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let known = format!("UserKnownHostsFile={}", at("known_hosts"));
        let mut ssh = vec!["ssh", "-F", "/dev/null", "-i"];
        let (key, host) = (at("user"), format!("root@{ADDRESS}"));
        ssh.push(&key);
        for option in [
            &*known,
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "ConnectTimeout=30",
        ] {
            ssh.extend(["-o", option]);
        }
        ssh.extend([&*host, command]);
        self.netns.output(&ssh)
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
}

/// Where images are kept for the next test.
pub fn options() -> BuildOptions {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-cache/images");
    let mut options = BuildOptions::from_env(cache);
    options.node_binary = Some(binary());
    options
}

/// What machines boot, as a file system.
fn boot_files(options: &BuildOptions, folder: &PathBuf, file: &PathBuf) {
    let built = image::build_netboot("worker", options, &|_| {}).expect("an image");
    image::netboot::install(&built.dir, folder).expect("installed");
    File::create(file)
        .and_then(|file| file.set_len(128 << 20))
        .expect("a file");
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .args([folder, file])
        .status();
    assert!(made.expect("mke2fs").success());
}
