//! What is told of a sample: a number, its unit and its name.

use crate::sample::Sample;
pub use crate::statistics::number;
use crate::tcp::Bulk;

/// One number of a sample.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Head of a column.
    pub title: &'static str,
    /// The same in a word or two.
    pub short: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// The number, if it was measured.
    pub value: fn(&Sample) -> Option<f64>,
}

/// A metric that is drawn.
pub struct Chart {
    /// What is drawn.
    pub metric: Metric,
    /// Its file's name.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
}

const fn chart(metric: Metric, name: &'static str, title: &'static str) -> Chart {
    Chart {
        metric,
        name,
        title,
    }
}

const fn metric(
    title: &'static str,
    short: &'static str,
    unit: &'static str,
    value: fn(&Sample) -> Option<f64>,
) -> Metric {
    Metric {
        title,
        short,
        unit,
        value,
    }
}

pub const ONE: Metric = metric("1 stream", "TCP 1", "Mbit/s", |s| rate(&s.offload.one));
pub const ONE_REVERSE: Metric = metric("1 stream back", "TCP 1 back", "Mbit/s", |s| {
    rate(&s.offload.one_reverse)
});
pub const FOUR: Metric = metric("4 streams", "TCP 4", "Mbit/s", |s| rate(&s.offload.four));
pub const FOUR_REVERSE: Metric = metric("4 streams back", "TCP 4 back", "Mbit/s", |s| {
    rate(&s.offload.four_reverse)
});
pub const PLAIN_ONE: Metric = metric("1 stream", "TCP 1 plain", "Mbit/s", |s| rate(&s.plain.one));
pub const PLAIN_ONE_REVERSE: Metric = metric("1 stream back", "TCP 1 back plain", "Mbit/s", |s| {
    rate(&s.plain.one_reverse)
});
pub const PLAIN_FOUR: Metric = metric("4 streams", "TCP 4 plain", "Mbit/s", |s| {
    rate(&s.plain.four)
});
pub const PLAIN_FOUR_REVERSE: Metric =
    metric("4 streams back", "TCP 4 back plain", "Mbit/s", |s| {
        rate(&s.plain.four_reverse)
    });
pub const CPU_SENDER: Metric = metric("CPU sender", "CPU sender", "ns/packet", |s| {
    cpu(&s.offload.one, |[sender, _]| sender)
});
pub const CPU_RECEIVER: Metric = metric("CPU receiver", "CPU receiver", "ns/packet", |s| {
    cpu(&s.offload.one, |[_, receiver]| receiver)
});
pub const CPU: Metric = metric("CPU both ends", "CPU", "ns/packet", |s| {
    cpu(&s.offload.one, |[sender, receiver]| sender + receiver)
});
pub const PLAIN_CPU: Metric = metric("CPU both ends, no offload", "CPU plain", "ns/packet", |s| {
    cpu(&s.plain.one, |[sender, receiver]| sender + receiver)
});
pub const DATAGRAMS: Metric = metric("64-byte UDP", "UDP", "kpackets/s", |s| {
    Some(s.packets_per_second()? / 1e3)
});
pub const MTU: Metric = metric("MTU", "MTU", "B", |s| Some(s.mtu?.into()));
pub const MSS: Metric = metric("TCP payload", "MSS", "B", |s| {
    Some(s.offload.one.as_ref()?.mss as f64)
});
pub const IDLE_P50: Metric = metric("idle p50", "RTT p50", "µs", |s| {
    Some(s.idle.as_ref()?.p50_us)
});
pub const IDLE_P99: Metric = metric("idle p99", "RTT p99", "µs", |s| {
    Some(s.idle.as_ref()?.p99_us)
});
pub const LOADED_P50: Metric = metric("under load p50", "RTT load p50", "µs", |s| {
    Some(s.loaded.as_ref()?.p50_us)
});
pub const LOADED_P99: Metric = metric("under load p99", "RTT load p99", "µs", |s| {
    Some(s.loaded.as_ref()?.p99_us)
});
pub const LOADED_LOST: Metric = metric("lost under load", "lost", "%", |s| {
    Some(s.loaded.as_ref()?.lost * 100.0)
});
pub const MEMORY: Metric = metric("memory, the larger daemon", "RSS", "MiB", |s| {
    let [a, b] = s.memory?;
    Some(mebibytes(a.max(b)))
});
pub const MEMORY_BOTH: Metric = metric("memory, both daemons", "RSS both", "MiB", |s| {
    let [a, b] = s.memory?;
    Some(mebibytes(a + b))
});
pub const MEMORY_PEAK: Metric = metric("peak, the larger daemon", "peak", "MiB", |s| {
    let [a, b] = s.memory_peak?;
    Some(mebibytes(a.max(b)))
});
pub const FIRST_REPLY: Metric = metric("start to first ping", "start", "ms", |s| s.first_reply_ms);

/// Bulk data with the underlay as the kernel sets it up.
pub const TRANSFERS: [Metric; 4] = [ONE, ONE_REVERSE, FOUR, FOUR_REVERSE];
/// Bulk data without segmentation offload.
pub const PLAIN_TRANSFERS: [Metric; 4] =
    [PLAIN_ONE, PLAIN_ONE_REVERSE, PLAIN_FOUR, PLAIN_FOUR_REVERSE];
/// What a packet costs.
pub const COSTS: [Metric; 7] = [
    CPU_SENDER,
    CPU_RECEIVER,
    CPU,
    PLAIN_CPU,
    DATAGRAMS,
    MTU,
    MSS,
];
/// How long a packet takes.
pub const DELAYS: [Metric; 5] = [IDLE_P50, IDLE_P99, LOADED_P50, LOADED_P99, LOADED_LOST];
/// What a daemon needs.
pub const NEEDS: [Metric; 4] = [MEMORY, MEMORY_BOTH, MEMORY_PEAK, FIRST_REPLY];
/// Those that are drawn.
pub const CHARTS: [Chart; 8] = [
    chart(ONE, "tcp-1", "TCP, 1 stream"),
    chart(FOUR, "tcp-4", "TCP, 4 streams"),
    chart(CPU, "cpu", "CPU time of both ends"),
    chart(DATAGRAMS, "udp", "64-byte UDP packets"),
    chart(IDLE_P50, "rtt-idle", "round trip, idle, median"),
    chart(
        LOADED_P99,
        "rtt-load",
        "round trip beside a TCP stream, 99th percentile",
    ),
    chart(MEMORY, "memory", "resident memory of the larger daemon"),
    chart(FIRST_REPLY, "start", "start to first ping"),
];
/// Those that are told while measuring.
pub const PROGRESS: [Metric; 8] = [
    FIRST_REPLY,
    ONE,
    FOUR,
    CPU,
    DATAGRAMS,
    IDLE_P50,
    LOADED_P99,
    MEMORY,
];

fn rate(bulk: &Option<Bulk>) -> Option<f64> {
    Some(bulk.as_ref()?.bits_per_second / 1e6)
}

fn cpu(bulk: &Option<Bulk>, of: fn([f64; 2]) -> f64) -> Option<f64> {
    Some(of(bulk.as_ref()?.cpu_ns_per_packet()?))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
