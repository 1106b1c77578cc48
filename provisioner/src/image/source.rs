//! Where recipes come from: compiled in, or a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `(path below images/, content)`, written by `build.rs`.
static COMPILED_IN: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

/// All recipe files, by path relative to `images/` (`worker/recipe.toml`).
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// What paths are shown relative to in messages; `None` for the compiled-in recipes.
    pub folder: Option<PathBuf>,
    /// Content by path; `/` separates.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Source {
    /// The recipes this program was built with.
    pub fn compiled_in() -> Self {
        let files = COMPILED_IN
            .iter()
            .map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec()))
            .collect();
        Self {
            folder: None,
            files,
        }
    }

    /// Reads a folder laid out like `images/`.
    pub fn folder(dir: &Path) -> std::io::Result<Self> {
        let mut files = BTreeMap::new();
        read_folder(dir, "", &mut files)?;
        Ok(Self {
            folder: Some(dir.to_owned()),
            files,
        })
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
        match &self.folder {
            Some(dir) => dir.join(path).display().to_string(),
            None => format!("images/{path}"),
        }
    }
}

fn read_folder(
    dir: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read_folder(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(())
}
