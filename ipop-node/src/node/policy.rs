//! Who may reach what: the rules of the configuration, or those that were told in their place; read again on
//! SIGHUP.

use std::time::Instant;

use ipop_proto::config::{AllowSection, NodeConfig};
use ipop_proto::policy::{Member, Policy};
use ipop_proto::status::PolicyStatus;

use super::Node;
use crate::control::Answer;
use crate::rules::{RuleFile, in_force};
use crate::settings::{credentials_directory, read_config};

impl Node {
    /// Goes by the rules of the configuration, and by what this node's certificate says of it now.
    pub(super) fn apply_rules(&mut self) {
        let policy = Policy::new(&self.config.allow);
        let me = self.member();
        self.overlay.set_policy(Instant::now(), policy, me);
    }

    /// Reads the rules again. If the file cannot be used, those there were stay in force.
    pub(super) fn reload_rules(&mut self) {
        let read = read_config(&self.source, credentials_directory().as_deref());
        match read.and_then(in_force) {
            Ok(NodeConfig { allow, .. }) => {
                if allow != self.config.allow {
                    tracing::info!(count = allow.len(), "rules changed");
                }
                self.config.allow = allow;
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "rules not read, the old ones stay");
            }
        }
        self.apply_rules();
    }

    /// Takes other rules from whoever runs this machine: keeps them, then goes by them. What cannot be kept
    /// would not be so after a restart.
    pub(super) fn take_rules(&mut self, rules: Vec<AllowSection>) -> Answer {
        let not_done = |why: String| Answer::NotDone { why };
        let Some(file) = RuleFile::of(&self.config) else {
            let why = "its configuration does not say where to keep rules ([policy] keep)";
            return not_done(why.to_owned());
        };
        let config = match self.config.with_rules(rules) {
            Ok(config) => config,
            Err(error) => return not_done(error.to_string()),
        };
        if let Err(error) = file.keep(&config.allow) {
            let path = file.path().display();
            tracing::warn!(%path, %error, "rules cannot be kept");
            return not_done(format!("cannot write {path}: {error}"));
        }
        tracing::info!(count = config.allow.len(), "rules taken");
        self.config.allow = config.allow;
        self.apply_rules();
        self.put_out();
        Answer::Done
    }

    /// This node as rules see it.
    fn member(&self) -> Member {
        let certified = self
            .membership
            .as_ref()
            .and_then(|m| m.certified.as_ref())
            .map(Member::of);
        certified.unwrap_or_else(|| Member {
            name: self.config.node.name.clone(),
            groups: self.config.node.groups.clone(),
            role: None,
        })
    }

    /// For the node's administrator.
    pub(super) fn policy(&self, now: Instant) -> Option<PolicyStatus> {
        let rules = self.config.allow.clone();
        let Member { groups, role, .. } = self.member();
        (!rules.is_empty()).then(|| PolicyStatus {
            groups,
            role,
            rules,
            denied: self.overlay.denials(now),
        })
    }
}
