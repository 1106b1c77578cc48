//! `ipop-node join` and `ipop-node leave`.

use std::io::Read as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipop_proto::invitation::{Invitation, InvitationError, Places, Terms};
use ipop_proto::policy::{self, Member, Policy, What};
use ipop_proto::status::{LinkState, NodeStatus, PeerStatus, SignIn};

use super::{CliError, Exit, print};
use crate::control::{self, Answer, Request};
use crate::membership::{MembershipError, Memberships, Service, ServiceError};

/// Longest invitation that is read from standard input, in bytes.
const INVITATION_LIMIT: u64 = 64 * 1024;
/// How long the node may take to link to the front end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at it.
const PAUSE: Duration = Duration::from_millis(200);

/// The port that the shared folder is served on.
const NFS: u16 = 2049;

/// Become a member of an overlay by an invitation.
///
/// An invitation is a word that `provision user invite` prints, good for one machine and one use. This
/// writes the membership's files below /etc/ipop-node, starts a service for it (ipop-node@NAME) that
/// starts with the machine from then on, and waits until the machine is in. A refused machine keeps
/// nothing. Where there is no systemd it says how to run the node.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLE)]
pub struct Args {
    /// The invitation; `-` reads it from standard input.
    #[arg(value_name = "INVITATION")]
    invitation: String,
    /// Write the files, and start nothing.
    #[arg(long)]
    no_start: bool,
}

const EXAMPLE: &str = "\
Examples:
  ipop-node join ipop1-eyJvIjoibGFrZSIs…
  ipop-node join - <invitation
  ipop-node leave lake                    undoes it";

/// Cease to be a member of an overlay, and forget everything about it.
///
/// The account at the rendezvous stays until its owner closes it (`provision user remove`).
#[derive(Debug, clap::Args)]
pub struct LeaveArgs {
    /// The overlay.
    #[arg(value_name = "NAME")]
    name: String,
}

pub fn run(args: &Args) -> Result<(), CliError> {
    let invitation = Invitation::parse(&given(&args.invitation)?)?;
    let terms = &invitation.terms;
    let until = UNIX_EPOCH + Duration::from_secs(terms.expires);
    if let Ok(over) = SystemTime::now().duration_since(until) {
        let minutes = over.as_secs() / 60;
        let what = format!(
            "the invitation to `{}` was good until {minutes} minutes ago",
            terms.overlay
        );
        return Err(CliError::new(Exit::Config, what).hint(ASK_FOR_ANOTHER));
    }
    let memberships = Memberships::of(Path::new("/"));
    let alone = control::ask(&control::default_path(), &Request::Status).is_err();
    let places = memberships.places(&terms.overlay, alone);
    memberships.add(&invitation, &places)?;
    let service = Service::of(&terms.overlay).filter(|_| !args.no_start);
    let Some(service) = service else {
        let config = memberships.config(&terms.overlay);
        let dir = config.parent().unwrap_or(Path::new("/"));
        return print(&format!(
            "`{}` is ready to be a member of `{}`; this runs it:\n\n  \
             CREDENTIALS_DIRECTORY={} ipop-node run --config node.toml\n",
            terms.node,
            terms.overlay,
            dir.display()
        ));
    };
    let joined = service.start().map_err(CliError::from);
    let joined = joined.and_then(|()| wait(&service, terms, &places));
    match joined {
        Ok(status) => print(&welcome(terms, &places, &status)),
        Err(error) if error.exit == Exit::NotIn => Err(error),
        Err(error) => {
            // Nothing is kept that does not work; what failed is told, and not what fails now.
            let _ = service.stop();
            let _ = memberships.remove(&terms.overlay);
            Err(error)
        }
    }
}

pub fn leave(args: &LeaveArgs) -> Result<(), CliError> {
    let memberships = Memberships::of(Path::new("/"));
    if memberships.names().contains(&args.name)
        && let Some(service) = Service::of(&args.name)
    {
        service.stop()?;
    }
    memberships.remove(&args.name)?;
    print(&format!(
        "this machine is no member of `{}` any more\n",
        args.name
    ))
}

const ASK_FOR_ANOTHER: &str =
    "ask who invited you for another one (`provision user invite … --again`)";

fn given(argument: &str) -> Result<String, CliError> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin()
        .take(INVITATION_LIMIT)
        .read_to_string(&mut text);
    match read {
        Ok(_) => Ok(text),
        Err(error) => {
            let what = "cannot read the invitation from standard input";
            Err(CliError::new(Exit::System, what).caused_by(error))
        }
    }
}

/// Waits for the link to the front end, or for what will not change by waiting.
fn wait(service: &Service, terms: &Terms, places: &Places) -> Result<NodeStatus, CliError> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = "it does not answer".to_owned();
    while Instant::now() < deadline {
        if let Ok(Answer::Status(status)) = control::ask(&places.control, &Request::Status) {
            match standing(terms, &status) {
                Standing::In => return Ok(*status),
                Standing::Refused(condition) => {
                    let what = format!("the rendezvous refuses `{}`: {condition}", terms.node);
                    return Err(CliError::new(Exit::Refused, what).hint(ASK_FOR_ANOTHER));
                }
                Standing::Not(why) => last = why,
            }
        }
        sleep(PAUSE);
    }
    let what = format!(
        "`{}` is not in `{}` after {} s: {last}",
        terms.node,
        terms.overlay,
        PATIENCE.as_secs()
    );
    Err(CliError::new(Exit::NotIn, what)
        .hint(format!(
            "it goes on trying; `journalctl -u {}` shows how",
            service.name()
        ))
        .hint(format!("`ipop-node leave {}` gives up", terms.overlay)))
}

/// How far a member is.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Linked to the front end.
    In,
    /// Its account, or its token, is not taken.
    Refused(String),
    /// Not yet, and why.
    Not(String),
}

fn standing(terms: &Terms, status: &NodeStatus) -> Standing {
    match &status.sign_in {
        SignIn::Refused { condition } => return Standing::Refused(condition.clone()),
        SignIn::Connecting { last_error } => {
            let why = last_error.as_deref().unwrap_or("connecting");
            return Standing::Not(format!("it is not signed in to the rendezvous: {why}"));
        }
        SignIn::Online | SignIn::NotConfigured => {}
    }
    let frontend = |p: &&PeerStatus| p.addrs.ipv4.addr == terms.frontend.0;
    match status.peers.iter().find(frontend).map(|p| &p.link) {
        Some(LinkState::Up) => Standing::In,
        Some(LinkState::Down { why }) => Standing::Not(format!("no link to the front end: {why}")),
        Some(_) => Standing::Not("the link to the front end is being set up".to_owned()),
        None => Standing::Not("the front end is not there".to_owned()),
    }
}

/// Whether the overlay's rules let it mount the shared folder of the front end.
fn mounts(terms: &Terms, status: &NodeStatus) -> bool {
    let rules = status.policy.as_ref();
    let Some((own, policy)) = rules.and_then(|own| Some((own, Policy::new(&own.rules)?))) else {
        return true;
    };
    let me = Member {
        name: status.name.clone(),
        groups: own.groups.clone(),
        role: own.role.clone(),
    };
    let is_frontend = |p: &&PeerStatus| p.addrs.ipv4.addr == terms.frontend.0;
    let Some(frontend) = status.peers.iter().find(is_frontend) else {
        return false;
    };
    let frontend = Member {
        name: frontend.name.clone(),
        groups: frontend.groups.clone(),
        role: frontend.role.clone(),
    };
    policy.ask(&me, &frontend, What::Tcp(NFS)) != policy::Answer::Denied
}

fn welcome(terms: &Terms, places: &Places, whole: &NodeStatus) -> String {
    let peers = whole.peers.iter().filter(|p| p.link == LinkState::Up);
    let status = match places.control == control::default_path() {
        true => "ipop-node status".to_owned(),
        false => format!("ipop-node status --control {}", places.control.display()),
    };
    let folder = match mounts(terms, whole) {
        true => format!(
            "; the shared folder of the front end:\n\n  mount -t nfs4 {}:/export /mnt\n",
            terms.frontend.0
        ),
        false => ", and `ipop-node policy` what it may reach\n".to_owned(),
    };
    format!(
        "this machine is `{}` in `{}`: {} and {}, linked to {} others\n`{status}` shows them{folder}",
        terms.node,
        terms.overlay,
        terms.ipv4.addr,
        terms.ipv6.addr,
        peers.count(),
    )
}

impl From<InvitationError> for CliError {
    fn from(error: InvitationError) -> Self {
        let hint = match &error {
            InvitationError::Version => "install a newer ipop-node",
            _ => "copy the whole word that `provision user invite` printed",
        };
        Self::new(Exit::Usage, "this is no invitation")
            .caused_by(error)
            .hint(hint)
    }
}

impl From<MembershipError> for CliError {
    fn from(error: MembershipError) -> Self {
        let exit = match &error {
            MembershipError::File { .. } => Exit::System,
            _ => Exit::Config,
        };
        let hint = match &error {
            MembershipError::Member(name) => format!("`ipop-node leave {name}` undoes that"),
            MembershipError::NoMember { .. } => {
                "an overlay's name is what its owner calls it".into()
            }
            MembershipError::File { .. } => "run this as root".to_owned(),
            MembershipError::Terms(_) => ASK_FOR_ANOTHER.to_owned(),
        };
        Self::of(exit, error).hint(hint)
    }
}

impl From<ServiceError> for CliError {
    fn from(error: ServiceError) -> Self {
        Self::of(Exit::System, error)
            .hint("run this as root, or with --no-start and the node by hand")
    }
}
