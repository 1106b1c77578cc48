//! `assets DIR`: writes what the packages carry besides the programs: manual pages and shell
//! completions of both, and the JSON schema of `sites.toml`.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

fn main() -> ExitCode {
    let Some(dir) = env::args_os().nth(1) else {
        eprintln!("usage: assets DIR");
        return ExitCode::from(2);
    };
    match write(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "error: cannot write to `{}`: {error}",
                Path::new(&dir).display()
            );
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &Path) -> io::Result<()> {
    for command in [
        provisioner::cli::Cli::command(),
        ipop_node::cli::Cli::command(),
    ] {
        program(dir, command)?;
    }
    fs::write(dir.join("sites.schema.json"), provisioner::site::schema())
}

fn program(dir: &Path, command: Command) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let man = dir.join(&name).join("man");
    fs::create_dir_all(&man)?;
    clap_mangen::generate_to(command.clone(), &man)?;
    let completions = dir.join(&name).join("completions");
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), &name, &completions)?;
    }
    Ok(())
}
