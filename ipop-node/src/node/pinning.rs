//! This node's owner approves peers, and takes it back.

use std::time::Instant;

use ipop_proto::overlay::{ApprovalError, Proof};
use ipop_proto::pinning::{ComparisonCode, Pin, Pins};
use ipop_proto::signal::Fingerprint;
use ipop_proto::status::PinnedStatus;

use super::Node;
use crate::control::Answer;

impl Node {
    /// Approves whoever waits by this name or account, if it is the one by what the owner knows of it.
    pub(super) fn approve(
        &mut self,
        who: &str,
        code: Option<&str>,
        fingerprint: Option<Fingerprint>,
    ) -> Answer {
        let proof = match (code.map(str::parse::<ComparisonCode>), fingerprint) {
            (Some(Err(error)), _) => return not_done(&error),
            (Some(Ok(code)), _) => Proof::Code(code),
            (None, Some(fingerprint)) => Proof::Fingerprint(fingerprint),
            (None, None) => {
                return not_done(&"neither a comparison code nor a fingerprint is given");
            }
        };
        let approved = self.overlay.approve(who, proof);
        self.put_pins(approved, "peer approved")
    }

    /// Forgets that somebody was approved; a link to it ends.
    pub(super) fn forget(&mut self, who: &str) -> Answer {
        let forgotten = self.overlay.forget(who);
        self.put_pins(forgotten, "peer forgotten")
    }

    /// Keeps who is approved from now on, then goes by it: what cannot be kept does not count.
    fn put_pins(&mut self, changed: Result<(Pin, Pins), ApprovalError>, what: &str) -> Answer {
        let (pin, pins) = match changed {
            Ok(changed) => changed,
            Err(error) => return not_done(&error),
        };
        let Some(file) = &self.pin_file else {
            return not_done(&ApprovalError::Off);
        };
        if let Err(error) = file.keep(&pins) {
            let path = file.path().display();
            tracing::warn!(%path, %error, "who is approved cannot be kept");
            return not_done(&format!("cannot write {path}: {error}"));
        }
        let Pin {
            account,
            claim,
            fingerprint,
        } = pin;
        tracing::info!(account, peer = %claim, %fingerprint, "{what}");
        self.overlay.set_pins(Instant::now(), pins);
        self.put_out();
        Answer::Pinned(Box::new(PinnedStatus {
            account,
            name: claim.name,
            ipv4: claim.ipv4,
            ipv6: claim.ipv6,
            fingerprint: Some(fingerprint),
            code: None,
            changed: None,
        }))
    }
}

fn not_done(why: &impl ToString) -> Answer {
    Answer::NotDone {
        why: why.to_string(),
    }
}
