//! Compiles `images/` into the binary: writes a table of its files for `image::source`.
//!
//! Nothing that it writes or tells cargo has an absolute path in it, so that working trees may share
//! a target directory.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    // Cargo runs this in the package's folder.
    let images = Path::new("../images");
    let mut files = Vec::new();
    collect(images, &mut files);
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(images).expect("below images");
        let full = format!("/{}", file.display());
        writeln!(
            table,
            "    ({:?}, include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {full:?}))),",
            name.display().to_string(),
        )
        .expect("a string takes every write");
    }
    table.push_str("]\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo")).join("recipes.rs");
    std::fs::write(out, table).expect("OUT_DIR is writable");
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    println!("cargo:rerun-if-changed={}", dir.display());
    for entry in std::fs::read_dir(dir).expect("images/ is readable") {
        let path = entry.expect("images/ is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
