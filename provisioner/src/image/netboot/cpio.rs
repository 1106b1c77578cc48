//! A folder as an initial RAM disk: cpio in the form `newc`, as the kernel unpacks it
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::EPOCH;

/// Name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// Writes everything below `tree`, in the order of names and with the time of every image, so that
/// equal folders make equal archives. What has several names is there several times; extended
/// attributes are left out, as the form has none.
pub fn write(tree: &Path, out: &mut impl Write) -> io::Result<()> {
    let mut number = 0;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let listed = fs::read_dir(tree.join(&folder))?;
        let mut names = listed
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let path = folder.join(name);
            let at = tree.join(&path);
            let meta = at.symlink_metadata()?;
            let content = if meta.is_symlink() {
                fs::read_link(&at)?.as_os_str().as_bytes().to_vec()
            } else if meta.is_file() {
                fs::read(&at)?
            } else {
                Vec::new()
            };
            number += 1;
            write_entry(out, number, path.as_os_str().as_bytes(), &meta, &content)?;
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    let header = [0; 13];
    write_record(out, header, TRAILER, &[])
}

fn write_entry(
    out: &mut impl Write,
    number: u32,
    name: &[u8],
    meta: &Metadata,
    content: &[u8],
) -> io::Result<()> {
    let too_large = |what| io::Error::new(io::ErrorKind::FileTooLarge, what);
    let size = u32::try_from(content.len()).map_err(|_| too_large("a file of 4 GiB or more"))?;
    let time = u32::try_from(EPOCH).map_err(|_| too_large("a time after 2106"))?;
    let device = meta.rdev();
    let header = [
        number,
        meta.mode(),
        meta.uid(),
        meta.gid(),
        1,
        time,
        size,
        0,
        0,
        libc::major(device),
        libc::minor(device),
        0,
        0,
    ];
    write_record(out, header, name, content)
}

/// One record; `header` lacks the length of the name. Names and contents begin on multiples of four.
fn write_record(
    out: &mut impl Write,
    mut header: [u32; 13],
    name: &[u8],
    content: &[u8],
) -> io::Result<()> {
    const NAME_SIZE: usize = 11;
    const HEADER_LEN: usize = 110;
    header[NAME_SIZE] = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
    out.write_all(b"070701")?;
    for field in header {
        write!(out, "{field:08X}")?;
    }
    out.write_all(name)?;
    let end = HEADER_LEN + name.len() + 1;
    // One zero ends the name.
    out.write_all(&[0; 4][..1 + end.next_multiple_of(4) - end])?;
    out.write_all(content)?;
    out.write_all(&[0; 3][..content.len().next_multiple_of(4) - content.len()])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::{Command, Stdio};

    use super::*;

    fn archive(tree: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(tree, &mut bytes).expect("written");
        bytes
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("etc")).expect("a folder");
        for (name, text) in [("etc/one", "x"), ("etc/four", "1234"), ("odd", "12345")] {
            fs::write(at(name), text).expect("written");
        }
        fs::set_permissions(at("odd"), fs::Permissions::from_mode(0o4755)).expect("permitted");
        symlink("etc/one", at("init")).expect("a link");
        dir
    }

    #[test]
    fn cpio_reads_it_back() {
        let (from, to) = (tree(), tempfile::tempdir().expect("a temporary folder"));
        let mut cpio = Command::new("cpio")
            .args(["--extract", "--quiet", "--make-directories"])
            .current_dir(&to)
            .stdin(Stdio::piped())
            .spawn()
            .expect("package cpio");
        let mut stdin = cpio.stdin.take().expect("a pipe");
        stdin.write_all(&archive(from.path())).expect("taken");
        drop(stdin);
        assert!(cpio.wait().expect("an end").success());
        for name in ["etc/one", "etc/four", "odd", "init"] {
            let [one, other] = [&from, &to].map(|dir| dir.path().join(name));
            assert_eq!(fs::read(&one).ok(), fs::read(&other).ok(), "{name}");
            let [one, other] = [one, other].map(|path| path.symlink_metadata().expect("there"));
            assert_eq!(one.mode(), other.mode(), "{name}");
        }
    }

    #[test]
    fn equal_folders_make_equal_archives() {
        assert_eq!(archive(tree().path()), archive(tree().path()));
    }
}
