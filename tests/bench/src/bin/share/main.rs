//! `ipop-bench-share`: a share over the overlay beside the same server reached without the overlay, and
//! over WireGuard, in one run; writes `docs/sharing-performance.md`.
//!
//! Needs root, a running libvirt, a `provision` that IPOP_PROVISION names and an `ipop-node` that
//! IPOP_NODE_BINARY names; `scripts/bench-share` sees to all of that. It launches two machines in a deployment of its
//! own and destroys them at the end, also when it is stopped. It touches no other deployment, and judges
//! nothing by itself.

mod deployment;
mod job;
mod load;
mod options;
mod report;
mod sample;
mod shell;
mod stage;
mod way;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use ipop_bench::activity::Activity;
use ipop_bench::failure::{During, Failure, Result};
use ipop_bench::interrupt;
use ipop_bench::machine::Machine;

use deployment::Deployment;
use options::Options;
use sample::Measured;
use stage::Stage;

fn main() -> ExitCode {
    let options = Options::parse();
    interrupt::listen();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::asked() => {
            eprintln!("interrupted: no report is written");
            ExitCode::from(130)
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let measured = match &options.render {
        Some(file) => {
            let shown = file.display().to_string();
            let text = std::fs::read_to_string(file).during(&shown)?;
            serde_json::from_str(&text).during(&shown)?
        }
        None => measure(options)?,
    };
    let json = serde_json::to_string_pretty(&measured).during("the measurements as JSON")?;
    if let Some(out) = options.out() {
        write(
            &out.join("sharing-performance.md"),
            &report::document(&measured),
        )?;
        write(&out.join("performance/share.json"), &format!("{json}\n"))?;
    }
    if let Some(file) = &options.json {
        write(file, &json)?;
    }
    println!("{}", report::ratios(&measured));
    Ok(())
}

fn measure(options: &Options) -> Result<Measured> {
    let ways = options.ways();
    let machine = Machine::here(&[
        ("virsh", &["--version"]),
        ("qemu-system-x86_64", &["--version"]),
    ]);
    let deployment = Deployment::launch(options)?;
    let mut stage = Stage::set(&deployment, &ways)?;
    let guests = stage.guests(options)?;
    let (activity, before) = (Activity::now(), deployment.cpu_seconds());
    let mut turns = Vec::new();
    for round in 1..=options.rounds() {
        for way in &ways {
            eprint!("round {round} of {}, {}: ", options.rounds(), way.name());
            let turn = stage
                .turn(*way, round, options)
                .inspect_err(|_| eprintln!())?;
            eprintln!("{}", report::line(&turn));
            turns.push(turn);
        }
    }
    let own = deployment.cpu_seconds() - before;
    if interrupt::asked() {
        return Err(Failure("interrupted".to_owned()));
    }
    Ok(Measured {
        machine,
        disturbance: activity.until_now_beside(own),
        guests,
        rounds: options.rounds(),
        seconds: options.seconds(),
        files: options.files(),
        turns,
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    let shown = path.display().to_string();
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).during(&shown)?;
    }
    std::fs::write(path, text).during(&shown)
}
