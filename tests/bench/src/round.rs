//! One subject in one round: everything that is measured of it, in fresh namespaces.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::datagrams;
use crate::echo;
use crate::failure::{During, Failure, Result};
use crate::interrupt;
use crate::sample::{Sample, Transfers};
use crate::stage::Stage;
use crate::tcp::{self, Client, Direction};
use crate::tunnel::{Ends, Entry, Tunnel};

/// How long a tunnel may take to carry its first packet.
const START: Duration = Duration::from_secs(20);
/// How often it is looked whether a daemon has ended while that is waited for.
const WATCH: Duration = Duration::from_millis(20);
/// What a tunnel is given to find its path's MTU, or a direct path, before it is measured.
const SETTLE: Duration = Duration::from_secs(3);
/// Distance of two echo requests when nothing else runs.
const IDLE: Duration = Duration::from_millis(2);
/// Distance of two echo requests beside bulk data.
const LOADED: Duration = Duration::from_millis(5);

/// Measures it. What fails is in the sample.
pub fn measure(entry: &Entry, round: u32, seconds: u32) -> Sample {
    let mut sample = Sample {
        subject: entry.subject.name.clone(),
        round,
        ..Sample::default()
    };
    if entry.subject.version.is_none() {
        return sample;
    }
    if let Err(failure) = run(entry, seconds, &mut sample) {
        sample.failures.push(failure.0);
    }
    sample
}

fn run(entry: &Entry, seconds: u32, sample: &mut Sample) -> Result<()> {
    // Dropped after the tunnel and its daemons.
    let stage = Stage::new()?;
    let mut tunnel = (entry.make)();
    tunnel.prepare(&stage).during("preparing")?;
    let (mut ends, first) = start(&stage, &mut *tunnel)?;
    sample.first_reply_ms = Some(first.as_secs_f64() * 1e3);
    std::thread::sleep(SETTLE);
    sample.mtu = stage.mtu(ends.interfaces[0]).ok();

    let mut steps = Steps {
        sample,
        ends: &mut ends,
    };
    let length = Duration::from_secs(seconds.into());
    steps.step(
        "idle round trips",
        |ends| {
            stage.sides[0]
                .inside(|| echo::round_trips(ends.interfaces[0], ends.addresses[1], IDLE, length))
        },
        |sample, value| sample.idle = Some(value),
    );
    steps.transfers(&stage, seconds, |sample| &mut sample.offload);
    steps.step(
        "round trips under load",
        |ends| loaded(&stage, ends, seconds),
        |sample, value| {
            sample.loaded = Some(value);
        },
    );
    steps.step(
        "small packets",
        |ends| datagrams::measure(&stage, ends, length),
        |sample, value| {
            sample.datagrams = value;
        },
    );
    steps.step("memory", Ends::memory, |sample, value| {
        sample.memory = value.map(|sides| sides.map(|(now, _)| now));
        sample.memory_peak = value.map(|sides| sides.map(|(_, peak)| peak));
    });
    stage.stop_offload().during("switching offload off")?;
    steps.transfers(&stage, seconds, |sample| &mut sample.plain);
    Ok(())
}

/// Starts both sides, and says how long it took until the first echo reply.
fn start(stage: &Stage, tunnel: &mut dyn Tunnel) -> Result<(Ends, Duration)> {
    let (interfaces, addresses) = tunnel.place();
    let given_up = AtomicBool::new(false);
    let stop = || given_up.load(Ordering::Relaxed) || interrupt::asked();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            stage.sides[0].inside(|| echo::first_reply(interfaces[0], addresses[1], START, stop))
        });
        // On this thread, which outlives the daemons: they die with the thread that started them.
        let mut ends = tunnel.start(stage).during("starting");
        let mut ended = None;
        while ended.is_none() && !first.is_finished() {
            match &mut ends {
                Ok(ends) => ended = ends.ended(),
                Err(failure) => ended = Some(failure.to_string()),
            }
            std::thread::sleep(WATCH);
        }
        given_up.store(true, Ordering::Relaxed);
        let first = first
            .join()
            .map_err(|_| Failure("the probe panicked".to_owned()))?;
        let ends = ends?;
        match (first, ended) {
            (Some(at), _) => Ok((ends, at - began)),
            (None, Some(ended)) => Err(Failure(format!("it ended by itself, {ended}"))),
            (None, None) => Err(Failure(format!("no echo reply within {START:?}"))),
        }
    })
}

/// Round trips while one TCP stream runs.
fn loaded(stage: &Stage, ends: &Ends, seconds: u32) -> Result<echo::RoundTrips> {
    let load = Client::start(stage, ends, 1, Direction::Forward, seconds + 2)?;
    std::thread::sleep(Duration::from_secs(1));
    let length = Duration::from_secs(seconds.into());
    let times = stage.sides[0]
        .inside(|| echo::round_trips(ends.interfaces[0], ends.addresses[1], LOADED, length))?;
    load.finish()?;
    Ok(times)
}

/// Measurements one after the other: one that fails does not keep the next from being tried.
struct Steps<'a> {
    sample: &'a mut Sample,
    ends: &'a mut Ends,
}

impl Steps<'_> {
    fn step<T>(
        &mut self,
        what: &str,
        measure: impl FnOnce(&Ends) -> Result<T>,
        keep: impl FnOnce(&mut Sample, T),
    ) {
        if interrupt::asked() {
            return;
        }
        match measure(self.ends).during(what) {
            Ok(value) => keep(self.sample, value),
            Err(failure) => self.sample.failures.push(match self.ends.ended() {
                Some(ended) => format!("{failure}; a daemon had ended, {ended}"),
                None => failure.0,
            }),
        }
    }

    fn transfers(&mut self, stage: &Stage, seconds: u32, place: fn(&mut Sample) -> &mut Transfers) {
        use Direction::{Forward, Reverse};
        let mut step = |what, streams, direction, keep: fn(&mut Transfers, tcp::Bulk)| {
            self.step(
                what,
                |ends| tcp::measure(stage, ends, streams, direction, seconds),
                |sample, bulk| keep(place(sample), bulk),
            );
        };
        step("TCP, 1 stream", 1, Forward, |t, b| t.one = Some(b));
        step("TCP, 1 stream back", 1, Reverse, |t, b| {
            t.one_reverse = Some(b)
        });
        step("TCP, 4 streams", 4, Forward, |t, b| t.four = Some(b));
        step("TCP, 4 streams back", 4, Reverse, |t, b| {
            t.four_reverse = Some(b)
        });
    }
}
