//! From measurements to text. Pure: no measuring, no files.

mod chart;
mod goals;
mod metric;
mod prose;
mod tables;

use crate::sample::{Measured, Sample};
use crate::tunnel::{Layer, Subject};

/// The files of the report, by their paths below its directory.
pub fn files(measured: &Measured, json: &str) -> Vec<(String, String)> {
    let mut files = vec![
        ("performance.md".to_owned(), prose::document(measured)),
        ("performance/measured.json".to_owned(), format!("{json}\n")),
    ];
    for layer in [Layer::L3, Layer::L2] {
        for chart in &metric::CHARTS {
            if let Some(svg) = chart::draw(measured, layer, chart) {
                files.push((format!("performance/{}", chart::file(layer, chart)), svg));
            }
        }
    }
    files
}

/// The table of goals.
pub fn goals(measured: &Measured) -> String {
    goals::table(measured)
}

/// What one sample came to, for people who wait.
pub fn line(sample: &Sample, subject: &Subject) -> String {
    if subject.version.is_none() {
        return "not installed".to_owned();
    }
    let mut words: Vec<String> = metric::PROGRESS
        .iter()
        .filter_map(|metric| {
            let value = (metric.value)(sample)?;
            Some(format!(
                "{} {} {}",
                metric.short,
                metric::number(value),
                metric.unit
            ))
        })
        .collect();
    words.extend(sample.failures.iter().map(|failure| format!("! {failure}")));
    words.join(", ")
}

/// The samples of one subject that were measured.
fn samples<'a>(measured: &'a Measured, name: &'a str) -> impl Iterator<Item = &'a Sample> {
    measured
        .samples
        .iter()
        .filter(move |sample| sample.subject == name)
}
