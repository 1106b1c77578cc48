//! Where `provision` keeps its files.

use std::path::{Path, PathBuf};

/// The state and cache directories.
///
/// As root `/var/lib/ipop-provision` and `/var/cache/ipop-provision`, otherwise below
/// `$XDG_STATE_HOME` and `$XDG_CACHE_HOME`; `IPOP_STATE_DIR` and `IPOP_CACHE_DIR` override.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Deployments, the database, keys. Mode 0700.
    pub state: PathBuf,
    /// Built images and downloaded packages; may be deleted at any time.
    pub cache: PathBuf,
}

impl Layout {
    /// The state database.
    pub fn database(&self) -> PathBuf {
        self.state.join("state.db")
    }

    /// All files of one deployment. Removed by destroy.
    pub fn deployment(&self, name: &str) -> PathBuf {
        self.state.join("deployments").join(name)
    }

    /// The deployment's embedded rendezvous: configuration, certificate, spool, logs.
    pub fn rendezvous(&self, name: &str) -> PathBuf {
        self.deployment(name).join("rendezvous")
    }

    /// The deployment's SSH keys and `known_hosts`.
    pub fn ssh(&self, name: &str) -> PathBuf {
        self.deployment(name).join("ssh")
    }

    /// Console log of a node, as recorded while it joined.
    pub fn console(&self, deployment: &str, node: &str) -> PathBuf {
        self.deployment(deployment).join("console").join(format!("{node}.log"))
    }

    /// Built images.
    pub fn images(&self) -> PathBuf {
        self.cache.join("images")
    }

    /// Creates both directories, readable by the owner only.
    pub fn create(&self) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        for dir in [&self.state, &self.cache] as [&Path; 2] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(())
    }
}
