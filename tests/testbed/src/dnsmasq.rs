//! A DHCP or DNS server.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::netns::Netns;
use crate::wait_until;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// dnsmasq, which ends when dropped. Needs the package `dnsmasq-base`.
#[derive(Debug)]
pub struct Dnsmasq {
    child: Child,
    dir: TempDir,
}

impl Dnsmasq {
    /// Starts it with this configuration, which has it serve DHCP.
    pub fn start(netns: &Netns, config: &str) -> Self {
        Self::start_until(netns, config, "dnsmasq-dhcp: DHCP, ")
    }

    /// Starts it with this configuration, which has it answer DNS questions.
    pub fn start_dns(netns: &Netns, config: &str) -> Self {
        Self::start_until(netns, config, "dnsmasq: started")
    }

    /// Starts it and waits until it logs that it serves.
    fn start_until(netns: &Netns, config: &str, serves: &str) -> Self {
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
            dnsmasq.log().contains(serves).then_some(())
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
