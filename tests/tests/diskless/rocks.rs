//! The stand-in of a Rocks front end with what Rocks has beside DHCP and TFTP: pxelinux, the folders
//! that it exports by NFS, and Slurm as a roll.
//!
//! NFS is nfs-ganesha, since not every kernel has a server. Slurm is that of our front end's image,
//! mounted, since the controller may not be older than its workers. Needs
//! `loop` in the kernel, `pxelinux`, `syslinux-common`, `nfs-ganesha-vfs`, `radvd` and `qemu-utils`, and what
//! [`Frontend`] needs.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ipop_tests::rocks::{Frontend, PRIVATE};
use ipop_tests::sshd::{MachineOptions, Room};
use ipop_tests::wait_until;
use provisioner::image;
use provisioner::provider::ImageForm;
use tempfile::TempDir;

use crate::frontend::options;
use crate::guest::BOOT;

/// A front end, and the segment that it is reached on.
pub struct Rocks {
    // Before the room: it may not outlive it.
    pub frontend: Frontend,
    _room: Room,
}

/// pxelinux and the module that it begins with, below the system's root.
const PXELINUX: [&str; 2] = [
    "usr/lib/PXELINUX/pxelinux.0",
    "usr/lib/syslinux/modules/bios/ldlinux.c32",
];
/// Where Slurm's root is.
const ROLL: &str = "/srv/roll";

/// On the machine: folders that are exported, and Slurm with a key and a user `ann`. Arguments: the block
/// device with its root, and the address that this machine's name stands for there.
const INSTALL: &str = r#"
set -eu
mkdir -p /export /srv/cluster /srv/roll /etc/munge
mount -t tmpfs -o size=64m,mode=755 export /export
mount -t tmpfs -o size=16m,mode=711 cluster /srv/cluster
mkdir /export/home
mount "$1" /srv/roll
cd /srv/roll
mount -t proc proc proc
mount -t tmpfs run run
mount --rbind /dev dev
mkdir -p export home
mount --bind /export export
mount --bind /export/home home
printf 'CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\n' >etc/slurm/cgroup.conf
{ cat /etc/hosts; echo "$2 $(hostname)"; } >etc/hosts
cp /etc/rocks-slurm.conf etc/slurm/slurm.conf
# An id that this machine has nobody else with.
chroot . useradd --uid 4343 ann
grep ^ann: etc/passwd >>/etc/passwd
grep ^ann: etc/group >>/etc/group
(umask 077 && chroot . mungekey --create --keyfile /etc/munge/munge.key && cp etc/munge/munge.key /etc/munge/)
mkdir run/munge
chroot . chown munge:munge /run/munge /etc/munge/munge.key
chroot . setpriv --reuid=munge --regid=munge --clear-groups munged
unshare --uts sh -c 'hostname cluster && exec chroot . slurmctld'
radvd --config /etc/radvd.conf --pidfile /run/radvd.pid --logmethod logfile --logfile /run/radvd.log
mkdir /run/ganesha
ganesha.nfsd -f /etc/ganesha.conf -L /run/ganesha.log -p /run/ganesha.pid
"#;

impl Rocks {
    /// A front end as its installer leaves it, with the roll, and what a worker at this address boots.
    pub fn new(worker: Ipv4Addr) -> Self {
        let room = Room::new("rocks");
        let double = Path::new(env!("CARGO_BIN_EXE_rocks-double"));
        let frontend = Frontend::new(&room, double, MachineOptions::default());
        let served = frontend.machine.root().join("tftpboot/pxelinux");
        for file in PXELINUX {
            let file = Path::new("/").join(file);
            let name = file.file_name().expect("a file");
            fs::copy(&file, served.join(name)).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        }
        let options = options();
        let worker_image = image::build_netboot("worker", &options, &|_| {}).expect("an image");
        image::netboot::install(&worker_image.dir, &served.join("ipop")).expect("installed");

        let rocks = Self {
            frontend,
            _room: room,
        };
        let machine = &rocks.frontend.machine;
        for (name, path, mode) in [
            ("rocks-worker", "/opt/rocks/bin/rocks-worker", 0o755),
            ("rocks-slurm.conf", "/etc/rocks-slurm.conf", 0o644),
            ("radvd.conf", "/etc/radvd.conf", 0o644),
        ] {
            machine.write(path, mode, &documented(name));
        }
        machine.write("/etc/ganesha.conf", 0o644, &exports(worker));
        machine.write("/root/install", 0o700, INSTALL);
        rocks.install_roll(&options);
        rocks
    }

    fn install_roll(&self, options: &image::BuildOptions) {
        let slurm = image::build("frontend", ImageForm::Direct, options, &|_| {});
        let slurm = slurm.expect("an image");
        let dir = TempDir::with_prefix("ipop-roll-").expect("temporary directory");
        let disk = dir.path().join("disk");
        let convert = ["convert", "-O", "raw"];
        output(
            Command::new("qemu-img")
                .args(convert)
                .args([&slurm.disk, &disk]),
        );
        let attached = output(
            Command::new("losetup")
                .args(["--find", "--show"])
                .arg(&disk),
        );
        let device = attached.trim();
        let install = format!("sh /root/install {device} {PRIVATE}");
        let installed = self.frontend.machine.output(&install);
        // It goes when the machine does, which has it mounted.
        output(Command::new("losetup").args(["--detach", device]));
        assert!(installed.status.success(), "{installed:?}");
        wait_until("the front end's servers", BOOT, || {
            let listening = self.run("ss -Hltn 'sport = :2049 or sport = :6817'");
            (listening.lines().count() == 2).then_some(())
        });
    }

    /// Runs a line of shell as root of the front end that must succeed, and gives its standard output.
    pub fn run(&self, line: &str) -> String {
        let line = format!("PATH=/opt/rocks/bin:$PATH; {line}");
        self.frontend.machine.run(&line)
    }

    /// Runs a line of shell as `ann`, who works with Slurm.
    pub fn as_ann(&self, line: &str) -> String {
        self.run(&format!("chroot {ROLL} su - ann -c '{line}'"))
    }
}

/// What the front end exports: all to the private network, as Rocks does, and the scheduler's key to this
/// worker.
fn exports(worker: Ipv4Addr) -> String {
    format!(
        r#"
NFS_CORE_PARAM {{
    Protocols = 4;
    Bind_addr = {PRIVATE};
    Enable_NLM = false;
    Enable_RQUOTA = false;
    mount_path_pseudo = true;
}}
NFSv4 {{
    Minor_Versions = 1;
    Graceless = true;
    Only_Numeric_Owners = true;
    RecoveryBackend = fs;
    RecoveryRoot = /run/ganesha;
}}
EXPORT_DEFAULTS {{ Protocols = 4; Transports = TCP; SecType = sys; Access_Type = None; }}
EXPORT {{
    Export_Id = 1; Path = /export; Pseudo = /export; FSAL {{ Name = VFS; }}
    CLIENT {{ Clients = 10.1.0.0/16; Access_Type = RW; Squash = Root_Squash; }}
}}
EXPORT {{
    Export_Id = 2; Path = /srv/cluster; Pseudo = /srv/cluster; FSAL {{ Name = VFS; }}
    CLIENT {{ Clients = {worker}; Access_Type = RO; Squash = No_Root_Squash; }}
}}
"#
    )
}

/// A file that docs/pxe.md speaks of.
fn documented(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/pxe");
    fs::read_to_string(folder.join(name)).expect("a file")
}

fn output(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
