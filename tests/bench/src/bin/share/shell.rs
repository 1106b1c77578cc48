//! A shell on a machine, for many commands one after the other: to sign in anew for each would cost an
//! emulated machine more than the command does.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ipop_bench::failure::{During, Failure, Result};
use ipop_bench::interrupt;

/// How often it is looked whether somebody asked to stop.
const LOOK: Duration = Duration::from_millis(200);

/// What ends a command's output; its status follows.
const END: &str = "=== ended with ";

/// A shell that runs one command at a time.
pub struct Shell {
    machine: String,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    /// Starts `command`, which must be a POSIX shell that reads commands from its standard input.
    pub fn start(machine: &str, mut command: Command) -> Result<Self> {
        let what = format!("a shell on {machine}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            // Ctrl-C is for the benchmark, which ends this one.
            .process_group(0)
            .spawn()
            .during(&what)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure(format!("{what}: no pipes")));
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                if sender
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    return;
                }
                line.clear();
            }
        });
        Ok(Self {
            machine: machine.to_owned(),
            child,
            stdin,
            lines,
        })
    }

    /// Runs a command, which may have several lines, and gives what it wrote, errors included. It must
    /// end with success, and within `limit`.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<String> {
        let shown = command.lines().next().unwrap_or_default();
        let what = format!("`{shown}` on {}", self.machine);
        // A subshell, so that what ends in the command does not end the shell.
        let script = format!("(\n{command}\n) </dev/null 2>&1\nprintf '\\n{END}%s\\n' $?\n");
        self.stdin.write_all(script.as_bytes()).during(&what)?;
        self.stdin.flush().during(&what)?;
        let deadline = Instant::now() + limit;
        let mut output = String::new();
        loop {
            if interrupt::asked() {
                return Err(Failure("interrupted".to_owned()));
            }
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => match line.strip_prefix(END) {
                    Some("0\n") => return Ok(output),
                    Some(status) => {
                        let (status, said) = (status.trim(), output.trim());
                        return Err(Failure(format!("{what} ended with {status}: {said}")));
                    }
                    None => output.push_str(&line),
                },
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    let (limit, said) = (limit.as_secs(), output.trim());
                    return Err(Failure(format!("{what} took more than {limit} s: {said}")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure(format!("{what}: the connection ended")));
                }
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // `provision` has an `ssh` beside it.
        let group = -self.child.id().cast_signed();
        // SAFETY: kill takes two numbers and touches no memory. The child was not waited for yet, so the
        // group is still that one.
        unsafe { libc::kill(group, libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell() -> Shell {
        Shell::start("here", Command::new("sh")).expect("a shell")
    }

    #[test]
    fn a_shell_runs_one_command_after_the_other() {
        let mut shell = shell();
        assert_eq!(
            shell
                .run("echo one; echo two >&2", LIMIT)
                .expect("output")
                .trim(),
            "one\ntwo"
        );
        let text = shell.run("cat <<'E'\na 'b'\nE\ncat", LIMIT);
        assert_eq!(
            text.expect("output").trim(),
            "a 'b'",
            "and none reads the next"
        );
    }

    #[test]
    fn a_command_that_fails_says_what_it_wrote_and_the_shell_goes_on() {
        let mut shell = shell();
        let failure = shell
            .run("echo no such thing\nexit 3", LIMIT)
            .expect_err("fails");
        assert_eq!(
            failure.to_string(),
            "`echo no such thing` on here ended with 3: no such thing"
        );
        assert_eq!(
            shell.run("echo still", LIMIT).expect("output").trim(),
            "still"
        );
    }

    #[test]
    fn what_takes_too_long_or_ends_the_shell_is_an_error() {
        let mut shell = shell();
        let failure = shell.run("exec sleep 20", Duration::from_millis(300));
        assert!(
            failure
                .expect_err("late")
                .to_string()
                .contains("took more than 0 s")
        );
        let mut shell = Shell::start("here", Command::new("true")).expect("a process");
        assert!(shell.run("echo", LIMIT).is_err());
    }
}
