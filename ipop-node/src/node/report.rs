//! What the node says of itself.

use std::time::Instant;

use ipop_proto::status::{Advertisement, NodeStatus, SignIn};

use super::Node;
use crate::names::NameService;

/// The version that status and presence show.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Node {
    /// For the node's administrator.
    pub(super) fn status(&self, now: Instant) -> NodeStatus {
        let mut drops = self.overlay.drops().clone();
        for (reason, count) in self.datapath.drops() {
            *drops.entry(reason).or_default() += count;
        }
        NodeStatus {
            name: self.config.node.name.clone(),
            overlay: self.config.overlay.name.clone(),
            jid: self.jid.as_ref().map_or_else(
                || {
                    self.config
                        .xmpp
                        .as_ref()
                        .map_or_else(String::new, |x| x.jid.clone())
                },
                Clone::clone,
            ),
            version: VERSION.to_owned(),
            addrs: self.config.addrs(),
            interface: self.config.overlay.interface.clone(),
            mtu: self.config.overlay.mtu,
            datapath: self.datapath.status(),
            switch: self.switching.as_ref().map(|it| it.status(now)),
            uptime_ms: millis(now.saturating_duration_since(self.started)),
            sign_in: self.sign_in.clone(),
            role: self.role.clone(),
            candidates: self.overlay.candidates(),
            peers: self.overlay.peers(now),
            drops,
            ssh_host_key: self.ssh_host_key.clone(),
            certificate: self.certificate(),
            names: self.names.as_ref().map(NameService::status),
            refused: self.overlay.refusals(now),
            pinning: self.overlay.pinning(),
            policy: self.policy(now),
        }
    }

    /// For the other members.
    pub(super) fn advertisement(&self) -> Advertisement {
        Advertisement {
            name: self.config.node.name.clone(),
            addrs: self.config.addrs(),
            role: self.role.clone(),
            linked: self.linked.clone(),
            version: VERSION.to_owned(),
            fingerprint: self.overlay.pinned_by(),
        }
    }
}

/// One line for the service manager.
pub(super) fn line(sign_in: &SignIn, linked: &[String]) -> String {
    let standing = match sign_in {
        SignIn::NotConfigured => "no account".to_owned(),
        SignIn::Online => "signed in".to_owned(),
        SignIn::Connecting { last_error: None } => "signing in".to_owned(),
        SignIn::Connecting {
            last_error: Some(error),
        } => format!("not signed in ({error})"),
        SignIn::Refused { condition } => format!("account refused ({condition})"),
    };
    let links = match linked.len() {
        1 => "1 link".to_owned(),
        n => format!("{n} links"),
    };
    // A newline would begin another assignment (sd_notify(3)).
    format!("{standing}, {links} up").replace('\n', " ")
}

fn millis(duration: std::time::Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_is_told_one_line() {
        let offline = SignIn::Connecting {
            last_error: Some("refused\nREADY=1".to_owned()),
        };
        assert_eq!(
            line(&offline, &[]),
            "not signed in (refused READY=1), 0 links up"
        );
        assert_eq!(line(&SignIn::NotConfigured, &[]), "no account, 0 links up");
        assert_eq!(
            line(&SignIn::Online, &["a".to_owned()]),
            "signed in, 1 link up"
        );
    }
}
