use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::deploy::planner::Why;
use crate::provider::{Resource, Scope};
use crate::state::record::{Key, Verb};

const LONG: Duration = Duration::from_secs(30);

fn action(site: &str, id: &str, needs: &[usize]) -> Action {
    Action {
        verb: Verb::Make,
        key: Key {
            owner: Owner::Site(site.to_owned()),
            resource: Resource {
                kind: "thing".to_owned(),
                id: id.to_owned(),
            },
        },
        scope: Scope::Deployment,
        attempt: 1,
        node_attempt: 1,
        why: Why::New,
        needs: needs.to_vec(),
        after: Vec::new(),
        deadline: LONG,
    }
}

/// Calls a function with the thing's name and the number of its try.
struct Does<F> {
    act: F,
    tries: Mutex<BTreeMap<String, usize>>,
    silent: BTreeSet<Owner>,
}

impl<F: Fn(&str, usize) -> Result<(), CliError> + Sync> Does<F> {
    fn new(act: F) -> Self {
        Self {
            act,
            tries: Mutex::default(),
            silent: BTreeSet::new(),
        }
    }
}

impl<F: Fn(&str, usize) -> Result<(), CliError> + Sync> Doer for Does<F> {
    fn parallel(&self, _: &Owner) -> usize {
        2
    }

    fn act(&self, action: &Action, _: Instant) -> Result<(), CliError> {
        let name = &action.key.resource.id;
        let tries = {
            let mut tries = self.tries.lock().expect("whole");
            let count = tries.entry(name.clone()).or_default();
            *count += 1;
            *count
        };
        (self.act)(name, tries)
    }

    fn answers(&self, owner: &Owner) -> bool {
        !self.silent.contains(owner)
    }
}

fn refused() -> CliError {
    CliError::new(ExitCode::Missing, "refused")
}

#[test]
fn everything_is_done_after_what_it_needs_and_never_more_than_a_sites_share_at_once() {
    let mut actions: Vec<_> = (0..20).map(|n| action("a", &format!("{n}"), &[])).collect();
    actions.extend((20..40).map(|n| action("b", &format!("{n}"), &[n - 20])));
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let order = Mutex::new(Vec::new());
    let does = Does::new(|name, _| {
        let running = now.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(running, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(2));
        order
            .lock()
            .expect("whole")
            .push(name.parse::<usize>().expect("a number"));
        now.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    });
    let run = execute(&actions, &does, &Interrupt::default());
    assert_eq!(run.done.len(), 40);
    let order = order.into_inner().expect("whole");
    let place = |n: usize| order.iter().position(|o| *o == n).expect("done");
    assert!((0..20).all(|n| place(n) < place(n + 20)));
    let most = most.into_inner();
    assert!((2..=4).contains(&most), "{most} at once");
}

#[test]
fn a_failure_and_a_panic_keep_back_what_needs_them_and_nothing_else() {
    let actions = [
        action("a", "fails", &[]),
        action("a", "panics", &[]),
        action("a", "above", &[0, 1]),
        action("b", "top", &[2]),
        action("a", "fine", &[]),
        action("b", "above fine", &[4]),
    ];
    let does = Does::new(|name, _| match name {
        "fails" => Err(refused()),
        "panics" => panic!("out of bounds"),
        _ => Ok(()),
    });
    let run = execute(&actions, &does, &Interrupt::default());
    let mut done = run.done.clone();
    done.sort_unstable();
    assert_eq!(done, [4, 5]);
    let mut blocked: Vec<_> = run.blocked.iter().map(|(index, _)| *index).collect();
    blocked.sort_unstable();
    assert_eq!(blocked, [2, 3]);
    let texts: Vec<_> = run.failed.iter().map(|(_, e)| e.to_string()).collect();
    assert!(
        texts.iter().any(|t| t.contains("out of bounds")),
        "{texts:?}"
    );
    assert!(!run.interrupted);
}

#[test]
fn what_may_be_tried_again_is_and_meanwhile_others_have_the_thread() {
    let actions = [
        action("a", "late", &[]),
        action("a", "later", &[]),
        action("a", "other", &[]),
    ];
    let order = Mutex::new(Vec::new());
    let does = Does::new(|name, tries| {
        if name != "other" && tries < 3 {
            return Err(refused().retry(Retry::Soon));
        }
        order.lock().expect("whole").push(name.to_owned());
        Ok(())
    });
    let run = execute(&actions, &does, &Interrupt::default());
    assert_eq!(run.done.len(), 3);
    assert_eq!(order.into_inner().expect("whole")[0], "other");
}

#[test]
fn tries_end_with_the_actions_own_time() {
    let mut slow = action("a", "never", &[]);
    slow.deadline = Duration::from_millis(700);
    let does = Does::new(|_, _| Err(refused().retry(Retry::Soon)));
    let began = Instant::now();
    let run = execute(&[slow], &does, &Interrupt::default());
    assert!(began.elapsed() < Duration::from_secs(5));
    let (_, error) = &run.failed[0];
    assert!(
        error.hints[0].contains("tries in 0 s had no success"),
        "{error}"
    );
}

#[test]
fn of_what_does_not_answer_nothing_more_is_tried() {
    let actions: Vec<_> = (0..50).map(|n| action("a", &format!("{n}"), &[])).collect();
    let mut does = Does::new(|_, _| Err(CliError::new(ExitCode::Unavailable, "no route")));
    does.silent.insert(Owner::Site("a".to_owned()));
    let run = execute(&actions, &does, &Interrupt::default());
    assert_eq!(run.failed.len(), 50);
    assert!(run.failed.iter().all(|(_, e)| e.message == "no route"));
    let tried = does.tries.lock().expect("whole").len();
    assert!(tried <= 2, "{tried} were tried");
}

#[test]
fn an_interrupt_lets_actions_in_hand_end_and_begins_no_more() {
    let actions: Vec<_> = (0..50).map(|n| action("a", &format!("{n}"), &[])).collect();
    let interrupt = Interrupt::default();
    let does = Does::new(|_, _| {
        interrupt.set();
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    });
    let run = execute(&actions, &does, &interrupt);
    assert!(run.interrupted);
    assert!((1..=2).contains(&run.done.len()), "{}", run.done.len());
    assert!(run.failed.is_empty());
}

/// One thing fails until it is needless.
struct Hopeless(AtomicUsize);

impl Doer for Hopeless {
    fn parallel(&self, _: &Owner) -> usize {
        2
    }

    fn act(&self, action: &Action, _: Instant) -> Result<(), CliError> {
        match action.key.resource.id.as_str() {
            "hopeless" => {
                self.0.fetch_add(1, Ordering::SeqCst);
                Err(refused().retry(Retry::Soon))
            }
            _ => Ok(()),
        }
    }

    fn is_needless(&self, action: &Action) -> bool {
        action.key.resource.id == "hopeless" && self.0.load(Ordering::SeqCst) == 2
    }

    fn answers(&self, _: &Owner) -> bool {
        true
    }
}

#[test]
fn what_failed_and_is_needless_is_not_tried_again() {
    let actions = [action("a", "hopeless", &[]), action("a", "fine", &[])];
    let hopeless = Hopeless(AtomicUsize::new(0));
    let run = execute(&actions, &hopeless, &Interrupt::default());
    assert_eq!((run.done, run.failed.len()), (vec![1], 1));
    assert!(run.failed[0].1.to_string().contains("enough workers"));
    assert_eq!(hopeless.0.into_inner(), 2);
}

/// Does everything, but lets `gated` begin last.
struct Gated {
    order: Mutex<Vec<String>>,
    others: usize,
}

impl Doer for Gated {
    fn parallel(&self, _: &Owner) -> usize {
        2
    }

    fn may_begin(&self, action: &Action) -> bool {
        let done = self.order.lock().expect("whole").len();
        action.key.resource.id != "gated" || done == self.others
    }

    fn act(&self, action: &Action, _: Instant) -> Result<(), CliError> {
        let name = action.key.resource.id.clone();
        self.order.lock().expect("whole").push(name);
        Ok(())
    }

    fn answers(&self, _: &Owner) -> bool {
        true
    }
}

#[test]
fn what_may_not_begin_yet_holds_up_nothing_else_and_is_done_once_it_may() {
    let mut actions = vec![action("a", "gated", &[])];
    actions.extend((0..5).map(|n| action("a", &n.to_string(), &[])));
    let gated = Gated {
        order: Mutex::default(),
        others: 5,
    };
    let run = execute(&actions, &gated, &Interrupt::default());
    assert_eq!(run.done.len(), 6);
    let order = gated.order.into_inner().expect("whole");
    assert_eq!(order.last().map(String::as_str), Some("gated"));
}
