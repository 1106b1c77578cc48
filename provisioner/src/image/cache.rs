//! The folder of built images: locks, results that appear whole or not at all, leftovers.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{CliError, ExitCode};

/// Layout of the cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Holds others off the same piece of the cache until dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "open for as long as the lock is held")] File);

impl Cache {
    /// Opens (and makes) the cache.
    pub fn open(root: &Path) -> Result<Self, CliError> {
        let cache = Self {
            root: root.to_owned(),
        };
        for dir in ["work", "packages", "debs", "built"] {
            let dir = root.join(dir);
            std::fs::create_dir_all(&dir)
                .map_err(|e| io_error("cannot make the folder", &dir, e))?;
        }
        Ok(cache)
    }

    /// Downloaded packages, shared by all roles.
    pub fn debs(&self) -> PathBuf {
        self.root.join("debs")
    }

    /// A finished package stage.
    pub fn packages(&self, key: &str) -> PathBuf {
        self.root.join("packages").join(key)
    }

    /// A finished image.
    pub fn built(&self, role: &str, hash: &str) -> PathBuf {
        self.root
            .join("built")
            .join(format!("{role}-{}", &hash[..16]))
    }

    /// Takes the lock called `name`, waiting for whoever has it. `waiting` is called before the wait.
    pub fn lock(&self, name: &str, waiting: impl FnOnce()) -> Result<Lock, CliError> {
        let path = self.root.join(format!("{name}.lock"));
        let take = || {
            let file = File::create(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    waiting();
                    file.lock()?;
                }
                Err(std::fs::TryLockError::Error(e)) => return Err(e),
            }
            Ok(Lock(file))
        };
        take().map_err(|e| io_error("cannot lock", &path, e))
    }

    /// An empty working folder; what a killed build left there goes. Its lock must be held.
    pub fn work(&self, name: &str) -> Result<PathBuf, CliError> {
        let dir = self.root.join("work").join(name);
        self.discard(&dir)?;
        std::fs::create_dir_all(&dir).map_err(|e| io_error("cannot make the folder", &dir, e))?;
        Ok(dir)
    }

    /// Removes a folder of the cache, if it is there.
    pub fn discard(&self, dir: &Path) -> Result<(), CliError> {
        // A killed build may have left file systems mounted (the host's own /dev): never empty those.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if let Some(mount) = mount_below(&mounts, dir) {
            return Err(CliError::new(
                ExitCode::Image,
                format!("{mount} is still mounted by an earlier build"),
            )
            .hint(format!("umount {mount}")));
        }
        match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("cannot remove", dir, e)),
            _ => Ok(()),
        }
    }

    /// Moves a finished folder to its place, replacing what is there.
    pub fn publish(&self, from: &Path, to: &Path) -> Result<(), CliError> {
        self.discard(to)?;
        std::fs::rename(from, to).map_err(|e| io_error("cannot make", to, e))
    }

    /// Removes all finished images of a role but the one kept and the one before it, which running
    /// deployments may still read.
    pub fn prune(&self, role: &str, keep: &Path) -> Result<(), CliError> {
        let built = self.root.join("built");
        let listed = std::fs::read_dir(&built).map_err(|e| io_error("cannot read", &built, e))?;
        let mut old: Vec<_> = listed
            .flatten()
            .filter(|e| is_of_role(&e.file_name().to_string_lossy(), role) && e.path() != keep)
            .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
            .collect();
        old.sort();
        old.pop();
        old.iter().try_for_each(|(_, path)| self.discard(path))
    }
}

/// Names the path in an error, and a full disk as what it is.
pub fn io_error(what: &str, path: &Path, error: io::Error) -> CliError {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull => CliError::new(
            ExitCode::Missing,
            format!("the disk is full: {what} {path}"),
        )
        .hint("free some space, or set IPOP_CACHE_DIR to a folder on a larger disk"),
        io::ErrorKind::PermissionDenied => {
            CliError::new(ExitCode::Missing, format!("{what} {path}: not permitted"))
                .hint("run as root, or set IPOP_CACHE_DIR to a folder of your own")
        }
        _ => CliError::new(ExitCode::Image, format!("{what} {path}")).caused_by(error),
    }
}

fn is_of_role(name: &str, role: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(of, _)| of == role)
}

/// The first mount point at or below `dir` in the format of `/proc/mounts`.
fn mount_below<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    mounts
        .lines()
        .filter_map(|l| l.split(' ').nth(1))
        .find(|at| Path::new(at).starts_with(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::open(dir.path()).expect("a cache");
        (dir, cache)
    }

    #[test]
    fn what_a_killed_build_left_is_gone_at_the_next() {
        let (_dir, cache) = cache();
        let work = cache.work("worker").expect("a folder");
        std::fs::write(work.join("half"), "x").expect("writable");
        let again = cache.work("worker").expect("a folder");
        assert_eq!(std::fs::read_dir(again).expect("readable").count(), 0);
    }

    #[test]
    fn a_mounted_leftover_is_named_and_not_emptied() {
        let mounts = "proc /proc proc rw 0 0\nudev /c/work/worker/tmp/dev devtmpfs rw 0 0\n";
        assert_eq!(
            mount_below(mounts, Path::new("/c/work/worker")),
            Some("/c/work/worker/tmp/dev")
        );
        assert_eq!(mount_below(mounts, Path::new("/c/work/work")), None);
    }

    #[test]
    fn a_second_build_waits_for_the_lock_and_says_so() {
        let (_dir, cache) = cache();
        let held = cache
            .lock("worker", || panic!("nobody has it"))
            .expect("a lock");
        let (said, heard) = std::sync::mpsc::channel();
        let other = cache.clone();
        let second = std::thread::spawn(move || {
            other
                .lock("worker", || said.send(()).expect("heard"))
                .map(drop)
        });
        heard
            .recv_timeout(std::time::Duration::from_secs(10))
            .expect("the second waits");
        drop(held);
        second.join().expect("no panic").expect("the lock at last");
    }

    #[test]
    fn pruning_keeps_the_new_image_the_one_before_it_and_other_roles() {
        let (dir, cache) = cache();
        let make = |role: &str, hash: &str, age: u64| {
            let path = cache.built(role, hash);
            std::fs::create_dir(&path).expect("writable");
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
            File::open(&path)
                .and_then(|f| f.set_modified(time))
                .expect("a time");
            path
        };
        let oldest = make("worker", "aaaaaaaaaaaaaaaa", 30);
        let before = make("worker", "bbbbbbbbbbbbbbbb", 20);
        let new = make("worker", "cccccccccccccccc", 0);
        let other = make("frontend", "dddddddddddddddd", 40);
        cache.prune("worker", &new).expect("pruned");
        assert!(!oldest.exists());
        assert!(before.exists() && new.exists() && other.exists());
        drop(dir);
    }
}
