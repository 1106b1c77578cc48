//! Which nodes said that a revocation list is in force with them: written by the registrar, read by
//! commands that revoke.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{AuthorityError, file};
use crate::name::NodeName;
use crate::rendezvous::files;

/// Between looks.
const PAUSE: Duration = Duration::from_millis(100);

/// How far a list is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The list's number.
    pub number: u64,
    /// Nodes that are online and where it is in force.
    pub acknowledged: Vec<NodeName>,
    /// Nodes that are online and did not say so.
    pub silent: Vec<NodeName>,
}

impl Told {
    /// Notes it for the authority in `dir`.
    pub fn write(&self, dir: &Path) -> Result<(), AuthorityError> {
        let path = path(dir);
        let json = serde_json::to_vec(self).map_err(|source| AuthorityError::Damaged {
            path: path.clone(),
            source,
        })?;
        files::write(&path, &json, 0o600).map_err(file(&path))
    }

    /// Waits until all nodes but those in `without`, which are removed, have the list `number` of the
    /// authority in `dir`, or one that follows it, but no longer than `limit`. None if until then
    /// nobody began to tell it.
    pub fn wait(dir: &Path, number: u64, without: &[NodeName], limit: Duration) -> Option<Self> {
        let deadline = Instant::now() + limit;
        loop {
            let told = Self::read(dir, number, without);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || told.as_ref().is_some_and(|told| told.silent.is_empty()) {
                return told;
            }
            std::thread::sleep(PAUSE.min(left));
        }
    }

    /// What the registrar says of it now; nothing if that cannot be read, as between two versions.
    fn read(dir: &Path, number: u64, without: &[NodeName]) -> Option<Self> {
        let bytes = std::fs::read(path(dir)).ok()?;
        let mut told: Self = serde_json::from_slice(&bytes).ok()?;
        told.acknowledged.retain(|node| !without.contains(node));
        told.silent.retain(|node| !without.contains(node));
        (told.number >= number).then_some(told)
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("told.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_waited_for_those_that_stay_and_not_for_ever() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dir = dir.path();
        let [a, b, gone] = ["a", "b", "gone"].map(|name| NodeName(name.to_owned()));
        let without = [gone.clone()];
        let wait = |number, limit| Told::wait(dir, number, &without, limit);
        let now = Duration::ZERO;
        assert_eq!(wait(1, now), None, "nobody tells it");
        let told = Told {
            number: 2,
            acknowledged: vec![a.clone()],
            silent: vec![b.clone(), gone.clone()],
        };
        told.write(dir).expect("written");
        assert_eq!(wait(3, now), None, "an older list");
        let some = wait(2, now).expect("said");
        assert_eq!(
            (some.acknowledged, some.silent),
            (vec![a.clone()], vec![b.clone()])
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let all = Told {
                    number: 3,
                    acknowledged: vec![a, b],
                    silent: vec![gone],
                };
                all.write(dir).expect("written");
            });
            let all = wait(2, Duration::from_secs(3600)).expect("said");
            assert_eq!((all.acknowledged.len(), all.silent.len()), (2, 0));
        });
    }
}
