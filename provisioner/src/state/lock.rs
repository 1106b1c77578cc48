//! One `provision` works on a deployment at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{CliError, ExitCode};

const FILE: &str = "lock";

/// Held while a command changes a deployment; released when dropped, or when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of deployment `name` in its directory, making the directory if needed.
    pub fn take(dir: &Path, name: &str) -> Result<Self, CliError> {
        let path = dir.join(FILE);
        loop {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|e| CliError::file("create", dir, e))?;
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|e| CliError::file("open", &path, e))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(busy(name, &mut file)),
                Err(TryLockError::Error(e)) => return Err(CliError::file("lock", &path, e)),
            }
            // A destroy may have removed the file between opening and locking it.
            let here = std::fs::metadata(&path).map(|m| m.ino()).ok();
            if here == file.metadata().map(|m| m.ino()).ok() {
                write_pid(&mut file).map_err(|e| CliError::file("write", &path, e))?;
                return Ok(Self { _file: file });
            }
        }
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn busy(name: &str, file: &mut File) -> CliError {
    let mut pid = String::new();
    let who = match file.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => format!("another provision (pid {})", pid.trim()),
        _ => "another provision".to_owned(),
    };
    CliError::new(
        ExitCode::Unavailable,
        format!("{who} is working on `{name}`"),
    )
    .hint("wait until it ends, or stop it with Ctrl-C or kill")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_process_that_holds_the_first() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = Lock::take(&dir.path().join("demo"), "demo").expect("free");
        let error = Lock::take(&dir.path().join("demo"), "demo").expect_err("held");
        let pid = std::process::id();
        assert_eq!(
            error.message,
            format!("another provision (pid {pid}) is working on `demo`")
        );
        drop(first);
        Lock::take(&dir.path().join("demo"), "demo").expect("free again");
    }
}
