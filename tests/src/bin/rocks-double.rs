//! The stand-in's `rocks`: see [`ipop_tests::rocks`]. It must stand at `ROOT/opt/rocks/bin/rocks` of
//! a front end that the test made.

use std::path::PathBuf;
use std::process::ExitCode;

use ipop_tests::rocks::command::{Abort, run};
use ipop_tests::rocks::database::Database;

fn root() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let root = own.ancestors().nth(4)?;
    let expected = root.join("opt/rocks/bin/rocks");
    (own == expected && root.join("opt/rocks/stand-in.json").exists()).then(|| root.to_owned())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(root) = root() else {
        eprintln!("this is no front end of a test");
        return ExitCode::from(2);
    };
    match run(&Database::at(&root), &words) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        // The real one ends with -1, which `ssh` has for its own failures.
        Err(Abort(message)) => {
            eprintln!("error - {message}");
            ExitCode::from(255)
        }
    }
}
