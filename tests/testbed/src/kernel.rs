//! Debian's kernel for guests of a test's own, out of its package: neither the kernel nor anything
//! that goes with it is installed. Needs apt's sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Chooses a kernel: for virtual machines, small, with virtio.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The bzImage, which UEFI can start, too.
    pub image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The newest that apt knows of, downloaded and unpacked below `dir` when it is not there yet.
    ///
    /// # Panics
    ///
    /// When the package cannot be had.
    pub fn unpacked(dir: &Path) -> Self {
        let unpacked = dir.join("kernel");
        if !unpacked.exists() {
            fs::create_dir_all(dir).expect("a folder");
            // In one step: whoever finds it finds all of it. Another test may do the same meanwhile.
            let partial = tempfile::TempDir::with_prefix_in("kernel-", dir).expect("a folder");
            unpack(partial.path());
            let renamed = fs::rename(partial.path(), &unpacked);
            assert!(renamed.is_ok() || unpacked.exists(), "{renamed:?}");
        }
        Self {
            image: only(&unpacked.join("boot"), "vmlinuz-"),
            modules: only(&unpacked.join("lib/modules"), "").join("kernel"),
        }
    }

    /// The file of a module, such as `drivers/net/virtio_net`; compressed by xz.
    pub fn module(&self, name: &str) -> PathBuf {
        self.modules.join(format!("{name}.ko.xz"))
    }
}

fn unpack(dir: &Path) {
    let package = newest().unwrap_or_else(|| {
        run(dir, &["apt-get", "-q", "update"]);
        newest().unwrap_or_else(|| panic!("apt knows of no {META_PACKAGE}"))
    });
    let download = ["apt-get", "-q", "download", "-o", "APT::Sandbox::User=root"];
    run(dir, &[&download[..], &[&package]].concat());
    let archive = only(dir, &format!("{package}_"));
    run(dir, &["dpkg", "-x", &archive.display().to_string(), "."]);
    fs::remove_file(archive).expect("removed");
}

/// The package that the newest meta-package depends on.
fn newest() -> Option<String> {
    let here = Path::new(".");
    let versions = run(here, &["apt-cache", "madison", META_PACKAGE]);
    let version = versions.lines().next()?.split('|').nth(1)?.trim();
    let depends = run(
        here,
        &["apt-cache", "depends", &format!("{META_PACKAGE}={version}")],
    );
    let mut lines = depends.lines();
    let package = lines.find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))?;
    Some(format!("linux-image-{package}"))
}

/// The one entry of a folder whose name begins like this.
fn only(dir: &Path, prefix: &str) -> PathBuf {
    let mut entries = fs::read_dir(dir).expect("a folder").flatten();
    let entry = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    entry
        .unwrap_or_else(|| panic!("no {prefix}* in {}", dir.display()))
        .path()
}

fn run(dir: &Path, words: &[&str]) -> String {
    let output = Command::new(words[0])
        .args(&words[1..])
        .current_dir(dir)
        .output();
    let output = output.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
