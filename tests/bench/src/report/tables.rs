//! Tables of medians and ranges, in Markdown.

use std::fmt::Write as _;

use super::metric::Metric;
use super::samples;
use crate::sample::Measured;
use crate::statistics::Summary;
use crate::tunnel::{Layer, Role, Subject};

/// One row for each subject of a layer, one column for each metric.
pub fn of(measured: &Measured, layer: Layer, metrics: &[Metric]) -> String {
    let mut text = String::from("| |");
    for metric in metrics {
        let _ = write!(text, " {} ({}) |", metric.title, metric.unit);
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(metrics.len()));
    text.push('\n');
    for subject in subjects(measured, layer) {
        let _ = write!(text, "| {} |", shown(subject));
        for metric in metrics {
            let cell = match summary(measured, subject, *metric) {
                Some(summary) => cell(summary),
                None if subject.version.is_none() => "not installed".to_owned(),
                None => "–".to_owned(),
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

/// The subjects of a layer, in their order.
pub fn subjects(measured: &Measured, layer: Layer) -> impl Iterator<Item = &Subject> {
    measured
        .subjects
        .iter()
        .filter(move |subject| subject.layers.contains(&layer))
}

/// What the rounds of a subject came to.
pub fn summary(measured: &Measured, subject: &Subject, metric: Metric) -> Option<Summary> {
    Summary::of(samples(measured, &subject.name).filter_map(|sample| (metric.value)(sample)))
}

/// A median, with its range if there is one.
pub fn cell(summary: Summary) -> String {
    summary.to_string()
}

fn shown(subject: &Subject) -> String {
    match subject.role {
        Role::Ours => format!("**{}**", subject.name),
        Role::Ceiling => format!("*{}*", subject.name),
        Role::Peer => subject.name.clone(),
    }
}
