//! Second stage: the role's files and the node on top of the packages, as a bootable disk.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};

use super::cache::io_error;
use super::packages::Packages;
use super::recipe::Recipe;
use super::{child, hash, plan};

/// Size of the file system in the image; it grows to its disk at boot.
const FILE_SYSTEM_MIB: u32 = 1024;
/// Fixed, so that equal content makes an equal file system.
const FILE_SYSTEM_UUID: &str = "69706f70-0000-4000-8000-000000000001";
/// What `hash_seed` is fixed to, for the same reason.
const HASH_SEED: &str = "69706f70-0000-4000-8000-000000000002";

/// Names of the outputs in the image's folder.
pub const DISK: &str = "root.qcow2";
/// The kernel.
pub const KERNEL: &str = "vmlinuz";
/// The manifest.
pub const MANIFEST: &str = "manifest.json";

/// What an image is made of, written beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Role.
    pub role: String,
    /// Content hash of the image.
    pub hash: String,
    /// Debian suite.
    pub suite: String,
    /// Hash of the recipe with everything it extends.
    pub recipe: String,
    /// SHA-256 of the `ipop-node` inside.
    pub ipop_node: String,
    /// Kernel command line.
    pub cmdline: String,
    /// Credentials a machine must be given.
    pub credentials: Vec<String>,
    /// SHA-256 of the output files, by name.
    pub outputs: BTreeMap<String, String>,
    /// Every installed package with its version.
    pub packages: BTreeMap<String, String>,
}

/// What goes into [`stage`].
pub struct Inputs<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Hash of the image to be.
    pub hash: &'a str,
    /// The package stage and its tar file.
    pub packages: (&'a Packages, &'a Path),
    /// The static `ipop-node` and its SHA-256.
    pub node: (&'a Path, &'a str),
}

/// What a root file system is made from, and where the results go; both below `work`.
pub struct Tree {
    /// The files.
    pub root: PathBuf,
    /// A folder with the kernel in it.
    pub out: PathBuf,
}

/// Unpacks the packages and puts the role's files among theirs. `progress` is told of three steps.
pub fn tree(
    inputs: &Inputs<'_>,
    work: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Tree, CliError> {
    let (tree, out) = (work.join("tree"), work.join("out"));
    for dir in [&tree, &out] {
        std::fs::create_dir(dir).map_err(|e| io_error("cannot make the folder", dir, e))?;
    }
    progress(0);
    let mut unpack = child::TAR.command()?;
    unpack
        .args([
            "--extract",
            "--preserve-permissions",
            "--same-owner",
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
        ])
        .arg("--file")
        .arg(inputs.packages.1)
        .arg("--directory")
        .arg(&tree);
    child::run(unpack, |_| {})?;
    progress(1);
    let kernel = kernel(&tree)?;
    copy(&kernel, &out.join(KERNEL))?;
    dress(inputs, &tree)?;
    progress(2);
    Ok(Tree { root: tree, out })
}

/// Makes disk, kernel and manifest in a new folder below `work`, and returns that folder.
pub fn stage(inputs: &Inputs<'_>, work: &Path, events: &dyn Sink) -> Result<PathBuf, CliError> {
    let what = format!("image {}: disk", inputs.recipe.role);
    let progress = |done| {
        events.emit(Event::Progress {
            what: what.clone(),
            done,
            total: 5,
        })
    };
    let Tree { root: tree, out } = tree(inputs, work, progress)?;
    let raw = work.join("root.raw");
    let mut format = child::MKE2FS.command()?;
    format
        .args([
            "-q",
            "-t",
            "ext4",
            "-L",
            "ipop-root",
            "-m",
            "0",
            "-b",
            "4096",
        ])
        .args(["-U", FILE_SYSTEM_UUID])
        .args([
            "-E",
            &format!("hash_seed={HASH_SEED},root_owner=0:0,lazy_itable_init=0,nodiscard"),
        ])
        // Room for the tables of a much larger disk, so that growing at boot moves nothing.
        .args(["-O", "resize_inode,metadata_csum"])
        .arg("-d")
        .arg(&tree)
        .arg(&raw)
        .arg(format!("{FILE_SYSTEM_MIB}M"))
        .env("SOURCE_DATE_EPOCH", super::EPOCH.to_string())
        .env("E2FSPROGS_FAKE_TIME", super::EPOCH.to_string());
    child::run(format, |_| {})?;
    progress(3);

    let mut convert = child::QEMU_IMG.command()?;
    convert
        .args([
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-c",
            "-o",
            "compression_type=zstd",
        ])
        .arg(&raw)
        .arg(out.join(DISK));
    child::run(convert, |_| {})?;
    progress(4);
    write_manifest(inputs, &inputs.recipe.cmdline, &[DISK, KERNEL], &out)?;
    progress(5);
    Ok(out)
}

/// Puts the role's files and links, and the node, into the unpacked tree.
fn dress(inputs: &Inputs<'_>, tree: &Path) -> Result<(), CliError> {
    for path in [
        "etc/apt/apt.conf.d/99mmdebstrap",
        "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
        "etc/hostname",
        "etc/resolv.conf",
    ] {
        remove(&tree.join(path))?;
    }
    for (path, content) in plan::files(inputs.recipe) {
        let at = below(tree, &path)?;
        remove(&at)?;
        std::fs::write(&at, &content).map_err(|e| io_error("cannot write", &at, e))?;
        permit(&at, plan::mode(&content))?;
    }
    for (path, target) in plan::links(inputs.recipe) {
        let inside = tree.join(target.trim_start_matches('/'));
        if path.contains(".wants/") && inside.symlink_metadata().is_err() {
            return Err(CliError::new(
                ExitCode::Config,
                format!(
                    "role {} enables {target}, which no package and no file of the role has",
                    inputs.recipe.role
                ),
            ));
        }
        let at = below(tree, &path)?;
        remove(&at)?;
        std::os::unix::fs::symlink(&target, &at)
            .map_err(|e| io_error("cannot make the link", &at, e))?;
    }
    let node = tree.join("usr/bin/ipop-node");
    copy(inputs.node.0, &node)?;
    permit(&node, 0o755)?;
    // The kernel comes from outside, the package's files about it are dead weight.
    remove_tree(&tree.join("boot"))?;
    std::fs::create_dir(tree.join("boot"))
        .map_err(|e| io_error("cannot make the folder", &tree.join("boot"), e))?;
    for path in ["vmlinuz", "vmlinuz.old"] {
        remove(&tree.join(path))?;
    }
    for path in [
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "usr/share/info",
        "var/cache/apt",
        "var/lib/apt/lists",
    ] {
        remove_tree(&tree.join(path))?;
    }
    Ok(())
}

/// Writes the manifest of these files beside them.
pub fn write_manifest(
    inputs: &Inputs<'_>,
    cmdline: &str,
    files: &[&str],
    out: &Path,
) -> Result<(), CliError> {
    let mut outputs = BTreeMap::new();
    for name in files {
        let path = out.join(name);
        let sha256 = hash::sha256_file(&path).map_err(|e| io_error("cannot read", &path, e))?;
        outputs.insert((*name).to_owned(), sha256);
    }
    let recipe = inputs.recipe;
    let manifest = Manifest {
        role: recipe.role.clone(),
        hash: inputs.hash.to_owned(),
        suite: recipe.suite.clone(),
        recipe: plan::recipe_hash(recipe),
        ipop_node: inputs.node.1.to_owned(),
        cmdline: cmdline.to_owned(),
        credentials: recipe.credentials.iter().cloned().collect(),
        outputs,
        packages: inputs.packages.0.versions.clone(),
    };
    let json = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| CliError::new(ExitCode::Internal, "cannot write the manifest").caused_by(e))?;
    let path = out.join(MANIFEST);
    std::fs::write(&path, json).map_err(|e| io_error("cannot write", &path, e))
}

/// The one kernel in the tree.
fn kernel(tree: &Path) -> Result<PathBuf, CliError> {
    let boot = tree.join("boot");
    let listed = std::fs::read_dir(&boot).map_err(|e| io_error("cannot read", &boot, e))?;
    let mut kernels: Vec<_> = listed
        .flatten()
        .map(|e| e.path())
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-"))
        })
        .collect();
    kernels.sort();
    kernels.pop().ok_or_else(|| {
        CliError::new(ExitCode::Config, "the recipe's packages hold no kernel")
            .hint("add linux-image-cloud-amd64")
    })
}

/// Where an absolute path of the guest is in the tree; makes its folder.
fn below(tree: &Path, path: &str) -> Result<PathBuf, CliError> {
    let at = tree.join(path.trim_start_matches('/'));
    if let Some(parent) = at.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|e| io_error("cannot make the folder", parent, e))?;
    }
    Ok(at)
}

fn copy(from: &Path, to: &Path) -> Result<(), CliError> {
    std::fs::copy(from, to)
        .map(drop)
        .map_err(|e| io_error("cannot write", to, e))
}

fn permit(path: &Path, mode: u32) -> Result<(), CliError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|e| io_error("cannot set the permissions of", path, e))
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("cannot remove", path, e))
        }
        _ => Ok(()),
    }
}

/// Removes a folder, if it is there.
pub fn remove_tree(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("cannot remove", path, e))
        }
        _ => Ok(()),
    }
}
