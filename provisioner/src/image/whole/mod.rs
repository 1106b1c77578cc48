//! Third stage, for clouds: a raw disk that boots by itself, by BIOS and by UEFI, around the root
//! file system that the second stage made.
//!
//! ```text
//! MBR  GPT │ BIOS boot: GRUB │ ESP: GRUB, grub.cfg, kernel │ root: ext4 … │ GPT
//! ```
//!
//! Made by writing files: no loop device, no mount, no privilege. Both GRUBs read the same
//! `grub.cfg` and kernel; there is no initial RAM disk.

pub mod plan;

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};

use super::cache::{Cache, io_error};
use super::child::{self, Tool};
use super::hash;
use plan::{BIOS, DISK_BYTES, ESP, ESP_ID, ROOT_START, SECTOR};

/// Name of the disk in the image's folder.
pub const DISK: &str = "disk.raw";
/// Name of the manifest.
const MANIFEST: &str = "manifest.json";
/// Modules that are part of both GRUBs: what reads the partition and starts Linux, no more.
const MODULES: &[&str] = &[
    "part_gpt", "fat", "normal", "linux", "serial", "test", "echo",
];
/// Where Debian keeps GRUB's parts.
const GRUB: &str = "/usr/lib/grub";

const SFDISK: Tool = Tool {
    program: "sfdisk",
    package: "fdisk",
};
const MKFS_FAT: Tool = Tool {
    program: "mkfs.fat",
    package: "dosfstools",
};
const MMD: Tool = Tool {
    program: "mmd",
    package: "mtools",
};
const MCOPY: Tool = Tool {
    program: "mcopy",
    package: "mtools",
};
const GRUB_MKIMAGE: Tool = Tool {
    program: "grub-mkimage",
    package: "grub-common",
};

/// What a disk is made of, written beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    role: String,
    hash: String,
    /// Hash of the image whose root file system is on it.
    image: String,
    cmdline: String,
    /// SHA-256 of the disk.
    disk: String,
}

/// The image that a disk is made from.
pub struct Inputs<'a> {
    /// Role.
    pub role: &'a str,
    /// Its hash.
    pub hash: &'a str,
    /// The recipe's command line.
    pub cmdline: &'a str,
    /// qcow2 of its root file system.
    pub root: &'a Path,
    /// Its kernel.
    pub kernel: &'a Path,
}

/// A finished disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Content hash.
    pub hash: String,
    /// The file.
    pub disk: PathBuf,
}

/// GRUB for both kinds of firmware, ready to be written.
struct Loaders {
    boot_sector: Vec<u8>,
    core: Vec<u8>,
    efi: PathBuf,
    efi_bytes: Vec<u8>,
}

/// The disk from the cache, or made now. The lock of the role must be held.
pub fn stage(cache: &Cache, inputs: &Inputs<'_>, events: &dyn Sink) -> Result<Whole, CliError> {
    for tool in [SFDISK, MKFS_FAT, MMD, MCOPY, GRUB_MKIMAGE, child::QEMU_IMG] {
        tool.find()?;
    }
    // Beside the other forms of the role, and never taken for one when these are pruned.
    let name = format!("{}.whole", inputs.role);
    let work = cache.work(&name)?;
    let made = make(cache, inputs, &name, &work, events);
    cache.discard(&work)?;
    made
}

fn make(
    cache: &Cache,
    inputs: &Inputs<'_>,
    name: &str,
    work: &Path,
    events: &dyn Sink,
) -> Result<Whole, CliError> {
    let cmdline = plan::cmdline(inputs.cmdline);
    let loaders = loaders(work)?;
    let hash = plan::whole_hash(
        inputs.hash,
        &cmdline,
        &[&loaders.boot_sector, &loaders.core, &loaders.efi_bytes],
    );
    let dir = cache.built(name, &hash);
    let whole = Whole {
        hash,
        disk: dir.join(DISK),
    };
    if dir.join(MANIFEST).exists() {
        return Ok(whole);
    }
    let what = format!("image {}: whole disk", inputs.role);
    let progress = |done| {
        events.emit(Event::Progress {
            what: what.clone(),
            done,
            total: 4,
        })
    };
    let out = work.join("out");
    std::fs::create_dir(&out).map_err(|e| io_error("cannot make the folder", &out, e))?;
    let disk = out.join(DISK);
    progress(0);
    partition(work, &disk)?;
    let esp = esp(work, inputs.kernel, &cmdline, &loaders.efi)?;
    progress(1);
    copy_into(&esp, "raw", &disk, ESP.offset(), ESP.bytes())?;
    // Whatever the root file system's size is: it grows into its partition at boot.
    let root = (DISK_BYTES - ROOT_START * SECTOR) / (1 << 20) * (1 << 20) - (1 << 20);
    copy_into(inputs.root, "qcow2", &disk, ROOT_START * SECTOR, root)?;
    progress(2);
    write_loaders(&disk, &loaders)?;
    progress(3);
    let sha256 = hash::sha256_file(&disk).map_err(|e| io_error("cannot read", &disk, e))?;
    let manifest = Manifest {
        role: inputs.role.to_owned(),
        hash: whole.hash.clone(),
        image: inputs.hash.to_owned(),
        cmdline,
        disk: sha256,
    };
    let json = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| CliError::new(ExitCode::Internal, "cannot write the manifest").caused_by(e))?;
    let path = out.join(MANIFEST);
    std::fs::write(&path, json).map_err(|e| io_error("cannot write", &path, e))?;
    cache.publish(&out, &dir)?;
    cache.prune(name, &dir)?;
    progress(4);
    Ok(whole)
}

/// Puts GRUB together from the modules of this machine's packages.
fn loaders(work: &Path) -> Result<Loaders, CliError> {
    let core = work.join("core.img");
    let efi = work.join("BOOTX64.EFI");
    // BIOS says which disk it started from, UEFI also which partition.
    for (format, package, file, prefix, own) in [
        (
            "i386-pc",
            "grub-pc-bin",
            &core,
            "(,gpt2)/grub",
            Some("biosdisk"),
        ),
        ("x86_64-efi", "grub-efi-amd64-bin", &efi, "/grub", None),
    ] {
        let dir = Path::new(GRUB).join(format);
        if !dir.join("moddep.lst").is_file() {
            let message = format!(
                "GRUB's modules are not installed: {} is missing",
                dir.display()
            );
            return Err(
                CliError::new(ExitCode::Missing, message).hint(format!("apt install {package}"))
            );
        }
        let mut command = GRUB_MKIMAGE.command()?;
        command
            .args(["--format", format, "--prefix", prefix])
            .arg("--directory")
            .arg(&dir)
            .arg("--output")
            .arg(file)
            .args(own)
            .args(MODULES)
            .env("SOURCE_DATE_EPOCH", super::EPOCH.to_string());
        child::run(command, |_| {})?;
    }
    let read = |path: &Path| std::fs::read(path).map_err(|e| io_error("cannot read", path, e));
    let boot = Path::new(GRUB).join("i386-pc/boot.img");
    let unusable = |path: &Path| {
        let message = format!(
            "{} is not what this version of provision expects",
            path.display()
        );
        CliError::new(ExitCode::Image, message)
            .hint("whole disks are made with GRUB 2.06 and 2.12 of Debian 12 and 13")
    };
    Ok(Loaders {
        boot_sector: read(&boot)?,
        core: plan::core_image(&read(&core)?).ok_or_else(|| unusable(&core))?,
        efi_bytes: read(&efi)?,
        efi,
    })
}

/// An empty disk with its partition table.
fn partition(work: &Path, disk: &Path) -> Result<(), CliError> {
    let script = work.join("partitions");
    std::fs::write(&script, plan::partition_table())
        .map_err(|e| io_error("cannot write", &script, e))?;
    File::create(disk)
        .and_then(|file| file.set_len(DISK_BYTES))
        .map_err(|e| io_error("cannot make", disk, e))?;
    let script = File::open(&script).map_err(|e| io_error("cannot read", &script, e))?;
    let mut command = SFDISK.command()?;
    command
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(disk)
        .stdin(script);
    child::run(command, |_| {})
}

/// The EFI system partition's file system.
fn esp(work: &Path, kernel: &Path, cmdline: &str, efi: &Path) -> Result<PathBuf, CliError> {
    let image = work.join("esp.img");
    File::create(&image)
        .and_then(|file| file.set_len(ESP.bytes()))
        .map_err(|e| io_error("cannot make", &image, e))?;
    let mut format = MKFS_FAT.command()?;
    format
        .args(["--invariant", "-i", ESP_ID, "-n", "IPOP-ESP"])
        .arg(&image);
    child::run(format, |_| {})?;
    let config = work.join("grub.cfg");
    std::fs::write(&config, plan::grub_config(cmdline))
        .map_err(|e| io_error("cannot write", &config, e))?;
    let mut folders = mtools(MMD, &image)?;
    folders.args(["::/EFI", "::/EFI/BOOT", "::/grub"]);
    child::run(folders, |_| {})?;
    for (file, to) in [
        (efi, "::/EFI/BOOT/BOOTX64.EFI"),
        (&config, "::/grub/grub.cfg"),
        (kernel, "::/vmlinuz"),
    ] {
        let mut copy = mtools(MCOPY, &image)?;
        copy.arg(file).arg(to);
        child::run(copy, |_| {})?;
    }
    Ok(image)
}

/// One of the mtools, whose time of writing is always the same.
fn mtools(tool: Tool, image: &Path) -> Result<std::process::Command, CliError> {
    let mut command = tool.command()?;
    command
        .env("SOURCE_DATE_EPOCH", super::EPOCH.to_string())
        .env("TZ", "UTC")
        .env("MTOOLSRC", "/dev/null")
        .arg("-i")
        .arg(image);
    Ok(command)
}

/// Copies a disk image into a part of another, leaving holes where it has none but zeros.
fn copy_into(
    from: &Path,
    format: &str,
    to: &Path,
    offset: u64,
    bytes: u64,
) -> Result<(), CliError> {
    // A comma would begin the next option.
    let file = to.display().to_string().replace(',', ",,");
    let mut command = child::QEMU_IMG.command()?;
    command
        .args([
            "convert",
            "-n",
            "--target-is-zero",
            "-S",
            "4k",
            "-f",
            format,
        ])
        .arg(from)
        .arg("--target-image-opts")
        .arg(format!(
            "driver=raw,offset={offset},size={bytes},file.driver=file,file.filename={file}"
        ));
    child::run(command, |_| {})
}

/// GRUB for BIOS: its first sector beside the partition table, the rest in its partition.
fn write_loaders(disk: &Path, loaders: &Loaders) -> Result<(), CliError> {
    let write = || {
        let mut file = File::options().read(true).write(true).open(disk)?;
        let mut mbr = [0; SECTOR as usize];
        file.read_exact(&mut mbr)?;
        let sector = plan::boot_sector(&loaders.boot_sector, &mbr).ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "no boot sector in boot.img",
            )
        })?;
        file.rewind()?;
        file.write_all(&sector)?;
        file.seek(SeekFrom::Start(BIOS.offset()))?;
        file.write_all(&loaders.core)?;
        file.sync_all()
    };
    write().map_err(|e| io_error("cannot write the boot loader to", disk, e))
}
