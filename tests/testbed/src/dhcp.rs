//! A DHCP client that takes nothing for its interface. Needs the package `busybox-static`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::netns::Netns;

/// Prints the variables of [`Lease`], one a line, and changes nothing. `udhcpc` runs it.
const SCRIPT: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
for name in ip subnet router mtu hostname domain serverid siaddr boot_file; do
    eval "echo $name=\${$name:-}"
done
"#;

/// What a server gave: options of RFC 2132 where nothing else is said, empty what it did not give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    /// `yiaddr` (RFC 2131 section 2).
    pub address: String,
    /// Subnet mask.
    pub netmask: String,
    /// Routers, separated by spaces.
    pub router: String,
    /// Interface MTU, in bytes.
    pub mtu: String,
    /// Host name.
    pub host_name: String,
    /// Domain name.
    pub domain: String,
    /// Server identifier.
    pub server: String,
    /// `siaddr`, the server of the next step of booting.
    pub next_server: String,
    /// `file`, what is to be booted.
    pub boot_file: String,
}

/// Asks for an address as a boot ROM does, in at most five tries of a second each; `words` are given
/// to `udhcpc` besides (`-B` for answers that are broadcast). None when nobody gives one.
pub fn ask(netns: &Netns, interface: &str, words: &[&str]) -> Option<Lease> {
    let script = tempfile::NamedTempFile::new().expect("temporary file");
    fs::write(script.path(), SCRIPT).expect("written");
    // A program that is open for writing is not run.
    let path = script.into_temp_path();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("our file");
    let script = path.display().to_string();
    let client = ["busybox", "udhcpc", "-f", "-n", "-q", "-i", interface];
    let bounds = ["-t", "5", "-T", "1", "-O", "mtu", "-s", &script];
    let output = netns.output(&[&client[..], &bounds, words].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    let value = |name: &str| {
        let named = said.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key == name).then_some(value)
        });
        named.unwrap_or_default().to_owned()
    };
    let lease = Lease {
        address: value("ip"),
        netmask: value("subnet"),
        router: value("router"),
        mtu: value("mtu"),
        host_name: value("hostname"),
        domain: value("domain"),
        server: value("serverid"),
        next_server: value("siaddr"),
        boot_file: value("boot_file"),
    };
    let is_leased = !lease.address.is_empty();
    assert_eq!(is_leased, output.status.success(), "{output:?}");
    is_leased.then_some(lease)
}
