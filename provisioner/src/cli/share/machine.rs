//! What is asked of a share's machine, over SSH.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::cli::{Context, ssh};
use crate::error::CliError;
use crate::plan::ClusterPlan;
use crate::plan::exports;
use crate::ssh::transport::Limits;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

/// How long one command may take; an emulated machine takes seconds for each.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes there are and bytes used, on a line of their own; then the address of each client, with its port.
const ASK: &str = "mountpoint -q /srv/share && df --block-size=1 --output=size,used /srv/share | tail -n 1; \
                   grep -hs '^address: ' /proc/fs/nfsd/clients/*/info; true";
/// Grows the file system to the end of its disk, once the disk is as large as it shall be: that is told to the
/// kernel a moment after libvirt's call. What is not mounted yet is grown by the machine's own start.
const GROW: &str = r#"set -eu
mountpoint -q /srv/share || exit 0
disk=$(findmnt --noheadings --output SOURCE /srv/share)
tries=0
until [ "$(blockdev --getsize64 "$disk")" -ge "$bytes" ]; do
  tries=$((tries + 1))
  [ "$tries" -le 60 ] || { echo "$disk has not become larger" >&2; exit 1; }
  sleep 0.5
done
resize2fs "$disk" >&2"#;
/// What the image takes a share's exports over with.
const TAKE_EXPORTS: &str = "/usr/lib/ipop/share-members";

/// How full a share is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Space {
    /// What there is room for.
    pub size_bytes: u64,
    /// What is taken.
    pub used_bytes: u64,
}

/// What a share's machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// None while its volume is not mounted.
    pub space: Option<Space>,
    /// The addresses of machines that have it mounted.
    pub clients: BTreeSet<IpAddr>,
}

/// Asks how full a share is, and who has it mounted.
pub fn ask(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    nodes: &[NodeRecord],
    node: &NodeRecord,
) -> Result<Said, CliError> {
    let said = run(
        context,
        database,
        deployment,
        nodes,
        node,
        &[ASK.to_owned()],
    )?;
    Ok(parse(&said))
}

/// Has a share's machine take over who may mount it.
pub fn take_exports(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    nodes: &[NodeRecord],
    node: &NodeRecord,
) -> Result<(), CliError> {
    let plan = ClusterPlan::recorded(deployment, nodes)?;
    let Some(share) = plan.shares.iter().find(|s| s.share.name == node.name) else {
        return Ok(());
    };
    let words = [TAKE_EXPORTS.to_owned(), exports::of_share(&plan, share)?];
    run(context, database, deployment, nodes, node, &words).map(drop)
}

/// Has a share's machine write to its disk what it holds in memory.
pub fn sync(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    nodes: &[NodeRecord],
    node: &NodeRecord,
) -> Result<(), CliError> {
    let line = "sync -f /srv/share".to_owned();
    run(context, database, deployment, nodes, node, &[line]).map(drop)
}

/// Has a share's machine grow its file system to a disk of so many bytes, while it serves.
pub fn grow(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    nodes: &[NodeRecord],
    node: &NodeRecord,
    size_bytes: u64,
) -> Result<(), CliError> {
    let line = format!("bytes={size_bytes}\n{GROW}");
    run(context, database, deployment, nodes, node, &[line]).map(drop)
}

fn run(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    nodes: &[NodeRecord],
    node: &NodeRecord,
    words: &[String],
) -> Result<String, CliError> {
    let command = ssh::command(context, database, deployment, nodes, node, words)?;
    crate::ssh::output(command, &Limits::within(PATIENCE)).map_err(|e| {
        let message = format!("`{}/{}`: {}", deployment.name, node.name, e.message);
        CliError { message, ..e }
    })
}

fn parse(said: &str) -> Said {
    let numbers = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        Some(Space {
            size_bytes: numbers.next()?.ok()?,
            used_bytes: numbers.next()?.ok()?,
        })
    };
    let client = |line: &str| {
        let address = line.strip_prefix("address: ")?.trim().trim_matches('"');
        let address: SocketAddr = address.parse().ok()?;
        Some(address.ip())
    };
    Said {
        space: said.lines().find_map(numbers),
        clients: said.lines().filter_map(client).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_says_is_read() {
        let said = parse(
            " 2040373248 24576\naddress: \"10.130.2.1:712\"\naddress: \"[fd5a:1:2:3::fe]:1000\"\n\
             address: \"10.130.2.1:713\"\naddress: nonsense\n",
        );
        let space = Space {
            size_bytes: 2_040_373_248,
            used_bytes: 24_576,
        };
        assert_eq!(said.space, Some(space));
        let clients: Vec<_> = said.clients.iter().map(IpAddr::to_string).collect();
        assert_eq!(clients, ["10.130.2.1", "fd5a:1:2:3::fe"]);
        let none = parse("");
        assert_eq!((none.space, none.clients.len()), (None, 0));
    }
}
