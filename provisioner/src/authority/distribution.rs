//! Which nodes have the newest revocation list, and which are to be told it now. Knows no I/O.
//!
//! A node is told when it appears and when there is another list, and again with growing pauses until it
//! says that the list is in force: one that is too old to know of lists costs a stanza every few minutes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::told::Told;
use crate::name::NodeName;

/// The first pause before a node is told again; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long after a sign-in nobody is missed who has not been seen.
const SETTLE: Duration = Duration::from_secs(1);

/// A list as it is sent.
#[derive(Debug, Clone)]
pub(super) struct List {
    /// Its number.
    pub number: u64,
    /// DER.
    pub der: Arc<[u8]>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Distribution {
    list: Option<List>,
    /// Nodes that are online, by full JID.
    members: BTreeMap<String, Member>,
    /// Since when we are.
    online: Option<Instant>,
    /// The newest list that each node ever said to have.
    known: BTreeMap<NodeName, u64>,
}

#[derive(Debug)]
struct Member {
    node: NodeName,
    state: State,
    pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is to be told then.
    Due(Instant),
    /// It was told the list of this number.
    Asked(u64),
    /// The list of this number is in force there.
    Has(u64),
}

impl Distribution {
    /// There is another list.
    pub fn publish(&mut self, list: List, now: Instant) {
        self.list = Some(list);
        for member in self.members.values_mut() {
            member.state = State::Due(now);
            member.pause = FIRST_PAUSE;
        }
    }

    /// The number of the newest list.
    pub fn number(&self) -> Option<u64> {
        self.list.as_ref().map(|list| list.number)
    }

    /// We are signed in.
    pub fn online(&mut self, now: Instant) {
        self.online = Some(now);
    }

    /// We are not: who else is there is not known.
    pub fn offline(&mut self) {
        self.online = None;
        self.members.clear();
    }

    /// The client `jid` of a node is online.
    pub fn present(&mut self, jid: &str, node: NodeName, now: Instant) {
        self.members.entry(jid.to_owned()).or_insert(Member {
            node,
            state: State::Due(now),
            pause: FIRST_PAUSE,
        });
    }

    /// It is online no more.
    pub fn gone(&mut self, jid: &str) {
        self.members.remove(jid);
    }

    /// Whom to tell which list now. Each is to be answered by [`Self::answered`].
    pub fn poll(&mut self, now: Instant) -> Option<(String, List)> {
        let list = self.list.as_ref()?;
        let is_due = |member: &Member| matches!(member.state, State::Due(at) if at <= now);
        let (jid, member) = self.members.iter_mut().find(|(_, m)| is_due(m))?;
        member.state = State::Asked(list.number);
        Some((jid.clone(), list.clone()))
    }

    /// What came of telling `jid` the list `number`: whether that is in force there. The node is given
    /// where it has that list for the first time.
    pub fn answered(
        &mut self,
        jid: &str,
        number: u64,
        in_force: bool,
        now: Instant,
    ) -> Option<NodeName> {
        let member = self.members.get_mut(jid)?;
        // It may have gone and come again, or there is a newer list.
        if member.state != State::Asked(number) {
            return None;
        }
        if !in_force {
            member.state = State::Due(now + member.pause);
            member.pause = (member.pause * 2).min(LONGEST_PAUSE);
            return None;
        }
        member.state = State::Has(number);
        let before = self.known.insert(member.node.clone(), number);
        (before != Some(number)).then(|| member.node.clone())
    }

    /// How far it is; nothing as long as there is no list, or others may not have been seen yet.
    pub fn told(&self, now: Instant) -> Option<Told> {
        let list = self.list.as_ref()?;
        self.online.filter(|since| *since + SETTLE <= now)?;
        let (have, lack): (Vec<_>, Vec<_>) = self
            .members
            .values()
            .partition(|member| member.state == State::Has(list.number));
        let names = |members: Vec<&Member>| members.iter().map(|m| m.node.clone()).collect();
        Some(Told {
            number: list.number,
            acknowledged: names(have),
            silent: names(lack),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(number: u64) -> List {
        List {
            number,
            der: [1].into(),
        }
    }

    fn name(node: &str) -> NodeName {
        NodeName(node.to_owned())
    }

    fn due(distribution: &mut Distribution, now: Instant) -> Vec<(String, u64)> {
        let next = || distribution.poll(now);
        std::iter::from_fn(next)
            .map(|(jid, list)| (jid, list.number))
            .collect()
    }

    #[test]
    fn each_that_is_online_is_told_each_list_and_so_is_who_comes_later() {
        let now = Instant::now();
        let mut distribution = Distribution::default();
        distribution.present("a@x/1", name("a"), now);
        assert!(due(&mut distribution, now).is_empty(), "there is no list");
        distribution.publish(list(1), now);
        assert_eq!(due(&mut distribution, now), [("a@x/1".to_owned(), 1)]);
        assert!(due(&mut distribution, now).is_empty(), "once");
        let first = distribution.answered("a@x/1", 1, true, now);
        assert_eq!(first, Some(name("a")));
        // It says other things of itself meanwhile.
        distribution.present("a@x/1", name("a"), now);
        distribution.present("b@x/1", name("b"), now);
        assert_eq!(due(&mut distribution, now), [("b@x/1".to_owned(), 1)]);
        // Before that is answered there is another list.
        distribution.publish(list(2), now);
        let both = [("a@x/1".to_owned(), 2), ("b@x/1".to_owned(), 2)];
        assert_eq!(due(&mut distribution, now), both);
        distribution.answered("b@x/1", 1, true, now);
        distribution.answered("a@x/1", 2, true, now);
        distribution.online(now);
        assert_eq!(distribution.told(now), None, "others may come");
        let told = distribution.told(now + SETTLE).expect("seen");
        let (have, lack) = (vec![name("a")], vec![name("b")]);
        assert_eq!((told.acknowledged, told.silent), (have, lack));
        // A node that starts again is told again.
        distribution.gone("a@x/1");
        distribution.present("a@x/1", name("a"), now);
        assert_eq!(due(&mut distribution, now), [("a@x/1".to_owned(), 2)]);
        let again = distribution.answered("a@x/1", 2, true, now);
        assert_eq!(again, None, "it had that before");
        distribution.offline();
        assert_eq!(distribution.told(now + SETTLE), None);
    }

    #[test]
    fn who_does_not_answer_is_told_again_and_again_and_ever_more_seldom() {
        let mut now = Instant::now();
        let mut distribution = Distribution::default();
        distribution.publish(list(1), now);
        distribution.present("a@x/1", name("a"), now);
        let mut pauses = Vec::new();
        for _ in 0..11 {
            let told = due(&mut distribution, now);
            assert_eq!(told.len(), 1);
            distribution.answered("a@x/1", 1, false, now);
            let member = &distribution.members["a@x/1"];
            let State::Due(at) = member.state else {
                panic!("{member:?}");
            };
            assert!(due(&mut distribution, now).is_empty(), "not at once");
            pauses.push((at - now).as_secs());
            now = at;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        // Another list is told at once.
        distribution.publish(list(2), now - FIRST_PAUSE);
        assert_eq!(due(&mut distribution, now), [("a@x/1".to_owned(), 2)]);
    }
}
