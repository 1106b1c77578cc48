//! The command line of `ssh` for a node. Pure.

use std::ffi::OsString;
use std::path::Path;

use super::keys::{CLIENT_KEY, KNOWN_HOSTS, host_alias};
use crate::name::NodeName;

/// A node and the address at which it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The node.
    pub node: NodeName,
    /// Its address: underlay for the front end, overlay for the rest.
    pub addr: String,
}

/// Arguments of `ssh` to reach `target`, through `jump` if there is one. `dir` holds the
/// deployment's keys. With a command nothing is asked of the user.
pub fn arguments(
    dir: &Path,
    deployment: &str,
    jump: Option<&Hop>,
    target: &Hop,
    command: &[String],
) -> Vec<OsString> {
    let mut args = options(dir, deployment, &target.node);
    if let Some(jump) = jump {
        let mut words = vec!["ssh".to_owned()];
        let jump_options = options(dir, deployment, &jump.node);
        // ssh expands `%` in a proxy command.
        words.extend(
            jump_options
                .iter()
                .map(|w| quote(&w.to_string_lossy()).replace('%', "%%")),
        );
        words.extend([
            "-o BatchMode=yes -W '[%h]:%p'".to_owned(),
            format!("root@{}", jump.addr),
        ]);
        args.extend([
            "-o".into(),
            format!("ProxyCommand={}", words.join(" ")).into(),
        ]);
    }
    if !command.is_empty() {
        args.extend(["-o".into(), "BatchMode=yes".into()]);
    }
    args.push(format!("root@{}", target.addr).into());
    if !command.is_empty() {
        args.push("--".into());
        args.push(remote(command).into());
    }
    args
}

/// The command as the remote shell gets it: one word is a line of shell, several are a program
/// with its arguments.
fn remote(command: &[String]) -> String {
    match command {
        [line] => line.clone(),
        words => words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" "),
    }
}

/// What must hold for every hop. No configuration file of the user's or the system's is read.
fn options(dir: &Path, deployment: &str, node: &NodeName) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["-F".into(), "none".into(), "-i".into()];
    args.push(dir.join(CLIENT_KEY).into());
    for option in [
        "StrictHostKeyChecking=yes".to_owned(),
        format!("UserKnownHostsFile=\"{}\"", dir.join(KNOWN_HOSTS).display()),
        "GlobalKnownHostsFile=none".to_owned(),
        format!("HostKeyAlias={}", host_alias(deployment, node)),
        "IdentitiesOnly=yes".to_owned(),
        "ForwardAgent=no".to_owned(),
        "UpdateHostKeys=no".to_owned(),
        "ConnectTimeout=20".to_owned(),
        "LogLevel=ERROR".to_owned(),
    ] {
        args.extend(["-o".into(), option.into()]);
    }
    args
}

/// Quotes a word for a POSIX shell.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(node: &str, addr: &str) -> Hop {
        Hop {
            node: NodeName(node.to_owned()),
            addr: addr.to_owned(),
        }
    }

    fn line(jump: Option<&Hop>, target: &Hop, command: &[&str]) -> String {
        let command: Vec<_> = command.iter().map(|w| (*w).to_owned()).collect();
        let args = arguments(Path::new("/state/ssh"), "demo", jump, target, &command);
        args.iter()
            .map(|a| a.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn a_worker_is_reached_through_the_front_end_with_strict_checking_on_both_hops() {
        let (front, worker) = (
            hop("frontend-0", "192.168.9.7"),
            hop("worker-0", "10.200.7.2"),
        );
        insta::assert_snapshot!(line(Some(&front), &worker, &["ls", "/share dir"]));
        insta::assert_snapshot!("front_end_shell", line(None, &front, &[]));
    }

    #[test]
    fn one_word_is_a_line_of_shell_and_several_are_kept_apart() {
        assert_eq!(remote(&["echo $HOME".to_owned()]), "echo $HOME");
        let words = ["echo", "$HOME", "it's"].map(str::to_owned);
        assert_eq!(remote(&words), r"echo '$HOME' 'it'\''s'");
    }
}
