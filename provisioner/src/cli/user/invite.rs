//! `provision user invite`.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use ipop_proto::audit::{self, Record, Timestamp};
use ipop_proto::invitation::{Admission, Invitation, Terms, certificate};
use ipop_proto::policy::What;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde::Serialize;

use super::settle;
use crate::audit::{Audit, By};
use crate::authority::registrar::issuer;
use crate::authority::{Authority, Revocation};
use crate::cli::Context;
use crate::cli::share::members::refresh;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::keep::plan::remaining;
use crate::name::NodeName;
use crate::plan::policy::check_groups;
use crate::plan::{ClusterPlan, NodePlan, member};
use crate::rendezvous::Rendezvous;
use crate::rendezvous::config::RendezvousConfig;
use crate::report::Report;
use crate::site::Site;
use crate::size::duration;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

/// The port that the shared folder is served on.
const NFS: u16 = 2049;

/// See [`super::UserCommand::Invite`].
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// The deployment
    pub name: String,
    /// The person, as a name in the overlay: lower-case letters, digits, inner hyphens
    pub person: String,
    /// Which of the person's machines [default: the only one]
    #[arg(long)]
    pub machine: Option<String>,
    /// A group that the person is to be in, for rules of who may reach what; may be repeated
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// How long the invitation is good
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
    pub expires: Duration,
    /// Invite a machine that was invited before: what it joined with is good no more
    #[arg(long)]
    pub again: bool,
}

#[derive(Debug, Serialize)]
struct Invited {
    name: String,
    person: String,
    machine: NodeName,
    groups: BTreeSet<String>,
    ipv4: String,
    ipv6: String,
    expires_seconds: u64,
    token: String,
}

/// Runs the command.
pub fn run(context: &Context, args: InviteArgs) -> Result<u8, CliError> {
    let machine = member::name(&args.person, args.machine.as_deref())?;
    let database = context.database()?;
    let (_lock, deployment) = context.locked_to_change(&database, &args.name)?;
    let nodes = database.nodes(deployment.id)?;
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    let report = Report::new(context.mode(), &[]);
    let groups = groups(&plan, &nodes, &args, &machine)?;
    let node = match nodes.iter().find(|n| n.name == machine) {
        None => {
            let node = member::invite(&plan, &nodes, &machine, groups)?;
            add(&database, &deployment, &node, &args)?;
            node
        }
        Some(record) => {
            let node = known(&plan, record, &args)?;
            database.put_in_groups(deployment.id, &args.person, &groups)?;
            NodePlan { groups, ..node }
        }
    };
    settle(context, &database, &deployment, &report)?;
    refresh(context, &database, &deployment.name, &report)?;
    let settings = Settings::of(&deployment)?;
    let rendezvous = Rendezvous::open(
        &context.layout,
        &deployment.name,
        &settings.tag,
        &settings.rendezvous,
    )?
    .tagged(deployment.tags());
    if let RendezvousConfig::Embedded(config) = &settings.rendezvous
        && config.listen.is_empty()
    {
        let servers = rendezvous.endpoint()?.servers.join(", ");
        report.emit(Event::Warning {
            message: format!(
                "the rendezvous listens for machines of this host alone ({servers}): others join if \
                 `listen` in [rendezvous] of sites.toml was set when `{}` was made",
                deployment.name
            ),
        });
    }
    let expires = SystemTime::now() + args.expires;
    let nodes = database.nodes(deployment.id)?;
    let audit = Audit::new(&context.layout, &deployment.name, By::Owner, &nodes);
    let authority = match settings.authority {
        false => None,
        true => {
            let dir = context.layout.authority(&deployment.name);
            let (name, now) = (&deployment.name, SystemTime::now());
            Some(Authority::open(&dir, name, audit.clone(), now)?)
        }
    };
    // First: nobody has it who is not written down.
    audit.write(Record {
        node: Some(machine.0.clone()),
        addrs: vec![
            node.addrs.ipv4.addr.to_string(),
            node.addrs.ipv6.addr.to_string(),
        ],
        why: Some(format!("good until {}", Timestamp(expires))),
        ..Record::new(audit::Event::Invited, SystemTime::now())
    });
    let (text, revocation) = invitation(&rendezvous, authority.as_ref(), &plan, &node, expires)?;
    database.has_newest_rules(deployment.id, &node.name)?;
    if let Some(message) = revocation.warning(&machine) {
        report.emit(Event::Warning { message });
    }
    let invited = Invited {
        name: deployment.name,
        person: args.person,
        machine,
        groups: node.groups.clone(),
        ipv4: node.addrs.ipv4.addr.to_string(),
        ipv6: node.addrs.ipv6.addr.to_string(),
        expires_seconds: args.expires.as_secs(),
        token: text,
    };
    let frontend = plan.frontend().addrs.ipv4.addr.to_string();
    let is_denied = plan.denies(&node, plan.frontend(), What::Tcp(NFS));
    let folder = (!is_denied).then_some(frontend.as_str());
    report.finish(&invited, |i| shown(i, folder));
    Ok(0)
}

/// The groups that the person is in from now on: those that are asked for, and those that there are.
fn groups(
    plan: &ClusterPlan,
    nodes: &[NodeRecord],
    args: &InviteArgs,
    machine: &NodeName,
) -> Result<BTreeSet<String>, CliError> {
    let (name, person) = (&args.name, &args.person);
    let is_own = |node: &&NodeRecord| node.wanted && node.person.as_ref() == Some(person);
    let own: Vec<_> = nodes.iter().filter(is_own).collect();
    let known: BTreeSet<String> = own.iter().flat_map(|node| node.groups.clone()).collect();
    let new: BTreeSet<String> = args.group.iter().cloned().collect();
    let groups = &known | &new;
    check_groups(&groups)?;
    if !plan.authority && !new.is_empty() {
        let message = format!("nobody says in `{name}` who is in which group");
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("invite people to a cluster that this version of provision made"));
    }
    let other = own.iter().find(|node| node.name != *machine);
    if let (Some(other), Some(group)) = (other, new.difference(&known).next()) {
        let message = format!("`{}` of {person} is not in the group `{group}`", other.name);
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("a person is in the same groups with all machines")
            .hint(format!(
                "begin with `provision group add {name} {group} {person}`, and leave --group out"
            )));
    }
    Ok(groups)
}

/// Records the machine of somebody who was not invited before.
fn add(
    database: &Database,
    deployment: &Deployment,
    node: &NodePlan,
    args: &InviteArgs,
) -> Result<(), CliError> {
    let mut settings = Settings::of(deployment)?;
    let elsewhere = Site::elsewhere();
    if !settings.sites.iter().any(|s| s.name == elsewhere.name) {
        settings.sites.push(elsewhere);
    }
    let record = NodeRecord {
        person: Some(args.person.clone()),
        ..node.record()
    };
    database.rescale(deployment.id, &settings.to_json()?, &[record], &[])
}

/// The machine of somebody who was.
fn known(plan: &ClusterPlan, record: &NodeRecord, args: &InviteArgs) -> Result<NodePlan, CliError> {
    let (name, machine) = (&args.name, &record.name);
    if record.person.as_deref() != Some(&args.person) || !record.wanted {
        let message = format!("the name `{machine}` is taken in `{name}`");
        return Err(CliError::new(ExitCode::Name, message)
            .hint(format!("`provision user list {name}` shows whose it is"))
            .hint(format!(
                "if it was just removed, `provision resume {name}` finishes that"
            )));
    }
    if !args.again {
        let message = format!("`{machine}` was invited to `{name}` before");
        return Err(CliError::new(ExitCode::Name, message)
            .hint("--again makes a new invitation; the machine that used the old one is then out")
            .hint("--machine NAME invites another machine of the same person"));
    }
    let planned = plan.nodes.iter().find(|n| n.name == *machine);
    planned.cloned().ok_or_else(|| {
        CliError::new(
            ExitCode::Internal,
            format!("`{machine}` is not in the plan"),
        )
    })
}

fn invitation(
    rendezvous: &Rendezvous,
    authority: Option<&Authority>,
    plan: &ClusterPlan,
    node: &NodePlan,
    expires: SystemTime,
) -> Result<(String, Revocation), CliError> {
    let account = rendezvous.create_enrolment(&node.name, expires)?;
    let endpoint = rendezvous.endpoint()?;
    let internal = |what: &str| CliError::new(ExitCode::Internal, what);
    let ca = certificate(&endpoint.ca_pem)
        .ok_or_else(|| internal("the CA of the rendezvous has no certificate"))?;
    let mut revocation = Revocation::default();
    let admission = match authority {
        None => None,
        Some(authority) => {
            let entry = authority.token(node, &account.password, SystemTime::now())?;
            revocation = entry.revocation;
            Some(Admission {
                issuer: issuer(rendezvous),
                token: entry.secret.expose().clone(),
            })
        }
    };
    let authority = authority.and_then(|authority| certificate(authority.certificate_pem()));
    let frontend = plan.frontend().addrs;
    let since = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    let invitation = Invitation {
        terms: Terms {
            overlay: plan.name.clone(),
            node: node.name.0.clone(),
            ipv4: node.addrs.ipv4,
            ipv6: node.addrs.ipv6,
            jid: account.jid,
            servers: endpoint.servers,
            token: account.password.expose().clone(),
            expires: since.as_secs(),
            frontend: (frontend.ipv4.addr, frontend.ipv6.addr),
            admission,
            rules: plan.rules.clone(),
        },
        ca,
        authority,
    };
    let text = invitation.to_text();
    let text = text.map_err(|e| internal("cannot write the invitation").caused_by(e))?;
    Ok((text, revocation))
}

/// `folder` is where the shared folder is, if the machine may reach it.
fn shown(invited: &Invited, folder: Option<&str>) -> String {
    let Invited {
        machine,
        name,
        token,
        ipv4,
        ipv6,
        ..
    } = invited;
    let left = Duration::from_secs(invited.expires_seconds);
    let left = remaining(UNIX_EPOCH + left, UNIX_EPOCH);
    let mut out = format!(
        "`{machine}` is invited to `{name}` for {left}. On that machine, as root:\n\n  \
         ipop-node join {token}\n\n"
    );
    if std::io::stdout().is_terminal()
        && let Ok(code) = QrCode::with_error_correction_level(token, EcLevel::L)
    {
        out += &code.render::<Dense1x2>().build();
        out += "\n\n";
    }
    out += &format!(
        "It will have the addresses {ipv4} and {ipv6}. Whoever has this word first can use it: pass \
         it on as you would a password. "
    );
    out += &match folder {
        Some(frontend) => {
            format!("The shared folder, once joined:\n\n  mount -t nfs4 {frontend}:/export /mnt\n")
        }
        None => format!("`provision policy {name}` shows what it may reach.\n"),
    };
    out
}
