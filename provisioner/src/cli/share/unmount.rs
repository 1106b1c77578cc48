//! `provision share unmount`.

use clap::Args;
use serde::Serialize;

use super::{ShareTarget, here};
use crate::cli::Context;
use crate::error::{CliError, ExitCode};
use crate::plan::mount::{Mounted, Place};
use crate::report::Report;

const EXAMPLES: &str = "\
Examples:
  provision share unmount lake/lake-data
  provision share unmount lake/lake-data /srv/lake
  provision share unmount lake/lake-data --lazy          its server is away, or a program still uses it

What `share mount --persistent` made is removed as well.";

/// See [`super::ShareCommand::Unmount`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UnmountArgs {
    /// The overlay, and the share's name in it
    #[arg(value_name = "NAME/SHARE")]
    pub target: ShareTarget,
    /// The folder that it is mounted on [default: /shares/SHARE]
    #[arg(value_name = "PATH")]
    pub path: Option<Place>,
    /// Do not wait for the server, nor for programs that use it
    #[arg(long)]
    pub lazy: bool,
}

/// What ended.
#[derive(Debug, Serialize)]
pub(super) struct Ended {
    pub overlay: String,
    pub share: String,
    pub path: String,
    /// Whether it was to be mounted whenever it is touched.
    pub was_persistent: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: UnmountArgs) -> Result<u8, CliError> {
    let ShareTarget { deployment, share } = &args.target;
    let (overlay, share) = (deployment.as_str(), share.0.as_str());
    here::check_root()?;
    let place = args.path.unwrap_or_else(|| Place::of(share));
    let was_persistent = here::has_units(&place, overlay, share)?;
    if was_persistent {
        here::stop(&place)?;
    }
    match here::mounted_at(&place, overlay, share)? {
        Mounted::Share => {
            let lazy: &[&str] = if args.lazy { &["-l"] } else { &[] };
            let words = [lazy, &[place.as_str()]].concat();
            here::run("umount", "mount", &words).map_err(|error| {
                error.hint("--lazy lets go of it now, and those who still use it when they end")
            })?;
        }
        Mounted::Nothing if was_persistent => {}
        Mounted::Nothing => {
            let message = format!("`{overlay}/{share}` is not mounted on `{place}`");
            return Err(CliError::new(ExitCode::Name, message)
                .hint("`findmnt -t nfs4` shows what is mounted, and where"));
        }
        Mounted::Other(source) => {
            let message = format!("`{source}` is mounted on `{place}`, not `{overlay}/{share}`");
            return Err(CliError::new(ExitCode::Name, message)
                .hint("it is left alone; `findmnt -t nfs4` shows what is mounted, and where"));
        }
    }
    here::forget_folder(&place, share);
    let ended = Ended {
        overlay: overlay.to_owned(),
        share: share.to_owned(),
        path: place.to_string(),
        was_persistent,
    };
    Report::new(context.mode(), &[]).finish(&ended, text);
    Ok(0)
}

pub(super) fn text(ended: &Ended) -> String {
    let Ended {
        overlay,
        share,
        path,
        ..
    } = ended;
    format!("`{overlay}/{share}` is not mounted on {path} any more\n")
}
