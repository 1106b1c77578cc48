//! A machine with UEFI and an empty disk boots from the stand-in of a Rocks front end, by what Rocks 7 has
//! for it: dhcpd answers its architecture with another file, which is GRUB, and that reads a menu called by
//! the machine's address. Emulated without acceleration.
//!
//! GRUB is Debian's where Rocks has CentOS's behind a shim: both look for their menu in the same way. Needs
//! root, `ovmf`, `qemu-system-x86`, `grub-efi-amd64-bin`, `busybox-static`, `cpio`, and what `rocks_dhcp`
//! needs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ipop_testbed::kernel::Kernel;
use ipop_tests::netns::Netns;
use ipop_tests::rocks::{BRIDGE, Frontend};
use ipop_tests::sshd::{MachineOptions, Room};
use ipop_tests::wait_until;
use tempfile::TempDir;

/// How long the machine may take, emulated on a computer that is busy.
const PATIENCE: Duration = Duration::from_secs(600);
const MAC: &str = "02:00:00:00:07:01";
/// Where Debian has UEFI, and what it keeps over restarts.
const UEFI: [&str; 2] = [
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_VARS_4M.fd",
];
/// What GRUB needs to read a menu by TFTP, by its address, and to start a kernel.
const MODULES: &str = "efinet tftp net normal linux linuxefi";
/// Says how its kernel was called.
const INIT: &str = "#!/bin/busybox sh\n/bin/busybox mount -t proc proc /proc\n\
    /bin/busybox echo \"booted: $(/bin/busybox cat /proc/cmdline)\"\n/bin/busybox poweroff -f\n";
/// What of an image `rocks-worker` looks at.
const BOOT_IPXE: &str =
    "kernel ${from}vmlinuz initrd=initrd initrd=own console=ttyS0 panic=10 || reboot\n";

#[test]
fn a_machine_with_uefi_boots_what_rocks_worker_told_rocks() {
    let room = Room::new("uefi");
    let double = Path::new(env!("CARGO_BIN_EXE_rocks-double"));
    let front = Frontend::new(&room, double, MachineOptions::default());
    let served = front.machine.root().join("tftpboot/pxelinux");
    let image = served.join("ipop");
    fs::create_dir(&image).expect("a folder");
    let kernel = Kernel::unpacked(Path::new(env!("CARGO_TARGET_TMPDIR")));
    fs::copy(&kernel.image, image.join("vmlinuz")).expect("copied");
    fs::write(image.join("boot.ipxe"), BOOT_IPXE).expect("written");
    pack(&image.join("initrd"));
    let grub = served.join("uefi.cfg/shim.efi");
    checked(
        Command::new("grub-mkimage")
            .args([
                "--format",
                "x86_64-efi",
                "--prefix",
                "/uefi.cfg",
                "--output",
            ])
            .arg(grub)
            .args(MODULES.split(' ')),
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pxe/rocks-worker");
    let script = fs::read_to_string(script).expect("a script");
    front.machine.write("/root/rocks-worker", 0o755, &script);
    front.machine.run(&format!(
        "PATH=/opt/rocks/bin:$PATH /root/rocks-worker add compute-80-0 {MAC} 10.1.80.2"
    ));

    let site = Netns::new("uefi-site");
    front.plug(&site, "02:00:00:00:07:09");
    site.run(&["ip", "link", "add", BRIDGE, "type", "bridge"]);
    site.run(&["ip", "link", "set", "eth0", "master", BRIDGE, "up"]);
    site.run(&["ip", "link", "set", BRIDGE, "up"]);
    let mut guest = Guest::start(&site);
    wait_until("the machine to switch itself off", PATIENCE, || {
        guest.is_off().then_some(())
    });
    let said = guest.console();
    let booted = said.lines().find_map(|line| line.split_once("booted: "));
    let (_, booted) = booted.unwrap_or_else(|| panic!("nothing booted: {said}"));
    for word in ["panic=10", "systemd.hostname=compute-80-0", "ipop.env:"] {
        assert!(booted.contains(word), "{word}: {booted}");
    }
}

/// Writes an initial RAM disk.
fn pack(initrd: &Path) {
    let tree = TempDir::with_prefix("ipop-initrd-").expect("temporary directory");
    let file = |name: &str| tree.path().join(name);
    for dir in ["bin", "dev", "proc"] {
        fs::create_dir(file(dir)).expect("a folder");
    }
    fs::copy("/bin/busybox", file("bin/busybox")).expect("package busybox-static");
    fs::write(file("init"), INIT).expect("written");
    fs::set_permissions(file("init"), fs::Permissions::from_mode(0o755)).expect("our file");
    let line = format!("find . | cpio -o -H newc --quiet >{}", initrd.display());
    checked(Command::new("sh").args(["-ec", &line]).current_dir(&tree));
}

fn checked(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A machine with UEFI, a network card and nothing else. It is switched off when dropped.
struct Guest {
    child: Child,
    dir: TempDir,
}

impl Guest {
    fn start(netns: &Netns) -> Self {
        let dir = TempDir::with_prefix("ipop-guest-").expect("temporary directory");
        let [code, template] = UEFI;
        let variables = dir.path().join("variables");
        fs::copy(template, &variables).expect("package ovmf");
        netns.run(&["ip", "tuntap", "add", "tap0", "mode", "tap"]);
        netns.run(&["ip", "link", "set", "tap0", "master", BRIDGE, "up"]);
        let mut qemu = netns.command("qemu-system-x86_64");
        qemu.args(["-machine", "q35,accel=tcg,graphics=off", "-cpu", "max"])
            .args(["-m", "512", "-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-drive")
            .arg(format!(
                "if=pflash,format=raw,unit=0,readonly=on,file={code}"
            ))
            .arg("-drive")
            .arg(format!(
                "if=pflash,format=raw,unit=1,file={}",
                variables.display()
            ))
            .arg("-serial")
            .arg(format!("file:{}", dir.path().join("console").display()))
            .args(["-netdev", "tap,id=lan,ifname=tap0,script=no,downscript=no"])
            // UEFI has a PXE client of its own, and its network wants random numbers.
            .args(["-device", "virtio-rng-pci", "-device"])
            .arg(format!(
                "virtio-net-pci,netdev=lan,mac={MAC},bootindex=1,romfile="
            ));
        Self {
            child: qemu.stdin(Stdio::null()).spawn().expect("`ip` runs"),
            dir,
        }
    }

    fn is_off(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    fn console(&self) -> String {
        let console = fs::read(self.dir.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&console).into_owned()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Errors here mean that it is off already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- machine ---\n{}", self.console());
        }
    }
}
