//! Tables and summaries for people.

use std::fmt::Write;

use super::{next_words, words};
use crate::deploy::outcome::Outcome;

/// Columns of text, aligned.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut out = line(header.to_vec());
    for row in rows {
        out += &line(row.iter().map(String::as_str).collect());
    }
    out
}

/// The result of `provision cluster`.
pub fn outcome(outcome: &Outcome) -> String {
    let row = |node: &crate::deploy::outcome::NodeOutcome| {
        vec![
            node.name.to_string(),
            node.site.clone(),
            node.ipv4.clone(),
            node.ipv6.clone(),
            node.link.map_or("-".to_owned(), |l| l.to_string()),
            node.rtt_us.map_or("-".to_owned(), milliseconds),
            node.joined_seconds
                .map_or("-".to_owned(), |s| format!("{s:.1} s")),
        ]
    };
    let rows: Vec<_> = outcome.nodes.iter().map(row).collect();
    let header = ["NODE", "SITE", "IPV4", "IPV6", "LINK", "RTT", "JOINED"];
    let mut out = table(&header, &rows);
    let (name, seconds) = (&outcome.name, outcome.seconds);
    let joined = outcome.nodes.iter().filter(|n| n.stuck.is_none()).count();
    let count = outcome.nodes.len();
    let _ = if outcome.waited {
        writeln!(
            out,
            "\n{joined} of {count} nodes joined `{name}` in {seconds:.0} s"
        )
    } else {
        writeln!(
            out,
            "\n`{name}` was started in {seconds:.0} s; `provision status {name}` shows which of its \
             {count} nodes have joined"
        )
    };
    for node in &outcome.nodes {
        let Some(stuck) = &node.stuck else { continue };
        let reached = stuck.reached.map_or("nothing", words);
        let doing = next_words(stuck.reached);
        let _ = writeln!(
            out,
            "\n{} did not join; it got to: {reached}, and is stuck {doing}",
            node.name
        );
        let _ = writeln!(out, "  {}", stuck.why);
        if stuck.console.is_empty() {
            let _ = writeln!(out, "  its console is empty");
        }
        for line in &stuck.console {
            let _ = writeln!(out, "  | {line}");
        }
    }
    out
}

/// Microseconds as milliseconds.
pub fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}
