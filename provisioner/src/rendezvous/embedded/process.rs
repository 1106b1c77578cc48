//! A process that cannot be mistaken for another one that got its number later.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::rendezvous::files;

/// How long a process that did not end by itself may take to be killed.
const KILL_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// A process by number and start time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot (proc(5), `starttime`).
    pub start_ticks: u64,
    /// The boot in which it started: ticks begin again with the next.
    pub boot: String,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, start_ticks) = state_and_start(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "cannot read its stat"))?;
        Ok(Self {
            pid,
            start_ticks,
            boot: boot_id()?,
        })
    }

    /// Reads a record; none when there is none or it makes no sense.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Writes a record.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        files::write(path, serde_json::to_string(self)?.as_bytes(), 0o600)
    }

    /// Whether this very process runs. One that ended and waits for its parent does not.
    pub fn alive(&self) -> bool {
        if boot_id().ok().as_ref() != Some(&self.boot) {
            return false;
        }
        fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .ok()
            .and_then(|stat| state_and_start(&stat))
            .is_some_and(|(state, start)| start == self.start_ticks && !matches!(state, 'Z' | 'X'))
    }

    /// Asks the process to end, kills it after `limit`, and returns whether it is gone.
    pub fn end(&self, limit: Duration) -> io::Result<bool> {
        self.signal(Signal::TERM)?;
        if self.wait(limit) {
            return Ok(true);
        }
        self.signal(Signal::KILL)?;
        Ok(self.wait(KILL_LIMIT))
    }

    /// Signals this process and no other: the descriptor is opened before the start time is
    /// compared, and stays bound to what was compared.
    fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            other => other?,
        };
        if !self.alive() {
            return Ok(());
        }
        match pidfd_send_signal(&descriptor, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    fn wait(&self, limit: Duration) -> bool {
        let began = Instant::now();
        while self.alive() {
            if began.elapsed() > limit {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Fields 3 and 22 of `/proc/PID/stat`. The second, the program's name, may hold anything.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let fields = stat.rsplit_once(')')?.1;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_confuse_the_start_time() {
        let stat = "7 (a) (b ) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(state_and_start(stat), Some(('S', 4711)));
    }

    #[test]
    fn another_process_with_the_same_number_is_neither_alive_nor_signalled() {
        let me = ProcessId::of(std::process::id()).expect("own stat");
        assert!(me.alive());
        let other = ProcessId {
            start_ticks: me.start_ticks + 1,
            ..me.clone()
        };
        assert!(!other.alive());
        // Would end the test run if it went out.
        assert!(other.end(Duration::from_secs(1)).expect("nothing to do"));
        let earlier_boot = ProcessId {
            boot: "another".into(),
            ..me
        };
        assert!(!earlier_boot.alive());
    }

    #[test]
    fn a_child_that_ignores_the_request_is_killed() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut ready = [0u8; 6];
        io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut ready).expect("ready");
        let id = ProcessId::of(child.id()).expect("its stat");
        assert!(id.end(Duration::from_millis(200)).expect("signals"));
        assert!(!child.wait().expect("ended").success());
    }
}
