//! Progress bars: one for the step in hand, one for each node.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{next_words, words};
use crate::event::{Event, Sink, Stage};
use crate::name::NodeName;

/// Stages of a node.
const STAGES: u64 = 6;
const TICK: Duration = Duration::from_millis(200);
const STEP: &str = "{spinner} {wide_msg}";
const NODE: &str = "  {prefix:16} [{bar:18}] {msg:24} {elapsed}";

/// Bars on standard error.
pub struct Terminal {
    all: MultiProgress,
    step: ProgressBar,
    nodes: BTreeMap<NodeName, ProgressBar>,
}

impl Terminal {
    pub fn new(nodes: &[NodeName]) -> Self {
        let all = MultiProgress::new();
        let step = all.add(ProgressBar::new_spinner().with_style(style(STEP)));
        step.enable_steady_tick(TICK);
        let bar = |node: &NodeName| {
            let bar = all.add(ProgressBar::new(STAGES).with_style(style(NODE)));
            bar.set_prefix(node.to_string());
            bar.set_message(next_words(None));
            bar.enable_steady_tick(TICK);
            (node.clone(), bar)
        };
        let nodes = nodes.iter().map(bar).collect();
        Self { all, step, nodes }
    }

    /// Takes the bars away.
    pub fn finish(&self) {
        for bar in self.nodes.values() {
            bar.finish_and_clear();
        }
        self.step.finish_and_clear();
    }
}

impl Sink for Terminal {
    fn emit(&self, event: Event) {
        match event {
            Event::Step { message } => self.step.set_message(message),
            Event::Progress { what, done, total } if total > 0 => {
                self.step
                    .set_message(format!("{what}: {} %", done.saturating_mul(100) / total));
            }
            Event::Progress { what, .. } => self.step.set_message(what),
            // Lines above the bars; without a terminal there is nothing to print above.
            Event::Warning { message } => {
                if self.all.println(format!("warning: {message}")).is_err() {
                    eprintln!("warning: {message}");
                }
            }
            Event::Stage {
                node,
                stage,
                seconds,
            } => {
                let Some(bar) = self.nodes.get(&node) else {
                    return;
                };
                bar.set_position(stage as u64 + 1);
                if stage == Stage::Ready {
                    bar.finish_with_message(format!("{} ({seconds:.0} s)", words(stage)));
                } else {
                    bar.set_message(next_words(Some(stage)));
                }
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The templates are constants; a defective one would show in the first run, plainly.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
