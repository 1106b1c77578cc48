//! Processes of embedded servers, found without any file of theirs.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::process::ProcessId;
use crate::layout::Layout;

/// A supervisor or a server that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The deployment it serves.
    pub deployment: String,
    /// The process.
    pub process: ProcessId,
}

/// The supervisors and servers of all deployments of this state directory, supervisors first: they
/// would start their server again. Both carry the state directory in their environment.
pub fn strays(layout: &Layout) -> io::Result<Vec<Stray>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        // Of others, and of those that end meanwhile, nothing can be read.
        let Ok(process) = ProcessId::of(pid) else {
            continue;
        };
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}"));
        let (Ok(environ), Ok(cmdline)) = (read("environ"), read("cmdline")) else {
            continue;
        };
        if let Some((rank, deployment)) = serves(&environ, &cmdline, &layout.state) {
            let stray = Stray {
                deployment,
                process,
            };
            if stray.process.alive() {
                found.push((rank, stray));
            }
        }
    }
    found.sort_by_key(|(rank, stray)| (*rank, stray.process.pid));
    Ok(found.into_iter().map(|(_, stray)| stray).collect())
}

/// The deployment that a process with this environment and command line serves, and 0 if it is a
/// supervisor.
fn serves(environ: &[u8], cmdline: &[u8], state: &Path) -> Option<(u8, String)> {
    let variable = |name: &str| {
        let values = environ.split(|b| *b == 0);
        let mut values = values.filter_map(|v| v.strip_prefix(name.as_bytes()));
        values.next().map(|v| Path::new(OsStr::from_bytes(v)))
    };
    let words: Vec<&[u8]> = cmdline.split(|b| *b == 0).collect();
    let run: [&[u8]; 2] = [b"rendezvous", b"run"];
    let position = words.windows(2).position(|pair| pair == run);
    if let Some(at) = position
        && variable("IPOP_STATE_DIR=") == Some(state)
    {
        let name = String::from_utf8(words.get(at + 2)?.to_vec()).ok()?;
        return Some((0, name));
    }
    let below = variable("EJABBERD_CONFIG_PATH=")?
        .strip_prefix(state.join("deployments"))
        .ok()?;
    let Some(Component::Normal(name)) = below.components().next() else {
        return None;
    };
    Some((1, name.to_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processes_of_this_state_directory_are_strays() {
        let state = Path::new("/s");
        let supervisor = b"/usr/bin/provision\0rendezvous\0run\0demo\0";
        let named = |environ: &[u8], cmdline: &[u8]| serves(environ, cmdline, state);
        assert_eq!(
            named(b"HOME=/\0IPOP_STATE_DIR=/s\0", supervisor),
            Some((0, "demo".to_owned()))
        );
        assert_eq!(named(b"IPOP_STATE_DIR=/s2\0", supervisor), None);
        assert_eq!(named(b"IPOP_STATE_DIR=/s\0", b"provision\0status\0"), None);
        let config = b"EJABBERD_CONFIG_PATH=/s/deployments/lake/rendezvous/ejabberd.yml\0";
        assert_eq!(named(config, b"beam.smp\0"), Some((1, "lake".to_owned())));
        let other = b"EJABBERD_CONFIG_PATH=/etc/ejabberd/ejabberd.yml\0";
        assert_eq!(named(other, b"beam.smp\0"), None);
    }
}
