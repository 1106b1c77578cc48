//! What waits while the kernel has no room: a bounded queue for each peer, from which peers are
//! served in turn, as many bytes each (deficit round robin: Shreedhar and Varghese, 1996).
//!
//! A peer that sends more than its share fills its own queue and loses its own oldest, so that what
//! little another one sends is neither lost nor kept waiting for more than one turn of the others.

use std::collections::{HashMap, VecDeque};

use crate::stations::PeerIndex;

/// How much a [`Backlog`] may hold and a turn may take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one peer.
    pub peer: usize,
    /// For all of them.
    pub total: usize,
    /// What a peer may send when its turn comes. With no less than the largest item, a turn
    /// always sends something.
    pub quantum: usize,
}

/// Items that wait, in order for each peer.
#[derive(Debug)]
pub struct Backlog<T> {
    limits: Limits,
    /// Peers that have something.
    queues: HashMap<PeerIndex, Queue<T>>,
    /// The same peers, the one whose turn it is first.
    turns: VecDeque<PeerIndex>,
    bytes: usize,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<(usize, T)>,
    bytes: usize,
    /// Bytes that it may still send in this turn or, when that is another's, in its next.
    deficit: usize,
}

impl<T> Queue<T> {
    fn pop(&mut self) -> Option<(usize, T)> {
        let (bytes, item) = self.items.pop_front()?;
        self.bytes -= bytes;
        Some((bytes, item))
    }
}

impl<T> Backlog<T> {
    /// One that holds nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            queues: HashMap::new(),
            turns: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Adds an item of so many bytes after the others of this peer, and gives to `lost` what has to
    /// go instead: the oldest of this peer as long as it has more than one peer may have, and the
    /// oldest of whoever has most as long as all have more than all may have.
    pub fn push(&mut self, peer: PeerIndex, bytes: usize, item: T, mut lost: impl FnMut(T)) {
        let queue = self.queues.entry(peer).or_insert_with(|| {
            self.turns.push_back(peer);
            Queue {
                items: VecDeque::new(),
                bytes: 0,
                deficit: self.limits.quantum,
            }
        });
        queue.items.push_back((bytes, item));
        queue.bytes += bytes;
        self.bytes += bytes;
        while self.bytes_of(peer) > self.limits.peer {
            self.lose(peer, &mut lost);
        }
        while self.bytes > self.limits.total {
            let Some(longest) = self.longest() else {
                return;
            };
            self.lose(longest, &mut lost);
        }
    }

    /// What is to be sent next. The same until it is [`pop`](Self::pop)ped, unless something is
    /// pushed.
    pub fn front(&mut self) -> Option<&mut T> {
        let peer = loop {
            let peer = *self.turns.front()?;
            let queue = self.queues.get_mut(&peer)?;
            let (bytes, _) = queue.items.front()?;
            if *bytes <= queue.deficit {
                break peer;
            }
            queue.deficit += self.limits.quantum;
            self.turns.rotate_left(1);
        };
        let (_, item) = self.queues.get_mut(&peer)?.items.front_mut()?;
        Some(item)
    }

    /// Takes what [`front`](Self::front) shows.
    pub fn pop(&mut self) -> Option<T> {
        self.front()?;
        let peer = *self.turns.front()?;
        let queue = self.queues.get_mut(&peer)?;
        let (bytes, item) = queue.pop()?;
        queue.deficit -= bytes;
        self.bytes -= bytes;
        self.forget_if_empty(peer);
        Some(item)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of one peer that wait.
    #[must_use]
    pub fn bytes_of(&self, peer: PeerIndex) -> usize {
        self.queues.get(&peer).map_or(0, |queue| queue.bytes)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    fn longest(&self) -> Option<PeerIndex> {
        let longest = self.queues.iter().max_by_key(|(_, queue)| queue.bytes);
        longest.map(|(peer, _)| *peer)
    }

    /// Drops the oldest of a peer.
    fn lose(&mut self, peer: PeerIndex, lost: &mut impl FnMut(T)) {
        if let Some((bytes, item)) = self.queues.get_mut(&peer).and_then(Queue::pop) {
            self.bytes -= bytes;
            lost(item);
        }
        self.forget_if_empty(peer);
    }

    /// A peer that has nothing has no turn, and saves none for later.
    fn forget_if_empty(&mut self, peer: PeerIndex) {
        if self
            .queues
            .get(&peer)
            .is_some_and(|queue| queue.items.is_empty())
        {
            self.queues.remove(&peer);
            self.turns.retain(|other| *other != peer);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
