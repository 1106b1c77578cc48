//! A front end: the services that a machine boots from, on the bridge beside a node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use ipop_testbed::netns::Netns;
use tempfile::TempDir;

use super::web::Web;
use super::{documented, worker};
use crate::lans::BRIDGE;
use ipop_testbed::dnsmasq::Dnsmasq;

/// Its address on the LAN.
const ADDRESS: &str = "10.1.0.254";
/// Where the documented configuration has the files.
const DOCUMENTED_ROOT: &str = "/srv/boot";
/// Where Debian has GRUB for UEFI. Package `grub-efi-amd64-bin`.
const GRUB: &str = "/usr/lib/grub/x86_64-efi";

/// The running services.
pub struct FrontEnd {
    /// DHCP and TFTP.
    pub dnsmasq: Dnsmasq,
    /// HTTP.
    pub web: Web,
    router: Child,
    root: TempDir,
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.router.kill();
        let _ = self.router.wait();
    }
}

impl FrontEnd {
    /// Starts one in a node's namespace, which has a bridge.
    pub fn start(netns: &Netns) -> Self {
        let root = TempDir::with_prefix("ipop-boot-").expect("temporary directory");
        let file = |name: &str| root.path().join(name);
        worker::write(&file("vmlinuz"), &file("initrd"));
        fs::create_dir_all(file("grub/x86_64-efi")).expect("a folder");
        let grub = Path::new(GRUB);
        for (from, to) in [
            (grub.join("monolithic/grubnetx64.efi"), "grubnetx64.efi"),
            (grub.join("http.mod"), "grub/x86_64-efi/http.mod"),
            (documented("grub.cfg"), "grub/grub.cfg"),
            (documented("boot.ipxe"), "boot.ipxe"),
        ] {
            fs::copy(&from, file(to)).unwrap_or_else(|error| panic!("{from:?}: {error}"));
        }
        netns.address(BRIDGE, &format!("{ADDRESS}/24"));
        let config = fs::read_to_string(documented("dnsmasq.conf")).expect("it is there");
        let config = config.replace(DOCUMENTED_ROOT, &root.path().display().to_string());
        let router = netns
            .command("radvd")
            .args(["--nodaemon", "--logmethod", "stderr", "--pidfile"])
            .arg(file("radvd.pid"))
            .arg("--config")
            .arg(documented("radvd.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("`ip` runs");
        Self {
            router,
            dnsmasq: Dnsmasq::start(netns, &config),
            web: Web::start(netns, ADDRESS, root.path()),
            root,
        }
    }

    /// One of the files that it serves.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Bytes of one of them.
    pub fn size(&self, name: &str) -> u64 {
        self.file(name).metadata().expect("a file").len()
    }

    /// Whether a file went by TFTP to a machine, all of it.
    pub fn has_sent(&self, name: &str, to: &str) -> bool {
        let path = self.file(name).display().to_string();
        self.dnsmasq
            .log()
            .contains(&format!("sent {path} to {to}\n"))
    }
}
