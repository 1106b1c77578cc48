//! The Debian packages, made as `scripts/package` makes them and looked into with dpkg's own tools.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What cargo tells a test of itself. Build scripts that look at some of it would have what they made
/// built anew.
const OF_CARGO: [&str; 3] = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_EXE_"];

fn run(program: &str, args: &[&str], dir: &Path) -> String {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        if OF_CARGO.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let output = command
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    checked(program, output)
}

fn checked(program: &str, output: Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program}: {}\n{}",
        output.status,
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[test]
fn both_packages_carry_programs_manuals_completions_and_units() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository");
    let made = run("scripts/package", &["dev"], root);
    let packages: Vec<PathBuf> = made.lines().map(|line| root.join(line)).collect();
    assert_eq!(packages.len(), 2, "{made}");
    let tree = tempfile::tempdir().expect("a directory");
    let tree = tree.path();
    for package in &packages {
        let package = package.to_str().expect("UTF-8");
        run("dpkg-deb", &["--extract", package, "."], tree);
    }

    for program in ["ipop-node", "provision"] {
        let version = run(&format!("./usr/bin/{program}"), &["--version"], tree);
        assert!(version.starts_with(program), "{version}");
        let page = format!("usr/share/man/man1/{program}.1.gz");
        let page = run("gzip", &["-dc", &page], tree);
        assert!(page.contains(&format!(".TH {program} 1")), "{page}");
        for file in [
            format!("usr/share/bash-completion/completions/{program}"),
            format!("usr/share/zsh/vendor-completions/_{program}"),
            format!("usr/share/fish/vendor_completions.d/{program}.fish"),
        ] {
            assert!(tree.join(&file).is_file(), "{file}");
        }
    }
    // Every visible subcommand has a page of its own.
    for line in run("./usr/bin/provision", &["--help"], tree)
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| l.starts_with("  "))
    {
        let name = line.split_whitespace().next().expect("a name");
        if line.starts_with("   ") || name == "help" {
            continue;
        }
        let page = format!("usr/share/man/man1/provision-{name}.1.gz");
        assert!(tree.join(&page).is_file(), "{page}");
    }
    let completed = run(
        "bash",
        &[
            "-c",
            "source usr/share/bash-completion/completions/provision; COMP_WORDS=(provision clus) \
             COMP_CWORD=1; _provision provision clus provision; printf '%s\\n' \"${COMPREPLY[@]}\"",
        ],
        tree,
    );
    assert_eq!(completed.trim(), "cluster");

    let unit = std::fs::read_to_string(tree.join("usr/lib/systemd/system/ipop-node@.service"))
        .expect("the unit");
    assert!(unit.contains("ExecStart=/usr/bin/ipop-node run"), "{unit}");
    let schema =
        std::fs::read(tree.join("usr/share/ipop-provision/sites.schema.json")).expect("the schema");
    let schema: serde_json::Value = serde_json::from_slice(&schema).expect("JSON");
    assert!(schema["properties"]["site"].is_object());
    // The static program needs no library.
    let node = packages
        .iter()
        .find(|p| !p.to_string_lossy().contains("provision"));
    let node = node
        .expect("ipop-node's package")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    let depends = run("dpkg-deb", &["--field", &node, "Depends"], tree);
    assert!(!depends.contains("libc6"), "{depends}");
}
