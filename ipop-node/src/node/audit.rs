//! What happened to links, kept in the file that `[audit]` names.
//!
//! A thread of its own writes: the node waits for no disk. What one peer causes is bounded
//! ([`budget`]), what waits for the disk is too, and what has no record for either reason is counted in one.

mod budget;
mod told;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use ipop_proto::audit::{Event, Record};
use ipop_proto::config::AuditSection;
use ipop_proto::overlay::Output;
use tokio::sync::oneshot;

use self::budget::{Budget, LeftOut};
use super::{GOODBYE, Node, NodeError};
use crate::audit::Trail;

/// Most bytes of one file, of which there are two.
const LIMIT: u64 = 4 << 20;
/// Records that wait for the disk.
const QUEUE: usize = 1024;
/// Records about one member's link at once, and as many about what it sent that no rule allows.
const BURST: u32 = 32;
/// When there may be one more.
const REFILL: Duration = Duration::from_secs(120);
/// Most members that have records of their own.
const MOST_MEMBERS: usize = 8192;
/// The same for an account that is refused: it may be a stranger's.
const BURST_REFUSED: u32 = 8;
const REFILL_REFUSED: Duration = Duration::from_secs(30 * 60);
const MOST_REFUSED: usize = 64;

/// See the module.
pub(super) struct Audit {
    /// This node's name.
    by: String,
    /// None once it has ended.
    queue: Option<SyncSender<Record>>,
    /// Told when the last record is written.
    written: Option<oneshot::Receiver<()>>,
    /// Records that the disk did not take.
    lost: Arc<AtomicU64>,
    members: Budget<Matter>,
    refused: Budget<Matter>,
}

/// Whose doing something is, and what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Matter {
    /// Links of the node with this name.
    Link(String),
    /// What the node with this name sent.
    Denied(String),
    /// Links that this account was refused.
    Refused(String),
}

impl Matter {
    /// None for what this node itself does.
    fn of(record: &Record) -> Option<Self> {
        let node = record.node.clone().unwrap_or_default();
        match record.event {
            Event::LinkUp | Event::LinkDown => Some(Self::Link(node)),
            Event::Denied => Some(Self::Denied(node)),
            Event::LinkRefused => Some(Self::Refused(record.account.clone().unwrap_or(node))),
            _ => None,
        }
    }
}

impl Audit {
    /// Records of the node `by` in `file`. Whether that can be written shows later, and is logged.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start(by: &str, file: PathBuf) -> std::io::Result<Self> {
        let lost = Arc::new(AtomicU64::new(0));
        let (queue, records) = sync_channel(QUEUE);
        let (done, written) = oneshot::channel();
        let writer = Writer {
            by: by.to_owned(),
            trail: Trail::new(file, LIMIT, false),
            lost: lost.clone(),
            fails: false,
        };
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                writer.run(&records);
                // Nobody may wait for it any more.
                let _ = done.send(());
            })?;
        Ok(Self {
            by: by.to_owned(),
            queue: Some(queue),
            written: Some(written),
            lost,
            members: Budget::new(BURST, REFILL, MOST_MEMBERS),
            refused: Budget::new(BURST_REFUSED, REFILL_REFUSED, MOST_REFUSED),
        })
    }

    /// Takes note of something that happened, unless whoever caused it has had too many.
    pub fn note(&mut self, record: Record, now: Instant) {
        self.look(now);
        let count = record.count.unwrap_or(1);
        let is_told = match Matter::of(&record) {
            Some(matter @ Matter::Refused(_)) => self.refused.spend(&matter, count, now),
            Some(matter) => self.members.spend(&matter, count, now),
            None => true,
        };
        if is_told {
            self.send(record);
        }
    }

    /// When to call [`Self::look`].
    pub fn next(&self) -> Option<Instant> {
        let next = [self.members.next(), self.refused.next()];
        next.into_iter().flatten().min()
    }

    /// Writes down what was left out, as soon as that may be.
    pub fn look(&mut self, now: Instant) {
        let mut due = self.members.due(now);
        due.extend(self.refused.due(now));
        due.into_iter().for_each(|due| self.count(due));
    }

    /// Writes down what there is. What it gives is ready when the thread has written all.
    pub fn end(&mut self, now: Instant) -> Option<oneshot::Receiver<()>> {
        let mut due = self.members.end(now);
        due.extend(self.refused.end(now));
        due.into_iter().for_each(|due| self.count(due));
        self.queue = None;
        self.written.take()
    }

    fn count(&mut self, LeftOut { who, count }: LeftOut<Matter>) {
        let (node, account, why) = match who {
            Some(Matter::Link(node)) => (Some(node), None, "links that came up and went down"),
            Some(Matter::Denied(node)) => (Some(node), None, "packets that no rule allows"),
            Some(Matter::Refused(account)) => (None, Some(account), "links that were refused"),
            None => (None, None, "too many different peers"),
        };
        self.send(Record {
            node,
            account,
            why: Some(why.to_owned()),
            count: Some(count),
            ..Record::new(Event::LeftOut, SystemTime::now())
        });
    }

    fn send(&mut self, record: Record) {
        let record = Record {
            by: self.by.clone(),
            ..record
        };
        let queue = self.queue.as_ref();
        let is_sent = queue.is_some_and(|queue| queue.try_send(record).is_ok());
        if !is_sent && self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("the disk does not keep up with records: some are lost");
        }
    }
}

impl Node {
    /// What writes records, if the configuration says where.
    pub(super) fn records(
        by: &str,
        section: Option<&AuditSection>,
    ) -> Result<Option<Audit>, NodeError> {
        let started = section.map(|section| Audit::start(by, section.file.clone()));
        started.transpose().map_err(|source| NodeError::System {
            what: "start the thread that writes records",
            source,
        })
    }

    /// Writes down what the protocol says, if it is about who links.
    pub(super) fn record(&mut self, output: &Output) {
        if let Some(audit) = &mut self.audit
            && let Some(record) = told::told(output)
        {
            audit.note(record, Instant::now());
        }
    }

    /// Writes down what this node did itself.
    pub(super) fn record_own(&mut self, event: Event, details: impl FnOnce(Record) -> Record) {
        if let Some(audit) = &mut self.audit {
            let record = Record {
                node: Some(audit.by.clone()),
                ..Record::new(event, SystemTime::now())
            };
            audit.note(details(record), Instant::now());
        }
    }

    /// Waits until the last record is written, within bounds.
    pub(super) async fn end_records(&mut self) {
        let audit = self.audit.as_mut();
        let ended = audit.and_then(|audit| audit.end(Instant::now()));
        if let Some(written) = ended
            && tokio::time::timeout(GOODBYE, written).await.is_err()
        {
            tracing::warn!("the last records are not written: the disk does not answer");
        }
    }
}

/// What the thread has.
struct Writer {
    by: String,
    trail: Trail,
    lost: Arc<AtomicU64>,
    /// Whether the last one could not be written, which was said.
    fails: bool,
}

impl Writer {
    /// Writes what comes, until nobody sends any more.
    fn run(mut self, records: &Receiver<Record>) {
        for record in records {
            let lost = self.lost.load(Ordering::Relaxed);
            if lost > 0 && self.append(&self.gap(lost)) {
                self.lost.fetch_sub(lost, Ordering::Relaxed);
            }
            if !self.append(&record) {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn gap(&self, lost: u64) -> Record {
        Record {
            by: self.by.clone(),
            why: Some("the disk did not take them".to_owned()),
            count: Some(lost),
            ..Record::new(Event::LeftOut, SystemTime::now())
        }
    }

    /// Whether it is written. What fails is logged once, until it works again.
    fn append(&mut self, record: &Record) -> bool {
        let written = self.trail.append(record);
        let file = self.trail.path().display();
        match &written {
            Err(error) if !self.fails => tracing::warn!(%file, %error, "records are lost"),
            Ok(()) if self.fails => tracing::info!(%file, "records are kept again"),
            _ => {}
        }
        self.fails = written.is_err();
        written.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn record(event: Event, who: &str) -> Record {
        let is_refused = event == Event::LinkRefused;
        Record {
            node: (!is_refused).then(|| who.to_owned()),
            account: is_refused.then(|| who.to_owned()),
            ..Record::new(event, SystemTime::now())
        }
    }

    fn ended(mut audit: Audit, file: &Path) -> Vec<Record> {
        let written = audit.end(Instant::now()).expect("it runs");
        written.blocking_recv().expect("no panic");
        let kept = Trail::new(file.to_owned(), LIMIT, false).read();
        let kept = kept.expect("readable");
        assert_eq!(kept.damaged, 0);
        assert!(kept.records.iter().all(|r| r.by == "me"));
        kept.records
    }

    #[test]
    fn a_peer_that_comes_and_goes_all_the_time_is_told_in_full_at_first_and_counted_then() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("audit.jsonl");
        let begun = Instant::now();
        let mut audit = Audit::start("me", file.clone()).expect("started");
        for second in 0..100 {
            let now = begun + Duration::from_secs(second);
            audit.note(record(Event::LinkUp, "a"), now);
            audit.note(record(Event::LinkDown, "a"), now);
        }
        // What it sends, another peer and this node itself have records for all that.
        let later = begun + Duration::from_secs(100);
        audit.note(record(Event::Denied, "a"), later);
        audit.note(record(Event::LinkUp, "b"), later);
        audit.note(record(Event::CertificateRenewed, "me"), later);
        assert_eq!(audit.next(), Some(begun + REFILL));
        let all = ended(audit, &file);
        let (of_a, rest) = all.split_at(BURST as usize);
        for (at, told) in of_a.iter().enumerate() {
            let events = [Event::LinkUp, Event::LinkDown];
            assert_eq!(told.event, events[at % 2]);
        }
        let said = |r: &Record| (r.event.to_string(), r.node.clone(), r.count);
        let node = |name: &str| Some(name.to_owned());
        let expected = [
            ("denied".to_owned(), node("a"), None),
            ("link-up".to_owned(), node("b"), None),
            ("certificate-renewed".to_owned(), node("me"), None),
            ("left-out".to_owned(), node("a"), Some(200 - 32)),
        ];
        assert_eq!(rest.iter().map(said).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_crowd_of_strangers_has_few_records_and_members_have_theirs() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("audit.jsonl");
        let now = Instant::now();
        let mut audit = Audit::start("me", file.clone()).expect("started");
        for number in 0..500 {
            audit.note(record(Event::LinkRefused, &format!("eve{number}")), now);
        }
        audit.note(record(Event::LinkUp, "a"), now);
        let all = ended(audit, &file);
        let told = |event: Event| all.iter().filter(move |r| r.event == event);
        let most = MOST_REFUSED + BURST_REFUSED as usize;
        assert_eq!(told(Event::LinkRefused).count(), most);
        assert_eq!(told(Event::LinkUp).count(), 1);
        let left_out: Vec<_> = told(Event::LeftOut).map(|r| r.count).collect();
        assert_eq!(left_out, [Some(500 - most as u64)]);
    }

    #[test]
    fn a_file_that_cannot_be_written_stops_nobody_and_the_gap_is_told() {
        let dir = tempfile::tempdir().expect("directory");
        let folder = dir.path().join("there");
        let file = folder.join("audit.jsonl");
        // A file where its folder should be.
        std::fs::write(&folder, "").expect("written");
        let mut audit = Audit::start("me", file.clone()).expect("started");
        let now = Instant::now();
        for _ in 0..3 {
            audit.note(record(Event::LinkUp, "a"), now);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while audit.lost.load(Ordering::Relaxed) < 3 {
            assert!(Instant::now() < deadline, "they are not lost");
            std::thread::yield_now();
        }
        std::fs::remove_file(&folder).expect("removed");
        audit.note(record(Event::LinkDown, "a"), now);
        let all = ended(audit, &file);
        let said: Vec<_> = all.iter().map(|r| (r.event.to_string(), r.count)).collect();
        let expected = [
            ("left-out".to_owned(), Some(3)),
            ("link-down".to_owned(), None),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_disk_that_does_not_answer_holds_up_nobody() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("audit.jsonl");
        let trail = Trail::new(file.clone(), LIMIT, false);
        let first = Record {
            by: "me".to_owned(),
            ..record(Event::LinkUp, "x")
        };
        trail.append(&first).expect("added");
        let held = std::fs::File::open(&file).expect("there");
        held.lock().expect("locked");
        let mut audit = Audit::start("me", file.clone()).expect("started");
        let begun = Instant::now();
        for number in 0..2 * QUEUE {
            audit.note(record(Event::LinkUp, &format!("n{number}")), begun);
        }
        assert!(audit.lost.load(Ordering::Relaxed) > 0);
        // To wait for each would take an hour.
        assert!(begun.elapsed() < Duration::from_secs(60), "it waited");
        drop(held);
        assert!(ended(audit, &file).len() > QUEUE / 2);
    }
}
