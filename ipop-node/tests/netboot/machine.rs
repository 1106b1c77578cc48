//! A virtual machine with a network card, and nothing to boot from but that. Emulated, so that it
//! runs everywhere. Needs the packages `qemu-system-x86`, with `seabios` and `ipxe-qemu`, and `ovmf`.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipop_testbed::netns::Netns;
use tempfile::TempDir;

use crate::lans::BRIDGE;

/// Where Debian has UEFI, and what it keeps over restarts.
const UEFI: [&str; 2] = [
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_VARS_4M.fd",
];
/// Emulation wants a processor for itself: one machine runs at a time.
static ONE: Mutex<()> = Mutex::new(());

/// What a machine starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS; the network card has iPXE as its option ROM.
    Bios,
    /// OVMF, with a PXE client of its own; the network card has no option ROM.
    Uefi,
}

/// A running machine. It is switched off when dropped.
pub struct Machine {
    child: Child,
    dir: TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Machine {
    /// Switches one on whose network card is a port of a namespace's bridge.
    pub fn start(netns: &Netns, firmware: Firmware, mac: &str) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = TempDir::with_prefix("ipop-machine-").expect("temporary directory");
        let tap = format!("card{}", mac.replace(':', "").split_off(6));
        netns.run(&["ip", "tuntap", "add", &tap, "mode", "tap"]);
        netns.run(&["ip", "link", "set", &tap, "master", BRIDGE, "up"]);
        let mut card = format!("virtio-net-pci,netdev=lan,mac={mac},bootindex=1");
        let mut qemu = netns.command("qemu-system-x86_64");
        if firmware == Firmware::Uefi {
            card += ",romfile=";
            qemu.args(uefi(dir.path()));
        }
        let child = qemu
            // Without graphics the firmware talks to the serial port.
            .args(["-machine", "q35,accel=tcg,graphics=off", "-cpu", "Westmere"])
            .args(["-m", "512", "-nodefaults", "-display", "none", "-no-reboot"])
            .args([
                "-serial",
                &format!("file:{}", dir.path().join("serial").display()),
            ])
            .args([
                "-netdev",
                &format!("tap,id=lan,ifname={tap},script=no,downscript=no"),
            ])
            // UEFI's network wants random numbers.
            .args(["-device", &card, "-device", "virtio-rng-pci"])
            .stdin(Stdio::null())
            .spawn()
            .expect("`ip` runs");
        Self {
            child,
            dir,
            _one: one,
        }
    }

    /// Whether it is off, by itself.
    pub fn is_off(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    /// What it wrote on its serial port.
    pub fn serial(&self) -> String {
        let serial = fs::read(self.dir.path().join("serial")).unwrap_or_default();
        String::from_utf8_lossy(&serial).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- machine ---\n{}", self.serial());
        }
        // Errors here mean that it is off already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The words for UEFI, which writes into a copy of its own.
fn uefi(dir: &Path) -> Vec<String> {
    let [code, template] = UEFI;
    let variables = dir.join("variables");
    fs::copy(template, &variables).expect("package ovmf");
    let drives = [
        format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"),
        format!("if=pflash,format=raw,unit=1,file={}", variables.display()),
    ];
    drives
        .into_iter()
        .flat_map(|drive| ["-drive".to_owned(), drive])
        .collect()
}
