//! The EC2 double as a program: prints its endpoint on a line, serves until its standard input
//! ends.
//!
//! `ec2-double [--behaviour JSON] [--light-nodes]`; the fields of the JSON are those of
//! `ipop_tests::ec2::Behaviour`, all optional. With `--light-nodes` something runs in its instances
//! that signs in (`ipop_tests::light_node`).

use std::io::{Read, Write};
use std::process::ExitCode;

use ipop_tests::ec2::{Behaviour, Ec2Double, Guests};
use ipop_tests::light_node::LightNodes;

fn main() -> ExitCode {
    let (behaviour, light_nodes) = match arguments(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("error: {error}\nusage: ec2-double [--behaviour JSON] [--light-nodes]");
            return ExitCode::from(2);
        }
    };
    let guests = light_nodes.then(|| Box::<LightNodes>::default() as Box<dyn Guests>);
    let double = Ec2Double::start_with(behaviour, guests);
    println!("{}", double.endpoint());
    // Who reads it may be gone already; the end of input then tells.
    let _ = std::io::stdout().flush();
    let mut input = std::io::stdin().lock();
    let mut ignored = [0; 1024];
    while matches!(input.read(&mut ignored), Ok(count) if count > 0) {}
    ExitCode::SUCCESS
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<(Behaviour, bool), String> {
    let mut behaviour = Behaviour::default();
    let mut light_nodes = false;
    while let Some(word) = given.next() {
        match word.as_str() {
            "--light-nodes" => light_nodes = true,
            "--behaviour" => {
                let json = given.next().ok_or("--behaviour needs its JSON")?;
                behaviour =
                    serde_json::from_str(&json).map_err(|error| format!("--behaviour: {error}"))?;
            }
            _ => return Err(format!("unknown argument `{word}`")),
        }
    }
    Ok((behaviour, light_nodes))
}
