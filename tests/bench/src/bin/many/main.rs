//! `ipop-bench-many`: what many peers cost a node, against one.
//!
//! A hub with a thousand peers by configuration, a hundred of which run, each in a namespace of its
//! own on one bridge. Prints what its processor time is for a packet, in a hundred flows to a
//! hundred peers, in a hundred flows to one, and in these if each datagram is sent by itself, as
//! those to a hundred peers have to be; what a link that is idle takes of memory; and what
//! the hub does when nothing is asked of it. Needs root and an `ipop-node` by `scripts/build-node`;
//! `scripts/bench-many` does both.

mod crowd;
mod load;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crowd::{Crowd, Hub, Sending};
use load::Load;

/// Measures what many peers cost a node, and prints a table.
#[derive(Debug, Parser)]
struct Options {
    /// Peers in the hub's configuration
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    configured: u16,
    /// Peers that run
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=100))]
    active: u16,
    /// Rounds; in each, everything is measured once
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The node that is measured [default: what IPOP_NODE_BINARY names]
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// CPU time for a packet, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Cost {
    nanoseconds: f64,
    packets: u64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} ({} packets)", self.nanoseconds, self.packets)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let time = Duration::from_secs(options.seconds);
    let named = std::env::var_os("IPOP_NODE_BINARY").map(PathBuf::from);
    let Some(binary) = options.binary.or(named) else {
        eprintln!("error: IPOP_NODE_BINARY is not set");
        eprintln!("hint: scripts/bench-many builds an ipop-node and sets it");
        return ExitCode::from(2);
    };
    let mut crowd = Crowd::new(&binary, options.configured, options.active);

    let hub = crowd.hub(usize::from(options.configured), Sending::Batches);
    let idle_alone = idle(&hub, time);
    let memory_alone = hub.resident();
    crowd.start();
    hub.wait_linked(usize::from(options.active));
    let idle_linked = idle(&hub, time);
    let memory_linked = hub.resident();
    drop(hub);
    let link = memory_linked.saturating_sub(memory_alone) / u64::from(options.active);
    println!(
        "| The hub, with {} peers configured | none runs | {} run |",
        options.configured, options.active
    );
    println!("|---|---|---|");
    println!("| processor when idle, % of one core | {idle_alone:.2} | {idle_linked:.2} |");
    println!(
        "| resident memory, KiB | {} | {} |",
        memory_alone / 1024,
        memory_linked / 1024
    );
    println!("| for each link, KiB | | {:.1} |", link as f64 / 1024.0);
    println!();
    println!(
        "| CPU ns per packet | round | {0} of {1} | one peer | ratio | one peer, by datagrams | ratio |",
        options.active, options.configured
    );
    println!("|---|---|---|---|---|---|---|");
    for round in 1..=options.rounds {
        let measured = |peers: u16, configured: u16, sending| {
            let hub = crowd.hub(usize::from(configured), sending);
            hub.wait_linked(usize::from(peers));
            Load::ALL.map(|load| cost(&crowd, &hub, load, peers, time))
        };
        let one = measured(1, 1, Sending::Batches);
        let single = measured(1, 1, Sending::Datagrams);
        let many = measured(options.active, options.configured, Sending::Batches);
        for (at, load) in Load::ALL.into_iter().enumerate() {
            println!(
                "| {load} | {round} | {} | {} | {:.2} | {} | {:.2} |",
                many[at],
                one[at],
                many[at].nanoseconds / one[at].nanoseconds,
                single[at],
                many[at].nanoseconds / single[at].nanoseconds,
            );
        }
    }
    ExitCode::SUCCESS
}

/// Share of one core that the hub takes with nothing to do, in percent.
fn idle(hub: &Hub, time: Duration) -> f64 {
    // What starting and linking left to be done.
    std::thread::sleep(Duration::from_secs(5));
    let before = hub.cpu();
    std::thread::sleep(time * 2);
    (hub.cpu() - before).as_secs_f64() / (time * 2).as_secs_f64() * 100.0
}

/// What the load costs the hub when it goes to so many peers.
fn cost(crowd: &Crowd, hub: &Hub, load: Load, peers: u16, time: Duration) -> Cost {
    // Links, neighbours and buffers.
    load.run(crowd, peers, Duration::from_secs(1));
    let (packets, cpu) = (hub.packets(), hub.cpu());
    load.run(crowd, peers, time);
    let cpu = hub.cpu() - cpu;
    let packets = hub.packets() - packets;
    Cost {
        nanoseconds: cpu.as_nanos() as f64 / packets as f64,
        packets,
    }
}
