//! Builds images: a recipe, Debian's packages and `ipop-node` become a disk and a kernel.
//!
//! Stages, each kept by the hash of what went into it: `packages` (minutes; shared by roles that
//! ask for the same packages), `root` (seconds), and for clouds `whole` (seconds), a disk that
//! boots by itself around that same root file system; or `netboot` in place of `root`, for machines
//! without a disk. No loop mount, no virtual machine; root is
//! needed for the owners of files. Secrets and host keys never enter an image.

pub mod cache;
pub mod child;
pub mod hash;
pub mod mirror;
pub mod netboot;
pub mod packages;
pub mod plan;
pub mod prebuilt;
pub mod recipe;
pub mod root;
pub mod source;
pub mod whole;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::plan::roles::Roles;
use crate::provider::{Image, ImageForm};

use cache::{Cache, io_error};
use mirror::Mirror;
use recipe::{Recipe, RecipeError};
use source::{Source, SourceError};

/// The time that all files of an image carry (1 January 2025), so that builds can be compared.
pub const EPOCH: u64 = 1_735_689_600;

/// Where the inputs of a build are and where its results go.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Folder for results and downloads ([`crate::layout::Layout::images`]).
    pub cache: PathBuf,
    /// Folder of recipes instead of the compiled-in ones.
    pub recipes: Option<PathBuf>,
    /// Folder of the user's own roles beside these, if there is one.
    pub roles: Option<PathBuf>,
    /// The static `ipop-node`; `None` looks beside `provision` and in the build folder.
    pub node_binary: Option<PathBuf>,
    /// Debian mirror (`http://host/debian`); `None` takes this machine's own.
    pub mirror: Option<String>,
    /// Installs the packages anew, with whatever updates the mirror has.
    pub refresh: bool,
}

impl BuildOptions {
    /// Options with the given cache folder and the rest from `IPOP_RECIPES`, `IPOP_ROLES` (or the
    /// usual folder of own roles), `IPOP_NODE_BINARY` and `IPOP_DEBIAN_MIRROR`.
    pub fn from_env(cache: PathBuf) -> Self {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        Self {
            cache,
            recipes: var("IPOP_RECIPES").map(Into::into),
            roles: var("IPOP_ROLES").map(Into::into).or_else(|| {
                let usual = crate::layout::configuration("roles", |name| std::env::var_os(name));
                usual.into_iter().find(|dir| dir.is_dir())
            }),
            node_binary: var("IPOP_NODE_BINARY").map(Into::into),
            mirror: var("IPOP_DEBIAN_MIRROR").map(|v| v.to_string_lossy().into_owned()),
            refresh: false,
        }
    }

    fn source(&self) -> Result<Source, CliError> {
        let recipes = match &self.recipes {
            None => Source::compiled_in(),
            Some(dir) => Source::folder(dir).map_err(|e| {
                unusable(e)
                    .hint("--recipes and IPOP_RECIPES name a folder with one folder per role")
            })?,
        };
        match &self.roles {
            None => Ok(recipes),
            Some(dir) => recipes.with_own(dir).map_err(|e| match e {
                SourceError::Taken { .. } => unusable(e).hint(
                    "call yours otherwise; `extends` in its recipe names the role that it adds to",
                ),
                SourceError::Read(..) => unusable(e)
                    .hint("IPOP_ROLES names a folder with one folder for each of your roles"),
            }),
        }
    }

    /// What each role extends.
    pub fn lineages(&self) -> Result<Roles, CliError> {
        let source = self.source()?;
        let roles = source.roles().into_iter().map(|role| {
            let recipe = Recipe::load(&source, &role);
            (role, recipe.map(|r| r.extends).map_err(|e| e.to_string()))
        });
        Ok(Roles::new(roles))
    }

    /// The templates of a role's credentials, by credential.
    pub fn templates(&self, role: &str) -> Result<BTreeMap<String, String>, CliError> {
        let recipe = Recipe::load(&self.source()?, role).map_err(recipe_error)?;
        Ok(recipe.templates)
    }

    fn mirror(&self) -> Result<Mirror, CliError> {
        let own = Mirror::of_host(Path::new("/etc/apt"));
        match (&self.mirror, own) {
            (Some(main), own) => {
                let security = own
                    .filter(|own| own.main == *main)
                    .and_then(|own| own.security);
                Ok(Mirror {
                    main: main.trim_end_matches('/').to_owned(),
                    security,
                })
            }
            (None, Some(own)) => Ok(own),
            (None, None) => Err(CliError::new(
                ExitCode::Config,
                "no Debian mirror is configured below /etc/apt",
            )
            .hint("name one with --mirror or IPOP_DEBIAN_MIRROR")),
        }
    }

    /// The static `ipop-node`, for machines that start from no image.
    pub fn static_node(&self) -> Result<PathBuf, CliError> {
        let node = self.node_binary()?;
        static_or_error(&node)?;
        Ok(node)
    }

    fn node_binary(&self) -> Result<PathBuf, CliError> {
        let candidates = match &self.node_binary {
            Some(path) => vec![path.clone()],
            None => beside_this_program(),
        };
        candidates
            .iter()
            .find(|path| path.is_file())
            .cloned()
            .ok_or_else(|| {
                let looked: Vec<_> = candidates.iter().map(|p| p.display().to_string()).collect();
                CliError::new(
                    ExitCode::Missing,
                    format!("no static ipop-node at {}", looked.join(" or ")),
                )
                .hint("build it, or name it with --node-binary or IPOP_NODE_BINARY")
            })
    }
}

/// The roles that can be built with these options.
pub fn roles_of(options: &BuildOptions) -> Result<Vec<String>, CliError> {
    Ok(options.source()?.roles())
}

/// Builds the image of a role, or returns the one in the cache when nothing has changed.
///
/// Both forms have the same root file system, which is built once. The hash of a
/// [`ImageForm::Whole`] covers the boot loaders too, so it is another than that of the
/// [`ImageForm::Direct`] beside it.
pub fn build(
    role: &str,
    form: ImageForm,
    options: &BuildOptions,
    events: &dyn Sink,
) -> Result<Image, CliError> {
    let inputs = Inputs::load(role, options)?;
    for tool in [child::MKE2FS, child::QEMU_IMG] {
        tool.find()?;
    }
    let (cache, _lock) = inputs.cache(options, events)?;
    let (hash, dir) = inputs.stage(&cache, role, root::stage, options, events)?;
    let mut image = Image {
        role: role.to_owned(),
        hash,
        disk: dir.join(root::DISK),
        kernel: dir.join(root::KERNEL),
        initrd: None,
        cmdline: inputs.recipe.cmdline,
        whole: None,
    };
    if form == ImageForm::Whole {
        let inputs = whole::Inputs {
            role,
            hash: &image.hash,
            cmdline: &image.cmdline,
            root: &image.disk,
            kernel: &image.kernel,
        };
        let whole = whole::stage(&cache, &inputs, events)?;
        image.hash = whole.hash;
        image.whole = Some(whole.disk);
    }
    Ok(image)
}

/// A role's files for machines without a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netboot {
    /// Content hash.
    pub hash: String,
    /// The folder with [`netboot::FILES`].
    pub dir: PathBuf,
}

/// Builds the form of a role that machines without a disk boot from the network, or returns the one
/// in the cache when nothing has changed.
pub fn build_netboot(
    role: &str,
    options: &BuildOptions,
    events: &dyn Sink,
) -> Result<Netboot, CliError> {
    let mut inputs = Inputs::load(role, options)?;
    inputs.recipe = inputs
        .recipe
        .without_disk()
        .ok_or_else(|| netboot::needs_disk(role))?;
    let (cache, _lock) = inputs.cache(options, events)?;
    // Beside the other forms of the role, and never taken for one when these are pruned.
    let name = format!("{role}.netboot");
    let (hash, dir) = inputs.stage(&cache, &name, netboot::stage, options, events)?;
    Ok(Netboot { hash, dir })
}

/// What an image is built from.
struct Inputs {
    recipe: Recipe,
    node: PathBuf,
    node_sha256: String,
}

impl Inputs {
    fn load(role: &str, options: &BuildOptions) -> Result<Self, CliError> {
        let recipe = Recipe::load(&options.source()?, role).map_err(recipe_error)?;
        let node = options.node_binary()?;
        static_or_error(&node)?;
        let node_sha256 =
            hash::sha256_file(&node).map_err(|e| io_error("cannot read", &node, e))?;
        for tool in [child::MMDEBSTRAP, child::TAR] {
            tool.find()?;
        }
        Ok(Self {
            recipe,
            node,
            node_sha256,
        })
    }

    /// The cache, locked for the role.
    fn cache(
        &self,
        options: &BuildOptions,
        events: &dyn Sink,
    ) -> Result<(Cache, cache::Lock), CliError> {
        let cache = Cache::open(&options.cache)?;
        let role = &self.recipe.role;
        let lock = cache.lock(role, || {
            events.emit(Event::Step {
                message: format!("image {role}: waiting for another build"),
            });
        })?;
        Ok((cache, lock))
    }

    /// What `make` makes of the packages, kept in the cache as `name`: its hash and folder.
    fn stage(
        &self,
        cache: &Cache,
        name: &str,
        make: impl FnOnce(&root::Inputs<'_>, &Path, &dyn Sink) -> Result<PathBuf, CliError>,
        options: &BuildOptions,
        events: &dyn Sink,
    ) -> Result<(String, PathBuf), CliError> {
        let mirror = || {
            root_or_error()?;
            options.mirror()
        };
        let (packages, tar) =
            packages::stage(cache, &self.recipe, mirror, options.refresh, events)?;
        let hash = plan::image_hash(&self.recipe, &packages.sha256, &self.node_sha256);
        let dir = cache.built(name, &hash);
        if !dir.join(root::MANIFEST).exists() {
            root_or_error()?;
            let work = cache.work(name)?;
            let inputs = root::Inputs {
                recipe: &self.recipe,
                hash: &hash,
                packages: (&packages, &tar),
                node: (&self.node, &self.node_sha256),
            };
            let made = make(&inputs, &work, events).and_then(|out| cache.publish(&out, &dir));
            cache.discard(&work)?;
            made?;
            cache.prune(name, &dir)?;
        }
        Ok((hash, dir))
    }
}

fn unusable(error: SourceError) -> CliError {
    let message = error.to_string();
    let cli = CliError::new(ExitCode::Config, message);
    match error {
        SourceError::Read(_, source) => cli.caused_by(source),
        SourceError::Taken { .. } => cli,
    }
}

fn recipe_error(error: RecipeError) -> CliError {
    let code = match error {
        RecipeError::UnknownRole { .. } => ExitCode::Name,
        _ => ExitCode::Config,
    };
    CliError::new(code, error.to_string())
}

fn beside_this_program() -> Vec<PathBuf> {
    let Ok(program) = std::env::current_exe() else {
        return Vec::new();
    };
    let static_build = "x86_64-unknown-linux-gnu/release/ipop-node";
    // target/<profile>/provision, or one folder deeper for tests. The static build comes first:
    // what lies beside `provision` in a build folder is linked dynamically.
    let mut candidates: Vec<_> = program
        .ancestors()
        .skip(1)
        .take(3)
        .map(|dir| dir.join(static_build))
        .collect();
    candidates.extend(program.parent().map(|dir| dir.join("ipop-node")));
    candidates
}

/// A dynamically linked node would need the guest to have this machine's libraries.
fn static_or_error(node: &Path) -> Result<(), CliError> {
    let bytes = std::fs::read(node).map_err(|e| io_error("cannot read", node, e))?;
    match has_interpreter(&bytes) {
        Some(false) => Ok(()),
        Some(true) => Err(CliError::new(ExitCode::Missing, format!("{} is not linked statically", node.display()))
            .hint("build it with RUSTFLAGS='-C target-feature=+crt-static' and --target x86_64-unknown-linux-gnu")),
        None => Err(CliError::new(ExitCode::Missing, format!("{} is not a 64-bit ELF program", node.display()))),
    }
}

/// Whether an ELF64 file asks for a dynamic loader (a `PT_INTERP` program header).
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let header = elf
        .get(..64)
        .filter(|h| h.starts_with(b"\x7fELF\x02\x01"))?;
    let offset = usize::try_from(u64::from_le_bytes(header[32..40].try_into().ok()?)).ok()?;
    let size = usize::from(u16::from_le_bytes([header[54], header[55]]));
    let count = usize::from(u16::from_le_bytes([header[56], header[57]]));
    let kind = |i: usize| {
        let at = offset.checked_add(i * size)?;
        Some(u32::from_le_bytes(
            elf.get(at..at.checked_add(4)?)?.try_into().ok()?,
        ))
    };
    Some((0..count).any(|i| kind(i) == Some(PT_INTERP)))
}

fn root_or_error() -> Result<(), CliError> {
    use std::os::unix::fs::MetadataExt as _;
    let uid = std::fs::metadata("/proc/self").map(|m| m.uid());
    if matches!(uid, Ok(0)) {
        return Ok(());
    }
    Err(CliError::new(
        ExitCode::Missing,
        "building an image needs root: its files belong to many users",
    )
    .hint("run it with sudo; using a finished image does not need root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(cache: &Path) -> BuildOptions {
        BuildOptions {
            cache: cache.to_owned(),
            ..BuildOptions::default()
        }
    }

    #[test]
    fn a_role_that_does_not_exist_is_a_wrong_name() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let error = build("wroker", ImageForm::Direct, &options(dir.path()), &|_| {})
            .expect_err("no such role");
        assert_eq!(error.code, ExitCode::Name);
    }

    #[test]
    fn a_missing_node_binary_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let wanted = BuildOptions {
            node_binary: Some("/nowhere/ipop-node".into()),
            ..options(dir.path())
        };
        let error = build("worker", ImageForm::Direct, &wanted, &|_| {}).expect_err("no such file");
        assert_eq!(
            (error.code, error.message.as_str()),
            (
                ExitCode::Missing,
                "no static ipop-node at /nowhere/ipop-node"
            )
        );
    }

    #[test]
    fn a_dynamically_linked_node_is_refused_before_anything_is_built() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let dynamic = BuildOptions {
            node_binary: Some("/bin/sh".into()),
            ..options(dir.path())
        };
        let error = build("worker", ImageForm::Direct, &dynamic, &|_| {}).expect_err("not static");
        assert_eq!(error.message, "/bin/sh is not linked statically");
    }

    #[test]
    fn a_text_file_is_no_program_and_a_cut_one_no_panic() {
        assert_eq!(has_interpreter(b"#!/bin/sh"), None);
        let sh = std::fs::read("/bin/sh").expect("a shell");
        assert_eq!(has_interpreter(&sh[..64]), Some(false));
        assert_eq!(has_interpreter(&sh), Some(true));
    }
}
