//! `ipop-node approve` and `ipop-node forget`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use ipop_proto::pinning::ComparisonCode;
use ipop_proto::signal::Fingerprint;
use ipop_proto::status::{PinnedStatus, PinningStatus};

use super::{CliError, Exit, peers, print, status};
use crate::control::{self, Answer, Request};

/// Approve the key of a peer that waits, for as long as it is not forgotten.
///
/// Its owner has to approve this node's, too. On a terminal the comparison code is shown and asked about;
/// otherwise --code or --fingerprint says which key is meant. A peer that has another key later is
/// refused and named, and needs `ipop-node forget` first; one that has another name or address
/// waits to be approved again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its node name or account, as `ipop-node peers` shows it.
    peer: String,
    /// The comparison code that its owner has read out; blanks in it do not matter.
    #[arg(long, value_name = "CODE", conflicts_with = "fingerprint")]
    code: Option<ComparisonCode>,
    /// The fingerprint of its certificate, as `ipop-node identity` prints it there.
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<Fingerprint>,
    /// Control socket of the node.
    #[arg(long, value_name = "PATH", default_value_os_t = control::default_path())]
    control: PathBuf,
}

/// Forget that a peer was approved: its link ends, and it has to be approved again.
#[derive(Debug, clap::Args)]
pub struct ForgetArgs {
    /// Its node name or account, as `ipop-node peers` shows it.
    peer: String,
    /// Control socket of the node.
    #[arg(long, value_name = "PATH", default_value_os_t = control::default_path())]
    control: PathBuf,
}

pub fn run(args: &Args) -> Result<(), CliError> {
    let code = match (args.code, args.fingerprint) {
        (None, None) => Some(confirmed(args)?),
        (code, _) => code.map(|code| code.to_string()),
    };
    let request = Request::Approve {
        peer: args.peer.clone(),
        code,
        fingerprint: args.fingerprint,
    };
    let PinnedStatus {
        account,
        name,
        ipv4,
        ipv6,
        ..
    } = ask(&args.control, &request)?;
    print(&format!(
        "`{name}` ({ipv4}, {ipv6}) by {account} is approved; its link comes up when its owner has \
         approved this node\n"
    ))
}

pub fn forget(args: &ForgetArgs) -> Result<(), CliError> {
    let request = Request::Forget {
        peer: args.peer.clone(),
    };
    let forgotten = ask(&args.control, &request)?;
    print(&format!(
        "`{}` by {} is forgotten, and has no link before it is approved again\n",
        forgotten.name, forgotten.account
    ))
}

/// The code of the peer that waits, after somebody at the terminal has said that it is the one.
fn confirmed(args: &Args) -> Result<String, CliError> {
    let status = status::ask(&args.control)?;
    let (peer, code) = only(peers::pinning(&status)?, &args.peer)?;
    if !io::stdin().is_terminal() {
        let what = format!(
            "it takes --code or --fingerprint to approve `{}`",
            args.peer
        );
        return Err(CliError::new(Exit::Usage, what).hint(
            "without a terminal nobody can be asked whether both owners read the same comparison code",
        ));
    }
    let mut shown = String::new();
    peers::describe(&mut shown, peer);
    shown.retain(|c| c == '\n' || !c.is_control());
    print(&format!(
        "{shown}Does the owner of that machine read the same code, in `ipop-node peers`? [y/N] "
    ))?;
    let failed = |error| CliError::new(Exit::System, "cannot ask at the terminal").caused_by(error);
    io::stdout().flush().map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(code.to_owned()),
        _ => Err(CliError::new(
            Exit::Pinning,
            format!("`{}` is not approved", args.peer),
        )
        .hint("when the codes differ, somebody between the two machines shows each of them another key")),
    }
}

/// The one that waits by this name or account, with its code.
fn only<'a>(
    pinning: &'a PinningStatus,
    who: &str,
) -> Result<(&'a PinnedStatus, &'a str), CliError> {
    let waiting = pinning.waiting.iter();
    let mut found: Vec<_> = waiting
        .filter(|it| it.account == who || it.name == who)
        .collect();
    if found.iter().any(|it| it.account == who) {
        found.retain(|it| it.account == who);
    }
    match found.as_slice() {
        [one] => match &one.code {
            Some(code) => Ok((one, code)),
            None => Err(not_done(format!(
                "`{who}` does not say which key it has, as nodes with [pinning] do"
            ))),
        },
        [] => Err(not_done(format!(
            "nobody by the name or account `{who}` waits to be approved"
        ))),
        _ => Err(not_done(format!(
            "more than one who waits is called `{who}`: name the account, and --code or --fingerprint"
        ))),
    }
}

fn ask(control: &std::path::Path, request: &Request) -> Result<PinnedStatus, CliError> {
    match control::ask(control, request)? {
        Answer::Pinned(pin) => Ok(*pin),
        Answer::NotDone { why } => Err(not_done(why)),
        _ => Err(CliError::new(
            Exit::NoNode,
            "the node answered something else than was asked",
        )),
    }
}

fn not_done(why: String) -> CliError {
    CliError::new(Exit::Pinning, why)
        .hint("`ipop-node peers` shows who waits, and who was approved")
}
