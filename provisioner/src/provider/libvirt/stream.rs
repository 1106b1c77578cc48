//! The content of volumes as streams through libvirt, without their holes where both ends can.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};
use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt::storage_vol::StorageVol;
use virt::stream::Stream;
use virt::sys;

use super::errors::is_unsupported;
use super::ffi::{self, Received, Segment};

/// Bytes a call; libvirt cuts larger ones.
const CHUNK: usize = 256 * 1024;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Why a transfer did not come to its end.
#[derive(Debug)]
pub enum Broken<E> {
    /// libvirt, or the way to it.
    Libvirt(VirtError),
    /// What is read here.
    Source(std::io::Error),
    /// The caller stopped it.
    Stopped(E),
}

impl<E> From<VirtError> for Broken<E> {
    fn from(e: VirtError) -> Self {
        Self::Libvirt(e)
    }
}

/// Writes `len` bytes of a file into a volume, and says what was in them. `step` is told how far
/// it is, and may stop it.
pub fn upload_file<E>(
    conn: &Connect,
    volume: &StorageVol,
    file: &mut File,
    len: u64,
    step: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<Hash, Broken<E>> {
    let (stream, sparse) = started(
        conn,
        sys::VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM,
        |s, flags| volume.upload(s, 0, len, flags),
    )?;
    let sent = send_file(&stream, file, len, sparse, step);
    ended(stream, sent)
}

/// Writes bytes into a volume.
pub fn upload_bytes(conn: &Connect, volume: &StorageVol, bytes: &[u8]) -> Result<(), VirtError> {
    let stream = Stream::new(conn, 0)?;
    volume.upload(&stream, 0, bytes.len() as u64, 0)?;
    match send_all(&stream, bytes) {
        Ok(()) => stream.finish(),
        Err(e) => {
            // The cause is known; what the stream says to its end adds nothing.
            let _ = stream.abort();
            Err(e)
        }
    }
}

/// What is in the first `len` bytes of a volume, as its host reads them back.
pub fn hash<E>(
    conn: &Connect,
    volume: &StorageVol,
    len: u64,
    step: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<Hash, Broken<E>> {
    let flag = sys::VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM;
    let (stream, sparse) = started(conn, flag, |s, flags| volume.download(s, 0, len, flags))?;
    let mut hasher = Sha256::new();
    let mut done = 0;
    let mut buffer = vec![0; CHUNK];
    let read = loop {
        let received = match ffi::receive(&stream, &mut buffer, sparse) {
            Ok(received) => received,
            Err(e) => break Err(e.into()),
        };
        match received {
            Received::End => break Ok(hasher.finalize().into()),
            Received::Data(n) => {
                hasher.update(&buffer[..n]);
                done += n as u64;
            }
            Received::Hole(n) => {
                zeros(&mut hasher, n);
                done += n;
            }
        }
        if let Err(e) = step(done) {
            break Err(Broken::Stopped(e));
        }
    };
    ended(stream, read)
}

/// What is in a volume from `offset` to its end.
pub fn read_from(conn: &Connect, volume: &StorageVol, offset: u64) -> Result<Vec<u8>, VirtError> {
    let stream = Stream::new(conn, 0)?;
    volume.download(&stream, offset, 0, 0)?;
    let mut out = Vec::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match ffi::receive(&stream, &mut buffer, false) {
            Ok(Received::Data(n)) => out.extend(&buffer[..n]),
            Ok(Received::Hole(_) | Received::End) => break,
            Err(e) => {
                let _ = stream.abort();
                return Err(e);
            }
        }
    }
    stream.finish()?;
    Ok(out)
}

/// A stream with holes or, where the daemon refuses these, without.
fn started(
    conn: &Connect,
    flag: u32,
    start: impl Fn(&Stream, u32) -> Result<(), VirtError>,
) -> Result<(Stream, bool), VirtError> {
    let stream = Stream::new(conn, 0)?;
    match start(&stream, flag) {
        Ok(()) => Ok((stream, true)),
        Err(e) if is_unsupported(&e) => {
            let stream = Stream::new(conn, 0)?;
            start(&stream, 0)?;
            Ok((stream, false))
        }
        Err(e) => Err(e),
    }
}

fn ended<T, E>(stream: Stream, result: Result<T, Broken<E>>) -> Result<T, Broken<E>> {
    match result {
        Ok(value) => {
            stream.finish()?;
            Ok(value)
        }
        Err(e) => {
            // The cause is known; what the stream says to its end adds nothing.
            let _ = stream.abort();
            Err(e)
        }
    }
}

fn send_file<E>(
    stream: &Stream,
    file: &mut File,
    len: u64,
    sparse: bool,
    step: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<Hash, Broken<E>> {
    let mut hasher = Sha256::new();
    let mut done = 0;
    let mut buffer = vec![0; CHUNK];
    while done < len {
        let segment = if sparse {
            ffi::segment(file, done, len).map_err(Broken::Source)?
        } else {
            Segment::Data(len - done)
        };
        match segment {
            Segment::Hole(n) => {
                ffi::send_hole(stream, n)?;
                zeros(&mut hasher, n);
                done += n;
                step(done).map_err(Broken::Stopped)?;
            }
            Segment::Data(n) => {
                file.seek(SeekFrom::Start(done)).map_err(Broken::Source)?;
                let end = done + n;
                while done < end {
                    let most = usize::try_from(end - done).unwrap_or(CHUNK).min(CHUNK);
                    file.read_exact(&mut buffer[..most])
                        .map_err(Broken::Source)?;
                    send_all(stream, &buffer[..most])?;
                    hasher.update(&buffer[..most]);
                    done += most as u64;
                    step(done).map_err(Broken::Stopped)?;
                }
            }
        }
    }
    Ok(hasher.finalize().into())
}

fn send_all(stream: &Stream, mut data: &[u8]) -> Result<(), VirtError> {
    while !data.is_empty() {
        let n = usize::try_from(stream.send(data)?).unwrap_or(0);
        data = &data[n..];
    }
    Ok(())
}

fn zeros(hasher: &mut Sha256, mut count: u64) {
    let block = [0; 1 << 16];
    while count > 0 {
        let n = count.min(block.len() as u64);
        hasher.update(&block[..n as usize]);
        count -= n;
    }
}
