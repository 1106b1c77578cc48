//! The user that ejabberd runs as: `ejabberd` when we are root, else ourselves.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use super::add_mode;
use crate::rendezvous::RendezvousError;

/// The package's own user.
const USER: &str = "ejabberd";

/// Who ejabberd runs as, and what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User and group when another than ourselves.
    other: Option<(u32, u32)>,
}

impl Owner {
    /// Finds the user.
    pub fn find() -> Result<Self, RendezvousError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let path = Path::new("/etc/passwd");
        let users =
            fs::read_to_string(path).map_err(|source| RendezvousError::file(path, source))?;
        let other = ids(&users, USER).ok_or(RendezvousError::NoUser)?;
        Ok(Self { other: Some(other) })
    }

    /// Makes `command` run as this user, with no supplementary group.
    pub fn apply(&self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        if let Some((uid, gid)) = self.other {
            command.gid(gid).uid(uid);
        }
    }

    /// Lets the user reach `dir` from `top` without letting it list anything on the way. What is
    /// above `top` is not ours to change, and must let it through.
    pub fn let_through(&self, top: &Path, dir: &Path) -> io::Result<()> {
        let Some((uid, gid)) = self.other else {
            return Ok(());
        };
        for path in fs::canonicalize(top)?.ancestors().skip(1) {
            let metadata = fs::metadata(path)?;
            // The first class that fits decides (path_resolution(7)).
            let execute = match (metadata.uid() == uid, metadata.gid() == gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            if metadata.mode() & execute == 0 {
                let path = path.display();
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "the user `{USER}` may not pass `{path}`: choose a --state-dir elsewhere, \
                         or allow it with `chmod o+x {path}`"
                    ),
                ));
            }
        }
        for path in dir.ancestors().take_while(|path| path.starts_with(top)) {
            let metadata = fs::metadata(path)?;
            if metadata.mode() & 0o001 != 0 {
                continue;
            }
            chown(path, None, Some(gid))?;
            add_mode(path, 0o010)?;
        }
        Ok(())
    }

    /// Gives a path to the user.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        let Some((uid, gid)) = self.other else {
            return Ok(());
        };
        chown(path, Some(uid), Some(gid))
    }

    /// Lets the user's group read a file that stays ours.
    pub fn let_read(&self, path: &Path) -> io::Result<()> {
        let Some((_, gid)) = self.other else {
            return Ok(());
        };
        chown(path, None, Some(gid))?;
        add_mode(path, 0o040)
    }
}

/// User and group id of a user in the text of `/etc/passwd` (passwd(5)).
fn ids(users: &str, name: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let mut ids = fields.skip(1);
        let ids = (ids.next()?.parse().ok()?, ids.next()?.parse().ok()?);
        found.then_some(ids)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\nejabberd2:x:7:8::/:/\nbad\nejabberd:x:105:108::/:/x\n";
        assert_eq!(ids(users, "ejabberd"), Some((105, 108)));
        assert_eq!(ids(users, "nobody"), None);
    }

    #[test]
    fn a_directory_above_ours_that_the_user_cannot_pass_is_named_and_left_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary directory");
        let home = dir.path().join("home");
        let state = home.join("state");
        fs::create_dir_all(&state).expect("made");
        let set = |mode| fs::set_permissions(&home, fs::Permissions::from_mode(mode));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("mode");
        let metadata = fs::metadata(&state).expect("there");
        let (uid, gid) = (metadata.uid() + 1, metadata.gid());

        set(0o700).expect("mode");
        for gid in [gid, gid + 1] {
            let owner = Owner {
                other: Some((uid, gid)),
            };
            let error = owner.let_through(&state, &state).expect_err("closed");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            let advice = format!("`chmod o+x {}`", home.display());
            assert!(error.to_string().contains(&advice), "{error}");
        }
        assert_eq!(fs::metadata(&home).expect("there").mode() & 0o777, 0o700);

        set(0o710).expect("mode");
        let owner = Owner {
            other: Some((uid, gid)),
        };
        owner.let_through(&state, &state).expect("its group may");
    }
}
