//! Files put on a machine: whole or not at all, with their checksum.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

use super::room::{FULL, ROOM, full};
use super::transport::{Limits, Script, Transport};
use crate::error::{CliError, ExitCode, Retry};
use crate::image::hash::sha256_file;

/// Status of [`PUT`] when something else arrived than was sent.
const DAMAGED: i32 = 74;
/// Status of [`PROBE`] when the file is not there, or another.
const ABSENT: i32 = 75;

/// The first line of input is the checksum, the rest the content. A connection that breaks looks
/// like the end of the content, so nothing is called `$1` before the checksum is right. `$3` is the
/// size in KiB: what has no room is not begun. Stands behind [`ROOM`].
const PUT: &str = r#"set -eu
path=$1 mode=$2 size=$3
rm -f "$path".part.*
room "$(dirname "$path")" "$size" "$path"
IFS= read -r want
mkdir -p "$(dirname "$path")"
part=$(mktemp "$path.part.XXXXXX")
trap 'rm -f "$part"' EXIT
trap 'exit 1' HUP INT TERM PIPE
if ! cat >"$part"; then
  # Somebody else has taken the room since.
  rm -f "$part"
  room "$(dirname "$path")" "$size" "$path"
  exit 1
fi
have=$(sha256sum <"$part")
[ "${have%% *}" = "$want" ] || exit 74
chmod "$mode" "$part"
mv -f "$part" "$path"
"#;

const PROBE: &str = r#"path=$1 mode=$2 want=$3
[ -f "$path" ] || exit 75
have=$(sha256sum <"$path")
[ "${have%% *}" = "$want" ] || exit 75
chmod "$mode" "$path"
"#;

/// What a file shall contain.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// A few bytes, which may be secret: not even their checksum is an argument.
    Bytes(&'a [u8]),
    /// A file of this machine. Sent only if the other machine does not have it.
    File(&'a Path),
}

/// Whether a file was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was.
    Sent,
    /// It was there already.
    AlreadyThere,
}

impl Transport {
    /// Puts a file at `path` (absolute), owned by root, with directories above it; whatever was
    /// there is replaced in one move. `sent` is told of bytes sent and to send.
    pub fn put(
        &self,
        path: &str,
        mode: u32,
        content: Content<'_>,
        limits: &Limits<'_>,
        sent: &dyn Fn(u64, u64),
    ) -> Result<Put, CliError> {
        let what = format!("putting `{path}` there");
        let mode = format!("{mode:o}");
        match content {
            Content::Bytes(bytes) => {
                let sum = hex(digest(&SHA256, bytes).as_ref());
                let total = bytes.len() as u64;
                self.send(&what, path, &mode, (&sum, total), bytes, limits, sent)?;
                Ok(Put::Sent)
            }
            Content::File(file) => {
                let failed = |e| CliError::file("read", file, e);
                let sum = sha256_file(file).map_err(failed)?;
                let args = [path, &mode, &sum];
                let probe = Script::new(&what, PROBE).args(&args).answers(&[ABSENT]);
                if self.run(&probe, limits)?.status == 0 {
                    return Ok(Put::AlreadyThere);
                }
                let reader = File::open(file).map_err(failed)?;
                let total = reader.metadata().map_err(failed)?.len();
                self.send(&what, path, &mode, (&sum, total), reader, limits, sent)?;
                Ok(Put::Sent)
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one caller, and a struct would say no more"
    )]
    fn send(
        &self,
        what: &str,
        path: &str,
        mode: &str,
        (sum, total): (&str, u64),
        content: impl Read,
        limits: &Limits<'_>,
        sent: &dyn Fn(u64, u64),
    ) -> Result<(), CliError> {
        let header = format!("{sum}\n");
        let mut input = header.as_bytes().chain(content);
        // The file's own blocks, and one for its directory.
        let size = (total.div_ceil(1024) + 4).to_string();
        let args = [path, mode, &size];
        let text = format!("{ROOM}{PUT}");
        let script = Script::new(what, &text).args(&args);
        let script = script.answers(&[DAMAGED, FULL]);
        let answer = self.feed(&script, &mut input, limits, &|n| sent(n.min(total), total))?;
        if answer.status == FULL {
            return Err(full(self.target(), what, &answer.text()));
        }
        if answer.status == DAMAGED {
            return Err(CliError::new(
                ExitCode::Unavailable,
                format!("`{path}` did not arrive whole on {}", self.target()),
            )
            .hint("its checksum is not that of what was sent: try again")
            .retry(Retry::Soon));
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
