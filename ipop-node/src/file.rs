//! Files that are there whole or not at all.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The mode of a file with a key in it.
pub const SECRET: u32 = 0o600;
/// The mode of a file that anybody may read.
pub const PUBLIC: u32 = 0o644;

/// Writes a file that is there not yet.
///
/// # Errors
///
/// Those of `open(2)` and `write(2)`; `AlreadyExists` when it is there.
pub fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Writes a file in the place of the one that may be there: whoever reads it at any moment, a crash
/// included, finds the one or the other. Nobody else is to do the same to it at the same time.
///
/// # Errors
///
/// As for [`create`]; those of `rename(2)`.
pub fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut new = OsString::from(path);
    new.push(".new");
    let new = PathBuf::from(new);
    // What a run that was killed left behind.
    let _ = std::fs::remove_file(&new);
    create(&new, text, mode)?;
    std::fs::rename(&new, path)?;
    sync_folder(path)
}

/// What was done in the folder of `path` survives a crash from now on.
///
/// # Errors
///
/// Those of `fsync(2)`.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_whatever_was_left_behind() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("file");
        create(&path, "first", SECRET).expect("made");
        assert!(create(&path, "again", SECRET).is_err());
        std::fs::write(dir.path().join("file.new"), "half of").expect("written");
        replace(&path, "second", PUBLIC).expect("replaced");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "second");
        let mode = path.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, PUBLIC);
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 1);
    }
}
