//! What goes into volumes and comes out of them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::connection::Context;
use super::storage::{COMPLETE, NewVolume, Pool};
use super::stream::{self, Broken};
use crate::error::{CliError, ExitCode, Retry};

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// `upload`, then `verify`: what is on the host is read back.
    pub verb: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

impl Pool {
    /// Makes a raw volume with this content, readable by nobody but its owner.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<String, CliError> {
        let capacity = content.len() as u64;
        let (volume, path) = self.create(NewVolume {
            name,
            capacity,
            format: "raw",
            mode: "0600",
            backing: None,
        })?;
        stream::upload_bytes(&self.conn, &volume, content)
            .map_err(|e| self.write_failed("write", name, capacity, &e))?;
        Ok(path)
    }

    /// Whether an upload of this name came to its end, and the path.
    pub fn complete(&self, name: &str) -> Result<Option<String>, CliError> {
        if self.volume(&format!("{name}{COMPLETE}"))?.is_none() {
            return Ok(None);
        }
        self.path(name)
    }

    /// Uploads a local file that many machines share, reads it back, and marks it complete if it
    /// is the same. `progress` may stop it.
    pub fn put_shared(
        &self,
        name: &str,
        file: &Path,
        progress: &mut dyn FnMut(Progress) -> Result<(), CliError>,
    ) -> Result<String, CliError> {
        let unreadable = |e| {
            CliError::new(
                ExitCode::Image,
                format!("cannot read image file {}", file.display()),
            )
            .caused_by(e)
            .hint("build the image again: `provision image build ROLE`")
        };
        let mut source = File::open(file).map_err(unreadable)?;
        let total = source.metadata().map_err(unreadable)?.len();
        let available = self.available()?;
        if available < total {
            return Err(self.full(name, total, available));
        }
        progress(Progress {
            verb: "upload",
            done: 0,
            total,
        })?;
        self.remove(&format!("{name}{COMPLETE}"))?;
        // A file like any other, also where it is a qcow2 image: libvirt would write a header of
        // its own, which shines through the holes.
        let (volume, path) = self.create(NewVolume {
            name,
            capacity: total,
            format: "raw",
            mode: "0644",
            backing: None,
        })?;
        let conn = &self.conn;
        let step = |verb| {
            move |progress: &mut dyn FnMut(Progress) -> Result<(), CliError>, done| {
                progress(Progress { verb, done, total })
            }
        };
        let (upload, verify) = (step("upload"), step("verify"));
        let sent = stream::upload_file(conn, &volume, &mut source, total, &mut |done| {
            upload(&mut *progress, done)
        });
        let checked = sent.and_then(|sent| {
            let there = stream::hash(conn, &volume, total, &mut |done| {
                verify(&mut *progress, done)
            })?;
            Ok(sent == there)
        });
        let checked = checked.map_err(|e| match e {
            Broken::Libvirt(e) => self.write_failed("write", name, total, &e),
            Broken::Source(e) => unreadable(e),
            Broken::Stopped(e) => e,
        });
        match checked {
            Ok(true) => {}
            other => {
                // Best effort: without its marker the half volume is replaced by the next upload.
                let _ = volume.delete(0);
                other?;
                return Err(self.damaged(name));
            }
        }
        let marker = format!("{name}{COMPLETE}");
        self.create(NewVolume {
            name: &marker,
            capacity: 0,
            format: "raw",
            mode: "0644",
            backing: None,
        })?;
        Ok(path)
    }

    /// The last `limit` bytes of a volume, as far as it goes. An absent one reads as empty.
    pub fn tail(&self, name: &str, limit: usize) -> Result<Vec<u8>, CliError> {
        let Some(volume) = self.volume(name)? else {
            return Ok(Vec::new());
        };
        let failed = || self.failed("read", name);
        // It may be longer by now, then there is more to read than was asked for.
        let len = volume.info().context(failed)?.capacity;
        let offset = len.saturating_sub(limit as u64);
        let mut out = stream::read_from(&self.conn, &volume, offset).context(failed)?;
        Ok(out.split_off(out.len().saturating_sub(limit)))
    }

    fn damaged(&self, name: &str) -> CliError {
        CliError::new(
            ExitCode::Unavailable,
            format!("{}: it is not what was sent", self.failed("verify", name)),
        )
        .hint("the host's disk or memory may be defective; look at its log")
        .retry(Retry::Soon)
    }
}

/// The virtual size in a qcow2 header (QEMU's docs/interop/qcow2.txt): bytes 24 to 31, big endian.
pub(super) fn qcow2_capacity(file: &Path) -> std::io::Result<u64> {
    let mut header = [0; 32];
    File::open(file)?.read_exact(&mut header)?;
    if header[..4] != *b"QFI\xfb" {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "not a qcow2 file",
        ));
    }
    let mut size = [0; 8];
    size.copy_from_slice(&header[24..]);
    Ok(u64::from_be_bytes(size))
}

#[cfg(test)]
mod tests {
    use virt::connect::Connect;

    use super::*;

    #[test]
    fn a_file_that_is_no_qcow2_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 64]).unwrap();
        assert_eq!(
            qcow2_capacity(&path).unwrap_err().to_string(),
            "not a qcow2 file"
        );
        let mut header = [0u8; 64];
        header[..4].copy_from_slice(b"QFI\xfb");
        header[24..32].copy_from_slice(&(3u64 << 30).to_be_bytes());
        std::fs::write(&path, header).unwrap();
        assert_eq!(qcow2_capacity(&path).unwrap(), 3 << 30);
    }

    #[test]
    fn a_pool_without_room_says_how_much_is_missing() {
        let conn = Connect::open(Some("test:///default")).unwrap();
        let pool = Pool::ensure(&conn, "default-pool", None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        // Sparse: more than the test driver's pool of 100 GiB.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = pool.put_shared("huge", &path, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.code, ExitCode::Missing);
        assert!(
            error
                .message
                .starts_with("storage pool \"default-pool\" is full: \"huge\" needs 1048576 MiB")
        );
    }
}
