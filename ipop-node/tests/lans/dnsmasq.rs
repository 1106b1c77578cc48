//! A DHCP and TFTP server.

use std::fs::{self, File};
use std::process::{Child, Stdio};

use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;
use tempfile::TempDir;

use super::PATIENCE;

/// dnsmasq, which ends when dropped. Needs the package `dnsmasq-base`.
pub struct Dnsmasq {
    child: Child,
    dir: TempDir,
}

impl Dnsmasq {
    /// Starts it with this configuration, which has it serve DHCP.
    pub fn start(netns: &Netns, config: &str) -> Self {
        let dir = TempDir::with_prefix("ipop-dnsmasq-").expect("temporary directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::write(path("config"), config).expect("written");
        let log = File::create(path("log")).expect("log file");
        let child = netns
            .command("dnsmasq")
            .args(["--no-daemon", "--user=root", "--pid-file"])
            .arg(format!("--conf-file={}", path("config")))
            .arg(format!("--dhcp-leasefile={}", path("leases")))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("`ip` runs");
        let dnsmasq = Self { child, dir };
        wait_until("dnsmasq", PATIENCE, || {
            dnsmasq.log().contains("dnsmasq-dhcp: DHCP, ").then_some(())
        });
        dnsmasq
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- dnsmasq ---\n{}", self.log());
        }
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
