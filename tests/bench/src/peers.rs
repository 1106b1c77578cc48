//! The programs that `scripts/install-bench-peers` installed.

use std::path::PathBuf;

/// Where they are, and their versions.
#[derive(Debug, Clone)]
pub struct Peers {
    dir: PathBuf,
    versions: String,
}

impl Peers {
    /// Those in `$IPOP_BENCH_PEERS`, otherwise in the user's cache directory.
    pub fn installed() -> Self {
        let cache = || {
            std::env::var_os("XDG_CACHE_HOME").map_or_else(
                || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
                PathBuf::from,
            )
        };
        let dir = std::env::var_os("IPOP_BENCH_PEERS")
            .map_or_else(|| cache().join("ipop-bench"), PathBuf::from);
        let versions = std::fs::read_to_string(dir.join("versions")).unwrap_or_default();
        Self { dir, versions }
    }

    /// Path of a program, whether it is there or not.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// Version of a package if `program` of it is there.
    pub fn version(&self, package: &str, program: &str) -> Option<String> {
        if !self.program(program).exists() {
            return None;
        }
        let row = self.versions.lines().find_map(|line| {
            let mut fields = line.split('\t');
            (fields.next() == Some(package)).then(|| fields.collect::<Vec<_>>())
        });
        Some(match row.as_deref() {
            Some([version, origin]) => format!("{version} ({origin})"),
            _ => "unknown".to_owned(),
        })
    }
}
