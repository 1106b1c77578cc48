//! The program `ipop-node`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ipop_node::cli::main()
}
