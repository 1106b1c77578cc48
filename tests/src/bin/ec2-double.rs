//! The EC2 double as a program: prints its endpoint on a line, serves until its standard input
//! ends.
//!
//! `ec2-double [--behaviour JSON]`; the fields of the JSON are those of
//! `ipop_tests::ec2::Behaviour`, all optional.

use std::io::{Read, Write};
use std::process::ExitCode;

use ipop_tests::ec2::{Behaviour, Ec2Double};

fn main() -> ExitCode {
    let behaviour = match behaviour(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(behaviour) => behaviour,
        Err(error) => {
            eprintln!("error: {error}\nusage: ec2-double [--behaviour JSON]");
            return ExitCode::from(2);
        }
    };
    let double = Ec2Double::start(behaviour);
    println!("{}", double.endpoint());
    // Who reads it may be gone already; the end of input then tells.
    let _ = std::io::stdout().flush();
    let mut input = std::io::stdin().lock();
    let mut ignored = [0; 1024];
    while matches!(input.read(&mut ignored), Ok(count) if count > 0) {}
    ExitCode::SUCCESS
}

fn behaviour(arguments: &[String]) -> Result<Behaviour, String> {
    match arguments {
        [] => Ok(Behaviour::default()),
        [option, json] if option == "--behaviour" => {
            serde_json::from_str(json).map_err(|error| format!("--behaviour: {error}"))
        }
        _ => Err("unknown arguments".to_owned()),
    }
}
