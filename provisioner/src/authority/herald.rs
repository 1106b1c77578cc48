//! Tells nodes the revocation list, over the registrar's session: those that are online, as soon as it
//! is made, and each that comes online later.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipop_node::xmpp::{Event, Session};
use tokio::task::JoinSet;

use super::distribution::{Distribution, List};
use super::told::Told;
use super::{AuthorityError, list_path, read_list};
use crate::error::CliError;
use crate::name::NodeName;

/// Between looks at the list's file. What is revoked by somebody waits no longer than that.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Herald {
    /// The authority's directory.
    dir: PathBuf,
    /// Where the list was read: its inode and time. Each list is a file of its own.
    seen: Option<(u64, i64, i64)>,
    distribution: Distribution,
    answers: JoinSet<Answer>,
    /// What was written last.
    told: Option<Told>,
    /// What keeps it from that, as it was told.
    trouble: Option<String>,
}

/// What a node said.
pub(super) struct Answer {
    jid: String,
    number: u64,
    in_force: bool,
}

impl Herald {
    /// That of the authority in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            seen: None,
            distribution: Distribution::default(),
            answers: JoinSet::new(),
            told: None,
            trouble: None,
        }
    }

    /// Takes note of what the session says of nodes; `node_of` is whose an account is.
    pub fn hear(&mut self, event: &Event, node_of: impl Fn(&str) -> Option<NodeName>) {
        let now = Instant::now();
        match event {
            Event::Online { .. } => self.distribution.online(now),
            Event::Offline { .. } | Event::Refused { .. } => self.distribution.offline(),
            Event::Presence { from, .. } => {
                if let Some(node) = node_of(from) {
                    self.distribution.present(from, node, now);
                }
            }
            Event::Unavailable { from } => self.distribution.gone(from),
            _ => {}
        }
    }

    /// The next answer of a node. Waits for ever while none is asked.
    pub async fn answer(&mut self) -> Answer {
        loop {
            match self.answers.join_next().await {
                Some(Ok(answer)) => return answer,
                Some(Err(error)) => tracing::error!(%error, "a defect: nobody waits for an answer"),
                None => std::future::pending().await,
            }
        }
    }

    /// Takes it; gives the node, and the list's number, where that is in force for the first time.
    pub fn answered(&mut self, answer: &Answer) -> Option<(NodeName, u64)> {
        let Answer {
            jid,
            number,
            in_force,
        } = answer;
        let node = self
            .distribution
            .answered(jid, *number, *in_force, Instant::now())?;
        Some((node, *number))
    }

    /// Looks for another list, and writes down who has it. What keeps it from that is written to
    /// standard error once, and tried again.
    pub fn look(&mut self) {
        let looked = self.try_to_look();
        let trouble = looked.err().map(|error| CliError::from(error).one_line());
        if let Some(text) = trouble
            .as_ref()
            .filter(|t| self.trouble.as_ref() != Some(*t))
        {
            eprintln!("nobody is told who is revoked: {text}");
        }
        self.trouble = trouble;
    }

    fn try_to_look(&mut self) -> Result<(), AuthorityError> {
        let now = Instant::now();
        let file = fs::metadata(list_path(&self.dir)).ok();
        let file = file.map(|file| (file.ino(), file.mtime(), file.mtime_nsec()));
        if file != self.seen {
            if let Some(list) = read_list(&self.dir)?
                && self.distribution.number() != Some(list.number())
            {
                let list = List {
                    number: list.number(),
                    der: list.der().into(),
                };
                self.distribution.publish(list, now);
            }
            self.seen = file;
        }
        let told = self.distribution.told(now);
        if let Some(told) = told.filter(|told| self.told.as_ref() != Some(told)) {
            told.write(&self.dir)?;
            self.told = Some(told);
        }
        Ok(())
    }

    /// Tells whoever is to be told now.
    pub fn tell(&mut self, session: &Session) {
        while let Some((jid, list)) = self.distribution.poll(Instant::now()) {
            let session = session.clone();
            self.answers.spawn(async move {
                let told = session.tell_revocations(&jid, list.der.to_vec()).await;
                if let Err(error) = &told {
                    tracing::debug!(jid, %error, "revocation list not taken");
                }
                Answer {
                    jid,
                    number: list.number,
                    in_force: told.is_ok(),
                }
            });
        }
    }
}
