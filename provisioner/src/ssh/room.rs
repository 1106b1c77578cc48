//! Whether there is room for what is to be written on another machine, and the error when there is
//! not: it names the machine, the file, its file system, and how much is missing.

use super::target::Target;
use crate::error::{CliError, ExitCode};

/// Status of a script in which [`ROOM`] found too little.
pub const FULL: i32 = 73;

/// A function for the beginning of scripts. `room DIRECTORY KIB FILE` ends the script with [`FULL`] and
/// says why on standard output ([`full`] reads it), unless the file system of the directory, or of the
/// nearest one above it that is there, has so many KiB to spare, and one file. What only root may use
/// of it is not counted. `is_full` is the same as a question: it says and ends nothing.
pub const ROOM: &str = r#"
is_full() {
  room_at=$1 room_need=$2
  while [ ! -d "$room_at" ]; do room_at=$(dirname "$room_at"); done
  set -- $(df -Pk "$room_at" 2>/dev/null | tail -n 1)
  room_free=${4:-} room_mount=${6:-}
  set -- $(df -Pi "$room_at" 2>/dev/null | tail -n 1)
  # A file system without a table of files says that it has none.
  case ${2:-0}/${4:-1} in 0/* | -/* | */-) room_files=1 ;; *) room_files=${4:-1} ;; esac
  case $room_free in '' | *[!0-9]*) return 1 ;; esac
  [ "$room_free" -lt "$room_need" ] || [ "$room_files" = 0 ]
}
room() {
  if is_full "$1" "$2"; then
    echo "full=$room_free $room_need $room_files $room_mount $3"
    exit 73
  fi
}
"#;

/// Too little room, as [`ROOM`] says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// KiB that may be used.
    free: u64,
    /// KiB that are needed.
    needed: u64,
    /// Files that may be made.
    files: u64,
    /// The file system, by where it is mounted.
    mount: String,
    /// What was to be written.
    file: String,
}

impl Full {
    /// From what a script printed behind `full=`.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            free: number()?,
            needed: number()?,
            files: number()?,
            mount: words.next()?.to_owned(),
            file: words.next()?.to_owned(),
        })
    }

    /// What is missing.
    pub fn why(&self) -> String {
        let Self {
            free,
            needed,
            files,
            mount,
            file,
        } = self;
        if free < needed {
            format!("{mount} has {free} KiB free, and {file} may need {needed}")
        } else {
            format!("{mount} has room for {files} more files, and {file} is one more")
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        let mount = &self.mount;
        let missing = self.needed.saturating_sub(self.free);
        if missing > 0 {
            format!(
                "free at least {missing} KiB there (`df -h {mount}` shows what is left), then do the same again"
            )
        } else {
            format!(
                "remove files there (`df -i {mount}` shows how many can be made), then do the same again"
            )
        }
    }
}

/// The error of a script that ended with [`FULL`]; `what` says in a few words what was being done,
/// `text` is what it printed.
pub fn full(target: &Target, what: &str, text: &str) -> CliError {
    let line = text.lines().rev().find_map(|l| l.strip_prefix("full="));
    let message = format!("the disk of {target} is full: {what}");
    let error = CliError::new(ExitCode::Missing, message);
    match line.and_then(Full::parse) {
        Some(full) => error.caused_by(full.why()).hint(full.hint()),
        None => error.hint("free some space there; `df -h` shows what is left"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_full_is_named_with_what_is_missing() {
        let target: Target = "root@lake.example".parse().expect("a target");
        let said = [
            "full=12 64 900 /tftpboot /tftpboot/pxelinux/pxelinux.cfg/0A018002\n",
            "noise\nfull=900 64 0 / /etc/dhcp/dhcpd.conf",
            "",
        ];
        let shown =
            said.map(|text| full(&target, "setting how compute-90-0 boots", text).to_string());
        insta::assert_snapshot!(shown.join("\n\n"));
    }

    #[test]
    fn a_script_ends_where_there_is_no_room_and_goes_on_where_there_is() {
        let run = |kib: u64| {
            let text = format!(
                "set -eu{ROOM}room /proc/self/nowhere/at/all 0 x; room /tmp/no/such {kib} /tmp/no/such/file; echo went on"
            );
            let output = Command::new("sh").args(["-c", &text]).output().expect("sh");
            assert_eq!(output.stderr, b"", "{output:?}");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.code(), text)
        };
        assert_eq!(run(1), (Some(0), "went on\n".to_owned()));
        let (status, text) = run(u64::MAX >> 2);
        assert_eq!(status, Some(FULL));
        let line = text.trim_end().strip_prefix("full=");
        let read = line.and_then(Full::parse).expect("legible");
        assert_eq!(
            (read.needed, read.file.as_str()),
            (u64::MAX >> 2, "/tmp/no/such/file")
        );
        assert!(read.free > 0 && read.mount.starts_with('/'), "{read:?}");
    }
}
