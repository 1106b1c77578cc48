//! The machine's own libvirt, with a storage pool of the test's own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Host, Peer};
use crate::outside::virsh;

/// The pool; removed with all that is in it.
pub struct Libvirt {
    pool: String,
    path: PathBuf,
}

impl Libvirt {
    /// Starts libvirt where it does not run, and chooses a pool that `provision` will make.
    pub fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = root.parent().expect("the package is in a workspace");
        let status = Command::new(root.join("scripts/start-libvirt"))
            .status()
            .expect("scripts/start-libvirt runs");
        assert!(status.success(), "libvirt does not run");
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let pool = format!("ipopkill{}x{call}", std::process::id());
        let path = Path::new("/var/lib/libvirt/images").join(&pool);
        Self { pool, path }
    }
}

impl Libvirt {
    /// The pool's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Peer for Libvirt {
    fn host(&self) -> Box<dyn Host + '_> {
        Box::new(self)
    }

    fn check(&self, view: &[String], workers: u32) {
        let count = |what: &str| view.iter().filter(|t| t.starts_with(what)).count();
        let machines = workers as usize + 1;
        assert_eq!(count("domain "), machines, "{view:?}");
        assert_eq!(count("network "), 1, "{view:?}");
        assert_eq!(count("account "), machines + 1, "{view:?}");
        assert_eq!(count("group "), 1, "{view:?}");
        assert!(count("volume ") >= machines, "{view:?}");
    }
}

impl Host for &Libvirt {
    fn site(&self) -> String {
        let Libvirt { pool, path } = self;
        let path = path.display();
        format!(
            "kind = \"libvirt\"\npool = \"{pool}\"\npool_path = \"{path}\"\nmemory = \"256M\"\n"
        )
    }

    fn look(&self, deployment: &str) -> Vec<String> {
        let mark = format!("ipop-{deployment}");
        let named = |what: &str, text: String| {
            let words = text.lines().filter_map(|l| l.split_whitespace().next());
            // `k1x2` is not `k1x21`.
            let own = words.filter(|word| {
                let rest = word.strip_prefix(&mark);
                rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_hexdigit()))
            });
            own.map(|word| format!("{what} {word}")).collect::<Vec<_>>()
        };
        let running: BTreeSet<_> = named("domain", virsh(&["list", "--name"]))
            .into_iter()
            .collect();
        let mut seen = named("network", virsh(&["net-list", "--all", "--name"]));
        for domain in named("domain", virsh(&["list", "--all", "--name"])) {
            let runs = running.contains(&domain);
            seen.push(format!("{domain} {}", if runs { "runs" } else { "is off" }));
        }
        let pools = virsh(&["pool-list", "--name"]);
        if pools.split_whitespace().any(|pool| pool == self.pool) {
            seen.extend(named("volume", virsh(&["vol-list", &self.pool])));
        }
        seen
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        for verb in ["pool-destroy", "pool-undefine"] {
            // One that was never made is not there.
            let _ = Command::new("virsh")
                .args(["--connect", "qemu:///system", "--quiet", verb, &self.pool])
                .output();
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
