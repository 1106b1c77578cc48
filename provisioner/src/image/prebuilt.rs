//! Images that were built elsewhere: a directory with one folder per role, as `IPOP_IMAGES` names
//! it. Nothing is built then, so neither root nor a mirror is needed.
//!
//! | file | in a folder |
//! |---|---|
//! | `root.qcow2`, `vmlinuz`, `cmdline` | for hosts that boot a kernel directly |
//! | `initrd` | for the same, if the kernel needs one |
//! | `disk.raw` | for clouds: a disk that boots by itself |

use std::path::{Path, PathBuf};

use super::hash::{Hasher, sha256_file};
use super::root;
use crate::error::{CliError, ExitCode};
use crate::provider::{Image, ImageForm};

const CMDLINE: &str = "cmdline";
const INITRD: &str = "initrd";
const WHOLE: &str = "disk.raw";

/// The directory that `IPOP_IMAGES` names, if it does.
pub fn directory() -> Option<PathBuf> {
    let named = std::env::var_os("IPOP_IMAGES").filter(|value| !value.is_empty())?;
    Some(named.into())
}

/// The image of a role in a directory. Its hash is that of the files of its form.
pub fn find(dir: &Path, role: &str, form: ImageForm) -> Result<Image, CliError> {
    let dir = dir.join(role);
    if !dir.is_dir() {
        let message = format!(
            "there is no image of `{role}`: no folder `{}`",
            dir.display()
        );
        let error = CliError::new(ExitCode::Name, message);
        return Err(error.hint("IPOP_IMAGES names a directory with one folder per role"));
    }
    let file = |name: &str| dir.join(name);
    let initrd = Some(file(INITRD)).filter(|path| path.exists());
    let hashed: Vec<PathBuf> = match form {
        ImageForm::Whole => vec![file(WHOLE)],
        ImageForm::Direct => [file(root::DISK), file(root::KERNEL), file(CMDLINE)]
            .into_iter()
            .chain(initrd.clone())
            .collect(),
    };
    let mut hasher = Hasher::new("prebuilt");
    for path in &hashed {
        let hash = sha256_file(path).map_err(|e| missing(path, role, e))?;
        hasher.field(hash.as_bytes());
    }
    let cmdline = match form {
        ImageForm::Whole => String::new(),
        ImageForm::Direct => {
            let path = file(CMDLINE);
            let text = std::fs::read_to_string(&path).map_err(|e| missing(&path, role, e))?;
            text.trim().to_owned()
        }
    };
    Ok(Image {
        role: role.to_owned(),
        hash: hasher.finish(),
        disk: file(root::DISK),
        kernel: file(root::KERNEL),
        initrd,
        cmdline,
        whole: (form == ImageForm::Whole).then(|| file(WHOLE)),
    })
}

fn missing(path: &Path, role: &str, source: std::io::Error) -> CliError {
    CliError::new(
        ExitCode::Image,
        format!("the image of `{role}` has no usable `{}`", path.display()),
    )
    .caused_by(source)
    .hint("unset IPOP_IMAGES to have images built")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_the_hash_of_its_files_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let find = |form| find(dir.path(), "worker", form);
        let error = find(ImageForm::Direct).expect_err("no folder");
        assert_eq!(error.code, ExitCode::Name);
        let folder = dir.path().join("worker");
        std::fs::create_dir(&folder).expect("made");
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect(name);
        for name in ["root.qcow2", "vmlinuz"] {
            write(name, name);
        }
        let error = find(ImageForm::Direct).expect_err("no command line");
        assert!(
            error.message.ends_with("/worker/cmdline`"),
            "{}",
            error.message
        );
        write("cmdline", "console=ttyS0\n");
        let first = find(ImageForm::Direct).expect("complete");
        assert_eq!(
            (first.cmdline.as_str(), first.hash.len()),
            ("console=ttyS0", 64)
        );
        write("vmlinuz", "another");
        assert_ne!(find(ImageForm::Direct).expect("complete").hash, first.hash);
        let error = find(ImageForm::Whole).expect_err("no whole disk");
        assert_eq!(error.code, ExitCode::Image);
    }
}
