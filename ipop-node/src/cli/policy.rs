//! `ipop-node policy`.

mod set;
mod text;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use ipop_proto::config::{AllowSection, NodeConfig, Selector};
use ipop_proto::policy::{Answer, Member, Policy, What, reason, sentence, summary};
use ipop_proto::status::{LinkState, NodeStatus, PeerStatus};
use serde_json::json;

use super::{CliError, Exit, print, status};
use crate::control;
use crate::settings::{
    credentials_directory, locate, own_certificate, read_authority, read_config, read_identity,
};

/// Show who may reach what: the rules in force, and what they mean for this node and its peers.
///
/// The running node is asked, or a configuration file is read. Of the members only those are shown that
/// have a link to the node, or are in its configuration: who is in which group is in their certificates.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Read this configuration file (TOML) in place of asking the running node.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Control socket of the node.
    #[arg(long, global = true, value_name = "PATH", default_value_os_t = control::default_path())]
    control: PathBuf,
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether one node may reach another, and by which rule.
    ///
    /// Answers need no rule: `ipop-node policy explain alice-laptop lake-data tcp/2049` is about who
    /// begins.
    Explain {
        /// Who begins: a node's name, or somebody who is in no more than `group:NAME`, or has no more
        /// than `role:NAME`.
        from: String,
        /// With whom, in the same form.
        to: String,
        /// With what: `tcp/PORT`, `udp/PORT`, `icmp`, or a TCP port alone.
        what: What,
    },
    Set(set::Args),
}

/// What is known of rules and members.
#[derive(Debug, Default)]
struct View {
    me: Member,
    rules: Vec<AllowSection>,
    /// Those of whom it is known in which groups they are.
    peers: Vec<Member>,
    /// The others.
    unknown: Vec<String>,
}

pub fn run(args: Args) -> Result<(), CliError> {
    if let Some(Command::Set(set)) = &args.command {
        return set::run(set, &args);
    }
    let view = match &args.config {
        Some(path) => View::configured(path)?,
        None => View::of(status::ask(&args.control)?),
    };
    let Some(Command::Explain { from, to, what }) = args.command else {
        return print(&match args.json {
            true => format!("{:#}\n", view.json()),
            false => text::list(&view),
        });
    };
    let (from, to) = (view.member(&from)?, view.member(&to)?);
    let policy = Policy::new(&view.rules);
    let answer = policy.as_ref().map(|policy| policy.ask(&from, &to, what));
    let is_allowed = answer != Some(Answer::Denied);
    let why = reason(answer);
    if !args.json {
        let word = if is_allowed { "yes" } else { "no" };
        return print(&format!("{word}: {why}\n"));
    }
    let rule = match answer {
        Some(Answer::Rule(number, _)) => Some(number),
        _ => None,
    };
    let json = json!({
        "from": from.name,
        "to": to.name,
        "what": what.to_string(),
        "allowed": is_allowed,
        "rule": rule,
        "why": why,
    });
    print(&format!("{json:#}\n"))
}

impl View {
    /// As a running node has it.
    fn of(status: NodeStatus) -> Self {
        let policy = status.policy.unwrap_or_default();
        let is_known = |peer: &PeerStatus| peer.link == LinkState::Up || !peer.groups.is_empty();
        let (known, unknown): (Vec<_>, Vec<_>) = status.peers.into_iter().partition(is_known);
        let member = |peer: PeerStatus| Member {
            name: peer.name,
            groups: peer.groups,
            role: peer.role,
        };
        Self {
            me: Member {
                name: status.name,
                groups: policy.groups,
                role: policy.role,
            },
            rules: policy.rules,
            peers: known.into_iter().map(member).collect(),
            unknown: unknown.into_iter().map(|peer| peer.name).collect(),
        }
    }

    /// As a configuration file has it.
    fn configured(path: &Path) -> Result<Self, CliError> {
        let credentials = credentials_directory();
        let config = read_config(path, credentials.as_deref())?;
        let by_configuration = |name: &str, groups: &_| Member {
            name: name.to_owned(),
            groups: Clone::clone(groups),
            role: None,
        };
        let me = certified(&config, credentials.as_deref())
            .unwrap_or_else(|| by_configuration(&config.node.name, &config.node.groups));
        let peers = config.peers.iter();
        let (peers, unknown) = match config.authority {
            None => (
                peers
                    .map(|peer| by_configuration(&peer.name, &peer.groups))
                    .collect(),
                Vec::new(),
            ),
            Some(_) => (Vec::new(), peers.map(|peer| peer.name.clone()).collect()),
        };
        Ok(Self {
            me,
            rules: config.allow,
            peers,
            unknown,
        })
    }

    /// Who is meant.
    fn member(&self, text: &str) -> Result<Member, CliError> {
        let selector = text.parse().ok();
        if let Some(member) = selector.as_ref().and_then(Member::anybody) {
            return Ok(member);
        }
        let name = match selector {
            Some(Selector::Node(name)) => name,
            _ => text.to_owned(),
        };
        let mut known = std::iter::once(&self.me).chain(&self.peers);
        known.find(|m| m.name == name).cloned().ok_or_else(|| {
            let what = match self.unknown.contains(&name) {
                true => format!("`{name}` has no link, so that it is not known who it is"),
                false => format!("no `{name}` is known here"),
            };
            CliError::new(Exit::Usage, what).hint(
                "`group:NAME` and `role:NAME` ask about anybody who is in that group, or has that \
                 role, and nothing else",
            )
        })
    }

    fn json(&self) -> serde_json::Value {
        let policy = Policy::new(&self.rules);
        let may = |from, to| policy.as_ref().map(|p| summary(&p.allowed(from, to)));
        let member = |m: &Member| json!({"name": m.name, "groups": m.groups, "role": m.role});
        let rules = self.rules.iter().map(|rule| {
            json!({
                "from": rule.from,
                "to": rule.to,
                "protocol": rule.protocol,
                "port": (!rule.port.is_empty()).then_some(&rule.port),
                "text": sentence(rule),
            })
        });
        let peers = self.peers.iter().map(|peer| {
            let mut json = member(peer);
            json["may_reach_this_node"] = json!(may(peer, &self.me));
            json["reached_by_this_node"] = json!(may(&self.me, peer));
            json
        });
        json!({
            "node": member(&self.me),
            "rules": rules.collect::<Vec<_>>(),
            "peers": peers.collect::<Vec<_>>(),
        })
    }
}

/// This node as its certificate has it, if that is there.
fn certified(config: &NodeConfig, credentials: Option<&Path>) -> Option<Member> {
    let authority = locate(&config.authority.as_ref()?.certificate, credentials);
    let authority = read_authority(&authority, &config.overlay.name).ok()?;
    let path = locate(config.node.identity.as_ref()?, credentials);
    let identity = read_identity(&path).ok()?;
    let certified = own_certificate(config, &authority, &path, &identity);
    certified.ok().as_ref().map(Member::of)
}
