//! `ipop-bench`: compares `ipop-node` with other overlays in user space, in network namespaces of
//! its own, and writes what it measured as `docs/performance.md`.
//!
//! Needs root, `scripts/install-bench-peers` and an `ipop-node` by `scripts/build-node`;
//! `scripts/bench` does all three. It sends nothing outside of its namespaces, and removes them, also
//! when it is stopped. It judges nothing by itself: the table of goals is computed from the
//! measurements, and a peer that is missing is named in the report.

mod certificate;
mod daemon;
mod datagrams;
mod echo;
mod options;
mod peers;
mod report;
mod round;
mod sample;
mod stage;
mod tcp;
mod tunnel;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use ipop_bench::{activity, failure, interrupt, machine, statistics};

use activity::Activity;
use failure::{During, Result};
use machine::Machine;
use options::Options;
use peers::Peers;
use sample::Measured;
use tunnel::Entry;

fn main() -> ExitCode {
    let options = Options::parse();
    interrupt::listen();
    match run(&options) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    let measured = match &options.render {
        Some(file) => {
            let text = std::fs::read_to_string(file).during(&file.display().to_string())?;
            serde_json::from_str(&text).during(&file.display().to_string())?
        }
        None => measure(options)?,
    };
    if interrupt::asked() {
        eprintln!("interrupted: no report is written");
        return Ok(ExitCode::from(130));
    }
    let json = serde_json::to_string_pretty(&measured).during("the measurements as JSON")?;
    if let Some(out) = options.out() {
        for (name, text) in report::files(&measured, &json) {
            write(&out.join(name), &text)?;
        }
    }
    if let Some(file) = &options.json {
        write(file, &json)?;
    }
    println!("{}", report::goals(&measured));
    Ok(ExitCode::SUCCESS)
}

fn measure(options: &Options) -> Result<Measured> {
    let machine = Machine::here(&[("iperf3", &["--version"]), ("ethtool", &["--version"])]);
    let entries: Vec<Entry> = tunnel::all(&Peers::installed())
        .into_iter()
        .filter(|entry| options.wants(&entry.subject))
        .collect();
    for name in &options.only {
        if !entries.iter().any(|entry| entry.subject.name == *name) {
            return Err(failure::Failure(format!("nothing is called `{name}`")));
        }
    }
    let (rounds, seconds) = (options.rounds(), options.seconds());
    let mut samples = Vec::new();
    let activity = Activity::now();
    for round in 1..=rounds {
        for entry in &entries {
            if interrupt::asked() {
                break;
            }
            eprint!("round {round} of {rounds}: {:<14}", entry.subject.name);
            let sample = round::measure(entry, round, seconds);
            eprintln!(" {}", report::line(&sample, &entry.subject));
            samples.push(sample);
        }
    }
    Ok(Measured {
        machine,
        disturbance: activity.until_now(),
        rounds,
        seconds,
        subjects: entries.into_iter().map(|entry| entry.subject).collect(),
        samples,
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    let shown = path.display().to_string();
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).during(&shown)?;
    }
    std::fs::write(path, text).during(&shown)
}
