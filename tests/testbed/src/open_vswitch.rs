//! Open vSwitch.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::netns::Netns;
use crate::wait_until;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Its two daemons, which switch outside of the kernel and end when dropped. Needs the package
/// `openvswitch-switch`.
#[derive(Debug)]
pub struct OpenVswitch {
    switch: Child,
    database: Child,
    dir: TempDir,
}

impl OpenVswitch {
    /// Starts it with one bridge.
    pub fn start(netns: &Netns, bridge: &str) -> Self {
        let dir = TempDir::with_prefix("ipop-ovs-").expect("temporary directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let made = Command::new("ovsdb-tool")
            .args(["create", &path("conf.db")])
            .arg("/usr/share/openvswitch/vswitch.ovsschema")
            .status();
        assert!(made.is_ok_and(|status| status.success()), "no database");
        let start = |program: &str, words: &[&str]| {
            let mut command = netns.command(program);
            command
                .args(words)
                .arg(format!("--unixctl={}", path(&format!("{program}.ctl"))))
                .env("OVS_RUNDIR", dir.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.spawn().expect("`ip` runs")
        };
        let socket = path("db.sock");
        let database = start(
            "ovsdb-server",
            &[&path("conf.db"), &format!("--remote=punix:{socket}")],
        );
        wait_until("the database", PATIENCE, || {
            Path::new(&socket).exists().then_some(())
        });
        let switch = start("ovs-vswitchd", &[&format!("unix:{socket}")]);
        let switch = Self {
            switch,
            database,
            dir,
        };
        let outside_of_the_kernel = "datapath_type=netdev";
        switch.run(&[
            "add-br",
            bridge,
            "--",
            "set",
            "bridge",
            bridge,
            outside_of_the_kernel,
        ]);
        netns.run(&["ip", "link", "set", bridge, "up"]);
        switch
    }

    /// Where its tools find it, as `OVS_RUNDIR`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Has the daemon that switches stand still, or go on.
    pub fn set_running(&self, runs: bool) {
        let signal = if runs { "-CONT" } else { "-STOP" };
        let pid = self.switch.id().to_string();
        let told = Command::new("kill").args([signal, &pid]).status();
        assert!(told.is_ok_and(|status| status.success()), "it is gone");
    }

    /// What `ovs-vsctl` says, which must succeed.
    pub fn run(&self, words: &[&str]) -> String {
        let output = Command::new("ovs-vsctl")
            .arg("--timeout=30")
            .args(words)
            .env("OVS_RUNDIR", self.dir())
            .output()
            .expect("it runs; is the package `openvswitch-switch` installed?");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for OpenVswitch {
    fn drop(&mut self) {
        for child in [&mut self.switch, &mut self.database] {
            // Errors here mean that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
