//! An MPI program for workers that have no MPI: with its libraries it goes into the folder that all
//! workers see, as a user of a cluster would have it. Needs the packages `libopenmpi-dev` and
//! `openmpi-bin`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Where the programs of Open MPI find its plug-ins.
const PLUGINS: &str = "/usr/lib/x86_64-linux-gnu/openmpi/lib/openmpi3";
/// The C library's, which workers have.
const SYSTEM: [&str; 3] = ["libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"];
/// Runs the program with what is in its folder. Open MPI takes any interface that it finds, also those
/// that workers do not reach each other by.
const RUN: &str = r#"#!/bin/sh
here=$(dirname "$0")
export LD_LIBRARY_PATH="$here"
export OMPI_MCA_mca_base_component_path="$here/plugins" OMPI_MCA_mca_base_component_show_load_errors=0
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=ipop0
exec "$here/ring"
"#;

/// Builds `ring.c`. A tar archive, compressed by gzip, of the folder `mpi` with its `run`: each rank
/// hands a megabyte to the next, and says on which host it was and what it was handed.
pub fn ring() -> Vec<u8> {
    let dir = TempDir::with_prefix("ipop-mpi-").expect("temporary directory");
    let folder = dir.path().join("mpi");
    let plugins = folder.join("plugins");
    fs::create_dir_all(&plugins).expect("a folder");
    let program = folder.join("ring");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/ring.c");
    run(Command::new("mpicc")
        .args(["-O2", "-o"])
        .args([&program, &source]));
    for library in libraries(&program) {
        copy(&library, &folder);
    }
    for plugin in fs::read_dir(PLUGINS).expect("Open MPI's plug-ins") {
        copy(&plugin.expect("an entry").path(), &plugins);
    }
    fs::write(folder.join("run"), RUN).expect("written");
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&folder));
    run(Command::new("chmod").arg("a+x").arg(folder.join("run")));
    run(Command::new("tar")
        .args(["--create", "--gzip", "--owner=root", "--group=root", "-C"])
        .arg(dir.path())
        .arg("mpi"))
}

/// What the dynamic linker finds for a program, without the C library.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = run(Command::new("ldd").arg(program));
    let listed = String::from_utf8_lossy(&listed);
    let found = |line: &str| {
        let path = line.split_once("=> ")?.1.split(' ').next()?;
        let path = PathBuf::from(path);
        let name = path.file_name()?.to_str()?;
        (!SYSTEM.contains(&name)).then_some(path)
    };
    listed.lines().filter_map(found).collect()
}

fn copy(file: &Path, folder: &Path) {
    let name = file.file_name().expect("a file");
    fs::copy(file, folder.join(name)).unwrap_or_else(|e| panic!("{file:?}: {e}"));
}

/// Runs a command that must succeed, and gives its standard output.
fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}
