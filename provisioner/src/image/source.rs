//! Where recipes come from: compiled in, a folder instead of that, and roles of the user's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `(path below images/, content)`, written by `build.rs`.
static COMPILED_IN: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

/// All recipe files, by path relative to `images/` (`worker/recipe.toml`).
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The folders that roles were read from, by role; compiled-in roles are in none.
    pub folders: BTreeMap<String, PathBuf>,
    /// Content by path; `/` separates.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A folder of roles cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It, or something in it, cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// A role of the user's own is called like one that is there.
    #[error("{}: the role `{role}` is there already", folder.display())]
    Taken {
        /// The folder of the user's own roles.
        folder: PathBuf,
        /// The name of both.
        role: String,
    },
}

impl Source {
    /// The recipes this program was built with.
    pub fn compiled_in() -> Self {
        let files = COMPILED_IN
            .iter()
            .map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec()))
            .collect();
        Self {
            folders: BTreeMap::new(),
            files,
        }
    }

    /// Reads a folder laid out like `images/`.
    pub fn folder(dir: &Path) -> Result<Self, SourceError> {
        let mut files = BTreeMap::new();
        read_folder(dir, "", &mut files)?;
        let mut source = Self {
            folders: BTreeMap::new(),
            files,
        };
        let roles = source.roles();
        source.folders = roles
            .into_iter()
            .map(|role| (role, dir.to_owned()))
            .collect();
        Ok(source)
    }

    /// With the user's own roles beside these. They may extend these and none may replace one: who
    /// reads `extends = "worker"` must know what that is.
    pub fn with_own(mut self, dir: &Path) -> Result<Self, SourceError> {
        let own = Self::folder(dir)?;
        let known = self.roles();
        if let Some(role) = own.roles().into_iter().find(|role| known.contains(role)) {
            let folder = dir.to_owned();
            return Err(SourceError::Taken { folder, role });
        }
        self.folders.extend(own.folders);
        self.files.extend(own.files);
        Ok(self)
    }

    /// Names of all roles, sorted.
    pub fn roles(&self) -> Vec<String> {
        let role = |path: &String| {
            path.strip_suffix("/recipe.toml")
                .filter(|r| !r.contains('/'))
                .map(str::to_owned)
        };
        self.files.keys().filter_map(role).collect()
    }

    /// How the file is called in messages.
    pub fn display(&self, path: &str) -> String {
        let role = path.split('/').next().unwrap_or_default();
        match self.folders.get(role) {
            Some(dir) => dir.join(path).display().to_string(),
            None => format!("images/{path}"),
        }
    }
}

fn read_folder(
    dir: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), SourceError> {
    let failed = |e| SourceError::Read(dir.to_owned(), e);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            read_folder(&path, &format!("{name}/"), files)?;
        } else {
            let content = std::fs::read(&path).map_err(|e| SourceError::Read(path, e))?;
            files.insert(name, content);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_roles_stand_beside_those_that_are_there_and_replace_none() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("gpu/recipe.toml", "extends = 'worker'");
        write("gpu/files/etc/gpu.conf", "x");
        write("README", "not a role");
        let own = || Source::compiled_in().with_own(dir.path());
        let source = own().expect("usable");
        let roles = [
            "base", "frontend", "gateway", "gpu", "nfs", "share", "worker",
        ];
        assert_eq!(source.roles(), roles);
        assert_eq!(source.files["gpu/files/etc/gpu.conf"], b"x");
        assert_eq!(
            source.display("worker/recipe.toml"),
            "images/worker/recipe.toml"
        );
        let shown = source.display("gpu/recipe.toml");
        assert_eq!(Path::new(&shown), dir.path().join("gpu/recipe.toml"));
        write("worker/recipe.toml", "extends = 'base'");
        let error = own().expect_err("taken").to_string();
        assert!(
            error.ends_with(": the role `worker` is there already"),
            "{error}"
        );
    }
}
