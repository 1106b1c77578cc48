//! The servers that run on a front end's machine.

use std::path::Path;
use std::process::{Command, Stdio};

use super::command::Abort;
use crate::sshd::Machine;

/// The DHCP server's service, below the root.
const DHCPD: &str = "etc/init.d/dhcpd";

/// ISC dhcpd as a service. Its state is in memory: with fixed addresses there are no leases to keep,
/// and the machine's disk stays as `rocks` leaves it.
const DHCPD_SERVICE: &str = r#"#!/bin/sh
set -u
conf=/etc/dhcp/dhcpd.conf pid=/run/dhcpd.pid leases=/run/dhcpd.leases log=/run/dhcpd.log
[ "${1:-}" = restart ] || { echo "usage: $0 restart" >&2; exit 2; }
. /etc/sysconfig/dhcpd
# What it would refuse must not end the one that runs.
/usr/sbin/dhcpd -t -cf "$conf" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
if running=$(cat "$pid" 2>/dev/null); then
    # It takes two seconds to end by SIGTERM, for leases that it does not have.
    kill -KILL "$running" 2>/dev/null
    tries=0
    while kill -0 "$running" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "dhcpd does not end" >&2; exit 1; }
        sleep 0.1
    done
    rm -f "$pid"
fi
: >"$leases"
# It returns when it listens, and goes on in the background.
/usr/sbin/dhcpd -cf "$conf" -lf "$leases" -pf "$pid" $DHCPDARGS </dev/null >"$log" 2>&1 ||
    { cat "$log" >&2; exit 1; }
"#;

/// tftpd-hpa, which goes on in the background when it listens.
const TFTPD: &str = "/usr/sbin/in.tftpd --listen --address :69 --secure /tftpboot/pxelinux";

/// Installs the DHCP server's service, which `rocks sync config` starts, and starts the TFTP server.
/// Both are in the machine's namespaces and end with it.
pub(super) fn install(machine: &Machine) {
    machine.write(&format!("/{DHCPD}"), 0o755, DHCPD_SERVICE);
    machine.run(TFTPD);
}

/// Starts both as a machine does that comes up.
pub(super) fn start(machine: &Machine) {
    machine.run(&format!("/{DHCPD} restart"));
    machine.run(TFTPD);
}

/// Starts the DHCP server of the front end below `root` again, so that it serves what was written.
/// Files without a machine have no servers.
///
/// # Errors
///
/// With what dhcpd says when it refuses its configuration; the one that runs goes on then.
pub(super) fn restart_dhcpd(root: &Path) -> Result<(), Abort> {
    let service = root.join(DHCPD);
    if !service.exists() {
        return Ok(());
    }
    let output = Command::new(service)
        .arg("restart")
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Abort(format!("dhcpd is not started again: {said}")))
}
