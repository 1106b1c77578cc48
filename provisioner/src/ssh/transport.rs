//! Commands on machines that exist already, by the system's `ssh`.
//!
//! A [`Transport`] is one machine and how to sign in to it. Its commands share a connection
//! (OpenSSH's ControlMaster), which is made by the first, lasts for [`PERSIST_SECONDS`] after the
//! last, and is closed when the transport is dropped. Every command
//!
//! - is a POSIX shell script that root runs: signed in as root, or by `sudo -n`;
//! - gets secrets and files on its standard input, never among its arguments, which every user of
//!   both machines can read;
//! - has a deadline, after which `ssh` is killed. What runs on the machine then sees the end of its
//!   input, so a script must not take that for the end of a file (see [`super::upload`]).
//!
//! The user's `ssh_config` is read (a `ProxyJump` there works), but cannot weaken what is set here.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::command::quote;
use super::exec::{self, End, Ended};
use super::failure;
use super::target::Target;
use crate::error::{CliError, ExitCode, Retry};

pub use super::exec::Limits;

/// How long a shared connection lasts after its last command, when nobody closed it.
pub const PERSIST_SECONDS: u32 = 30;
/// Bytes of standard output that are kept, unless a script asks for more or less.
pub const STDOUT_KEPT: usize = 1 << 20;

/// How to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Private key file, and no other key is tried; without it what `ssh` finds by itself.
    pub identity: Option<PathBuf>,
    /// Public host keys, and no others count; without it the user's own `known_hosts`.
    pub known_hosts: Option<PathBuf>,
    /// Takes the key that a host without an entry in `known_hosts` shows first, and writes it
    /// there. Only for machines that the site itself has made just now.
    pub trust_first: bool,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            identity: None,
            known_hosts: None,
            trust_first: false,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// Something to do on the machine, as root.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// A few words for messages: `starting ipop-node`.
    pub what: &'a str,
    /// POSIX shell.
    pub text: &'a str,
    /// `$1` and so on. Readable by every user of both machines: no secrets.
    pub args: &'a [&'a str],
    /// Bytes of standard output to keep, its beginning.
    pub keep: usize,
    /// Statuses besides 0 that are an answer and no error.
    pub answers: &'a [i32],
}

impl<'a> Script<'a> {
    /// A script without arguments.
    pub fn new(what: &'a str, text: &'a str) -> Self {
        Self {
            what,
            text,
            args: &[],
            keep: STDOUT_KEPT,
            answers: &[],
        }
    }

    /// With arguments.
    #[must_use]
    pub fn args(self, args: &'a [&'a str]) -> Self {
        Self { args, ..self }
    }

    /// With statuses that are an answer.
    #[must_use]
    pub fn answers(self, answers: &'a [i32]) -> Self {
        Self { answers, ..self }
    }
}

/// What a script said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status: 0, or one of [`Script::answers`].
    pub status: i32,
    /// Beginning of standard output.
    pub stdout: Vec<u8>,
}

impl Answer {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// One machine, reached by SSH.
#[derive(Debug)]
pub struct Transport {
    target: Target,
    options: Vec<OsString>,
    socket: PathBuf,
}

impl Transport {
    /// Prepares; the machine is not contacted before the first command.
    pub fn new(target: Target, access: &Access) -> Result<Self, CliError> {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        // A socket's path may have about a hundred bytes, so it is short.
        let socket = socket_dir()?.join(format!("{:x}-{call:x}", std::process::id()));
        if let Some(identity) = &access.identity
            && !identity.is_file()
        {
            return Err(CliError::new(
                ExitCode::Config,
                format!("there is no private key `{}`", identity.display()),
            )
            .hint("correct `identity` of the site"));
        }
        Ok(Self {
            options: options(access, &socket),
            target,
            socket,
        })
    }

    /// The machine.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Runs a script that needs no input.
    pub fn run(&self, script: &Script<'_>, limits: &Limits<'_>) -> Result<Answer, CliError> {
        self.call(script, None, limits, &|_| {})
    }

    /// Runs a script whose standard input is `input`; `sent` is told how many bytes went so far.
    pub fn feed(
        &self,
        script: &Script<'_>,
        input: &mut dyn Read,
        limits: &Limits<'_>,
        sent: &dyn Fn(u64),
    ) -> Result<Answer, CliError> {
        self.call(script, Some(input), limits, sent)
    }

    fn call(
        &self,
        script: &Script<'_>,
        input: Option<&mut dyn Read>,
        limits: &Limits<'_>,
        sent: &dyn Fn(u64),
    ) -> Result<Answer, CliError> {
        let mut command = self.command();
        command.arg("--").arg(remote(script.text, script.args));
        tracing::debug!(machine = %self.target, what = script.what, "ssh");
        let ended = exec::run(command, input, script.keep, limits, sent)
            .map_err(|e| CliError::program("ssh", "openssh-client", e))?;
        self.judge(script, ended)
    }

    fn judge(&self, script: &Script<'_>, ended: Ended) -> Result<Answer, CliError> {
        match ended.end {
            End::Status(Some(status)) if status == 0 || script.answers.contains(&status) => {
                Ok(Answer {
                    status,
                    stdout: ended.stdout,
                })
            }
            End::Status(status) => Err(failure::error(
                &self.target,
                script.what,
                status,
                &ended.stderr,
            )),
            End::TooLate => Err(failure::too_late(&self.target, script.what, &ended.stderr)),
            End::Interrupted => Err(CliError::interrupted()),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.args(&self.options);
        if let Some(port) = self.target.port {
            command.args(["-p", &port.to_string()]);
        }
        if let Some(user) = &self.target.user {
            command.args(["-l", user]);
        }
        command.arg(&self.target.host);
        // A group of its own: Ctrl-C in the terminal is for us, and we finish what is in hand.
        command.process_group(0).env("LC_ALL", "C");
        command
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if self.socket.exists() {
            let mut command = Command::new("ssh");
            command.args(["-F", "none", "-O", "exit", "-o"]);
            command.arg(format!("ControlPath={}", self.socket.display()));
            command.arg(&self.target.host).process_group(0);
            // One that cannot be told ends by itself after PERSIST_SECONDS.
            let limits = Limits::within(Duration::from_secs(2));
            let _ = exec::run(command, None, 0, &limits, &|_| {});
        }
    }
}

/// What must hold whatever the user's configuration says: the first value of an option counts.
fn options(access: &Access, socket: &Path) -> Vec<OsString> {
    let strict = if access.trust_first {
        "accept-new"
    } else {
        "yes"
    };
    let mut options = vec![
        "BatchMode=yes".to_owned(),
        format!("StrictHostKeyChecking={strict}"),
        format!("ConnectTimeout={}", access.connect_timeout.as_secs().max(1)),
        "ServerAliveInterval=5".to_owned(),
        "ServerAliveCountMax=3".to_owned(),
        "ControlMaster=auto".to_owned(),
        format!("ControlPath={}", socket.display()),
        format!("ControlPersist={PERSIST_SECONDS}"),
        "ForwardAgent=no".to_owned(),
        "ForwardX11=no".to_owned(),
        "ClearAllForwardings=yes".to_owned(),
        "PermitLocalCommand=no".to_owned(),
        "RequestTTY=no".to_owned(),
        "UpdateHostKeys=no".to_owned(),
        "LogLevel=ERROR".to_owned(),
    ];
    if let Some(known_hosts) = &access.known_hosts {
        options.push(format!("UserKnownHostsFile=\"{}\"", known_hosts.display()));
        options.push("GlobalKnownHostsFile=/dev/null".to_owned());
    }
    let mut words: Vec<OsString> = Vec::new();
    if let Some(identity) = &access.identity {
        options.push("IdentitiesOnly=yes".to_owned());
        words.extend(["-i".into(), identity.into()]);
    }
    for option in options {
        words.extend(["-o".into(), option.into()]);
    }
    words
}

/// Becomes root, or says why not. Programs of administrators are found, messages are in English,
/// and `SSH_CONNECTION`, which tells both addresses of the connection, is handed on.
const BECOME_ROOT: &str = "\
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export LC_ALL PATH
if [ \"$(id -u)\" -eq 0 ]; then exec sh -c \"$@\"; fi
exec sudo -n -- env SSH_CONNECTION=\"$SSH_CONNECTION\" sh -c \"$@\"";

/// The same for what `sudo` has changed.
const PRELUDE: &str = "\
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export LC_ALL PATH; umask 022
";

/// The line that the user's shell on the machine gets.
fn remote(text: &str, args: &[&str]) -> String {
    let script = format!("{PRELUDE}{text}");
    let words = ["sh", "-c", BECOME_ROOT, "ipop", &script, "ipop"];
    let words = words.iter().chain(args).map(|word| quote(word));
    words.collect::<Vec<_>>().join(" ")
}

/// The directory of the connections' sockets: whoever can reach one is signed in.
fn socket_dir() -> Result<PathBuf, CliError> {
    let uid = rustix::process::getuid().as_raw();
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let dir = match base.filter(|dir| dir.is_absolute() && dir.as_os_str().len() < 60) {
        Some(base) => base.join("ipop-ssh"),
        None => PathBuf::from(format!("/tmp/ipop-ssh-{uid}")),
    };
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(CliError::file("create", &dir, e));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(&dir).map_err(|e| CliError::file("read", &dir, e))?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        return Err(CliError::new(
            ExitCode::Missing,
            format!("`{}` is not a directory of our own alone", dir.display()),
        )
        .hint("somebody else made it: remove it, or set XDG_RUNTIME_DIR to a private directory")
        .retry(Retry::Never));
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_as_reviewed() {
        let access = Access {
            identity: Some("/keys/id".into()),
            known_hosts: Some("/keys/known hosts".into()),
            ..Access::default()
        };
        let words = options(&access, Path::new("/run/user/0/ipop-ssh/1-0"));
        let words: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
        insta::assert_snapshot!(words.join("\n"));
    }

    #[test]
    fn a_script_and_its_arguments_survive_the_shells_between() {
        let args = ["it's", "$HOME `x` \\", ""];
        let line = remote("printf '%s\\n' \"$#\" \"$@\"", &args);
        // Root runs the tests, so no sudo is in between.
        let output = Command::new("sh").args(["-c", &line]).output().expect("sh");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text, "3\nit's\n$HOME `x` \\\n\n");
    }

    #[test]
    fn a_missing_key_is_named_before_anybody_is_contacted() {
        let access = Access {
            identity: Some("/nowhere/key".into()),
            ..Access::default()
        };
        let target = "host.invalid".parse().expect("a target");
        let error = Transport::new(target, &access).expect_err("no key");
        assert_eq!(error.message, "there is no private key `/nowhere/key`");
    }
}
