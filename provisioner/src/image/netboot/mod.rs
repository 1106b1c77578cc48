//! A role for machines without a disk: a kernel, an initial RAM disk that holds the whole root file
//! system, and what a boot loader does with the two.
//!
//! The RAM disk stays the root; nothing is mounted over it and nothing is fetched later. So all that
//! has to go right before the system runs is what the boot ROM does anyway, and a machine that runs
//! does not need the server again that it booted from. It costs the machine the memory: some 170 MB
//! for a worker, 65 MB over the network.

mod cpio;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};

use super::cache::io_error;
use super::child::{self, Tool};
use super::root::{self, Inputs, KERNEL, MANIFEST};

/// The initial RAM disk.
pub const INITRD: &str = "initrd";
/// What iPXE does.
pub const SCRIPT: &str = "boot.ipxe";
/// Every file of the form, in the order in which they may become known.
pub const FILES: [&str; 4] = [MANIFEST, KERNEL, INITRD, SCRIPT];

/// What nothing on such a machine reads: descriptions of hardware, the packages' database (packages
/// come with another image), and the node, which its site's gateway runs.
const UNUSED: [&str; 2] = ["usr/lib/udev/hwdb.d", "var/lib/dpkg"];
const UNUSED_FILES: [&str; 2] = ["usr/lib/udev/hwdb.bin", "usr/bin/ipop-node"];

const ZSTD: Tool = Tool {
    program: "zstd",
    package: "zstd",
};

/// Makes the files in a new folder below `work`, and returns that folder.
pub fn stage(inputs: &Inputs<'_>, work: &Path, events: &dyn Sink) -> Result<PathBuf, CliError> {
    let what = format!("image {}: without a disk", inputs.recipe.role);
    let progress = |done| {
        events.emit(Event::Progress {
            what: what.clone(),
            done,
            total: 5,
        })
    };
    ZSTD.find()?;
    let root::Tree { root: tree, out } = root::tree(inputs, work, progress)?;
    for folder in UNUSED {
        root::remove_tree(&tree.join(folder))?;
    }
    for file in UNUSED_FILES {
        root::remove(&tree.join(file))?;
    }
    let made = |path: &Path, result: std::io::Result<()>| {
        result.map_err(|e| io_error("cannot make", path, e))
    };
    let init = tree.join("init");
    made(
        &init,
        std::os::unix::fs::symlink("usr/lib/systemd/systemd", &init),
    )?;
    let archive = work.join("root.cpio");
    made(&archive, archived(&tree, &archive))?;
    progress(3);
    let mut compress = ZSTD.command()?;
    compress
        .args(["--quiet", "--threads=0", "-9", "-o"])
        .arg(out.join(INITRD))
        .arg(&archive);
    child::run(compress, |_| {})?;
    progress(4);
    let cmdline = cmdline(&inputs.recipe.cmdline);
    let script = out.join(SCRIPT);
    made(
        &script,
        std::fs::write(&script, self::script(&inputs.recipe.role, &cmdline)),
    )?;
    root::write_manifest(inputs, &cmdline, &[KERNEL, INITRD, SCRIPT], &out)?;
    progress(5);
    Ok(out)
}

fn archived(tree: &Path, archive: &Path) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(archive)?);
    cpio::write(tree, &mut out)?;
    out.flush()
}

/// Puts the files into a folder, from which machines may boot meanwhile: each is the old one or the
/// new one, and the script comes last.
pub fn install(from: &Path, to: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(to).map_err(|e| io_error("cannot make the folder", to, e))?;
    for name in FILES {
        let (new, at) = (to.join(format!(".{name}.new")), to.join(name));
        std::fs::copy(from.join(name), &new)
            .and_then(|_| std::fs::rename(&new, &at))
            .map_err(|e| io_error("cannot write", &at, e))?;
    }
    Ok(())
}

/// The recipe's command line without the disk.
fn cmdline(recipe: &str) -> String {
    let of_disk =
        |word: &&str| word.starts_with("root=") || word.starts_with("rootfstype=") || *word == "rw";
    let words = recipe.split_whitespace().filter(|word| !of_disk(word));
    words.collect::<Vec<_>>().join(" ")
}

/// The script for iPXE. Each machine's own says where the files are, then goes on with this one.
fn script(role: &str, cmdline: &str) -> String {
    format!(
        "#!ipxe\n\
         # The role {role} without a disk. Whoever comes here has set `from`, the folder of this file,\n\
         # and `own`, the machine's personal data: a second RAM disk, unpacked over the first.\n\
         kernel ${{from}}{KERNEL} initrd={INITRD} initrd=own {cmdline} || reboot\n\
         initrd ${{from}}{INITRD} || reboot\n\
         initrd --name own ${{own}} || reboot\n\
         boot || reboot\n"
    )
}

/// A role that has no such form.
pub fn needs_disk(role: &str) -> CliError {
    let message = format!("the role `{role}` has no form without a disk");
    CliError::new(ExitCode::Usage, message).hint("`worker` has one, and roles that extend it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_no_disk_and_keeps_the_rest() {
        let recipe = "root=/dev/nvme0n1 rootfstype=ext4 rw console=ttyS0 panic=10";
        assert_eq!(cmdline(recipe), "console=ttyS0 panic=10");
    }

    #[test]
    fn the_script_has_the_kernel_the_root_and_the_machines_own_data() {
        insta::assert_snapshot!(script("worker", "panic=10"));
    }

    #[test]
    fn a_folder_that_is_served_has_whole_files_alone() {
        let [from, to] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
        for name in FILES {
            std::fs::write(from.path().join(name), name).expect("written");
        }
        let to = to.path().join("boot/worker");
        for _ in 0..2 {
            install(from.path(), &to).expect("installed");
        }
        let mut names: Vec<_> = std::fs::read_dir(&to)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["boot.ipxe", "initrd", "manifest.json", "vmlinuz"]);
    }
}
