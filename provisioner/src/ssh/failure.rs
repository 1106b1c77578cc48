//! What a failed `ssh` means, from its status and what it said. Pure.

use super::target::Target;
use crate::error::{CliError, ExitCode, Retry};

/// Status by which `ssh` says that it failed itself, and not the command.
const SSH_FAILED: i32 = 255;

/// Why a command on another machine has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    NoSuchHost,
    Unreachable,
    Refused,
    HostKeyUnknown,
    HostKeyChanged,
    PermissionDenied,
    IdentityUnusable,
    Lost,
    SudoPassword,
    SudoRefused,
    SudoMissing,
    DiskFull,
    Command,
}

/// Texts of OpenSSH (7 to 10) and sudo, and what they mean. The first that is found counts, so
/// the more special come first.
const SAID_BY_SSH: &[(&str, Failure)] = &[
    ("HOST IDENTIFICATION HAS CHANGED", Failure::HostKeyChanged),
    (
        "has changed and you have requested strict",
        Failure::HostKeyChanged,
    ),
    ("host key is known for", Failure::HostKeyUnknown),
    ("Host key verification failed", Failure::HostKeyUnknown),
    ("Could not resolve hostname", Failure::NoSuchHost),
    ("Load key", Failure::IdentityUnusable),
    ("Permission denied (", Failure::PermissionDenied),
    (
        "Too many authentication failures",
        Failure::PermissionDenied,
    ),
    ("Connection refused", Failure::Refused),
    ("Connection timed out", Failure::Unreachable),
    ("Operation timed out", Failure::Unreachable),
    ("No route to host", Failure::Unreachable),
    ("is unreachable", Failure::Unreachable),
];
const SAID_BY_SUDO: &[(&str, Failure)] = &[
    ("sudo: a password is required", Failure::SudoPassword),
    ("sudo: a terminal is required", Failure::SudoPassword),
    ("you must have a tty to run sudo", Failure::SudoPassword),
    ("is not in the sudoers file", Failure::SudoRefused),
    ("is not allowed to run sudo", Failure::SudoRefused),
    ("is not allowed to execute", Failure::SudoRefused),
    ("sudo: not found", Failure::SudoMissing),
    ("sudo: command not found", Failure::SudoMissing),
    ("No space left on device", Failure::DiskFull),
    ("Disk quota exceeded", Failure::DiskFull),
];

/// The error of an `ssh` that ended with `status` (none: by a signal). `what` says in a few words
/// what was being done; `stderr` is the end of what was said on standard error.
pub fn error(target: &Target, what: &str, status: Option<i32>, stderr: &str) -> CliError {
    let said = |table: &[(&str, Failure)]| {
        let found = table.iter().find(|(text, _)| stderr.contains(text));
        found.map(|(_, failure)| *failure)
    };
    let failure = match status {
        // Without a word the other side went away under a shared connection.
        Some(SSH_FAILED) | None => said(SAID_BY_SSH).unwrap_or(Failure::Lost),
        Some(_) => said(SAID_BY_SUDO).unwrap_or(Failure::Command),
    };
    let host = &target.host;
    let user = target.user.as_deref().unwrap_or("the user");
    let unavailable = |message: String| CliError::new(ExitCode::Unavailable, message);
    let port = target.port.map(|p| format!("-p {p} ")).unwrap_or_default();
    let error = match failure {
        Failure::NoSuchHost => unavailable(format!("there is no host `{host}`"))
            .hint("correct the name in `hosts` of the site, or write its address"),
        Failure::Unreachable => unavailable(format!("{target} cannot be reached by SSH"))
            .hint(format!("is it running? `ping {host}`; a firewall may drop its SSH port"))
            .retry(Retry::Soon),
        Failure::Refused => unavailable(format!("{target} refuses SSH connections"))
            .hint("start sshd there, or correct the port in `hosts` of the site")
            .retry(Retry::Soon),
        Failure::HostKeyUnknown => unavailable(format!("the host key of {target} is not known"))
            .hint(format!(
                "get it with `ssh-keyscan {port}{host}`, compare it with what the host's \
                 administrator says, and add it to the file `known_hosts` of the site (without \
                 one: ~/.ssh/known_hosts)"
            )),
        Failure::HostKeyChanged => unavailable(format!("{target} shows another host key than is known"))
            .hint(
                "if it was installed anew, replace its line in `known_hosts`; otherwise somebody \
                 may be in between: ask the host's administrator",
            ),
        Failure::PermissionDenied => unavailable(format!("{target} does not let us sign in"))
            .hint(format!(
                "add the public key to ~/.ssh/authorized_keys of {user} there, or name another \
                 key with `identity` of the site"
            )),
        Failure::IdentityUnusable => CliError::new(
            ExitCode::Config,
            format!("the private key for {target} cannot be used"),
        )
        .hint("`identity` of the site must name a private key without a passphrase"),
        Failure::Lost => unavailable(format!("the connection to {target} was lost: {what}"))
            .retry(Retry::Soon),
        Failure::SudoPassword => unavailable(format!("sudo on {target} asks for a password"))
            .hint(format!(
                "sign in as root, or give {user} `NOPASSWD: ALL` in a file below /etc/sudoers.d there"
            )),
        Failure::SudoRefused => unavailable(format!("{user} may not use sudo on {target}"))
            .hint(format!(
                "sign in as root, or give {user} `NOPASSWD: ALL` in a file below /etc/sudoers.d there"
            )),
        Failure::SudoMissing => unavailable(format!("{target} has no sudo, and {user} is not root"))
            .hint("sign in as root (`root@host`), or install sudo there"),
        Failure::DiskFull => CliError::new(
            ExitCode::Missing,
            format!("the disk of {target} is full: {what}"),
        )
        .hint("free some space there; `df -h` shows what is left"),
        Failure::Command => {
            let status = match status {
                Some(status) => format!("status {status}"),
                None => "a signal".to_owned(),
            };
            unavailable(format!("{what} failed on {target} with {status}"))
        }
    };
    match end_of(stderr) {
        end if end.is_empty() => error,
        end => error.caused_by(end),
    }
}

/// A command that was not done in time.
pub fn too_late(target: &Target, what: &str, stderr: &str) -> CliError {
    let error = CliError::new(
        ExitCode::Unavailable,
        format!("{target} did not finish in time: {what}"),
    )
    .hint(format!(
        "is the host overloaded, or its network slow? Try `ssh {}`",
        target.host
    ))
    .retry(Retry::Soon);
    match end_of(stderr) {
        end if end.is_empty() => error,
        end => error.caused_by(end),
    }
}

/// The last lines that say something. A banner of asterisks or at signs says nothing.
fn end_of(stderr: &str) -> String {
    let telling = |line: &&str| line.chars().any(char::is_alphanumeric) && !line.starts_with('@');
    let lines: Vec<_> = stderr.lines().map(str::trim_end).filter(telling).collect();
    lines[lines.len().saturating_sub(4)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_names_the_host_the_cause_and_the_next_step() {
        let target: Target = "ann@lake.example:2222".parse().expect("a target");
        let said = [
            (
                255,
                "ssh: Could not resolve hostname lake.example: Name or service not known",
            ),
            (
                255,
                "ssh: connect to host lake.example port 2222: Connection timed out",
            ),
            (
                255,
                "ssh: connect to host lake.example port 2222: No route to host",
            ),
            (
                255,
                "ssh: connect to host lake.example port 2222: Connection refused",
            ),
            (
                255,
                "No ED25519 host key is known for [lake.example]:2222 and you have requested strict \
                 checking.\r\nHost key verification failed.",
            ),
            (
                255,
                "@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@@\n\
                 Host key for [lake.example]:2222 has changed and you have requested strict checking.\n\
                 Host key verification failed.",
            ),
            (255, "ann@lake.example: Permission denied (publickey)."),
            (
                255,
                "Load key \"/keys/id\": invalid format\r\nann@lake.example: Permission denied (publickey).",
            ),
            (255, "client_loop: send disconnect: Broken pipe"),
            (255, ""),
            (1, "sudo: a password is required"),
            (1, "ann is not in the sudoers file."),
            (127, "ipop: 1: exec: sudo: not found"),
            (1, "cat: write error: No space left on device"),
            (3, "line one\nline two\n\n"),
        ];
        let text: Vec<_> = said
            .iter()
            .map(|(status, stderr)| {
                let error = error(&target, "installing ipop-node", Some(*status), stderr);
                format!("{error}\nretry: {:?}\n", error.retry)
            })
            .chain([too_late(&target, "installing ipop-node", "").to_string()])
            .collect();
        insta::assert_snapshot!(text.join("\n"));
    }
}
