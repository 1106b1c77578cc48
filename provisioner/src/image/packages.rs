//! First stage: the packages, installed into an otherwise untouched root, as a tar file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};

use super::cache::{Cache, io_error};
use super::mirror::Mirror;
use super::recipe::Recipe;
use super::{child, hash, plan};

/// Steps `mmdebstrap` announces, for the progress bar.
const STEPS: &[&str] = &[
    "running apt-get update",
    "downloading packages with apt",
    "extracting archives",
    "installing essential packages",
    "installing remaining packages",
    "cleaning package lists",
    "creating tarball",
];

/// Where Debian keeps the keys of its archive.
const KEYRING_DIR: &str = "/usr/share/keyrings";

/// A finished package stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Packages {
    /// Every installed package with its version.
    pub versions: std::collections::BTreeMap<String, String>,
    /// SHA-256 of the tar file.
    pub sha256: String,
}

/// The stage from the cache, or installed now. Returns it with its tar file.
pub fn stage(
    cache: &Cache,
    recipe: &Recipe,
    mirror: impl FnOnce() -> Result<Mirror, CliError>,
    refresh: bool,
    events: &dyn Sink,
) -> Result<(Packages, PathBuf), CliError> {
    let dir = cache.packages(&plan::packages_key(recipe));
    if let Some(done) = read(&dir).filter(|_| !refresh) {
        return Ok((done, dir.join("root.tar")));
    }
    let what = format!("image {}: packages", recipe.role);
    // One at a time: roles share most of what is downloaded.
    let _lock = cache.lock("packages", || {
        events.emit(Event::Step {
            message: format!("{what}: waiting for another build"),
        });
    })?;
    if let Some(done) = read(&dir).filter(|_| !refresh) {
        return Ok((done, dir.join("root.tar")));
    }
    let work = cache.work("packages")?;
    let tar = work.join("root.tar");
    install(cache, recipe, &mirror()?, &work, &tar, &what, events)?;
    let status = work.join("status");
    let text = std::fs::read_to_string(&status).map_err(|e| io_error("cannot read", &status, e))?;
    let sha256 = hash::sha256_file(&tar).map_err(|e| io_error("cannot read", &tar, e))?;
    let packages = Packages {
        versions: installed(&text),
        sha256,
    };
    let json = serde_json::to_vec_pretty(&packages).map_err(|e| {
        CliError::new(ExitCode::Internal, "cannot write the package list").caused_by(e)
    })?;
    let list = work.join("packages.json");
    std::fs::write(&list, json).map_err(|e| io_error("cannot write", &list, e))?;
    cache.discard(&work.join("tmp"))?;
    cache.publish(&work, &dir)?;
    Ok((packages, dir.join("root.tar")))
}

fn read(dir: &Path) -> Option<Packages> {
    let json = std::fs::read(dir.join("packages.json")).ok()?;
    dir.join("root.tar")
        .exists()
        .then(|| serde_json::from_slice(&json).ok())?
}

fn install(
    cache: &Cache,
    recipe: &Recipe,
    mirror: &Mirror,
    work: &Path,
    tar: &Path,
    what: &str,
    events: &dyn Sink,
) -> Result<(), CliError> {
    if !Path::new(KEYRING_DIR)
        .join("debian-archive-keyring.gpg")
        .exists()
    {
        return Err(CliError::new(
            ExitCode::Missing,
            "the keys of Debian's archive are not installed",
        )
        .hint("apt install debian-archive-keyring"));
    }
    let tmp = work.join("tmp");
    std::fs::create_dir_all(&tmp).map_err(|e| io_error("cannot make the folder", &tmp, e))?;
    // No host's APT configuration is read by mmdebstrap; what it does not say, we say.
    let debs = cache.debs();
    let (debs, status) = (quoted(&debs), quoted(&work.join("status")));
    let mut command = child::MMDEBSTRAP.command()?;
    command
        .args(["--mode=root", "--variant=minbase", "--format=tar"])
        .arg(format!("--keyring={KEYRING_DIR}"))
        .args(["--skip=download/empty", "--skip=essential/unlink"])
        // Nothing reads this root before it is whole, so nothing need be flushed on the way.
        .arg("--dpkgopt=force-unsafe-io")
        // The cache is readable by its owner alone, which APT's own user is not.
        .arg("--aptopt=APT::Sandbox::User \"root\"")
        .arg("--setup-hook=mkdir -p \"$1/var/cache/apt/archives\"")
        .arg(format!("--setup-hook=cp -f --link {debs}/*.deb \"$1/var/cache/apt/archives/\" 2>/dev/null || true"))
        .arg(format!("--customize-hook=cp -f --link \"$1\"/var/cache/apt/archives/*.deb {debs}/"))
        .arg(format!("--customize-hook=cp \"$1/var/lib/dpkg/status\" {status}"))
        // Keys are each machine's own.
        .arg("--customize-hook=rm -f \"$1\"/etc/ssh/ssh_host_* \"$1/etc/munge/munge.key\" \"$1/etc/hostname\" \"$1/etc/resolv.conf\"")
        .arg(format!("--include={}", recipe.packages.iter().map(String::as_str).collect::<Vec<_>>().join(",")))
        .arg(&recipe.suite)
        .arg(tar)
        .args(mirror.lines(&recipe.suite))
        .env("TMPDIR", &tmp)
        .env("SOURCE_DATE_EPOCH", super::EPOCH.to_string())
        // No initial RAM disk: the kernel finds its root by itself.
        .env("INITRD", "No");
    events.emit(Event::Step {
        message: format!("{what}: installing from {}", mirror.main),
    });
    let mut done = 0;
    let total = STEPS.len() as u64;
    child::run(command, |line| {
        let step = line
            .strip_prefix("I: ")
            .and_then(|l| STEPS.iter().position(|s| l.starts_with(s)));
        if let Some(step) = step {
            done = step as u64;
            events.emit(Event::Progress {
                what: what.to_owned(),
                done,
                total,
            });
        }
    })
    .map_err(|e| e.hint("is the mirror reachable? --mirror or IPOP_DEBIAN_MIRROR names another"))?;
    events.emit(Event::Progress {
        what: what.to_owned(),
        done: total,
        total,
    });
    Ok(())
}

/// A path as one word of a shell command.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Name and version of every package in dpkg's status file.
fn installed(status: &str) -> std::collections::BTreeMap<String, String> {
    let stanza = |text: &str| {
        let field = |name: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(name))
                .map(str::to_owned)
        };
        field("Status: ")?
            .ends_with(" installed")
            .then(|| Some((field("Package: ")?, field("Version: ")?)))?
    };
    status.split("\n\n").filter_map(stanza).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_read_from_the_status_file() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1.2-3\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
        assert_eq!(
            installed(status).into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), "1.2-3".to_owned())]
        );
    }

    #[test]
    fn a_path_with_a_quote_stays_one_word() {
        assert_eq!(quoted(Path::new("/a 'b'")), r"'/a '\''b'\'''");
    }
}
