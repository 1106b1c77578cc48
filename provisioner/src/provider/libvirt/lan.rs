//! The bridge of a host that machines have a second card on. It is the host's own: nothing is made or
//! removed here.

use std::path::Path;

use super::config::LibvirtSite;
use super::connection::Connection;
use crate::error::{CliError, ExitCode};

/// Where a kernel says which bridges there are.
const DEVICES: &str = "/sys/class/net";

/// Refuses a bridge that this host does not have. Of another host it is not known before a machine starts.
pub fn check(site: &LibvirtSite) -> Result<(), CliError> {
    check_in(site, Path::new(DEVICES))
}

fn check_in(site: &LibvirtSite, devices: &Path) -> Result<(), CliError> {
    let Some(lan) = &site.lan else {
        return Ok(());
    };
    if !Connection::new(&site.uri).is_local() {
        return Ok(());
    }
    let bridge = &lan.bridge;
    let device = devices.join(bridge);
    if device.join("bridge").exists() {
        return Ok(());
    }
    let message = match device.exists() {
        true => format!("`{bridge}` of this host, which a LAN is to be on, is no bridge"),
        false => format!("this host has no bridge `{bridge}`, which a LAN is to be on"),
    };
    Err(CliError::new(ExitCode::Missing, message)
        .hint(format!(
            "`ip link add {bridge} type bridge` makes one, with the LAN's card as its port"
        ))
        .hint("or write another name into `bridge` of the site's `lan` in sites.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::lan::SiteLan;

    #[test]
    fn a_bridge_that_this_host_does_not_have_is_refused_and_another_hosts_is_not_known() {
        let devices = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(devices.path().join("br-lab/bridge")).unwrap();
        std::fs::create_dir_all(devices.path().join("eth0")).unwrap();
        let check = |uri: &str, bridge: &str| {
            let site = LibvirtSite {
                uri: uri.to_owned(),
                lan: Some(SiteLan {
                    bridge: bridge.to_owned(),
                    address: None,
                    addresses: None,
                    machines: None,
                }),
                ..LibvirtSite::default()
            };
            check_in(&site, devices.path()).map_err(|e| (e.code, e.message))
        };
        let local = "qemu:///system";
        assert_eq!(check(local, "br-lab"), Ok(()));
        for bridge in ["br-lob", "eth0"] {
            let (code, message) = check(local, bridge).expect_err("refused");
            assert_eq!(code, ExitCode::Missing);
            assert!(message.contains(&format!("`{bridge}`")), "{message}");
            assert_eq!(check("qemu+ssh://lab.example/system", bridge), Ok(()));
        }
    }
}
