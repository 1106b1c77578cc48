//! `provision authority`: how the key of an overlay's authority is kept.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use crate::authority::custody::{Custody, KeyFile};
use crate::error::{CliError, ExitCode};
use crate::report::Report;
use crate::secret::Secret;

const EXAMPLES: &str = "\
Examples:
  provision authority show lake         how its key is kept
  provision authority encrypt lake      under a passphrase, which is asked for
  provision authority unlock lake       after each start of this machine
  provision authority lock lake         nobody is let in until it is unlocked

While the key is locked, nodes go on as they are: links, traffic, and revocation lists that there
are. What has to be signed waits: machines that join or ask for a new certificate try again by
themselves; `resume`, `scale`, `user`, `group` and `share` say that it is locked. The passphrase is
kept nowhere: without it the key is lost.";

/// Show how the key of an overlay's authority is kept, and keep it under a passphrase
///
/// Whoever has the key can be any node of the overlay. It is in a file of this user alone; under a
/// passphrase, that file and its backups are worth nothing to others.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true)]
pub struct AuthorityArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AuthorityCommand,
}

/// See [`AuthorityArgs`].
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Show how the key is kept
    Show(NameArgs),
    /// Encrypt the key with a passphrase, or with another one; it is unlocked then
    Encrypt(PassphraseArgs),
    /// Have the key ready until this machine is switched off, in the kernel's keyring
    Unlock(PassphraseArgs),
    /// Take the key from the kernel's keyring
    Lock(NameArgs),
    /// Keep the key without a passphrase again
    Decrypt(PassphraseArgs),
}

/// Whose authority.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The deployment
    pub name: String,
}

/// Whose authority, and where its passphrase is.
#[derive(Debug, Args)]
pub struct PassphraseArgs {
    /// The deployment
    pub name: String,
    /// Read the passphrase from the first line of this file instead of asking for it
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    key: PathBuf,
    custody: Custody,
}

/// Runs the command.
pub fn run(context: &Context, args: AuthorityArgs) -> Result<u8, CliError> {
    use AuthorityCommand as C;
    let name = match &args.command {
        C::Show(args) | C::Lock(args) => &args.name,
        C::Encrypt(args) | C::Unlock(args) | C::Decrypt(args) => &args.name,
    };
    let database = context.database()?;
    let deployment = context.deployment(&database, name)?;
    let key = KeyFile::of(&context.layout.authority(&deployment.name))?.ok_or_else(|| {
        let message = format!("the overlay of `{name}` has no authority");
        CliError::new(ExitCode::Name, message)
            .hint("deployments of older versions have none; make it anew to have one")
    })?;
    let custody = key.custody()?;
    let asked = |args: &PassphraseArgs| ask(args.passphrase_file.as_deref(), "Passphrase: ");
    match &args.command {
        C::Show(_) => {}
        C::Encrypt(_) if custody == Custody::Locked => {
            let message = format!("the key of `{name}` is encrypted and locked");
            return Err(CliError::new(ExitCode::Usage, message)
                .hint(format!("`provision authority unlock {name}` first")));
        }
        C::Encrypt(args) => key.encrypt(&chosen(args)?)?,
        C::Lock(_) | C::Unlock(_) | C::Decrypt(_) if custody == Custody::Plain => {
            let message = format!("the key of `{name}` is not encrypted");
            return Err(CliError::new(ExitCode::Usage, message)
                .hint(format!("`provision authority encrypt {name}` does that")));
        }
        C::Unlock(args) => key.unlock(&asked(args)?)?,
        C::Decrypt(args) => key.decrypt(&asked(args)?)?,
        C::Lock(_) => {
            key.lock()?;
        }
    }
    let shown = Shown {
        name: deployment.name,
        key: key.path().to_owned(),
        custody: key.custody()?,
    };
    Report::new(context.mode(), &[]).finish(&shown, text);
    Ok(0)
}

/// A new passphrase.
fn chosen(args: &PassphraseArgs) -> Result<Secret<String>, CliError> {
    let path = args.passphrase_file.as_deref();
    let chosen = ask(path, "New passphrase: ")?;
    if path.is_none() && ask(path, "Once more: ")? != chosen {
        let message = "these are two passphrases: nothing was changed";
        return Err(CliError::new(ExitCode::Usage, message));
    }
    Ok(chosen)
}

/// A passphrase that somebody types, or that is in a file.
fn ask(path: Option<&Path>, prompt: &str) -> Result<Secret<String>, CliError> {
    let text = match path {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|e| CliError::file("read", path, e))?;
            text.lines().next().unwrap_or_default().to_owned()
        }
        None if !std::io::stdin().is_terminal() => {
            let message = "a passphrase is needed, and nobody can be asked";
            return Err(CliError::new(ExitCode::Usage, message)
                .hint("give it in a file: --passphrase-file FILE"));
        }
        None => rpassword::prompt_password(prompt).map_err(|e| {
            CliError::new(ExitCode::Internal, "cannot ask for the passphrase").caused_by(e)
        })?,
    };
    if text.is_empty() {
        let message = "the passphrase is empty: nothing was changed";
        return Err(CliError::new(ExitCode::Usage, message));
    }
    Ok(Secret::new(text))
}

fn text(shown: &Shown) -> String {
    let Shown { name, key, custody } = shown;
    let key = key.display();
    match custody {
        Custody::Plain => format!(
            "the key of `{name}` is not encrypted: {key}\n\
             `provision authority encrypt {name}` keeps it under a passphrase\n"
        ),
        Custody::Unlocked => format!(
            "the key of `{name}` is encrypted ({key}), and unlocked until this machine is switched off\n"
        ),
        Custody::Locked => format!(
            "the key of `{name}` is encrypted ({key}) and locked: nothing is signed until \
             `provision authority unlock {name}`\n"
        ),
    }
}
