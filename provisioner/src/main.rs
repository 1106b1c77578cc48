//! The command `provision`.

use std::process::ExitCode;

use clap::Parser;
use provisioner::cli::{Cli, Context};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = Context::new(&cli.global).and_then(|context| cli.command.run(&context));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.code as u8)
        }
    }
}
