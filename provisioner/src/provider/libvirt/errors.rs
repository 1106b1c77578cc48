//! libvirt's errors in our words: the object, the cause, what to do, and whether to try again.

use virt::error::{Error as VirtError, ErrorNumber};

use crate::error::{CliError, ExitCode, Retry};

/// What libvirt said. Its own `Display` adds numbers that help nobody.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(String);

const GROUP: &str =
    "add yourself to the group libvirt: `sudo adduser $USER libvirt`, then log in again";

/// Turns a libvirt error into one for people.
pub fn explain(what: String, e: &VirtError) -> CliError {
    let denied = [
        ErrorNumber::AccessDenied,
        ErrorNumber::AuthFailed,
        ErrorNumber::AuthUnavailable,
    ];
    let denied = denied.iter().any(|n| e.code().is(*n));
    describe(what, e.message(), denied, e.code().is(ErrorNumber::Rpc))
}

fn describe(what: String, message: &str, denied: bool, rpc: bool) -> CliError {
    let has = |words: &[&str]| {
        let text = message.to_ascii_lowercase();
        words.iter().any(|w| text.contains(w))
    };
    let error = |code| CliError::new(code, what.clone()).caused_by(Cause(message.to_owned()));
    if is_full(message) {
        return error(ExitCode::Missing).hint("free some disk space on the libvirt host");
    }
    if denied {
        return error(ExitCode::Unavailable).hint(format!(
            "the user you connect as must be allowed to manage libvirt on its host; there, {GROUP}"
        ));
    }
    if has(&[
        "cannot allocate memory",
        "cannot set up guest memory",
        "out of memory",
    ]) {
        return error(ExitCode::Missing).hint(
            "the host has too little memory left: give the machines less (the site's `memory`), or launch fewer there",
        );
    }
    if has(&[
        "failed to get \"write\" lock",
        "is in use",
        "in use by",
        "still in use",
        "resource busy",
    ]) {
        return error(ExitCode::Unavailable)
            .hint(
                "something on the host still uses it: `virsh list --all` there shows the machines",
            )
            .retry(Retry::Soon);
    }
    if has(&["cannot acquire state change lock"]) {
        return error(ExitCode::Unavailable)
            .hint("libvirt is busy with it")
            .retry(Retry::Throttled);
    }
    let lost = [
        "connection reset",
        "broken pipe",
        "end of file while reading",
        "client socket is closed",
        "connection closed",
        "keepalive",
        "cannot recv data",
        "cannot write data",
        "unable to read from socket",
    ];
    if rpc || has(&lost) {
        return error(ExitCode::Unavailable)
            .hint("the connection to the libvirt host was lost; it is tried again with a new one")
            .retry(Retry::Soon);
    }
    error(ExitCode::Unavailable)
}

/// Whether the host's disk is full.
pub fn is_disk_full(e: &VirtError) -> bool {
    is_full(e.message())
}

fn is_full(message: &str) -> bool {
    message.contains("No space left on device") || message.contains("Disk quota exceeded")
}

/// Whether the daemon does not know a flag or a call, being older or another driver.
pub fn is_unsupported(e: &VirtError) -> bool {
    [
        ErrorNumber::NoSupport,
        ErrorNumber::ArgumentUnsupported,
        ErrorNumber::ConfigUnsupported,
        ErrorNumber::OperationUnsupported,
    ]
    .iter()
    .any(|n| e.code().is(*n))
        || e.message().contains("unsupported flags")
}

/// Whether libvirt says that there is no such object.
pub fn is_absent(e: &VirtError) -> bool {
    [
        ErrorNumber::NoDomain,
        ErrorNumber::NoNetwork,
        ErrorNumber::NoStoragePool,
        ErrorNumber::NoStorageVolume,
    ]
    .iter()
    .any(|n| e.code().is(*n))
}

/// No connection could be made to the daemon at `uri`. What helps depends on how it is reached.
pub fn unreachable(uri: &str, local: bool, message: &str) -> CliError {
    let error = CliError::new(
        ExitCode::Unavailable,
        format!("cannot connect to libvirt at {}", without_parameters(uri)),
    )
    .caused_by(Cause(message.trim().to_owned()));
    let text = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if local {
        return unreachable_here(error, &has);
    }
    let host = host(uri);
    let shown = without_parameters(uri);
    if has(&[
        "host key verification failed",
        "host identification has changed",
    ]) {
        return error.hint(format!(
            "the host's key is not known, or is another than before. Get it from whoever runs the host, or with `ssh-keyscan {host}` if you trust the network now, and add it to the site's `known_hosts` file or to ~/.ssh/known_hosts"
        ));
    }
    if has(&[
        "permission denied (",
        "too many authentication failures",
        "no such identity",
    ]) {
        return error.hint(format!(
            "the host accepts none of your keys: set the site's `identity`, or have `ssh {host}` log in without a password"
        ));
    }
    if has(&[
        "could not resolve",
        "name or service not known",
        "unable to resolve",
        "temporary failure in name",
    ]) {
        return error.hint("check the host name in the site's `uri`");
    }
    // The daemon's socket, as the program at the other end of the SSH connection sees it.
    let socket = has(&["libvirt-sock", "virtqemud-sock"])
        && has(&["failed to connect", "no such file", "refused"]);
    if socket && has(&["permission denied"]) {
        return error.hint(format!("on the host, {GROUP}"));
    }
    if socket || has(&["virt-ssh-helper", "command not found", "nc: "]) {
        return error.hint(
            "is libvirt installed and running there? `sudo apt install libvirt-daemon-system qemu-system-x86`, `sudo systemctl start libvirtd`",
        );
    }
    if has(&["certificate", "tls", "ca cert", "cacert", "x509"]) {
        return error.hint(
            "the host's certificate must be signed by the CA in cacert.pem and name the host in the `uri`, and clientcert.pem by a CA that the host trusts; `?pkipath=DIRECTORY` in the `uri` says where they are",
        );
    }
    if has(&[
        "timed out",
        "timeout",
        "no route to host",
        "connection refused",
        "unreachable",
    ]) {
        return error
            .hint(format!(
                "is {host} up, and is its port open to this machine?"
            ))
            .retry(Retry::Soon);
    }
    if has(&["authentication", "access denied", "permission denied"]) {
        return error.hint(format!("on the host, {GROUP}"));
    }
    error
        .hint(format!(
            "check that `virsh -c {shown} version` works for you, without a password"
        ))
        .retry(Retry::Soon)
}

fn unreachable_here(error: CliError, has: &dyn Fn(&[&str]) -> bool) -> CliError {
    if has(&["permission denied", "authenticat"]) {
        return error.hint(GROUP);
    }
    let error = error.hint("start it: `sudo systemctl start libvirtd`, or `scripts/start-libvirt`");
    if has(&["no such file"]) {
        error.hint(
            "if it is not installed: `sudo apt install libvirt-daemon-system qemu-system-x86`",
        )
    } else {
        error
    }
}

/// The URI as the user knows it: the parameters may be ours.
fn without_parameters(uri: &str) -> &str {
    if uri.contains("+ssh") {
        uri.split_once('?').map_or(uri, |(head, _)| head)
    } else {
        uri
    }
}

fn host(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_names_the_object_the_cause_and_what_to_do() {
        let machine = "cannot start domain \"ipop-demo-worker-0\"";
        let volume = "cannot write volume \"a\" in storage pool \"ipop\"";
        let errors = [
            (
                machine,
                "authentication failed: access denied by policy",
                true,
            ),
            (
                machine,
                "internal error: qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory",
                false,
            ),
            (volume, "unable to write: No space left on device", false),
            (
                volume,
                "Failed to get \"write\" lock: Is another process using the image?",
                false,
            ),
            (
                machine,
                "Timed out during operation: cannot acquire state change lock (held by monitor)",
                false,
            ),
            (machine, "Cannot recv data: Connection reset by peer", false),
            (
                machine,
                "internal error: process exited while connecting to monitor",
                false,
            ),
        ];
        let text: Vec<_> = errors
            .map(|(what, message, denied)| {
                let error = describe(what.into(), message, denied, false);
                format!("{error}\n({:?}, {:?})", error.code, error.retry)
            })
            .to_vec();
        insta::assert_snapshot!(text.join("\n\n"));
    }

    #[test]
    fn each_reason_for_no_connection_has_its_hint() {
        let ssh = "qemu+ssh://me@lab.example/system?command=%2Ftmp%2Fssh&no_tty=1";
        let tls = "qemu+tls://lab.example/system?pkipath=/etc/pki/lab";
        let errors = [
            (
                "qemu:///system",
                true,
                "Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory",
            ),
            (
                "qemu:///system",
                true,
                "Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied",
            ),
            (
                ssh,
                false,
                "Cannot recv data: Host key verification failed.: Connection reset by peer",
            ),
            (
                ssh,
                false,
                "Cannot recv data: me@lab.example: Permission denied (publickey).: Connection reset by peer",
            ),
            (
                ssh,
                false,
                "Cannot recv data: ssh: Could not resolve hostname lab.example: Name or service not known: Connection reset by peer",
            ),
            (
                ssh,
                false,
                "Cannot recv data: ssh: connect to host lab.example port 22: Connection timed out: Connection reset by peer",
            ),
            (
                ssh,
                false,
                "Cannot recv data: sh: 1: virt-ssh-helper: not found: Connection reset by peer",
            ),
            (
                ssh,
                false,
                "Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied",
            ),
            (
                tls,
                false,
                "authentication failed: Failed to verify peer's certificate",
            ),
            (
                tls,
                false,
                "unable to connect to server at 'lab.example:16514': Connection refused",
            ),
            (ssh, false, "something new"),
        ];
        let text: Vec<_> = errors
            .map(|(uri, local, message)| {
                let error = unreachable(uri, local, message);
                format!("{error}\n({:?}, {:?})", error.code, error.retry)
            })
            .to_vec();
        insta::assert_snapshot!(text.join("\n\n"));
    }
}
