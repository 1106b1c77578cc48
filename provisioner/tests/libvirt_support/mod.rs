//! A real libvirt, a Debian kernel, and a guest of one static program that tells on its console
//! what it found. Needs root, and Debian packages busybox-static, cpio, e2fsprogs, qemu-utils.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use std::collections::BTreeMap;
use std::time::Instant;

use provisioner::bundle::Bundle;
use provisioner::deploy::interrupt::Interrupt;
use provisioner::error::CliError;
use provisioner::event::Sink;
use provisioner::name::NodeName;
use provisioner::provider::libvirt::{Libvirt, LibvirtSite};
use provisioner::provider::{
    Image, Machine, MachineSpec, Made, Making, Provider, Removing, Resource, Scope, SitePlan, Step,
    Tags, WantedMachine,
};

/// What the guest runs: shows its SMBIOS strings and disks, takes a lease, and calls the host.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc p /proc; busybox mount -t sysfs s /sys; busybox mount -t devtmpfs d /dev
exec </dev/console >/dev/console 2>&1
for f in /sys/firmware/dmi/entries/11-*/raw; do busybox tr '\000' '\n' <$f; done
echo "guest-disks:" $(busybox ls /sys/block)
for m in failover net_failover virtio_net; do busybox xzcat /m/$m.ko.xz >/dev/$m; busybox insmod /dev/$m; done
busybox ip link set lo up; busybox ip link set eth0 up
busybox udhcpc -i eth0 -n -q -t 20 -s /lease
echo guest-done
while :; do busybox sleep 100; done
"#;
const LEASE: &str = r#"#!/bin/busybox sh
[ "$1" = bound ] || exit 0
busybox ip addr add $ip/24 dev eth0
port=$(busybox sed 's/.*port=\([0-9]*\).*/\1/' /proc/cmdline)
echo guest-was-here $ip | busybox nc -w 5 $serverid $port && echo "guest-called $serverid $port"
"#;

/// Runs a program; fails the test if the program fails.
pub fn run(program: &str, args: &[&str]) -> String {
    run_in(Path::new("/"), program, args)
}

pub fn run_in(dir: &Path, program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// What the guests are made of; made once a test program.
pub struct Material {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub disk: PathBuf,
}

pub fn material() -> &'static Material {
    static MATERIAL: OnceLock<Material> = OnceLock::new();
    MATERIAL.get_or_init(|| {
        assert_eq!(
            run("id", &["-u"]).trim(),
            "0",
            "this test needs root: it makes networks"
        );
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        run(root.join("scripts/start-libvirt").to_str().unwrap(), &[]);
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libvirt");
        fs::create_dir_all(&dir).unwrap();
        let unpacked = kernel_package(&dir);
        let kernel = only(&unpacked.join("boot"), "vmlinuz-");
        let modules = only(&unpacked.join("lib/modules"), "");
        let tree = tree(&dir, &modules);
        Material {
            kernel,
            initrd: initrd(&dir, &tree),
            disk: disk(&dir, &tree),
        }
    })
}

/// The newest cloud kernel that apt knows of: Debian 13's, also on Debian 12 with backports.
fn kernel_package(dir: &Path) -> PathBuf {
    let unpacked = dir.join("kernel");
    if unpacked.join("boot").exists() {
        return unpacked;
    }
    let newest = || {
        let versions = run("apt-cache", &["madison", "linux-image-cloud-amd64"]);
        versions
            .lines()
            .next()?
            .split('|')
            .nth(1)
            .map(|v| v.trim().to_owned())
    };
    let version = newest().unwrap_or_else(|| {
        run("apt-get", &["-q", "update"]);
        newest().expect("apt knows of no linux-image-cloud-amd64")
    });
    let depends = run(
        "apt-cache",
        &["depends", &format!("linux-image-cloud-amd64={version}")],
    );
    let package = depends
        .split_whitespace()
        .find(|w| w.starts_with("linux-image-6"))
        .unwrap();
    run_in(
        dir,
        "apt-get",
        &["-q", "download", "-o", "APT::Sandbox::User=root", package],
    );
    let deb = only(dir, &format!("{package}_"));
    let partial = dir.join("kernel.partial");
    run(
        "dpkg",
        &["-x", deb.to_str().unwrap(), partial.to_str().unwrap()],
    );
    fs::rename(partial, &unpacked).unwrap();
    unpacked
}

fn tree(dir: &Path, modules: &Path) -> PathBuf {
    let tree = dir.join("tree");
    let _ = fs::remove_dir_all(&tree);
    for sub in ["bin", "dev", "proc", "sys", "m"] {
        fs::create_dir_all(tree.join(sub)).unwrap();
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).expect("package busybox-static");
    for (name, text) in [("init", INIT), ("lease", LEASE)] {
        fs::write(tree.join(name), text).unwrap();
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for module in [
        "net/core/failover",
        "drivers/net/net_failover",
        "drivers/net/virtio_net",
    ] {
        let file = modules.join(format!("kernel/{module}.ko.xz"));
        fs::copy(&file, tree.join("m").join(file.file_name().unwrap())).unwrap();
    }
    tree
}

fn initrd(dir: &Path, tree: &Path) -> PathBuf {
    let file = dir.join("initrd");
    let pack = format!(
        "find . | cpio -o -H newc --quiet | gzip -1 >{}",
        file.display()
    );
    run_in(tree, "sh", &["-c", &pack]);
    file
}

fn disk(dir: &Path, tree: &Path) -> PathBuf {
    let (raw, qcow2) = (dir.join("root.raw"), dir.join("root.qcow2"));
    let (raw, tree) = (raw.to_str().unwrap(), tree.to_str().unwrap());
    run(
        "sh",
        &[
            "-c",
            &format!("rm -f {raw} && /sbin/mke2fs -q -t ext4 -d {tree} {raw} 32M"),
        ],
    );
    run(
        "qemu-img",
        &["convert", "-O", "qcow2", raw, qcow2.to_str().unwrap()],
    );
    qcow2
}

fn only(dir: &Path, prefix: &str) -> PathBuf {
    let mut found = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    found
        .find(|p| p.file_name().unwrap().to_string_lossy().starts_with(prefix))
        .unwrap_or_else(|| panic!("no {prefix}* in {}", dir.display()))
}

fn images(specs: &[MachineSpec]) -> BTreeMap<String, Image> {
    let image = |s: &MachineSpec| (s.image.role.clone(), s.image.clone());
    specs.iter().map(image).collect()
}

/// A pool of the test's own; removed with all that is in it, however the test ends.
pub struct Fixture {
    pub deployment: String,
    pub pool: String,
    pub path: PathBuf,
    pub provider: Libvirt,
    pub tags: Tags,
    pub site: LibvirtSite,
    pub cache: tempfile::TempDir,
}

impl Fixture {
    /// On a site that is reached as `site` says, in a pool of the test's own.
    pub fn new(name: &str, site: LibvirtSite) -> Self {
        material();
        let pool = format!("libvirttest{name}{}", std::process::id());
        let path = Path::new("/var/lib/libvirt/images").join(&pool);
        let cache = tempfile::tempdir().unwrap();
        let site = LibvirtSite {
            pool: Some(pool.clone()),
            pool_path: Some(path.clone()),
            ..site
        };
        let tags = Tags {
            owner: "0123456789abcdef".into(),
            deployment: pool.clone(),
            uid: format!("{:016x}", std::process::id()),
        };
        Self {
            deployment: pool.clone(),
            provider: Libvirt::new(site.clone(), cache.path()),
            pool,
            path,
            tags,
            site,
            cache,
        }
    }

    /// The same host, without anything remembered in memory.
    pub fn again(&self) -> Libvirt {
        Libvirt::new(self.site.clone(), self.cache.path())
    }

    /// What is needed for these machines.
    pub fn steps(&self, specs: &[MachineSpec]) -> Vec<Step> {
        let machines: Vec<_> = specs
            .iter()
            .enumerate()
            .map(|(slot, s)| WantedMachine {
                node: s.node.clone(),
                role: s.image.role.clone(),
                image: s.image.role.clone(),
                memory_mib: s.memory_mib,
                cpus: s.cpus,
                disk_gib: s.disk_gib,
                data_gib: s.data_gib,
                slot: slot as u32,
            })
            .collect();
        let plan = SitePlan {
            tags: &self.tags,
            machines: &machines,
            members: &[],
            images: &images(specs),
        };
        self.provider.plan(&plan).unwrap()
    }

    /// Makes one thing.
    pub fn make(
        &self,
        provider: &Libvirt,
        step: &Step,
        specs: &[MachineSpec],
        events: &dyn Sink,
    ) -> Result<Made, CliError> {
        let machine = specs.iter().find(|s| step.scope.node() == Some(&s.node));
        provider.make(
            step,
            &Making {
                tags: &self.tags,
                token: "00000000000000000000000000000000",
                machine,
                images: &images(specs),
                handles: &|_| None,
                deadline: Instant::now() + step.deadline,
                interrupt: &Interrupt::default(),
                events,
            },
        )
    }

    /// Makes everything in its order; those of a machine at the same time as other machines'.
    pub fn launch(&self, specs: &[MachineSpec], events: &dyn Sink) -> Result<Vec<Made>, CliError> {
        self.launch_with(&self.provider, specs, events)
    }

    pub fn launch_with(
        &self,
        provider: &Libvirt,
        specs: &[MachineSpec],
        events: &dyn Sink,
    ) -> Result<Vec<Made>, CliError> {
        let (own, shared): (Vec<_>, Vec<_>) = self
            .steps(specs)
            .into_iter()
            .partition(|s| matches!(s.scope, Scope::Node(_)));
        let mut made = Vec::new();
        for step in &shared {
            made.push(self.make(provider, step, specs, events)?);
        }
        let lanes: Vec<Result<Vec<Made>, CliError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..provider.parallel())
                .map(|lane| {
                    let own = &own;
                    scope.spawn(move || {
                        let mine = |s: &&Step| {
                            let at = specs
                                .iter()
                                .position(|m| s.scope == Scope::Node(m.node.clone()));
                            at.is_some_and(|at| at % provider.parallel() == lane)
                        };
                        own.iter()
                            .filter(mine)
                            .map(|step| self.make(provider, step, specs, events))
                            .collect()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for lane in lanes {
            made.extend(lane?);
        }
        Ok(made)
    }

    pub fn remove(&self, provider: &Libvirt, resource: &Resource) -> Result<(), CliError> {
        provider.remove(&Removing {
            tags: &self.tags,
            resource,
            handle: None,
            deadline: Instant::now() + std::time::Duration::from_secs(60),
            interrupt: &Interrupt::default(),
        })
    }

    /// The machine as its site sees it.
    pub fn machine(&self, node: &NodeName) -> Option<Machine> {
        self.again().machines(&self.tags).unwrap().remove(node)
    }

    pub fn spec(
        &self,
        node: &str,
        initrd: bool,
        host: &TcpListener,
        bundle: Bundle,
    ) -> MachineSpec {
        let material = material();
        let port = host.local_addr().unwrap().port();
        let common = format!("console=ttyS0 port={port}");
        let image = Image {
            whole: None,
            role: if initrd { "ram" } else { "nvme" }.into(),
            hash: "0123456789abcdef".repeat(4),
            disk: material.disk.clone(),
            kernel: material.kernel.clone(),
            initrd: initrd.then(|| material.initrd.clone()),
            cmdline: if initrd {
                common
            } else {
                format!("{common} root=/dev/nvme0n1 rw init=/init")
            },
        };
        MachineSpec {
            deployment: self.deployment.clone(),
            node: NodeName(node.into()),
            image,
            memory_mib: 256,
            cpus: 1,
            disk_gib: 1,
            data_gib: None,
            bundle,
        }
    }

    /// All that libvirt and the host show of this test.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        for args in [
            vec!["list", "--all", "--name"],
            vec!["net-list", "--all", "--name"],
            vec!["vol-list", &self.pool],
        ] {
            let text = run(
                "virsh",
                &[&["-q", "-c", "qemu:///system"], args.as_slice()].concat(),
            );
            // A volume's line goes on with its path, in which the pool is named.
            let names = text.lines().filter_map(|l| l.split_whitespace().next());
            traces.extend(
                names
                    .filter(|n| n.contains(&self.deployment))
                    .map(str::to_owned),
            );
        }
        traces
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let virsh = |args: &[&str]| {
            // What the test itself removed is not there any more.
            let _ = Command::new("virsh")
                .args(["-q", "-c", "qemu:///system"])
                .args(args)
                .output();
        };
        for trace in self.traces_or_none() {
            virsh(&["destroy", &trace]);
            virsh(&["undefine", &trace]);
            virsh(&["net-destroy", &trace]);
            virsh(&["net-undefine", &trace]);
        }
        virsh(&["pool-destroy", &self.pool]);
        virsh(&["pool-undefine", &self.pool]);
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Fixture {
    fn traces_or_none(&self) -> Vec<String> {
        let list = |args: &[&str]| {
            let out = Command::new("virsh")
                .args(["-q", "-c", "qemu:///system"])
                .args(args)
                .output();
            out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
                .unwrap_or_default()
        };
        let all = list(&["list", "--all", "--name"]) + &list(&["net-list", "--all", "--name"]);
        all.lines()
            .map(|l| l.trim().to_owned())
            .filter(|l| l.contains(&self.deployment))
            .collect()
    }
}
