//! Bridges of Open vSwitch, by its own tool: `ovs-vsctl`, which speaks to its database.
//!
//! A port stays in that database when its device is gone, and the next device of the name is a port at
//! once. So it is taken out when the node ends, and before the device is made: the one that was killed could not.

use std::io;
use std::process::{Command, Output, Stdio};

const TOOL: &str = "ovs-vsctl";
/// Seconds that it may wait for the daemons.
const PATIENCE: &str = "--timeout=2";
/// What `br-exists` ends with where there is no such bridge.
const NO_BRIDGE: i32 = 2;
/// The device that is the kernel's master of every port.
pub const MASTER: &str = "ovs-system";

/// Whether there is a bridge of that name.
pub fn has(bridge: &str) -> io::Result<bool> {
    let Some(output) = run(&["br-exists", bridge])? else {
        return Ok(false);
    };
    match output.status.code() {
        Some(0) => Ok(true),
        Some(NO_BRIDGE) => Ok(false),
        _ => Err(failure(&output)),
    }
}

/// Makes the device a port of the bridge, one that does not outlive a start of Open vSwitch. Where that fails there is
/// none later either.
pub fn join(bridge: &str, device: &str) -> io::Result<()> {
    let transient = "other_config:transient=true";
    let port = ["add-port", bridge, device, "--", "set", "port", device];
    let joined = act(&[&port[..], &[transient]].concat());
    if joined.is_err() {
        // Whoever was to do it may come back.
        let _ = leave(bridge, device);
    }
    joined
}

/// Takes the device's port out of the bridge, if it is there.
pub fn leave(bridge: &str, device: &str) -> io::Result<()> {
    act(&["--no-wait", "--if-exists", "del-port", bridge, device])
}

/// The bridge that the device is a port of.
pub fn of_port(device: &str) -> io::Result<Option<String>> {
    let found = format!("name={device}");
    let words = ["--bare", "--columns=name", "find", "interface", &found];
    let Some(output) = run(&words)? else {
        return Ok(None);
    };
    if said(&output)?.is_empty() {
        return Ok(None);
    }
    let output = run(&["iface-to-br", device])?.ok_or(io::ErrorKind::NotFound)?;
    said(&output).map(Some)
}

fn act(words: &[&str]) -> io::Result<()> {
    let Some(output) = run(words)? else {
        let problem = format!("{TOOL} is not installed");
        return Err(io::Error::new(io::ErrorKind::NotFound, problem));
    };
    // What the database has and the switch could not do is said, and no failure to the tool.
    if !output.stderr.is_empty() {
        return Err(failure(&output));
    }
    said(&output).map(drop)
}

/// None where it is not installed.
fn run(words: &[&str]) -> io::Result<Option<Output>> {
    let mut command = Command::new(TOOL);
    command.arg(PATIENCE).args(words).stdin(Stdio::null());
    match command.output() {
        Ok(output) => Ok(Some(output)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn said(output: &Output) -> io::Result<String> {
    if !output.status.success() {
        return Err(failure(output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn failure(output: &Output) -> io::Error {
    if output.status.code().is_none() {
        return io::Error::new(io::ErrorKind::TimedOut, "Open vSwitch does not answer");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| !line.is_empty());
    io::Error::other(line.unwrap_or(TOOL).to_owned())
}
