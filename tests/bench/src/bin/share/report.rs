//! From measurements to text. Pure: no measuring, no files.

mod prose;

use std::fmt::Write as _;

use ipop_bench::statistics::{Summary, quantile};

use crate::job::{JOBS, PHASES, Unit};
use crate::sample::{Load, Measured, Turn};
use crate::way::Way;

pub use prose::document;

/// A figure of a turn, if it has it.
type OfTurn = Box<dyn Fn(&Turn) -> Option<f64>>;

/// A figure of what client and server did in a piece of work.
type OfLoads = fn(&[Load; 2]) -> f64;

/// A row of the tables.
struct Row {
    title: &'static str,
    unit: &'static str,
    value: OfTurn,
}

fn rows() -> Vec<Row> {
    let rate = |name: &'static str| {
        Box::new(move |turn: &Turn| Some(turn.works.iter().find(|work| work.name == name)?.rate))
    };
    let jobs = JOBS.iter().map(|job| Row {
        title: job.title,
        unit: job.unit().shown(),
        value: rate(job.name),
    });
    let phases = PHASES.iter().map(|(name, title)| Row {
        title,
        unit: Unit::Operations.shown(),
        value: rate(name),
    });
    let echoes = [
        ("round trip, median (less is better)", 0.5),
        ("round trip, 90th percentile (less is better)", 0.9),
    ]
    .map(|(title, q)| Row {
        title,
        unit: "ms",
        value: Box::new(move |turn: &Turn| quantile(&turn.echoes_ms, q)),
    });
    jobs.chain(phases).chain(echoes).collect()
}

/// The ways that were measured.
fn ways(measured: &Measured) -> Vec<Way> {
    let there = |way: &Way| measured.turns.iter().any(|turn| turn.way == *way);
    Way::ALL.into_iter().filter(there).collect()
}

/// What one way was of another in each round: median and range, by row.
pub fn ratios(measured: &Measured) -> String {
    let ways = ways(measured);
    let pairs: Vec<_> = [
        (Way::Overlay, Way::Direct),
        (Way::Wireguard, Way::Direct),
        (Way::Overlay, Way::Wireguard),
    ]
    .into_iter()
    .filter(|(of, to)| ways.contains(of) && ways.contains(to))
    .collect();
    let head = pairs
        .iter()
        .map(|(of, to)| format!("{} / {}", of.name(), to.name()));
    table(&[], head.collect(), rows(), |row| {
        pairs
            .iter()
            .map(|(of, to)| {
                let rounds = 1..=measured.rounds;
                Summary::of(rounds.filter_map(|round| {
                    let value = |way| {
                        let mut turns = measured.turns.iter();
                        let turn = turns.find(|turn| turn.round == round && turn.way == way)?;
                        (row.value)(turn)
                    };
                    Some(value(*of)? / value(*to)?)
                }))
            })
            .collect()
    })
}

/// The figures themselves: median and range of the rounds.
pub fn figures(measured: &Measured) -> String {
    let ways = ways(measured);
    let head = ways.iter().map(|way| way.name().to_owned()).collect();
    table(&["unit"], head, rows(), |row| {
        let of = |way: &Way| {
            let turns = measured.turns.iter().filter(|turn| turn.way == *way);
            Summary::of(turns.filter_map(|turn| (row.value)(turn)))
        };
        ways.iter().map(of).collect()
    })
}

/// What the processors did, by piece of work: medians of the rounds, in percent.
pub fn loads(measured: &Measured) -> String {
    let mut columns: Vec<(String, Way, OfLoads)> = Vec::new();
    for way in ways(measured) {
        let name = way.name();
        columns.push((format!("{name}: client busy"), way, |load| load[0].busy));
        if way == Way::Overlay {
            columns.push(("its ipop-node".to_owned(), way, |load| load[0].node));
        }
        columns.push((format!("{name}: server busy"), way, |load| load[1].busy));
        if way == Way::Overlay {
            columns.push(("its ipop-node".to_owned(), way, |load| load[1].node));
        }
    }
    let mut text = "| % |".to_owned();
    for (head, _, _) in &columns {
        let _ = write!(text, " {head} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(columns.len()));
    let works = JOBS.iter().map(|job| (job.name, job.title));
    for (name, title) in works.chain([(PHASES[0].0, "the loop over files")]) {
        let _ = write!(text, "| {title} |");
        for (_, way, value) in &columns {
            let turns = measured.turns.iter().filter(|turn| turn.way == *way);
            let works = turns.filter_map(|turn| turn.works.iter().find(|work| work.name == name));
            match Summary::of(works.map(|work| value(&work.load) * 100.0)) {
                Some(summary) => {
                    let _ = write!(text, " {:.0} |", summary.median);
                }
                None => text.push_str(" – |"),
            }
        }
        text.push('\n');
    }
    text
}

/// What one turn came to, for people who wait.
pub fn line(turn: &Turn) -> String {
    let figure = |row: Row| {
        let value = ipop_bench::statistics::number((row.value)(turn)?);
        Some(format!("{} {value} {}", row.title, row.unit))
    };
    rows()
        .into_iter()
        .filter_map(figure)
        .collect::<Vec<_>>()
        .join("; ")
}

fn table(
    before: &[&str],
    head: Vec<String>,
    rows: Vec<Row>,
    cells: impl Fn(&Row) -> Vec<Option<Summary>>,
) -> String {
    let mut text = "| |".to_owned();
    for word in before
        .iter()
        .map(|word| (*word).to_owned())
        .chain(head.clone())
    {
        let _ = write!(text, " {word} |");
    }
    let (left, right) = ("---|".repeat(before.len() + 1), "---:|".repeat(head.len()));
    let _ = writeln!(text, "\n|{left}{right}");
    for row in rows {
        let _ = write!(text, "| {} |", row.title);
        if !before.is_empty() {
            let _ = write!(text, " {} |", row.unit);
        }
        for cell in cells(&row) {
            let cell = cell.map_or_else(|| "–".to_owned(), |summary| summary.to_string());
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Work;

    fn turn(way: Way, round: u32, rate: f64) -> Turn {
        let load = |node| Load { busy: 0.5, node };
        let name = "read".to_owned();
        Turn {
            way,
            round,
            mtu: 1400,
            mount: "10.0.0.1:/srv/share /mnt nfs4 rw,rsize=131072,wsize=65536,hard 0 0".to_owned(),
            echoes_ms: vec![1.0, 3.0, 2.0],
            works: vec![Work {
                name,
                rate,
                load: [load(0.25), load(0.125)],
            }],
        }
    }

    fn measured() -> Measured {
        Measured {
            machine: ipop_bench::machine::Machine::default(),
            disturbance: ipop_bench::activity::Disturbance {
                others: 0.01,
                stolen: 0.0,
            },
            guests: crate::sample::Guests::default(),
            rounds: 3,
            seconds: 4,
            files: 100,
            turns: vec![
                turn(Way::Overlay, 1, 10.0),
                turn(Way::Direct, 1, 20.0),
                turn(Way::Overlay, 2, 30.0),
                turn(Way::Direct, 2, 40.0),
                turn(Way::Direct, 3, 1.0),
            ],
        }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_of_rounds_that_have_both() {
        let text = ratios(&measured());
        assert!(
            text.starts_with("| | overlay / direct |\n|---|---:|\n"),
            "{text}"
        );
        let row = "| sequential read, 1 MiB | 0.62 (0.50–0.75) |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| sequential write, 1 MiB | – |"), "{text}");
    }

    #[test]
    fn figures_and_loads_have_a_column_for_each_way() {
        let text = figures(&measured());
        let row = "| sequential read, 1 MiB | MiB/s | 20.0 (10.0–30.0) | 20.0 (1.00–40.0) |";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("| round trip, median (less is better) | ms | 2.00 | 2.00 |"),
            "{text}"
        );
        let text = loads(&measured());
        assert!(
            text.contains("| sequential read, 1 MiB | 50 | 25 | 50 | 12 | 50 | 50 |"),
            "{text}"
        );
    }

    #[test]
    fn the_document_says_what_was_measured_where() {
        let text = document(&measured());
        assert!(
            text.contains("| overlay | 1400 | 131072 | 65536 |"),
            "{text}"
        );
        assert!(text.contains("the machine was quiet"), "{text}");
    }
}
