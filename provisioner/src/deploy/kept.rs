//! What a site keeps for the next deployment (images) does not go while a deployment comes to use
//! it: between the moment at which it is found or made and the one at which the first machine that
//! needs it is there, nothing on the site tells that it is used.

use std::fs::{File, TryLockError};

use crate::error::CliError;
use crate::layout::Layout;
use crate::ssh::keys::private_dir;

const FILE: &str = "kept";

/// Keeps prunes of this state directory's sites away while the value lives. Waits for one that is
/// under way, which takes seconds.
pub fn using(layout: &Layout) -> Result<File, CliError> {
    lock(layout, |file| file.lock_shared())
}

/// Keeps deployments from coming to use anything while the value lives. Waits for those that do;
/// `waits` is called before that.
pub fn pruning(layout: &Layout, waits: impl FnOnce()) -> Result<File, CliError> {
    lock(layout, |file| match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            waits();
            file.lock()
        }
        Err(TryLockError::Error(e)) => Err(e),
    })
}

fn lock(
    layout: &Layout,
    take: impl FnOnce(&File) -> std::io::Result<()>,
) -> Result<File, CliError> {
    let dir = layout.locks();
    private_dir(&dir)?;
    let path = dir.join(FILE);
    let locked = File::create(&path).and_then(|file| take(&file).map(|()| file));
    locked.map_err(|e| CliError::file("lock", &path, e))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_prune_waits_for_every_deployment_that_comes_to_use_something() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let layout = Layout {
            state: dir.path().join("state"),
            cache: dir.path().join("cache"),
        };
        let first = using(&layout).expect("free");
        let second = using(&layout).expect("shared");
        let (said, heard) = mpsc::channel();
        std::thread::scope(|scope| {
            let layout = &layout;
            scope.spawn(move || {
                let waits = || said.send("waits").expect("heard");
                let _prune = pruning(layout, waits).expect("free in the end");
                said.send("prunes").expect("heard");
            });
            let long = Duration::from_secs(60);
            assert_eq!(heard.recv_timeout(long), Ok("waits"));
            drop(first);
            let early = heard.recv_timeout(Duration::from_millis(200));
            assert!(early.is_err(), "pruned while another used it");
            drop(second);
            assert_eq!(heard.recv_timeout(long), Ok("prunes"));
        });
        pruning(&layout, || panic!("nobody to wait for")).expect("free");
    }
}
