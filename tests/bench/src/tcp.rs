//! Bulk TCP by iperf3, and the CPU time that the daemons spend on it.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ipop_testbed::netns::Netns;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::failure::{During, Failure, Result};
use crate::interrupt;
use crate::stage::Stage;
use crate::tunnel::Ends;

/// What iperf3 may take beyond the time of the measurement.
const PATIENCE: Duration = Duration::from_secs(15);
const PORT: u16 = 5201;

/// Which way the bulk of the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the first side, which opens the connections, to the second.
    Forward,
    /// Back over the same connections.
    Reverse,
}

/// One iperf3 run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bulk {
    /// Bits a second, as the receiver counts them.
    pub bits_per_second: f64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// Payload bytes of one segment.
    pub mss: u64,
    /// CPU seconds of the daemons meanwhile, sender of the data first; none where the kernel does
    /// it all.
    pub cpu_seconds: Option<[f64; 2]>,
}

impl Bulk {
    /// CPU nanoseconds for one packet of full size, sender of the data and receiver.
    pub fn cpu_ns_per_packet(&self) -> Option<[f64; 2]> {
        let packets = self.bytes as f64 / self.mss as f64;
        Some(self.cpu_seconds?.map(|seconds| seconds * 1e9 / packets))
    }
}

/// Measures `streams` connections for `seconds`.
pub fn measure(
    stage: &Stage,
    ends: &Ends,
    streams: u32,
    direction: Direction,
    seconds: u32,
) -> Result<Bulk> {
    let before = ends.cpu()?;
    let report = Client::start(stage, ends, streams, direction, seconds)?.finish()?;
    let after = ends.cpu()?;
    let number = |pointer: &str| {
        report
            .pointer(pointer)
            .and_then(Value::as_f64)
            .ok_or_else(|| Failure(format!("iperf3 reports no {pointer}")))
    };
    let spent = before.zip(after).map(|(before, after)| {
        let spent = [0, 1].map(|side| (after[side] - before[side]).as_secs_f64());
        match direction {
            Direction::Forward => spent,
            Direction::Reverse => [spent[1], spent[0]],
        }
    });
    let bytes = number("/end/sum_received/bytes")? as u64;
    if bytes == 0 {
        return Err(Failure("iperf3 moved no data".to_owned()));
    }
    Ok(Bulk {
        bits_per_second: number("/end/sum_received/bits_per_second")?,
        bytes,
        mss: number("/start/tcp_mss_default")? as u64,
        cpu_seconds: spent,
    })
}

/// A run of iperf3 under way, with the server that it talks to.
pub struct Client {
    client: Daemon,
    _server: Daemon,
    output: std::path::PathBuf,
    limit: Instant,
}

impl Client {
    /// Starts the server and, once it listens, the client.
    pub fn start(
        stage: &Stage,
        ends: &Ends,
        streams: u32,
        direction: Direction,
        seconds: u32,
    ) -> Result<Self> {
        let address = ends.addresses[1].to_string();
        let mut command = stage.sides[1].command("iperf3");
        command.args(["--server", "--one-off", "--bind", &address]);
        let mut server = Daemon::start(&mut command, stage.dir().join("iperf3-server"))?;
        let until = Instant::now() + PATIENCE;
        while !listens(&stage.sides[1], ends.addresses[1]) {
            if let Some(ended) = server.ended() {
                return Err(Failure(format!("iperf3 server {ended}")));
            }
            if Instant::now() > until {
                return Err(Failure("iperf3 server does not listen".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = stage.dir().join("iperf3-client");
        let mut command = stage.sides[0].command("iperf3");
        command.args(["--client", &address, "--json", "--connect-timeout", "5000"]);
        command.args(["--time", &seconds.to_string()]);
        command.args(["--parallel", &streams.to_string()]);
        if direction == Direction::Reverse {
            command.arg("--reverse");
        }
        command.stdin(Stdio::null());
        Ok(Self {
            client: Daemon::start(&mut command, output.clone())?,
            _server: server,
            output,
            limit: Instant::now() + Duration::from_secs(seconds.into()) + PATIENCE,
        })
    }

    /// Waits for its end and gives its report.
    pub fn finish(mut self) -> Result<Value> {
        while self.client.ended().is_none() {
            if Instant::now() > self.limit || interrupt::asked() {
                return Err(Failure("iperf3 had not ended".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let text = std::fs::read_to_string(&self.output)?;
        // Warnings come before the report.
        let json = &text[text.find('{').unwrap_or_default()..];
        let report: Value = serde_json::from_str(json).during("iperf3's report")?;
        match report.get("error").and_then(Value::as_str) {
            Some(error) => Err(Failure(format!("iperf3: {error}"))),
            None => Ok(report),
        }
    }
}

/// Whether something listens there, without connecting: the server would take that for its client.
fn listens(netns: &Netns, address: Ipv4Addr) -> bool {
    let table = netns.inside(|| std::fs::read_to_string("/proc/thread-self/net/tcp"));
    let [a, b, c, d] = address.octets();
    let local = format!("{:02X}{:02X}{:02X}{:02X}:{PORT:04X}", d, c, b, a);
    table.unwrap_or_default().lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&local) && fields.nth(1) == Some("0A")
    })
}
