//! Charts as SVG: a dot at the median and a line over the range, on a logarithmic axis, because the
//! kernel's tunnels are an order of magnitude away from everything else.

use std::fmt::Write as _;

use super::metric::{Chart, number};
use super::tables;
use crate::sample::Measured;
use crate::statistics::Summary;
use crate::tunnel::{Layer, Role};

const WIDTH: f64 = 720.0;
const LABELS: f64 = 120.0;
const VALUES: f64 = 80.0;
const ROW: f64 = 22.0;
const HEAD: f64 = 44.0;
const FOOT: f64 = 28.0;
/// More than this, and only powers of ten are labelled.
const MOST_TICKS: usize = 9;

/// File name of a chart.
pub fn file(layer: Layer, chart: &Chart) -> String {
    let name = chart.name;
    match layer {
        Layer::L3 => format!("l3-{name}.svg"),
        Layer::L2 => format!("l2-{name}.svg"),
    }
}

/// Title of a chart.
pub fn title(layer: Layer, chart: &Chart) -> String {
    let layer = match layer {
        Layer::L3 => "Layer 3",
        Layer::L2 => "Layer 2",
    };
    format!("{layer}: {} ({})", chart.title, chart.metric.unit)
}

/// Draws one metric of every subject of a layer that has it; nothing if none has.
pub fn draw(measured: &Measured, layer: Layer, chart: &Chart) -> Option<String> {
    let metric = chart.metric;
    let rows: Vec<(&str, Role, Summary)> = tables::subjects(measured, layer)
        .filter_map(|subject| {
            let summary = tables::summary(measured, subject, metric)?;
            (summary.min > 0.0).then_some((subject.name.as_str(), subject.role, summary))
        })
        .collect();
    let least = rows.iter().map(|row| row.2.min).reduce(f64::min)?;
    let most = rows.iter().map(|row| row.2.max).reduce(f64::max)?;
    let axis = Axis::over(least, most);
    let height = HEAD + ROW * rows.len() as f64 + FOOT;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
<text x="12" y="22" font-size="14" font-weight="bold" fill="#222222">{}</text>
"##,
        title(layer, chart)
    );
    for tick in axis.ticks() {
        let x = axis.place(tick);
        let (top, bottom) = (HEAD - 8.0, height - FOOT);
        let _ = writeln!(
            svg,
            r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" stroke="#dddddd"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="#666666">{}</text>"##,
            bottom + 16.0,
            plain(tick)
        );
    }
    for (row, (name, role, summary)) in rows.iter().enumerate() {
        let y = HEAD + ROW * (row as f64 + 0.5);
        let colour = match role {
            Role::Ours => "#c8321e",
            Role::Peer => "#2b5f9e",
            Role::Ceiling => "#888888",
        };
        let [min, median, max] = [summary.min, summary.median, summary.max].map(|v| axis.place(v));
        let _ = writeln!(
            svg,
            r##"<text x="{:.1}" y="{:.1}" text-anchor="end" fill="{colour}">{name}</text><line x1="{min:.1}" y1="{y:.1}" x2="{max:.1}" y2="{y:.1}" stroke="{colour}" stroke-width="3" stroke-opacity="0.4"/><circle cx="{median:.1}" cy="{y:.1}" r="5" fill="{colour}"/><text x="{:.1}" y="{:.1}" text-anchor="end" fill="#222222">{}</text>"##,
            LABELS - 8.0,
            y + 4.0,
            WIDTH - 12.0,
            y + 4.0,
            number(summary.median)
        );
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// A logarithmic axis over whole steps of 1, 2 and 5.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn over(least: f64, most: f64) -> Self {
        let steps = Self::steps(least, most);
        let from = steps.iter().copied().rfind(|step| *step <= least);
        let to = steps.iter().copied().find(|step| *step > most);
        Self {
            from: from.unwrap_or(least),
            to: to.unwrap_or(most * 2.0),
        }
    }

    fn steps(least: f64, most: f64) -> Vec<f64> {
        let decades = (least.log10().floor() as i32)..=(most.log10().ceil() as i32);
        decades
            .flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade)))
            .collect()
    }

    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Self::steps(self.from, self.to);
        ticks.retain(|tick| *tick >= self.from * 0.999 && *tick <= self.to * 1.001);
        if ticks.len() > MOST_TICKS {
            ticks.retain(|tick| (tick.log10() - tick.log10().round()).abs() < 1e-9);
        }
        ticks
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value / self.from).ln() / (self.to / self.from).ln();
        LABELS + share * (WIDTH - LABELS - VALUES)
    }
}

/// A number of an axis: no more digits than it has.
fn plain(value: f64) -> String {
    if value >= 100.0 {
        number(value)
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_reaches_beyond_what_it_shows() {
        let axis = Axis::over(340.0, 23_500.0);
        assert_eq!((axis.from, axis.to), (200.0, 50_000.0));
        assert!((axis.place(200.0) - LABELS).abs() < 1e-9);
        assert!((axis.place(50_000.0) - (WIDTH - VALUES)).abs() < 1e-9);
        assert_eq!(axis.ticks().first(), Some(&200.0));
        assert_eq!(axis.ticks().last(), Some(&50_000.0));
    }
}
