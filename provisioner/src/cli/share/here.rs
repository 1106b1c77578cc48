//! This machine, where a share is mounted: its node, its mounts, its service manager.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ipop_node::control::{self, Answer, Request};
use ipop_node::membership::Memberships;
use ipop_proto::status::NodeStatus;

use crate::error::{CliError, ExitCode};
use crate::plan::mount::{Mounted, Place, mark, mounted};

/// Where an administrator's units are (systemd.unit(5)).
const UNITS: &str = "/etc/systemd/system";
/// The port that NFSv4 is spoken on (RFC 7530 section 3.1).
const NFS: u16 = 2049;
/// How long a server may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Refuses whoever may not mount anything.
pub(super) fn check_root() -> Result<(), CliError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let message = "only root may mount and unmount";
    Err(CliError::new(ExitCode::Missing, message).hint("run it as root, or with sudo"))
}

/// What this machine's node in the overlay says: the node at `control`, or the one that is a member of it.
pub(super) fn node(overlay: &str, control: Option<&Path>) -> Result<NodeStatus, CliError> {
    let sockets: Vec<PathBuf> = match control {
        Some(path) => vec![path.to_owned()],
        None => vec![
            control::default_path(),
            Memberships::of(Path::new("/"))
                .places(overlay, false)
                .control,
        ],
    };
    let (mut other, mut silent) = (None, None);
    for socket in &sockets {
        match control::ask(socket, &Request::Status) {
            Ok(Answer::Status(status)) if status.overlay == overlay => return Ok(*status),
            Ok(Answer::Status(status)) => other = Some(status.overlay),
            Ok(_) => {}
            Err(error) => silent = silent.or(Some(error)),
        }
    }
    let message = match other {
        Some(other) => format!("this machine's node is in `{other}`, and none is in `{overlay}`"),
        None => format!("this machine has no node in `{overlay}` that answers"),
    };
    let error = CliError::new(ExitCode::Unavailable, message)
        .hint(format!(
            "`systemctl status ipop-node@{overlay}` shows the node of a machine that has joined"
        ))
        .hint("to join, ask the overlay's owner for an invitation, and run `ipop-node join TOKEN`");
    Err(match silent {
        Some(silent) => error.caused_by(silent),
        None => error,
    })
}

/// Fails if nobody at the server listens, whom a mount would wait for.
pub(super) fn check_serves(server: std::net::Ipv4Addr, share: &str) -> Result<(), CliError> {
    let addr = SocketAddr::from((server, NFS));
    match TcpStream::connect_timeout(&addr, PATIENCE) {
        Ok(_) => Ok(()),
        Err(error) => {
            let message = format!("`{share}` does not serve at {addr}");
            Err(CliError::new(ExitCode::Unavailable, message)
                .caused_by(error)
                .hint("its machine may be starting, or a rule keeps this machine out: `ipop-node policy` shows those"))
        }
    }
}

/// What is mounted at a place.
pub(super) fn mounted_at(place: &Place, overlay: &str, share: &str) -> Result<Mounted, CliError> {
    let path = Path::new("/proc/self/mounts");
    let mounts = fs::read_to_string(path).map_err(|e| CliError::file("read", path, e))?;
    Ok(mounted(&mounts, place, overlay, share))
}

/// Makes the folder if it is not there; one with something in it is refused.
pub(super) fn folder(place: &Place) -> Result<(), CliError> {
    let path = Path::new(place.as_str());
    fs::create_dir_all(path).map_err(|e| CliError::file("create", path, e))?;
    let mut entries = fs::read_dir(path).map_err(|e| CliError::file("read", path, e))?;
    if entries.next().is_none() {
        return Ok(());
    }
    let message = format!("the folder `{place}` is not empty");
    Err(CliError::new(ExitCode::Usage, message)
        .hint("what is in it could not be seen any more: choose another one"))
}

/// Removes the folder if it is one that [`folder`] made by itself, and empty.
pub(super) fn forget_folder(place: &Place, share: &str) {
    if *place == Place::of(share) {
        // One that is in use stays.
        let _ = fs::remove_dir(place.as_str());
    }
}

/// Runs a program to its end.
pub(super) fn run(program: &str, package: &str, arguments: &[&str]) -> Result<(), CliError> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C.UTF-8");
    let output = command.output();
    let output = output.map_err(|e| CliError::program(program, package, e))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(CliError::child(ExitCode::Unavailable, &command, &output)),
    }
}

/// Whether a share's units are at a place; those of another are refused.
pub(super) fn has_units(place: &Place, overlay: &str, share: &str) -> Result<bool, CliError> {
    let mut found = false;
    for kind in ["automount", "mount"] {
        let path = Path::new(UNITS).join(place.unit(kind));
        match fs::read_to_string(&path) {
            Ok(text) if text.starts_with(&mark(overlay, share)) => found = true,
            Ok(_) => {
                let message = format!("`{}` is not of `{overlay}/{share}`", path.display());
                return Err(CliError::new(ExitCode::Usage, message)
                    .hint("choose another folder, or remove that unit if nobody needs it"));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::file("read", &path, error)),
        }
    }
    Ok(found)
}

/// Fails where no systemd runs (sd_booted(3)).
pub(super) fn check_systemd(line: &str) -> Result<(), CliError> {
    if Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    let message = "no systemd runs here, which would mount it again";
    Err(CliError::new(ExitCode::Missing, message)
        .hint("without --persistent it is mounted until this machine stops")
        .hint(format!("a line for /etc/fstab: {line}")))
}

/// Writes units and starts the one that waits for a touch, now and with the machine.
pub(super) fn start(units: &[(String, String)], automount: &str) -> Result<(), CliError> {
    for (name, text) in units {
        let path = Path::new(UNITS).join(name);
        fs::write(&path, text).map_err(|e| CliError::file("write", &path, e))?;
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", automount])
}

/// Stops and removes the units at a place. All of it is tried, and the first failure told.
pub(super) fn stop(place: &Place) -> Result<(), CliError> {
    let (automount, mount) = (place.unit("automount"), place.unit("mount"));
    let mut done = vec![
        systemctl(&["disable", "--now", &automount]),
        systemctl(&["stop", &mount]),
    ];
    for name in [automount, mount] {
        let path = Path::new(UNITS).join(name);
        done.push(match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(CliError::file("remove", &path, error))
            }
            _ => Ok(()),
        });
    }
    done.push(systemctl(&["daemon-reload"]));
    done.into_iter().collect()
}

fn systemctl(arguments: &[&str]) -> Result<(), CliError> {
    run("systemctl", "systemd", arguments)
}
