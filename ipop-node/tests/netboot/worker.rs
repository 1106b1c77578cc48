//! What a worker boots: Debian's kernel, and an initial RAM disk that talks to the front end. Needs
//! the packages `busybox-static` and `cpio`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use ipop_testbed::kernel::Kernel;

/// Modules that the network card needs, in order.
const MODULES: [&str; 3] = [
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
];

/// A machine that the front end knows.
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    /// Its MAC address,
    pub mac: &'static str,
    /// and what it gets for it.
    pub address: &'static str,
    /// Its name.
    pub name: &'static str,
}

/// Takes an address as every machine does, sends what its RAM disk holds to the front end, reads
/// the kernel once more from where it was booted from, and says what came of it.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
for module in failover net_failover virtio_net; do
  xzcat /modules/$module.ko.xz >/modules/$module.ko
  insmod /modules/$module.ko
done
ip link set lo up; ip link set eth0 up
udhcpc -i eth0 -n -q -t 20 -s /lease
. /leased
wget -q -O /dev/null --post-file /ballast http://$serverid/ballast
source=$(sed 's|.*boot_from=\([^ ]*/\).*|\1|' /proc/cmdline)
kernel=$(wget -q -O - ${source}vmlinuz | sha256sum)
mac=$(cat /sys/class/net/eth0/address)
wget -q -O /dev/null --post-data "$hostname $mac ${kernel%% *}" http://$serverid/joined
poweroff -f
"#;
const LEASE: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev eth0
echo "serverid=$serverid hostname=$hostname" >/leased
"#;

/// Writes the kernel and the RAM disk.
pub fn write(kernel: &Path, initrd: &Path) {
    let cached = cached_kernel();
    fs::copy(&cached.image, kernel).expect("copied");
    let tree = tempfile::TempDir::with_prefix("ipop-initrd-").expect("temporary directory");
    let file = |name: &str| tree.path().join(name);
    for dir in ["bin", "dev", "modules", "proc", "sys"] {
        fs::create_dir(file(dir)).expect("a folder");
    }
    fs::copy("/bin/busybox", file("bin/busybox")).expect("package busybox-static");
    for module in MODULES.map(|module| cached.module(module)) {
        let name = module.file_name().expect("a file");
        fs::copy(&module, file("modules").join(name)).expect("a module");
    }
    for (name, text) in [("init", INIT), ("lease", LEASE)] {
        fs::write(file(name), text).expect("written");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(file(name), mode).expect("permitted");
    }
    fs::write(file("ballast"), ballast()).expect("written");
    let pack = format!(
        "find . | cpio -o -H newc --quiet | gzip -1 >{}",
        initrd.display()
    );
    let packed = Command::new("sh")
        .args(["-ec", &pack])
        .current_dir(&tree)
        .status();
    assert!(packed.expect("`sh` runs").success(), "package cpio");
}

/// Some MiB of text in the RAM disk that do not repeat themselves.
pub fn ballast() -> String {
    let numbers = (0..400_000u32).map(|number| number.wrapping_mul(0x9e37_79b1));
    numbers.map(|number| format!("{number}\n")).collect()
}

fn cached_kernel() -> Kernel {
    static UNPACKED: Mutex<()> = Mutex::new(());
    let _one = UNPACKED.lock();
    Kernel::unpacked(Path::new(env!("CARGO_TARGET_TMPDIR")))
}
