//! The document around the tables.

use std::fmt::Write as _;

use super::{chart, goals, metric, tables};
use crate::activity::Disturbance;
use crate::datagrams;
use crate::machine::Machine;
use crate::sample::Measured;
use crate::tunnel::Layer;

/// `performance.md`.
pub fn document(measured: &Measured) -> String {
    let mut text = HEAD.to_owned();
    let _ = write!(text, "\n## Goals\n\n{}", goals::table(measured));
    text.push_str(
        "\nComputed from the measurements below. A ratio is made of two numbers of the same round, and the \
         median of\nthe rounds' ratios counts. \"The best peer\" is, in each round and for each \
         measurement, whichever peer of\nthat layer was best.\n",
    );
    let failures = goals::failures(measured);
    if !failures.is_empty() {
        let _ = write!(text, "\nWhat could not be measured:\n\n{failures}");
    }
    text.push_str(&conditions(measured));
    text.push_str(&compared(measured));
    for (layer, title) in [
        (Layer::L3, "Layer 3: IP packets (TUN)"),
        (Layer::L2, "Layer 2: Ethernet frames (TAP)"),
    ] {
        text.push_str(&section(measured, layer, title));
    }
    text.push_str(&method(measured));
    text
}

const HEAD: &str = "# Performance

`ipop-node` beside the overlays that Debian and the Rust package registry have, and beside what the
kernel does without encryption. This file is written by

```sh
scripts/bench            # installs the peers, builds ipop-node, measures, writes this file
scripts/bench --quick    # one short round, to see that everything works; prints the goals only
scripts/bench --only ipop,wireguard-go,vxlan --rounds 5 --out /tmp/bench
scripts/bench --render docs/performance/measured.json    # the file again, without measuring
```

It needs root, for network namespaces, and a quiet machine. Peers are kept in `~/.cache/ipop-bench`
(`IPOP_BENCH_PEERS`); `IPOP_NODE_BINARY` names another `ipop-node`.
";

fn conditions(measured: &Measured) -> String {
    let Machine {
        date,
        cpu,
        cores,
        kernel,
        system,
        tools,
        ..
    } = &measured.machine;
    let gibibytes = measured.machine.gibibytes();
    let Disturbance { others, stolen } = measured.disturbance;
    let quiet = measured.disturbance.verdict();
    format!(
        "
## Where and when

- {date}, {rounds} rounds, {seconds} s for each measurement
- {cores} cores, {cpu}, {gibibytes:.0} GiB of memory
- {system}, Linux {kernel}; {tools}
- of its CPU time meanwhile, other processes used {others:.1} %, and {stolen:.1} % was stolen by the
  hypervisor: {quiet}
",
        others = others * 100.0,
        stolen = stolen * 100.0,
        rounds = measured.rounds,
        seconds = measured.seconds,
        tools = tools.join(", "),
    )
}

fn compared(measured: &Measured) -> String {
    let mut text = String::from(
        "\n## What was compared\n\n| name | layer | version | configuration |\n|---|---|---|---|\n",
    );
    for subject in &measured.subjects {
        let layers: Vec<String> = subject
            .layers
            .iter()
            .map(|layer| format!("{layer:?}"))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            subject.name,
            layers.join(", "),
            subject.version.as_deref().unwrap_or("not installed"),
            subject.configuration
        );
    }
    text
}

fn section(measured: &Measured, layer: Layer, title: &str) -> String {
    let mut text = format!("\n## {title}\n\nMedian, and in parentheses the range of the rounds.\n");
    for (title, metrics) in [
        ("TCP", &metric::TRANSFERS[..]),
        (
            "TCP, segmentation offload of the underlay switched off",
            &metric::PLAIN_TRANSFERS,
        ),
        ("What a packet costs", &metric::COSTS),
        ("Round-trip times", &metric::DELAYS),
        ("Memory and start", &metric::NEEDS),
    ] {
        let table = tables::of(measured, layer, metrics);
        let _ = write!(text, "\n### {title}\n\n{table}");
    }
    text.push('\n');
    for drawn in &metric::CHARTS {
        if chart::draw(measured, layer, drawn).is_some() {
            let title = chart::title(layer, drawn);
            let file = chart::file(layer, drawn);
            let _ = writeln!(text, "![{title}](performance/{file})");
        }
    }
    text
}

fn method(measured: &Measured) -> String {
    let offered: Vec<String> = datagrams::OFFERED
        .iter()
        .map(|rate| match rate {
            &u64::MAX => "as many as it can".to_owned(),
            rate => format!("{}", rate / 1000),
        })
        .collect();
    format!(
        "
## How it was measured

Every round measures every subject once, one after the other, each in two fresh network namespaces
that a veth pair of MTU 1500 joins. Nothing leaves them. Every peer runs with its default configuration
and without debug output, except for what the table above says; MTUs are those that they choose.

- **TCP**: iperf3 for {seconds} s, as the receiver counts. \"Back\" is the other direction over
  connections that the first side opened. Afterwards the same with `tx-udp-segmentation`, `gso`, `tso`
  and `gro` of both ends of the veth pair switched off, so that the underlay carries only packets of its
  MTU, as a real network does.
- **CPU per packet**: user and system time of each daemon, all its threads, during the run with one
  stream, by the packets of that run. Interfaces count super-packets, so the packets are the bytes that
  arrived by the TCP payload of one packet (MSS) in that tunnel. iperf3 and the kernel's own threads
  are not counted; what the kernel does on a daemon's time is. The kernel's tunnels have no daemon.
- **Small packets**: UDP with {payload} bytes of payload from a sender of our own (`sendmmsg`), which
  offers, in thousands a second, {offered}, for an equal share of {seconds} s each.
  The best rate of arrival counts: offered more than it can carry, a tunnel spends its time on dropping.
- **Round trips**: ICMP echo of our own every 2 ms, and every 5 ms while one TCP stream runs. The 99th
  percentile is of those that were answered.
- **Memory**: resident memory (`VmRSS`) of each daemon after all measurements, and its peak (`VmHWM`).
- **Start**: from just before the first daemon is started until the first echo reply, tried every 2 ms
  from the moment that the interface exists; setting addresses and keys is part of it where a program
  leaves that to others. Keys, certificates, an n2n supernode and the XMPP server are made before. ARP
  is repeated every 5 ms instead of every second, so that it hides nothing.

Load, daemons and measurement share the machine's {cores} cores: ratios within a round say more than
absolute figures.
",
        seconds = measured.seconds,
        payload = datagrams::PAYLOAD,
        offered = offered.join(", "),
        cores = measured.machine.cores,
    )
}
