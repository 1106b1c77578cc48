//! One JSON object a line.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::event::{Event, Sink};

/// Lines to a writer.
pub struct Json<W> {
    writer: Mutex<W>,
}

#[derive(Serialize)]
struct Final<'a, T> {
    event: &'static str,
    #[serde(flatten)]
    result: &'a T,
}

impl<W: Write> Json<W> {
    pub fn new(writer: W) -> Self {
        Self {
            writer: Mutex::new(writer),
        }
    }

    /// The last line: event `result` with the result's fields.
    pub fn result<T: Serialize>(&self, result: &T) {
        self.line(&Final {
            event: "result",
            result,
        });
    }

    fn line(&self, value: &impl Serialize) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match serde_json::to_string(value) {
            // A reader that went away is no reason to stop the work.
            Ok(line) => drop(writeln!(writer, "{line}").and_then(|()| writer.flush())),
            Err(error) => tracing::error!(%error, "event not printed"),
        }
    }
}

impl<W: Write + Send> Sink for Json<W> {
    fn emit(&self, event: Event) {
        self.line(&event);
    }
}

#[cfg(test)]
impl<W> Json<W> {
    pub fn into_inner(self) -> W {
        self.writer
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
