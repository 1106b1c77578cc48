//! What goes into volumes and comes out of them, as streams through libvirt.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use virt::error::Error as VirtError;
use virt::storage_vol::StorageVol;
use virt::stream::Stream;

use super::connection::Context;
use super::storage::{COMPLETE, NewVolume, Pool};
use crate::error::{CliError, ExitCode};

/// Bytes a call; libvirt cuts larger ones.
const CHUNK: usize = 256 * 1024;

impl Pool {
    /// Makes a raw volume with this content, readable by nobody but its owner.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<String, CliError> {
        let capacity = content.len() as u64;
        let new = NewVolume {
            name,
            capacity,
            format: "raw",
            mode: "0600",
            backing: None,
        };
        let (volume, path) = self.create(new)?;
        self.upload(&volume, name, content, capacity, &mut |_| {})?;
        Ok(path)
    }

    /// Whether an upload of this name came to its end, and the path.
    pub fn complete(&self, name: &str) -> Result<Option<String>, CliError> {
        if self.volume(&format!("{name}{COMPLETE}"))?.is_none() {
            return Ok(None);
        }
        let Some(volume) = self.volume(name)? else {
            return Ok(None);
        };
        volume
            .path()
            .context(|| self.failed("find the path of", name))
            .map(Some)
    }

    /// Uploads a local file that many machines share, and marks it complete.
    pub fn put_shared(
        &self,
        name: &str,
        file: &Path,
        format: &str,
        progress: &mut dyn FnMut(u64, u64),
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
        let len = source.metadata().map_err(unreadable)?.len();
        let capacity = match format {
            "qcow2" => qcow2_capacity(file).map_err(unreadable)?,
            _ => len,
        };
        let available = self.available()?;
        if available < len {
            return Err(self.full(name, len, available));
        }
        self.remove(&format!("{name}{COMPLETE}"))?;
        let new = NewVolume {
            name,
            capacity,
            format,
            mode: "0644",
            backing: None,
        };
        let (volume, path) = self.create(new)?;
        self.upload(&volume, name, &mut source, len, &mut |done| {
            progress(done, len)
        })?;
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
        let stream = Stream::new(&self.conn, 0).context(failed)?;
        volume.download(&stream, 0, 0, 0).context(failed)?;
        let mut out = Vec::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = stream.recv(&mut buffer).context(failed)?;
            match usize::try_from(n) {
                Ok(0) => break,
                Ok(n) => out.extend(&buffer[..n]),
                // Only streams that do not block report "would block".
                Err(_) => break,
            }
        }
        stream.finish().context(failed)?;
        Ok(out.split_off(out.len().saturating_sub(limit)))
    }

    fn upload(
        &self,
        volume: &StorageVol,
        name: &str,
        mut source: impl Read,
        len: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), CliError> {
        let started = Stream::new(&self.conn, 0)
            .and_then(|stream| volume.upload(&stream, 0, len, 0).map(|()| stream));
        let stream = started.context(|| self.failed("write", name))?;
        let mut buffer = vec![0; CHUNK];
        let mut done = 0;
        let sent = loop {
            let n = match source.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => n,
                Err(e) => {
                    let what = format!("cannot read what goes into volume \"{name}\"");
                    break Err(CliError::new(ExitCode::Image, what).caused_by(e));
                }
            };
            if let Err(e) = send_all(&stream, &buffer[..n]) {
                break Err(self.write_failed("write", name, len, &e));
            }
            done += n as u64;
            progress(done);
        };
        let sent = match sent {
            Ok(()) => stream
                .finish()
                .map_err(|e| self.write_failed("write", name, len, &e)),
            Err(e) => {
                // The cause is known; what the stream says to its end adds nothing.
                let _ = stream.abort();
                Err(e)
            }
        };
        if sent.is_err() {
            // Best effort: without its marker the half volume is replaced by the next upload.
            let _ = volume.delete(0);
        }
        sent
    }
}

fn send_all(stream: &Stream, mut data: &[u8]) -> Result<(), VirtError> {
    while !data.is_empty() {
        let n = usize::try_from(stream.send(data)?).unwrap_or(0);
        data = &data[n..];
    }
    Ok(())
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
        let error = pool
            .put_shared("huge", &path, "raw", &mut |_, _| {})
            .unwrap_err();
        assert_eq!(error.code, ExitCode::Missing);
        assert!(
            error
                .message
                .starts_with("storage pool \"default-pool\" is full: \"huge\" needs 1048576 MiB")
        );
    }
}
