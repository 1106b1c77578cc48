//! How events and results are shown: bars on a terminal, lines otherwise, JSON for programs.

mod json;
mod plain;
pub mod table;
mod terminal;

use serde::Serialize;

use crate::event::{Event, Sink, Stage};
use crate::name::NodeName;

/// How to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Progress bars on standard error.
    Terminal,
    /// One line an event on standard error.
    Plain,
    /// One JSON object an event on standard output.
    Json,
}

/// Shows events as they come.
pub struct Report(Kind);

enum Kind {
    Terminal(terminal::Terminal),
    Plain(plain::Plain<std::io::Stderr>),
    Json(json::Json<std::io::Stdout>),
}

impl Report {
    /// A report of what happens to `nodes`.
    pub fn new(mode: Mode, nodes: &[NodeName]) -> Self {
        Self(match mode {
            Mode::Terminal => Kind::Terminal(terminal::Terminal::new(nodes)),
            Mode::Plain => Kind::Plain(plain::Plain::new(std::io::stderr())),
            Mode::Json => Kind::Json(json::Json::new(std::io::stdout())),
        })
    }

    /// Ends the report: bars are taken away, and `result` is printed by `text`, or as the event
    /// `result` in JSON.
    pub fn finish<T: Serialize>(self, result: &T, text: impl FnOnce(&T) -> String) {
        match self.0 {
            Kind::Terminal(terminal) => {
                terminal.finish();
                print!("{}", text(result));
            }
            Kind::Plain(_) => print!("{}", text(result)),
            Kind::Json(json) => json.result(result),
        }
    }
}

impl Sink for Report {
    fn emit(&self, event: Event) {
        match &self.0 {
            Kind::Terminal(terminal) => terminal.emit(event),
            Kind::Plain(plain) => plain.emit(event),
            Kind::Json(json) => json.emit(event),
        }
    }
}

/// A stage in the words of a report.
pub fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Image => "image ready",
        Stage::Created => "machine started",
        Stage::Booted => "booted",
        Stage::SignedIn => "signed in",
        Stage::Linked => "linked",
        Stage::Ready => "joined",
    }
}

/// What a node does after a stage.
pub fn next_words(stage: Option<Stage>) -> &'static str {
    match stage {
        None => "waiting for its image",
        Some(Stage::Image) => "starting its machine",
        Some(Stage::Created) => "booting",
        Some(Stage::Booted) => "signing in",
        Some(Stage::SignedIn) => "linking",
        Some(Stage::Linked) => "preparing its role",
        Some(Stage::Ready) => "joined",
    }
}

#[cfg(test)]
mod tests;
