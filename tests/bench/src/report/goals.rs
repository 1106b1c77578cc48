//! The goals, and whether the measurements reach them.

use std::fmt::Write as _;

use super::metric::{self, Metric};
use super::{metric::number, samples, tables};
use crate::sample::{Measured, Sample};
use crate::statistics::Summary;
use crate::tunnel::{Layer, Role, SIGNED_IN, STATIC, SWITCH};

/// Which side of the target is good.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    AtLeast,
    AtMost,
}

/// A number for each round, and what its median should be.
struct Goal {
    what: String,
    wanted: Wanted,
    target: f64,
    unit: &'static str,
    rounds: Vec<f64>,
}

/// One row for each goal. A ratio is made of two numbers of the same round, and the median of the
/// rounds' ratios counts.
pub fn table(measured: &Measured) -> String {
    let mut text = String::from(
        "| goal | target | measured: median (range) of the rounds | reached |\n|---|---|---|---|\n",
    );
    for goal in all(measured) {
        let sign = match goal.wanted {
            Wanted::AtLeast => "≥",
            Wanted::AtMost => "≤",
        };
        let unit = goal.unit;
        let (shown, reached) = match Summary::of(goal.rounds.iter().copied()) {
            Some(summary) => {
                let reached = match goal.wanted {
                    Wanted::AtLeast => summary.median >= goal.target,
                    Wanted::AtMost => summary.median <= goal.target,
                };
                (
                    format!("{}{unit}", tables::cell(summary)),
                    if reached { "yes" } else { "**no**" },
                )
            }
            None => ("not measured".to_owned(), "**no**"),
        };
        let target = format!("{sign} {}{unit}", number(goal.target));
        let _ = writeln!(text, "| {} | {target} | {shown} | {reached} |", goal.what);
    }
    text
}

fn all(measured: &Measured) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut add = |what: String, wanted, target, unit, rounds| {
        goals.push(Goal {
            what,
            wanted,
            target,
            unit,
            rounds,
        });
    };
    use Wanted::{AtLeast, AtMost};
    let with = "";
    let without = ", no offload on the underlay";
    for (name, layer, what, target) in [
        (SIGNED_IN, Layer::L3, "L3 TCP", 2.0),
        (SWITCH, Layer::L2, "L2 TCP", 3.0),
    ] {
        for (metrics, suffix) in [
            (metric::TRANSFERS, with),
            (metric::PLAIN_TRANSFERS, without),
        ] {
            for of in metrics {
                add(
                    format!("{what}, {}{suffix}, to the best peer's", of.title),
                    AtLeast,
                    target,
                    "×",
                    to_best_peer(measured, name, layer, of, AtLeast),
                );
            }
        }
    }
    for of in [metric::ONE, metric::FOUR] {
        add(
            format!("L3 TCP, {}, to kernel VXLAN's", of.title),
            AtLeast,
            0.3,
            "×",
            to_one(measured, SIGNED_IN, "vxlan", of),
        );
    }
    for of in [metric::CPU, metric::PLAIN_CPU] {
        add(
            format!("L3 {}, to wireguard-go's", of.title),
            AtMost,
            1.0 / 3.0,
            "×",
            to_one(measured, SIGNED_IN, "wireguard-go", of),
        );
    }
    add(
        "L3 64-byte UDP packets, to the best peer's".to_owned(),
        AtLeast,
        1.5,
        "×",
        to_best_peer(measured, SIGNED_IN, Layer::L3, metric::DATAGRAMS, AtLeast),
    );
    for of in [metric::IDLE_P50, metric::LOADED_P99] {
        add(
            format!("L3 RTT, {}, to the best peer's", of.title),
            AtMost,
            1.0,
            "×",
            to_best_peer(measured, SIGNED_IN, Layer::L3, of, AtMost),
        );
    }
    for name in [SIGNED_IN, STATIC] {
        add(
            format!("Resident memory of each daemon, {name}"),
            AtMost,
            15.0,
            " MiB",
            rounds(measured, |sample| value(sample, name, metric::MEMORY)),
        );
    }
    add(
        "Start to first ping, static peers, beyond the fastest peer of either layer".to_owned(),
        AtMost,
        50.0,
        " ms",
        per_round(measured, |samples| {
            let ours = find(samples, STATIC, metric::FIRST_REPLY)?;
            let best = [Layer::L3, Layer::L2]
                .into_iter()
                .filter_map(|layer| {
                    best_peer(measured, samples, layer, metric::FIRST_REPLY, AtMost)
                })
                .reduce(f64::min)?;
            Some(ours - best)
        }),
    );
    add(
        "Start to first ping with XMPP sign-in and ICE".to_owned(),
        AtMost,
        1000.0,
        " ms",
        rounds(measured, |sample| {
            value(sample, SIGNED_IN, metric::FIRST_REPLY)
        }),
    );
    goals
}

fn to_best_peer(
    measured: &Measured,
    name: &str,
    layer: Layer,
    of: Metric,
    wanted: Wanted,
) -> Vec<f64> {
    per_round(measured, |samples| {
        let best = best_peer(measured, samples, layer, of, wanted)?;
        Some(find(samples, name, of)? / best)
    })
}

fn to_one(measured: &Measured, name: &str, other: &str, of: Metric) -> Vec<f64> {
    per_round(measured, |samples| {
        Some(find(samples, name, of)? / find(samples, other, of)?)
    })
}

/// The best of all peers of a layer in one round.
fn best_peer(
    measured: &Measured,
    round: &[&Sample],
    layer: Layer,
    of: Metric,
    wanted: Wanted,
) -> Option<f64> {
    tables::subjects(measured, layer)
        .filter(|subject| subject.role == Role::Peer)
        .filter_map(|subject| find(round, &subject.name, of))
        .reduce(match wanted {
            Wanted::AtLeast => f64::max,
            Wanted::AtMost => f64::min,
        })
}

fn per_round(measured: &Measured, of: impl Fn(&[&Sample]) -> Option<f64>) -> Vec<f64> {
    (1..=measured.rounds)
        .filter_map(|round| {
            let samples: Vec<&Sample> = measured
                .samples
                .iter()
                .filter(|sample| sample.round == round)
                .collect();
            of(&samples)
        })
        .collect()
}

fn rounds(measured: &Measured, of: impl Fn(&Sample) -> Option<f64>) -> Vec<f64> {
    measured.samples.iter().filter_map(of).collect()
}

fn find(round: &[&Sample], name: &str, of: Metric) -> Option<f64> {
    round.iter().find_map(|sample| value(sample, name, of))
}

fn value(sample: &Sample, name: &str, of: Metric) -> Option<f64> {
    (sample.subject == name)
        .then(|| (of.value)(sample))
        .flatten()
}

/// The failures of all rounds, one line each; empty if there were none.
pub fn failures(measured: &Measured) -> String {
    let mut text = String::new();
    for subject in &measured.subjects {
        if subject.version.is_none() {
            let _ = writeln!(text, "- {}: not installed", subject.name);
        }
        for sample in samples(measured, &subject.name) {
            for failure in &sample.failures {
                let (name, round) = (&subject.name, sample.round);
                let _ = writeln!(text, "- {name}, round {round}: {failure}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::Disturbance;
    use crate::machine::Machine;
    use crate::tunnel::Subject;

    fn measured(times: &[(&str, Role, [f64; 2])]) -> Measured {
        let sample = |name: &str, round: usize, first_reply_ms| Sample {
            subject: name.to_owned(),
            round: round as u32 + 1,
            first_reply_ms: Some(first_reply_ms),
            ..Sample::default()
        };
        Measured {
            machine: Machine::default(),
            disturbance: Disturbance {
                others: 0.0,
                stolen: 0.0,
            },
            rounds: 2,
            seconds: 1,
            subjects: times
                .iter()
                .map(|(name, role, _)| Subject {
                    name: (*name).to_owned(),
                    layers: vec![Layer::L3],
                    role: *role,
                    configuration: String::new(),
                    version: Some(String::new()),
                })
                .collect(),
            samples: times
                .iter()
                .flat_map(|(name, _, times)| [sample(name, 0, times[0]), sample(name, 1, times[1])])
                .collect(),
        }
    }

    fn row<'a>(table: &'a str, what: &str) -> &'a str {
        table
            .lines()
            .find(|line| line.contains(what))
            .expect("such a goal")
    }

    #[test]
    fn ours_is_compared_with_the_best_peer_of_the_same_round() {
        let measured = measured(&[
            (STATIC, Role::Ours, [100.0, 200.0]),
            ("slow then fast", Role::Peer, [90.0, 140.0]),
            ("fast then slow", Role::Peer, [80.0, 300.0]),
            ("no peer", Role::Ceiling, [1.0, 1.0]),
        ]);
        let table = table(&measured);
        // 100 - 80 and 200 - 140.
        let row = row(&table, "static peers, beyond");
        assert!(row.contains("| 40.0 (20.0–60.0) ms | yes |"), "{row}");
    }

    #[test]
    fn a_goal_that_is_missed_or_was_not_measured_is_not_reached() {
        let measured = measured(&[(SIGNED_IN, Role::Ours, [1500.0, 900.0])]);
        let table = table(&measured);
        assert!(row(&table, "XMPP").ends_with("| **no** |"), "{table}");
        let row = row(&table, "kernel VXLAN");
        assert!(row.ends_with("| not measured | **no** |"), "{row}");
    }
}
