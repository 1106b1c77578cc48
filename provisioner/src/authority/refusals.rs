//! Requests for certificates that were refused: each is told and written down, but not each time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use ipop_proto::audit::{Event, Limiter, Record};

use crate::audit::Audit;

/// Bounds on what is told of them, over all sessions of a registrar.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals(Arc<Mutex<Limiter<Refusal>>>);

/// Whose request was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Refusal {
    /// The bare JID.
    pub account: String,
    /// The node whose account that is.
    pub node: Option<String>,
    /// Why.
    pub why: String,
}

/// A refusal that is told.
fn tell(audit: &Audit, record: Record) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (account, node) = (text(&record.account), text(&record.node));
    let (key, why) = (text(&record.key), text(&record.why));
    let count = record.count.unwrap_or(1);
    // As they were sent: `?` leaves nothing in that a terminal would obey.
    tracing::warn!(?account, ?node, key, ?why, count, "request refused");
    audit.write(record);
}

impl Refusals {
    /// Takes note of one for the key that was asked for, if that could be read.
    pub fn note(&self, audit: &Audit, refusal: &Refusal, key: Option<String>, now: Instant) {
        if self.limiter(|limiter| limiter.allow(refusal, now)) {
            tell(
                audit,
                Record {
                    key,
                    ..refusal.record()
                },
            );
        }
    }

    /// Tells of those that came again in a minute that is over. To be called now and then.
    pub fn look(&self, audit: impl FnOnce() -> Audit, now: Instant) {
        let due = self.limiter(|limiter| limiter.due(now));
        if due.is_empty() {
            return;
        }
        let audit = audit();
        for repeats in due {
            let others = || Record {
                why: Some("more accounts or reasons than are told one by one".to_owned()),
                ..Record::new(Event::Refused, SystemTime::now())
            };
            let record = repeats.what.map_or_else(others, |what| what.record());
            tell(
                &audit,
                Record {
                    count: Some(repeats.count),
                    ..record
                },
            );
        }
    }

    fn limiter<T>(&self, work: impl FnOnce(&mut Limiter<Refusal>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Refusal {
    fn record(&self) -> Record {
        Record {
            account: Some(self.account.clone()),
            node: self.node.clone(),
            why: Some(self.why.clone()),
            ..Record::new(Event::Refused, SystemTime::now())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ipop_node::audit::Trail;

    use super::*;
    use crate::audit::{By, LIMIT};
    use crate::layout::Layout;

    #[test]
    fn who_asks_all_the_time_has_two_records_a_minute_and_a_crowd_has_few() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let layout = Layout {
            state: dir.path().to_owned(),
            cache: dir.path().to_owned(),
        };
        let audit = || Audit::new(&layout, "demo", By::Registrar, &[]);
        let begun = Instant::now();
        let refusals = Refusals::default();
        let refusal = |number: u32| Refusal {
            account: format!("eve{number}@example.org"),
            node: None,
            why: "it is no node's account".to_owned(),
        };
        let ask = |number, key: &str| {
            let key = Some(key.to_owned());
            refusals.note(&audit(), &refusal(number), key, begun);
        };
        for key in ["first", "second", "third"] {
            ask(0, key);
        }
        (1..1000).for_each(|number| ask(number, "key"));
        refusals.look(audit, begun + Duration::from_secs(59));
        refusals.look(audit, begun + Duration::from_secs(60));
        refusals.look(audit, begun + Duration::from_secs(120));
        let kept = Trail::new(layout.audit("demo"), LIMIT, true).read();
        let records = kept.expect("readable").records;
        let of_eve: Vec<_> = records
            .iter()
            .filter(|r| r.account.as_deref() == Some("eve0@example.org"))
            .map(|r| (r.key.as_deref(), r.count))
            .collect();
        assert_eq!(of_eve, [(Some("first"), None), (None, Some(2))]);
        assert_eq!(records.len(), 64 + 1 + 1);
        let all: u64 = records.iter().map(|r| r.count.unwrap_or(1)).sum();
        assert_eq!(all, 1002, "none is lost");
        let last = records.last().expect("some");
        assert_eq!((last.account.as_ref(), last.count), (None, Some(936)));
    }
}
