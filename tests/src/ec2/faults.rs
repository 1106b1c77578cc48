//! Faults that tests order: which call, how often, and what goes wrong.

use serde::{Deserialize, Serialize};

/// What goes wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Not done; answered with an error.
    Error {
        /// HTTP status.
        status: u16,
        /// Code, or type in the EBS API.
        code: String,
        /// Message.
        message: String,
    },
    /// Not done, and never answered.
    Hang,
    /// Done, and never answered.
    HangAfter,
    /// Not done; the connection is closed.
    CloseBefore,
    /// Done, but the connection is closed in place of the answer.
    LoseAnswer,
    /// Done and answered after this many milliseconds more.
    Delay(u64),
    /// `RunInstances`: done, but the instance ends at once for this reason.
    Dies {
        /// Code of the state's reason (`Server.InternalError`).
        code: String,
        /// Message of the state's reason.
        message: String,
    },
    /// `RunInstances`: done, the instance runs, and nothing runs in it.
    Silent,
}

/// A fault that is ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Action it concerns (`RunInstances`, `PutSnapshotBlock`); `*` for all.
    pub action: String,
    /// Only calls that have a parameter, or a part of the path, of this value (a tag's, say).
    #[serde(default)]
    pub mentioning: Option<String>,
    /// How many such calls pass first.
    #[serde(default)]
    pub skip: u32,
    /// How many such calls it hits; none for all that follow.
    #[serde(default = "once")]
    pub times: Option<u32>,
    /// What goes wrong.
    pub kind: FaultKind,
}

fn once() -> Option<u32> {
    Some(1)
}

impl Fault {
    /// Hits the next call of `action`.
    pub fn next(action: &str, kind: FaultKind) -> Self {
        Self {
            action: action.to_owned(),
            mentioning: None,
            skip: 0,
            times: Some(1),
            kind,
        }
    }

    /// Hits the next call with an error.
    pub fn error(action: &str, status: u16, code: &str, message: &str) -> Self {
        let kind = FaultKind::Error {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        };
        Self::next(action, kind)
    }

    /// Only calls that mention this value.
    pub fn mentioning(self, value: &str) -> Self {
        Self {
            mentioning: Some(value.to_owned()),
            ..self
        }
    }

    /// Lets some calls pass first.
    pub fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Hits so many calls.
    pub fn times(self, times: u32) -> Self {
        Self {
            times: Some(times),
            ..self
        }
    }

    /// Hits all calls that follow.
    pub fn always(self) -> Self {
        Self {
            times: None,
            ..self
        }
    }
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that hits this call, if any; it counts as used.
    pub fn hit(&mut self, action: &str, mentions: impl Fn(&str) -> bool) -> Option<FaultKind> {
        for (index, fault) in self.0.iter_mut().enumerate() {
            let concerns = (fault.action == action || fault.action == "*")
                && fault.mentioning.as_deref().is_none_or(&mentions);
            if !concerns {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            let kind = fault.kind.clone();
            if let Some(times) = &mut fault.times {
                *times -= 1;
                if *times == 0 {
                    self.0.remove(index);
                }
            }
            return Some(kind);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_as_often_as_ordered_and_only_what_it_concerns() {
        let mut faults = Faults::default();
        let fault = Fault::next("RunInstances", FaultKind::Hang);
        faults.add(fault.after(1).times(2).mentioning("w3"));
        let mut hit = |action: &str, value: &str| faults.hit(action, |v| v == value).is_some();
        assert!(!hit("RunInstances", "w3"), "the first passes");
        assert!(!hit("RunInstances", "w4"));
        assert!(!hit("TerminateInstances", "w3"));
        assert!(hit("RunInstances", "w3"));
        assert!(hit("RunInstances", "w3"));
        assert!(!hit("RunInstances", "w3"), "it hits twice");
    }
}
