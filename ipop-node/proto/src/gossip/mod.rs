//! How revocation lists get to every member without a server: linked nodes tell each other which list
//! they have, and whoever has an older one asks for the newer one.
//!
//! A node [tells](Message::Tell) a peer the number of its list when their link comes up and whenever
//! it has a newer one, again and again until the peer has answered that it has that list too. Who hears
//! of a higher number than its own [asks](Message::Want) for the list, which comes in pieces that
//! fit any datagram, a window of them for each question. When it is whole the caller looks whether it is
//! the authority's; if so ([`Gossip::hold`]), all other peers are told of it at once. While nobody has a
//! list nothing is said.
//!
//! Nobody is believed: what is asked for from a peer is bounded, a number that it does not come up
//! with a list for keeps nobody from asking others, and a peer whose list is not to be believed is not
//! listened to for a while.
//!
//! Driven from outside: after every call that takes `&mut self` the caller drains
//! [`Gossip::poll_message`] and [`Gossip::poll_list`], then asks [`Gossip::poll_timeout`] when to call
//! [`Gossip::handle_timeout`].

pub mod message;
mod pull;
mod talk;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use self::message::{ListId, Message, PIECE};
use self::pull::{Progress, Pull, WINDOW};
use self::talk::Talk;
use crate::authority::{AuthorityId, MAX_LIST};

/// How long a list that is on its way from one peer is not asked for from another.
const YOUNG: Duration = Duration::from_secs(1);
/// How long a peer is not asked whose list was bad.
const DEAF: Duration = Duration::from_secs(30);
/// How long a peer is not asked whose list did not come.
const PAUSE: Duration = Duration::from_secs(5);

/// What a peer said does not fit the rest, or was not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a piece of no list that was asked for, or cut wrongly")]
pub struct Misfit;

/// See the module. `P` names a peer.
#[derive(Debug)]
pub struct Gossip<P> {
    /// What this node has, by authority; empty for one that has no list.
    own: BTreeMap<AuthorityId, Held>,
    /// What is said with each linked peer about each authority.
    talks: BTreeMap<(P, AuthorityId), Talk>,
    /// Lists that somebody was asked for of late, and until when nobody else is.
    young: BTreeMap<ListId, Instant>,
    messages: VecDeque<(P, Message)>,
    lists: VecDeque<(P, ListId, Vec<u8>)>,
    /// When something is due, as of the last look; none if it is to be looked.
    due: Option<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Held {
    number: u64,
    der: Vec<u8>,
}

impl<P: Copy + Ord> Gossip<P> {
    /// A node that believes these authorities, and has no list of any.
    pub fn new(authorities: impl IntoIterator<Item = AuthorityId>) -> Self {
        let own = authorities.into_iter().map(|id| (id, Held::default()));
        Self {
            own: own.collect(),
            talks: BTreeMap::new(),
            young: BTreeMap::new(),
            messages: VecDeque::new(),
            lists: VecDeque::new(),
            due: None,
        }
    }

    /// A link came up.
    pub fn linked(&mut self, peer: P, now: Instant) {
        for (authority, held) in &self.own {
            let talk = Talk::new(held.number, now);
            self.talks.insert((peer, *authority), talk);
        }
        self.advance(now);
    }

    /// A link is no more.
    pub fn unlinked(&mut self, peer: P) {
        self.talks.retain(|(other, _), _| *other != peer);
        self.due = None;
    }

    /// This node has this list now, a newer one than before. One of an authority that is not believed,
    /// or that is not newer, is left alone.
    pub fn hold(&mut self, list: ListId, der: &[u8], now: Instant) {
        let Some(held) = self.own.get_mut(&list.authority) else {
            return;
        };
        if list.number <= held.number || der.len() > MAX_LIST {
            return;
        }
        *held = Held {
            number: list.number,
            der: der.to_vec(),
        };
        for ((peer, authority), talk) in &mut self.talks {
            if *authority == list.authority && talk.have(list.number, now) {
                // Whoever told of it waits to hear that it came.
                self.messages.push_back((*peer, Message::Told(list)));
            }
        }
        self.advance(now);
    }

    /// The list that [came](Self::poll_list) from a peer is not to be believed.
    pub fn distrust(&mut self, peer: P, list: ListId, now: Instant) {
        if let Some(talk) = self.talks.get_mut(&(peer, list.authority)) {
            talk.ignore(now + DEAF);
        }
        self.young.remove(&list);
        self.advance(now);
    }

    /// A peer says something. What is about an authority that is not believed here is left alone,
    /// since it may be believed there; but for a list of it nobody has asked.
    pub fn handle_message(
        &mut self,
        peer: P,
        message: Message,
        now: Instant,
    ) -> Result<(), Misfit> {
        let list = message.list();
        let key = (peer, list.authority);
        let (Some(held), Some(talk)) = (self.own.get(&list.authority), self.talks.get_mut(&key))
        else {
            return match message {
                Message::Piece { .. } => Err(Misfit),
                _ => Ok(()),
            };
        };
        let own = ListId {
            number: held.number,
            ..list
        };
        match message {
            Message::Tell(_) | Message::Told(_) => {
                talk.hear(list.number, own.number);
                if matches!(message, Message::Tell(_)) {
                    self.messages.push_back((peer, Message::Told(own)));
                }
                self.step(key, now);
            }
            Message::Want { offset, .. } if talk.sends(now) => {
                if own == list {
                    let pieces = pieces(list, &held.der, offset as usize);
                    self.messages.extend(pieces.map(|piece| (peer, piece)));
                } else {
                    self.messages.push_back((peer, Message::Told(own)));
                }
            }
            Message::Want { .. } => {}
            Message::Piece {
                offset,
                total,
                bytes,
                ..
            } => {
                // One that came twice, or too late, is no offence.
                let was_asked = talk.has_asked(list.number).then_some(()).ok_or(Misfit);
                let Some(pull) = talk.pull.as_mut().filter(|pull| pull.list == list) else {
                    return was_asked;
                };
                match pull.take(offset, total, &bytes, now) {
                    Progress::Waits => {}
                    Progress::Asks(want) => self.messages.push_back((peer, want)),
                    Progress::Whole(der) => {
                        talk.pull = None;
                        self.lists.push_back((peer, list, der));
                    }
                    Progress::Misfit => {
                        self.distrust(peer, list, now);
                        return Err(Misfit);
                    }
                }
            }
        }
        self.due = None;
        Ok(())
    }

    /// Says again what has not been answered, and asks for lists that nobody was asked for. Calling
    /// early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.advance(now);
        }
    }

    /// When [`Self::handle_timeout`] is next due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if let Some(due) = self.due {
            return due;
        }
        let own = self.talks.values().filter_map(Talk::poll_timeout);
        let pulls = self.talks.keys().filter_map(|key| self.pull_at(*key));
        let due = own.chain(pulls).min();
        self.due = Some(due);
        due
    }

    /// The next thing to tell a peer.
    pub fn poll_message(&mut self) -> Option<(P, Message)> {
        self.messages.pop_front()
    }

    /// The next list that has come from a peer, to be looked at: it is anything so far.
    pub fn poll_list(&mut self) -> Option<(P, ListId, Vec<u8>)> {
        self.lists.pop_front()
    }

    fn advance(&mut self, now: Instant) {
        self.young.retain(|_, until| *until > now);
        let keys: Vec<_> = self.talks.keys().copied().collect();
        for key in keys {
            self.step(key, now);
        }
        self.due = None;
    }

    /// Says what is to be said to one peer now.
    fn step(&mut self, key: (P, AuthorityId), now: Instant) {
        let (peer, authority) = key;
        let (Some(held), Some(talk)) = (self.own.get(&authority), self.talks.get_mut(&key)) else {
            return;
        };
        let number = held.number;
        if talk.tells(now) {
            let own = ListId { authority, number };
            self.messages.push_back((peer, Message::Tell(own)));
        }
        if let Some(pull) = talk.pull.as_mut().filter(|pull| pull.again <= now) {
            match pull.stalled(now) {
                Some(want) => self.messages.push_back((peer, want)),
                None => talk.ignore(now + PAUSE),
            }
        }
        if self.pull_at(key).is_none_or(|at| at > now) {
            return;
        }
        if let Some(talk) = self.talks.get_mut(&key) {
            let number = talk.heard;
            let list = ListId { authority, number };
            let (pull, want) = Pull::begin(list, now);
            talk.pulls(pull);
            self.young.insert(list, now + YOUNG);
            self.messages.push_back((peer, want));
        }
    }

    /// When a peer is to be asked for its list, if it is.
    fn pull_at(&self, key: (P, AuthorityId)) -> Option<Instant> {
        let talk = self.talks.get(&key)?;
        let due = talk.newer_at(self.own.get(&key.1)?.number)?;
        let list = ListId {
            authority: key.1,
            number: talk.heard,
        };
        Some(self.young.get(&list).map_or(due, |until| due.max(*until)))
    }
}

/// A window of a list, from `offset` on.
fn pieces(list: ListId, der: &[u8], offset: usize) -> impl Iterator<Item = Message> {
    let total = der.len();
    let chunks = der.get(offset..).unwrap_or_default().chunks(PIECE);
    chunks
        .take(WINDOW)
        .enumerate()
        .map(move |(at, chunk)| Message::Piece {
            list,
            // No more than MAX_LIST.
            offset: (offset + at * PIECE) as u32,
            total: total as u32,
            bytes: chunk.to_vec(),
        })
}
