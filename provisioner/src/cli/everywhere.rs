//! The same asked of many machines.

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::error::CliError;
use crate::name::NodeName;
use crate::ssh::transport::Limits;

/// How long one machine may take for all that it has.
const PATIENCE: Duration = Duration::from_secs(120);
/// Machines that are asked at the same time. All are reached through the front end, whose sshd lets ten in
/// who have not signed in yet.
const AT_ONCE: usize = 4;

/// What came of asking one machine: what it printed.
pub(super) type Asked<'a> = (&'a NodeName, Result<String, CliError>);

/// Runs all, some at a time, and keeps the last `most` bytes of what each prints; the answers are in the order
/// of the questions.
pub(super) fn all(
    commands: Vec<(&NodeName, Result<Command, CliError>)>,
    most: usize,
) -> Vec<Asked<'_>> {
    let count = commands.len();
    let waiting = Mutex::new(commands.into_iter().enumerate());
    let next = || waiting.lock().ok()?.next();
    let done = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(count) {
            scope.spawn(|| {
                while let Some((at, (name, command))) = next() {
                    let limits = Limits::within(PATIENCE);
                    let said = command
                        .and_then(|command| crate::ssh::output_up_to(most, command, &limits));
                    if let Ok(mut done) = done.lock() {
                        done.push((at, (name, said)));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, asked)| asked).collect()
}
