//! One line an event.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use super::words;
use crate::event::{Event, Sink};

/// Lines to a writer. Of a long step's progress only every quarter is told.
pub struct Plain<W> {
    state: Mutex<State<W>>,
}

struct State<W> {
    writer: W,
    /// The step whose progress was told last, and its quarter.
    told: Option<(String, u64)>,
}

impl<W: Write> Plain<W> {
    pub fn new(writer: W) -> Self {
        Self {
            state: Mutex::new(State { writer, told: None }),
        }
    }
}

impl<W: Write + Send> Sink for Plain<W> {
    fn emit(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = match event {
            Event::Step { message } => message,
            Event::Stage {
                node,
                stage,
                seconds,
            } => {
                format!("{node}: {} ({seconds:.1} s)", words(stage))
            }
            Event::Progress { what, done, total } => {
                let quarter = (done.saturating_mul(4)).checked_div(total).unwrap_or(0);
                let now = Some((what.clone(), quarter));
                if state.told == now {
                    return;
                }
                state.told = now;
                match total {
                    0 => what,
                    _ => format!("{what}: {} %", quarter * 25),
                }
            }
            Event::Warning { message } => format!("warning: {message}"),
        };
        // A reader that went away is no reason to stop the work.
        let _ = writeln!(state.writer, "{line}").and_then(|()| state.writer.flush());
    }
}

#[cfg(test)]
impl<W> Plain<W> {
    pub fn into_inner(self) -> W {
        self.state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .writer
    }
}
