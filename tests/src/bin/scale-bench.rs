//! Prints how launching grows with the number of workers, as a table; see
//! `ipop_tests::scale`.
//!
//! `scale-bench [--provision FILE] [WORKERS…]`; without numbers 20, 100 and 200. Each number is
//! run twice: undisturbed, and with one worker whose launch hangs and one whose instance dies.

use std::path::PathBuf;
use std::process::ExitCode;

use ipop_tests::scale::{Measured, measure, provision};

fn main() -> ExitCode {
    let (provision, workers) = match arguments(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("error: {error}\nusage: scale-bench [--provision FILE] [WORKERS…]");
            return ExitCode::from(2);
        }
    };
    println!("{}", Measured::HEADINGS);
    let mut good = true;
    for workers in workers {
        for with_faults in [false, true] {
            let measured = measure(&provision, workers, with_faults);
            println!("{}", measured.row());
            if measured.code != Some(0) || !measured.leftovers.is_empty() {
                good = false;
                eprintln!(
                    "{workers}: exit code {:?}, left over {:?}\n{}",
                    measured.code, measured.leftovers, measured.stderr
                );
            }
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<(PathBuf, Vec<u32>), String> {
    let mut file = provision();
    let mut workers = Vec::new();
    while let Some(word) = given.next() {
        if word == "--provision" {
            file = given.next().ok_or("--provision needs a file")?.into();
        } else {
            let count = word.parse().ok().filter(|count| *count > 2);
            workers.push(count.ok_or_else(|| format!("`{word}` is no number above 2"))?);
        }
    }
    if workers.is_empty() {
        workers = vec![20, 100, 200];
    }
    Ok((file, workers))
}
