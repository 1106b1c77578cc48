//! What boots machines from the network, and machines that have nothing else to boot from. The
//! services are configured by the files that `docs/pxe.md` shows.

pub mod cache;
pub mod frontend;
pub mod machine;
pub mod web;
mod worker;

use std::path::{Path, PathBuf};

pub use worker::{Worker, ballast};

/// One of the files that are documented.
fn documented(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/pxe")
        .join(name)
}
