//! A child process that is fed and read at once, and never waited for longer than it may take.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode};

/// How often to look whether to stop, while nothing is to be read or written.
const LOOK: Duration = Duration::from_millis(100);
/// How long output may be waited for after the child's end: whoever inherited its pipes (the
/// master of a shared connection) may keep them open.
const AFTERWARDS: Duration = Duration::from_millis(300);
/// Most bytes of standard error that are kept, the last ones.
const STDERR_KEPT: usize = 16 * 1024;

/// Until when something may take, and who may stop it before.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// When it must have ended.
    pub deadline: Instant,
    /// Set when the user wants to stop.
    pub interrupt: Option<&'a Interrupt>,
}

impl Limits<'static> {
    /// This long from now, whatever the user wants.
    pub fn within(time: Duration) -> Self {
        Self {
            deadline: Instant::now() + time,
            interrupt: None,
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself; none means by a signal.
    Status(Option<i32>),
    /// Killed by us: it took too long.
    TooLate,
    /// Killed by us: the user wants to stop.
    Interrupted,
}

/// What came of a child.
#[derive(Debug)]
pub(super) struct Ended {
    pub end: End,
    /// Standard output, as much of its beginning as was asked for.
    pub stdout: Vec<u8>,
    /// The end of standard error.
    pub stderr: String,
}

/// Runs a child to its end or the deadline, whichever is first. `input` goes to its standard
/// input; `sent` is told how many bytes of it went so far.
pub(super) fn run(
    mut command: Command,
    input: Option<&mut dyn Read>,
    keep: usize,
    limits: &Limits<'_>,
    sent: &dyn Fn(u64),
) -> io::Result<Ended> {
    let stdin = if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let talked = talk(&mut child, input, keep, limits, sent);
    if !matches!(&talked, Ok((Some(_), ..))) {
        // By its own number: it is our child and not reaped yet.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let (end, stdout, stderr) = talked?;
    Ok(Ended {
        end: match end {
            Some(()) => End::Status(status.code()),
            None if limits.interrupt.is_some_and(Interrupt::is_set) => End::Interrupted,
            None => End::TooLate,
        },
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

/// Runs a child that must succeed, and gives the beginning of what it printed.
pub(crate) fn output(command: Command, limits: &Limits<'_>) -> Result<String, CliError> {
    output_up_to(1 << 20, command, limits)
}

/// The same of one that may print more: `keep` bytes.
pub(crate) fn output_up_to(
    keep: usize,
    command: Command,
    limits: &Limits<'_>,
) -> Result<String, CliError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed =
        |e| CliError::new(ExitCode::Missing, format!("cannot run `{program}`")).caused_by(e);
    let ended = run(command, None, keep, limits, &|_| {}).map_err(failed)?;
    let why = match ended.end {
        End::Status(Some(0)) => return Ok(String::from_utf8_lossy(&ended.stdout).into_owned()),
        End::Status(Some(status)) => format!("status {status}"),
        End::Status(None) => "ended by a signal".to_owned(),
        End::TooLate => "no answer in time".to_owned(),
        End::Interrupted => return Err(CliError::interrupted()),
    };
    let message = format!("`{program}` failed: {why}");
    let error = CliError::new(ExitCode::Unavailable, message);
    Err(match ended.stderr.trim() {
        "" => error,
        said => error.caused_by(said.replace('\n', "; ")),
    })
}

type Talked = (Option<()>, Vec<u8>, Vec<u8>);

/// Moves bytes until the child has ended (then the first part is there) or may run no longer.
fn talk(
    child: &mut Child,
    input: Option<&mut dyn Read>,
    keep: usize,
    limits: &Limits<'_>,
    sent: &dyn Fn(u64),
) -> io::Result<Talked> {
    let mut feeder = match (input, child.stdin.take()) {
        (Some(source), Some(pipe)) => {
            rustix::io::ioctl_fionbio(&pipe, true)?;
            Some(Feeder::new(source, pipe))
        }
        _ => None,
    };
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    if let Some(pipe) = &out {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    if let Some(pipe) = &err {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut ended: Option<Instant> = None;
    loop {
        if ended.is_none() && child.try_wait()?.is_some() {
            ended = Some(Instant::now());
        }
        match ended {
            Some(at) if (out.is_none() && err.is_none()) || at.elapsed() > AFTERWARDS => {
                return Ok((Some(()), stdout, stderr));
            }
            None if Instant::now() >= limits.deadline
                || limits.interrupt.is_some_and(Interrupt::is_set) =>
            {
                return Ok((None, stdout, stderr));
            }
            _ => {}
        }
        wait(feeder.as_ref(), out.as_ref(), err.as_ref())?;
        if let Some(feeding) = &mut feeder {
            let more = feeding.feed()?;
            sent(feeding.sent);
            if !more {
                feeder = None;
            }
        }
        drain(&mut out, |bytes| {
            let room = keep.saturating_sub(stdout.len());
            stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
        })?;
        drain(&mut err, |bytes| {
            stderr.extend_from_slice(bytes);
            let surplus = stderr.len().saturating_sub(STDERR_KEPT);
            stderr.drain(..surplus);
        })?;
    }
}

/// Waits until one of the pipes can be used, at most [`LOOK`].
fn wait(
    feeder: Option<&Feeder<'_>>,
    out: Option<&impl AsFd>,
    err: Option<&impl AsFd>,
) -> io::Result<()> {
    let mut fds = Vec::new();
    if let Some(feeder) = feeder {
        fds.push(PollFd::new(&feeder.pipe, PollFlags::OUT));
    }
    if let Some(pipe) = out {
        fds.push(PollFd::new(pipe, PollFlags::IN));
    }
    if let Some(pipe) = err {
        fds.push(PollFd::new(pipe, PollFlags::IN));
    }
    // With no pipe left only the child's end is waited for, and nothing tells of it.
    let limit = if fds.is_empty() { LOOK / 10 } else { LOOK };
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Reads what is there; at the end of file the pipe is closed.
fn drain(pipe: &mut Option<impl Read>, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let Some(reader) = pipe else { return Ok(()) };
    let mut buffer = [0; 16 * 1024];
    match reader.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(n) => take(&buffer[..n]),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(e) => return Err(e),
    }
    Ok(())
}

struct Feeder<'a> {
    source: &'a mut dyn Read,
    pipe: ChildStdin,
    buffer: Vec<u8>,
    filled: usize,
    written: usize,
    sent: u64,
}

impl<'a> Feeder<'a> {
    fn new(source: &'a mut dyn Read, pipe: ChildStdin) -> Self {
        Self {
            source,
            pipe,
            buffer: vec![0; 64 * 1024],
            filled: 0,
            written: 0,
            sent: 0,
        }
    }

    /// Writes what fits into the pipe; false when nothing is left, or nobody reads.
    fn feed(&mut self) -> io::Result<bool> {
        if self.written == self.filled {
            self.written = 0;
            self.filled = self.source.read(&mut self.buffer)?;
            if self.filled == 0 {
                return Ok(false);
            }
        }
        match self.pipe.write(&self.buffer[self.written..self.filled]) {
            Ok(n) => {
                self.written += n;
                self.sent += n as u64;
                Ok(true)
            }
            // The child's status and standard error say why.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: Option<&mut dyn Read>, time: Duration) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, input, 1 << 20, &Limits::within(time), &|_| {}).expect("it runs")
    }

    #[test]
    fn much_goes_in_and_out_at_once() {
        let text = vec![b'x'; 3 << 20];
        let ended = shell(
            "tee /dev/stderr",
            Some(&mut &text[..]),
            Duration::from_secs(30),
        );
        assert_eq!(ended.end, End::Status(Some(0)));
        assert_eq!(ended.stdout.len(), 1 << 20);
        assert_eq!(ended.stderr.len(), STDERR_KEPT);
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed() {
        let began = Instant::now();
        let ended = shell(
            "echo said >&2; exec sleep 60",
            None,
            Duration::from_millis(300),
        );
        assert_eq!(ended.end, End::TooLate);
        assert_eq!(ended.stderr, "said\n");
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_child_that_does_not_read_and_leaves_its_pipes_to_others_holds_nobody_up() {
        let text = vec![b'x'; 1 << 20];
        let ended = shell(
            "sleep 30 & exit 7",
            Some(&mut &text[..]),
            Duration::from_secs(20),
        );
        assert_eq!(ended.end, End::Status(Some(7)));
    }

    #[test]
    fn a_user_who_wants_to_stop_does_not_wait() {
        let interrupt = Interrupt::default();
        interrupt.set();
        let limits = Limits {
            interrupt: Some(&interrupt),
            ..Limits::within(Duration::from_secs(60))
        };
        let mut command = Command::new("sleep");
        command.arg("60");
        let ended = run(command, None, 0, &limits, &|_| {}).expect("it runs");
        assert_eq!(ended.end, End::Interrupted);
    }
}
