//! What the front end says of whom it wants: one SSH session for as long as it lasts.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::error::{CliError, ExitCode};

/// The program on the front end. It is told who there may be, by its standard input, and answers with
/// a line at once, whenever that changes, and every 30 s.
pub const PROGRAM: &str = "/usr/lib/ipop/power-follow";
/// Silence after which the session counts as dead.
const SILENCE: Duration = Duration::from_secs(120);
/// How long it may take to end by itself once it says nothing more.
const LAST_WORDS: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// Longest line that is read, in bytes: more than 10,000 names.
const LONGEST: u64 = 256 * 1024;
/// How much is kept of what the session said last.
const KEPT: u64 = 4096;

/// A session.
#[derive(Debug)]
pub struct Session {
    child: Child,
    lines: Receiver<BTreeSet<String>>,
    heard: Instant,
}

impl Session {
    /// Starts `command`, which runs [`PROGRAM`], and tells it `told`.
    pub fn open(mut command: Command, told: &str) -> Result<Self, CliError> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| CliError::program("ssh", "openssh-client", e))?;
        if let Some(mut input) = child.stdin.take() {
            // One that ended already says why.
            let _ = input.write_all(told.as_bytes());
        }
        let (sender, lines) = channel();
        let output = child.stdout.take();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output?);
            while let Some(names) = next(&mut output) {
                sender.send(names).ok()?;
            }
            Some(())
        });
        Ok(Self {
            child,
            lines,
            heard: Instant::now(),
        })
    }

    /// The newest set that was said within `wait`, if any was.
    pub fn wanted(&mut self, wait: Duration) -> Result<Option<BTreeSet<String>>, CliError> {
        match self.lines.recv_timeout(wait) {
            Ok(first) => {
                self.heard = Instant::now();
                Ok(Some(self.lines.try_iter().last().unwrap_or(first)))
            }
            Err(RecvTimeoutError::Timeout) if self.heard.elapsed() < SILENCE => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(lost(format!("it was silent for {SILENCE:?}"))),
            Err(RecvTimeoutError::Disconnected) => {
                self.end();
                let said = self.child.stderr.take().map(said).unwrap_or_default();
                Err(lost(said))
            }
        }
    }
}

impl Session {
    /// Lets it say why it ends.
    fn end(&mut self) {
        let began = Instant::now();
        while began.elapsed() < LAST_WORDS && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(POLL);
        }
        // It may have ended.
        let _ = self.child.kill();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next line's names; none at the end, and at a line that is none of the program's.
fn next(output: &mut impl BufRead) -> Option<BTreeSet<String>> {
    let mut line = String::new();
    output.take(LONGEST).read_line(&mut line).ok()?;
    let names = line.strip_suffix('\n')?.strip_prefix("wanted")?;
    Some(names.split_whitespace().map(str::to_owned).collect())
}

fn said(errors: ChildStderr) -> String {
    let mut text = Vec::new();
    // What cannot be read was not said.
    let _ = errors.take(KEPT).read_to_end(&mut text);
    String::from_utf8_lossy(&text).trim().to_owned()
}

fn lost(why: String) -> CliError {
    let message = "the front end does not say which workers it wants";
    let error = CliError::new(ExitCode::Unavailable, message);
    match why.is_empty() {
        true => error,
        false => error.caused_by(std::io::Error::other(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_front_end_is_told_who_there_may_be_and_says_who_is_wanted() {
        let script =
            "read idle; read one rest; echo wanted; echo wanted $one $idle; exec sleep 600";
        let mut session = Session::open(shell(script), "600\nworker-1 x\n").expect("started");
        let mut wanted = session.wanted(LONG).expect("it runs").expect("a line");
        if wanted.is_empty() {
            wanted = session.wanted(LONG).expect("it runs").expect("a line");
        }
        assert_eq!(wanted, names(&["worker-1", "600"]));
        assert_eq!(session.wanted(Duration::ZERO).expect("it runs"), None);
    }

    #[test]
    fn a_session_that_ends_or_says_something_else_wants_nothing_and_says_why() {
        for script in [
            "echo 'no such file' >&2",
            "echo hello; echo 'no such file' >&2",
            "printf wanted; echo 'no such file' >&2",
        ] {
            let mut session = Session::open(shell(script), "").expect("started");
            let error = session.wanted(LONG).expect_err("it ended");
            assert!(error.one_line().contains("no such file"), "{error}");
        }
    }
}
