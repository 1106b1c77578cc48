//! `ipop-node peers`.

use std::fmt::Write as _;
use std::path::PathBuf;

use ipop_proto::status::{LinkState, NodeStatus, PinnedStatus, PinningStatus};

use super::{CliError, Exit, print, status};
use crate::control;

/// Show who waits to be approved, and who was.
///
/// On a node with [pinning] in its configuration a peer that comes by an account has no link before both owners
/// have approved it. Read the comparison code to the other owner, by telephone for one: both see the same
/// digits when nobody between the two nodes lies. Then `ipop-node approve` it, on both machines.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Control socket of the node.
    #[arg(long, value_name = "PATH", default_value_os_t = control::default_path())]
    control: PathBuf,
}

pub fn run(args: &Args) -> Result<(), CliError> {
    let status = status::ask(&args.control)?;
    let pinning = pinning(&status)?;
    if args.json {
        let json = serde_json::to_string_pretty(pinning).map_err(|error| {
            CliError::new(Exit::System, "cannot write the peers as JSON").caused_by(error)
        })?;
        return print(&format!("{json}\n"));
    }
    print(&list(&status, pinning))
}

/// What a node says of whom its owner approves.
pub(super) fn pinning(status: &NodeStatus) -> Result<&PinningStatus, CliError> {
    status.pinning.as_ref().ok_or_else(|| {
        let name = &status.name;
        let what = format!("`{name}` approves nobody: there is no [pinning] in its configuration");
        CliError::new(Exit::Config, what).hint(
            "add `[pinning]` to it and start the node again; with an [authority] certificates say who \
             a peer is",
        )
    })
}

/// One who waits, as its owner can be asked about.
pub(super) fn describe(out: &mut String, peer: &PinnedStatus) {
    let PinnedStatus {
        account,
        name,
        ipv4,
        ipv6,
        ..
    } = peer;
    // Writing to a string cannot fail.
    let _ = writeln!(out, "  {name} ({ipv4}, {ipv6}) by {account}");
    if let Some(changed) = &peer.changed {
        let _ = writeln!(out, "    CHANGED: {changed}");
    }
    match (&peer.fingerprint, &peer.code) {
        (Some(fingerprint), Some(code)) => {
            let _ = writeln!(
                out,
                "    code         {code}\n    fingerprint  {fingerprint}"
            );
        }
        (Some(fingerprint), None) => {
            let _ = writeln!(out, "    fingerprint  {fingerprint}");
        }
        (None, _) => {
            let _ = writeln!(
                out,
                "    cannot be approved: it does not say which key it has, as nodes with [pinning] do"
            );
        }
    }
}

fn list(status: &NodeStatus, pinning: &PinningStatus) -> String {
    let mut out = String::new();
    let own = pinning.fingerprint;
    let _ = writeln!(out, "this node    {}\nfingerprint  {own}", status.name);
    if !pinning.waiting.is_empty() {
        out.push_str("\nWAITING to be approved\n");
        for peer in &pinning.waiting {
            describe(&mut out, peer);
        }
    }
    if pinning.unheard > 0 {
        let count = pinning.unheard;
        let _ = writeln!(
            out,
            "\n{count} more came and are not looked at, because so many wait: somebody may be making \
             them up"
        );
    }
    if !pinning.approved.is_empty() {
        out.push_str("\nAPPROVED\n");
        for peer in &pinning.approved {
            describe(&mut out, peer);
            let by_account = format!("{}/", peer.account);
            let mut known = status.peers.iter().rev();
            let known = known.find(|it| it.jid.starts_with(&by_account));
            let link = match known.map(|it| &it.link) {
                None => "it is not there".to_owned(),
                Some(LinkState::Up) => "up".to_owned(),
                Some(LinkState::Down { why }) => format!("none: {why}"),
                Some(_) => "being made".to_owned(),
            };
            let _ = writeln!(out, "    link         {link}");
        }
    }
    if !status.refused.is_empty() {
        out.push_str("\nALARMS\n");
        for alarm in &status.refused {
            let _ = writeln!(out, "  {}: {}", alarm.origin, alarm.trouble);
        }
    }
    out.chars()
        .filter(|c| *c == '\n' || !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use ipop_proto::signal::Fingerprint;
    use ipop_proto::status::AlarmStatus;

    use super::super::table::tests::status;
    use super::*;

    fn peer(n: u8) -> PinnedStatus {
        PinnedStatus {
            account: format!("worker-{n}@demo.ipop"),
            name: format!("worker-{n}"),
            ipv4: [10, 73, 0, n].into(),
            ipv6: format!("fd5a::{n:x}").parse().expect("valid"),
            fingerprint: Some(Fingerprint([n; 32])),
            code: None,
            changed: None,
        }
    }

    #[test]
    fn peers_are_shown_as_reviewed() {
        let code = Some(["01234"; 8].join(" "));
        let mut status = status();
        status.refused = vec![AlarmStatus {
            origin: "worker-1@demo.ipop".to_owned(),
            trouble: "it has another key than the approved one".to_owned(),
            holder: None,
            age_ms: 1_000,
            count: 1,
        }];
        let pinning = PinningStatus {
            fingerprint: Fingerprint([1; 32]),
            waiting: vec![
                PinnedStatus {
                    code: code.clone(),
                    ..peer(5)
                },
                PinnedStatus {
                    fingerprint: None,
                    ..peer(6)
                },
                PinnedStatus {
                    code,
                    changed: Some("it now claims to be another\u{1b}[2J".to_owned()),
                    ..peer(7)
                },
            ],
            unheard: 3,
            approved: vec![peer(0), peer(1), peer(9)],
        };
        insta::assert_snapshot!(list(&status, &pinning));
    }
}
