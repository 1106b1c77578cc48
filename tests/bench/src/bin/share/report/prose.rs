//! The document around the tables.

use std::fmt::Write as _;

use ipop_bench::activity::Disturbance;
use ipop_bench::machine::Machine;

use super::{figures, loads, ratios, ways};
use crate::job::FILE_MIB;
use crate::sample::{Guests, Measured};

/// `sharing-performance.md`.
pub fn document(measured: &Measured) -> String {
    format!(
        "{HEAD}
## The overlay beside the same server without it

{}
Each ratio is of two figures of the same round: the median of the rounds, and in parentheses their range.
Above 1 the first way is faster, except for round trips.

## Figures

Median, and in parentheses the range of the rounds.

{}
## What the processors did

Median of the rounds. \"Busy\" is the part of all processors of that machine, kernel and all; what ipop-node
used is in percent of one processor, with what the kernel did on its time.

{}{}{}{}",
        ratios(measured),
        figures(measured),
        loads(measured),
        LIMITS,
        conditions(measured),
        method(measured)
    )
}

const HEAD: &str = "# Performance of a share

A share ([sharing.md](sharing.md)) mounted over the overlay, beside the same server reached without the
overlay, and over WireGuard between the same machines. This file is written by

```sh
scripts/bench-share            # builds, launches two machines, measures, writes this file, removes the machines
scripts/bench-share --quick    # one short round, to see that everything works; prints the ratios only
scripts/bench-share --only overlay,direct --rounds 10 --out /tmp/bench
scripts/bench-share --sites sites.toml --site lab --memory 2G --cpus 2 --out /tmp/lab
scripts/bench-share --render docs/performance/share.json    # the file again, without measuring
```

It needs root, a running libvirt and a quiet machine. `IPOP_NODE_BINARY` names another `ipop-node`.
";

const LIMITS: &str = "
Where both machines are emulated, a processor of theirs does a small part of what a real one does, and the
table above tells whose time was used up. A figure is then one of that processor and not of a network, and
that of ciphers depends on which instructions are emulated well. The ratios are not those of machines with
KVM or of real ones: have them measured there, with `--sites` and `--site`.
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
    let Guests {
        virtualization,
        kernel: guest_kernel,
        cpus,
        memory,
        fio,
        node,
    } = &measured.guests;
    let gibibytes = measured.machine.gibibytes();
    let Disturbance { others, stolen } = measured.disturbance;
    let quiet = measured.disturbance.verdict();
    let how = if virtualization == "qemu" {
        "emulated, without KVM".to_owned()
    } else {
        format!("run by `{virtualization}`")
    };
    let mut text = format!(
        "
## Where and when

- {date}, {rounds} rounds, {seconds} s for each of fio's jobs, {files} files
- client and server: {how}, each with {cpus} virtual processors and {memory}; Linux {guest_kernel}, {fio}, {node}
- both on one host: {cores} cores, {cpu}, {gibibytes:.0} GiB of memory, {system}, Linux {kernel}; {tools}
- of its CPU time meanwhile, others than the two machines used {others:.1} %, and {stolen:.1} % was stolen by
  the hypervisor: {quiet}

| way | MTU | rsize | wsize |
|---|---:|---:|---:|
",
        rounds = measured.rounds,
        seconds = measured.seconds,
        files = measured.files,
        tools = tools.join(", "),
        others = others * 100.0,
        stolen = stolen * 100.0,
    );
    for way in ways(measured) {
        let Some(turn) = measured.turns.iter().find(|turn| turn.way == way) else {
            continue;
        };
        let option = |name: &str| {
            let mut options = turn.mount.split([',', ' ']);
            let value = options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or("–").to_owned()
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            way.name(),
            turn.mtu,
            option("rsize"),
            option("wsize")
        );
    }
    text
}

fn method(measured: &Measured) -> String {
    let seconds = measured.seconds;
    format!(
        "
## How it was measured

The client is the front end of a deployment of its own, the server a share in it, both on one site. Each
round measures one way after the other, so that what disturbs one disturbs all, and mounts the share anew
for each, with the options that `share create` names. That the client's only connection goes to that way's address is
seen before and after: a kernel that knows a server would go on by the connection that it has.

- **Opened for the measurement**: a share is served at the overlay's addresses alone, and its machine's
  firewall lets nobody else to it. The benchmark changes that, on its own machine and for as long as that
  is there: a rule of nftables and an export for the client's other addresses, and nfsd is started anew with
  addresses more to listen at. Nothing of the kind is in the product.
- **direct**: NFS by the site's own network, without encryption.
- **wireguard**: the same by WireGuard in the kernels of both machines, MTU 1420.
- **fio**: direct I/O (`--direct=1`, `--ioengine=libaio`) on a file of {FILE_MIB} MiB that is there before,
  {seconds} s for each job, with `fsync` at the end. The server writes to its disk before it says so (`sync`), as
  shares do. What both machines hold of files in memory is dropped before each job; what a job reads twice the
  server has in memory by then.
- **Many files**: as mdtest does it, by a loop in one process: all are made, empty; what the client knows of
  them is dropped; then all are looked at, renamed and deleted. fio's own engines for that are not used: they look at
  each file before they start to measure.
- **Round trips**: 50 of `ping`, 50 ms apart, while the share is mounted and idle.
- **Processors**: of `/proc/stat` and the time of ipop-node's process in each machine, around each job, with
  the start of fio.
"
    )
}
