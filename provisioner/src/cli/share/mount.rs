//! `provision share mount`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{ShareTarget, here};
use crate::cli::Context;
use crate::error::{CliError, ExitCode};
use crate::image::child::Tool;
use crate::plan::mount::{Mount, Mounted, OPTIONS, Place};
use crate::report::Report;

const EXAMPLES: &str = "\
Examples:
  provision share mount lake/lake-data                   on /shares/lake-data
  provision share mount lake/lake-data /srv/lake
  provision share mount lake/lake-data --persistent      and after each start of this machine
  provision share unmount lake/lake-data

This is for a machine that is a member of the overlay (`ipop-node join`), and needs root and the package
nfs-common. It asks the machine's own node who the share is, and nothing of the owner's.
With --persistent two units of systemd mount it when somebody touches the folder, and let go of it when
nobody has for five minutes. Workers mount every share so by themselves.";

/// What an NFS client needs.
const CLIENT: Tool = Tool {
    program: "mount.nfs4",
    package: "nfs-common",
};

/// See [`super::ShareCommand::Mount`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MountArgs {
    /// The overlay, and the share's name in it
    #[arg(value_name = "NAME/SHARE")]
    pub target: ShareTarget,
    /// The folder to mount it on, which is made if it is not there [default: /shares/SHARE]
    #[arg(value_name = "PATH")]
    pub path: Option<Place>,
    /// Mount it whenever somebody touches the folder, also when this machine has started anew
    #[arg(long)]
    pub persistent: bool,
    /// Control socket of this machine's node [default: that of the node in this overlay]
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
}

/// What is mounted now.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub overlay: String,
    pub share: String,
    /// Server and folder there.
    pub source: String,
    pub path: String,
    /// Whether it is mounted when it is touched, from now on.
    pub persistent: bool,
    /// Whether it was so before.
    pub already: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: MountArgs) -> Result<u8, CliError> {
    let ShareTarget { deployment, share } = &args.target;
    let (overlay, share) = (deployment.as_str(), share.0.as_str());
    here::check_root()?;
    CLIENT.find()?;
    let status = here::node(overlay, args.control.as_deref())?;
    let place = args.path.unwrap_or_else(|| Place::of(share));
    let mount = Mount::planned(&status, share, place)?;
    let already = mount_as(&mount, args.persistent)?;
    let done = Done {
        overlay: mount.overlay,
        share: mount.share,
        source: mount.source,
        path: mount.place.to_string(),
        persistent: args.persistent,
        already,
    };
    Report::new(context.mode(), &[]).finish(&done, text);
    Ok(0)
}

/// Mounts it; true when it was mounted like this before.
fn mount_as(mount: &Mount, persistent: bool) -> Result<bool, CliError> {
    let (overlay, share, place) = (&mount.overlay, &mount.share, &mount.place);
    let again = format!("`provision share unmount {overlay}/{share} {place}` ends that");
    if here::has_units(place, overlay, share)? {
        if persistent {
            return Ok(true);
        }
        let message = format!("`{overlay}/{share}` is mounted on `{place}` whenever it is touched");
        return Err(CliError::new(ExitCode::Usage, message).hint(again));
    }
    match here::mounted_at(place, overlay, share)? {
        Mounted::Nothing => {}
        Mounted::Share if !persistent => return Ok(true),
        Mounted::Share => {
            let message = format!("`{overlay}/{share}` is mounted on `{place}`, until that ends");
            return Err(CliError::new(ExitCode::Usage, message).hint(again));
        }
        Mounted::Other(source) => {
            let message = format!("`{source}` is mounted on `{place}`");
            return Err(CliError::new(ExitCode::Usage, message).hint("choose another folder"));
        }
    }
    let (source, units) = (&mount.source, mount.units());
    if persistent {
        here::check_systemd(&format!(
            "{source} {place} nfs4 {OPTIONS},_netdev,nofail 0 0"
        ))?;
    }
    here::check_serves(mount.addr, share)?;
    here::folder(place)?;
    let tried = here::run("mount", "mount", &mount.arguments());
    if let Err(error) = tried {
        here::forget_folder(place, share);
        let members = format!("`provision share members {overlay}/{share}`");
        return Err(error.hint(format!(
            "a server that refuses does not have this machine among the share's members: its owner sees \
             them by {members} and changes them with --add"
        )));
    }
    if !persistent {
        return Ok(false);
    }
    // That it can be mounted is known now, and why not would have been told.
    let [_, (automount, _)] = &units;
    let started = here::run("umount", "mount", &[place.as_str()])
        .and_then(|()| here::start(&units, automount));
    if let Err(error) = started {
        // Nothing is kept that does not work; what failed is told, and not what fails now.
        let _ = here::stop(place);
        return Err(error);
    }
    Ok(false)
}

pub(super) fn text(done: &Done) -> String {
    let Done {
        overlay,
        share,
        source,
        path,
        ..
    } = done;
    let what = match done.persistent {
        true => "mounted when it is touched, from now on, on",
        false => "mounted on",
    };
    let before = if done.already { ", as before" } else { "" };
    format!("`{overlay}/{share}` is {what} {path}{before}: {source}\n")
}
