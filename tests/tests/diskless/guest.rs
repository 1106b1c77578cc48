//! QEMU in a namespace, without acceleration, so that it runs everywhere. Needs the packages
//! `qemu-system-x86`, with `seabios` and `ipxe-qemu`.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ipop_tests::netns::Netns;
use ipop_tests::wait_until;
use tempfile::TempDir;

/// How long a system may take to come up, emulated on a machine that is busy.
pub const BOOT: Duration = Duration::from_secs(600);
/// Lines of a console that are shown of a failure.
const SHOWN: usize = 80;

/// A running machine. It is switched off when dropped.
pub struct Guest {
    name: &'static str,
    child: Child,
    dir: TempDir,
    began: Instant,
}

/// A network card: its MAC address, and the bridge that it is plugged into.
pub struct Card {
    pub mac: &'static str,
    pub bridge: &'static str,
}

impl Guest {
    /// Switches one on that has these cards, and this memory in MiB.
    pub fn start(name: &'static str, netns: &Netns, cards: &[Card], memory: u32) -> Self {
        let dir = TempDir::with_prefix("ipop-guest-").expect("temporary directory");
        let mut qemu = netns.command("qemu-system-x86_64");
        qemu
            // Without graphics the firmware talks to the serial port.
            .args(["-machine", "q35,accel=tcg,graphics=off", "-cpu", "max"])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-device", "virtio-rng-pci", "-m", &memory.to_string()])
            .arg("-serial")
            .arg(format!("file:{}", dir.path().join("console").display()));
        for (number, Card { mac, bridge }) in cards.iter().enumerate() {
            let tap = format!("{name}{number}");
            netns.run(&["ip", "tuntap", "add", &tap, "mode", "tap"]);
            netns.run(&["ip", "link", "set", &tap, "master", bridge, "up"]);
            let netdev = format!("tap,id=net{number},ifname={tap},script=no,downscript=no");
            let card = format!("virtio-net-pci,netdev=net{number},mac={mac}");
            qemu.args(["-netdev", &netdev, "-device", &card]);
        }
        let child = qemu.stdin(Stdio::null()).spawn().expect("`ip` runs");
        Self {
            name,
            child,
            dir,
            began: Instant::now(),
        }
    }

    /// The interface in its namespace that its card is behind.
    pub fn tap(&self, number: usize) -> String {
        format!("{}{number}", self.name)
    }

    /// Waits until its console has said something; how long after it was switched on that was.
    pub fn said(&mut self, text: &str) -> Duration {
        let what = format!("{text:?} of {}", self.name);
        wait_until(&what, BOOT, || {
            let ended = self.child.try_wait().expect("our child");
            assert!(ended.is_none(), "QEMU ended: {ended:?}");
            self.console().contains(text).then_some(())
        });
        self.age()
    }

    /// Waits for each of these texts, and gives what it stands for with when it was there.
    pub fn stages(
        &mut self,
        stages: &[(&'static str, &'static str)],
    ) -> Vec<(&'static str, Duration)> {
        let mut reached = Vec::new();
        for (what, text) in stages {
            reached.push((*what, self.said(text)));
        }
        reached
    }

    /// How long it has been on.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    fn console(&self) -> String {
        let console = fs::read(self.dir.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&console).into_owned()
    }
}

/// Prints how long each of these took.
pub fn print_split(stages: &[(&str, Duration)]) {
    let mut before = Duration::ZERO;
    for (what, at) in stages {
        println!(
            "{what:30} {:6.1} s, at {:6.1} s",
            (*at - before).as_secs_f64(),
            at.as_secs_f64()
        );
        before = *at;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Errors here mean that it is off already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let console = self.console();
            let lines: Vec<_> = console.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("--- {} ---\n{}", self.name, last.join("\n"));
        }
    }
}
