//! The planner against a model of the world: whatever state a killed command left, carrying out a
//! plan leads to what is wanted.

use proptest::prelude::*;

use super::*;
use crate::provider::Resource;

/// How much is in the model: a network, an image, an account and two parts a node.
const NODES: usize = 3;

fn key(owner: &Owner, kind: &str, id: &str) -> Key {
    Key {
        owner: owner.clone(),
        resource: Resource {
            kind: kind.to_owned(),
            id: id.to_owned(),
        },
    }
}

fn site() -> Owner {
    Owner::Site("lab".to_owned())
}

fn node(number: usize) -> NodeName {
    NodeName(format!("worker-{number}"))
}

fn item(key: Key, scope: Scope, after: &[&Key], node_attempt: u32) -> Item {
    Item {
        key,
        scope,
        after: after.iter().map(|k| (*k).clone()).collect(),
        deadline: Duration::from_secs(60),
        node_attempt,
        used_up: false,
    }
}

/// What is wanted for these nodes, each with the number of its machine.
fn wanted(nodes: &[(usize, u32)]) -> Vec<Item> {
    if nodes.is_empty() {
        return Vec::new();
    }
    let directory = key(&Owner::Files, "directory", "d");
    let network = key(&site(), "network", "n");
    let image = key(&site(), "image", "i");
    let server = key(&Owner::Rendezvous, "process", "p");
    let mut items = vec![
        item(directory.clone(), Scope::Deployment, &[], 1),
        item(network.clone(), Scope::Deployment, &[&directory], 1),
        item(image.clone(), Scope::Site { keep: false }, &[&directory], 1),
        item(
            server.clone(),
            Scope::Deployment,
            &[&directory, &network],
            1,
        ),
    ];
    for (number, attempt) in nodes {
        let name = node(*number);
        let account = key(&Owner::Rendezvous, "account", &name.0);
        let disk = key(&site(), "volume", &name.0);
        let domain = key(&site(), "domain", &name.0);
        let of_node = || Scope::Node(name.clone());
        items.push(item(account.clone(), of_node(), &[&server], 1));
        items.push(item(disk.clone(), of_node(), &[&image, &account], *attempt));
        items.push(item(domain, of_node(), &[&network, &disk], *attempt));
    }
    items
}

/// The world and what is recorded of it.
#[derive(Debug, Clone, Default)]
struct Model {
    recorded: BTreeMap<Key, ResourceRecord>,
    /// What is there, with the attempt it is of.
    there: BTreeMap<Key, (u32, Health)>,
}

impl Model {
    fn observed(&self) -> Observed {
        Observed {
            asked: [site()].into(),
            found: self
                .there
                .iter()
                .map(|(k, (_, h))| (k.clone(), *h))
                .collect(),
        }
    }

    fn plan(&self, wanted: &[Item]) -> Plan {
        let recorded: Vec<_> = self.recorded.values().cloned().collect();
        plan(wanted, &recorded, &self.observed(), &|_| false)
    }

    /// Carries out a plan in an order that `choose` picks, and stops within an action after so many
    /// half-steps: recorded, done, recorded as done.
    fn carry_out(&mut self, plan: &Plan, choose: &[usize], mut steps: usize) {
        for key in &plan.released {
            self.recorded.remove(key);
        }
        let mut done = vec![false; plan.actions.len()];
        let mut choices = choose.iter().cycle();
        while done.iter().any(|d| !d) {
            let ready: Vec<usize> = (0..done.len())
                .filter(|i| !done[*i] && plan.actions[*i].needs.iter().all(|n| done[*n]))
                .collect();
            assert!(!ready.is_empty(), "actions wait for each other: {plan:?}");
            let pick = choices.next().copied().unwrap_or(0) % ready.len();
            let action = &plan.actions[ready[pick]];
            for half in 0..3 {
                if steps == 0 {
                    return;
                }
                steps -= 1;
                self.half(action, half);
            }
            done[ready[pick]] = true;
        }
    }

    fn half(&mut self, action: &Action, half: usize) {
        let state = match (action.verb, half) {
            (Verb::Make, 0) => ResourceState::Planned,
            (Verb::Make, 1) => {
                for needed in &action.after {
                    assert!(
                        self.there.contains_key(needed),
                        "{} stands on nothing",
                        action.key
                    );
                }
                let new = (action.attempt, Health::Present);
                match self.there.get(&action.key) {
                    None => drop(self.there.insert(action.key.clone(), new)),
                    Some((attempt, _)) if *attempt == action.attempt => {}
                    // The site names its parts itself: another token would make a second one.
                    Some(other) => panic!("{} is there as {other:?}: {action:?}", action.key),
                }
                return;
            }
            (Verb::Make, _) => ResourceState::Made,
            (Verb::Remove, 0) => ResourceState::Removing,
            (Verb::Remove, 1) => {
                let stands = |r: &&ResourceRecord| {
                    r.after.contains(&action.key) && self.there.contains_key(&r.key)
                };
                let standing = self.recorded.values().find(stands).map(|r| r.key.clone());
                assert_eq!(standing, None, "{} is still needed", action.key);
                self.there.remove(&action.key);
                return;
            }
            (Verb::Remove, _) => ResourceState::Removed,
        };
        let record = ResourceRecord {
            key: action.key.clone(),
            scope: action.scope.clone(),
            after: action.after.clone(),
            deadline: action.deadline,
            state,
            attempt: action.attempt,
            node_attempt: action.node_attempt,
            token: String::new(),
            handle: None,
            reached_at: None,
            error: None,
        };
        self.recorded.insert(action.key.clone(), record);
    }

    fn assert_is(&self, wanted: &[Item]) {
        let there: BTreeSet<&Key> = self.there.keys().collect();
        let expected: BTreeSet<&Key> = wanted.iter().map(|i| &i.key).collect();
        assert_eq!(there, expected);
        assert!(self.there.values().all(|(_, h)| *h == Health::Present));
        for item in wanted {
            let record = &self.recorded[&item.key];
            assert_eq!(record.state, ResourceState::Made);
            assert_eq!(record.node_attempt, item.node_attempt, "{}", item.key);
            assert_eq!(record.attempt, self.there[&item.key].0);
        }
    }
}

fn nodes() -> impl Strategy<Value = Vec<(usize, u32)>> {
    prop::collection::vec(prop::option::of(1..3_u32), NODES).prop_map(|all| {
        let chosen = all.into_iter().enumerate();
        chosen
            .filter_map(|(n, attempt)| Some((n, attempt?)))
            .collect()
    })
}

/// Commands that were killed, each with what it wanted, its order, and after how many half-steps.
type Killed = (Vec<(usize, u32)>, Vec<usize>, usize);

fn killed() -> impl Strategy<Value = Killed> {
    (
        nodes(),
        prop::collection::vec(0..100_usize, 1..20),
        0..60_usize,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_killed_commands_left_one_more_leads_to_what_is_wanted_and_the_next_has_nothing_to_do(
        history in prop::collection::vec(killed(), 0..4),
        vanished in prop::collection::vec(0..100_usize, 0..3),
        broken in prop::collection::vec(0..100_usize, 0..3),
        (last, order, _) in killed(),
    ) {
        let mut model = Model::default();
        // A machine's number only grows.
        let mut attempts = [1; NODES];
        let mut grown = |nodes: &[(usize, u32)]| -> Vec<(usize, u32)> {
            nodes.iter().map(|(n, attempt)| {
                attempts[*n] = attempts[*n].max(*attempt);
                (*n, attempts[*n])
            }).collect()
        };
        for (nodes, order, steps) in &history {
            let wanted = wanted(&grown(nodes));
            let plan = model.plan(&wanted);
            model.carry_out(&plan, order, *steps);
        }
        let of_site = |model: &Model, pick: usize| {
            let own = |k: &&Key| k.owner == site() && k.resource.kind != "image";
            let keys: Vec<_> = model.there.keys().filter(own).cloned().collect();
            keys.get(pick % keys.len().max(1)).cloned()
        };
        for pick in broken {
            if let Some(thing) = of_site(&model, pick).and_then(|k| model.there.get_mut(&k)) {
                thing.1 = Health::Broken;
            }
        }
        for pick in vanished {
            if let Some(key) = of_site(&model, pick).filter(|k| k.resource.kind == "domain") {
                model.there.remove(&key);
            }
        }
        let wanted = wanted(&grown(&last));
        let plan = model.plan(&wanted);
        let mut once = BTreeSet::new();
        prop_assert!(plan.actions.iter().all(|a| once.insert((a.verb, &a.key))), "{plan:?}");
        model.carry_out(&plan, &order, usize::MAX);
        model.assert_is(&wanted);
        let again = model.plan(&wanted);
        prop_assert_eq!(again, Plan::default());
        let nothing = model.plan(&[]);
        model.carry_out(&nothing, &order, usize::MAX);
        model.assert_is(&[]);
    }
}

/// A model in which these nodes were made.
fn made(nodes: &[(usize, u32)]) -> (Model, Vec<Item>) {
    let wanted = wanted(nodes);
    let mut model = Model::default();
    let plan = model.plan(&wanted);
    model.carry_out(&plan, &[0], usize::MAX);
    (model, wanted)
}

fn said(plan: &Plan) -> Vec<String> {
    let say = |a: &Action| {
        let Resource { kind, id } = &a.key.resource;
        format!("{} {kind} {id} {}", a.verb, a.attempt)
    };
    plan.actions.iter().map(say).collect()
}

#[test]
fn what_was_begun_is_tried_again_with_the_same_token_and_what_is_gone_with_another() {
    let (mut model, wanted) = made(&[(0, 1)]);
    let domain = key(&site(), "domain", "worker-0");
    model.recorded.get_mut(&domain).expect("recorded").state = ResourceState::Planned;
    let plan = model.plan(&wanted);
    assert_eq!(said(&plan), ["make domain worker-0 1"]);
    assert_eq!(plan.actions[0].why, Why::Unfinished);
    model.recorded.get_mut(&domain).expect("recorded").state = ResourceState::Made;
    model.there.remove(&domain);
    let plan = model.plan(&wanted);
    assert_eq!(said(&plan), ["make domain worker-0 2"]);
    assert_eq!(plan.actions[0].why, Why::Gone);
}

#[test]
fn what_an_unasked_site_has_is_believed_to_be_there() {
    let (mut model, wanted) = made(&[(0, 1)]);
    model.there.clear();
    let recorded: Vec<_> = model.recorded.values().cloned().collect();
    let plan = plan(&wanted, &recorded, &Observed::default(), &|_| false);
    assert_eq!(plan, Plan::default());
}

#[test]
fn another_machine_of_a_node_has_another_disk_and_the_same_account() {
    let (model, _) = made(&[(0, 1), (1, 1)]);
    let mut said = said(&model.plan(&wanted(&[(0, 2), (1, 1)])));
    said.sort();
    let expected = [
        "make domain worker-0 2",
        "make image i 1",
        "make volume worker-0 2",
        "remove domain worker-0 1",
        "remove volume worker-0 1",
    ];
    assert_eq!(said, expected);
}

#[test]
fn an_account_whose_token_a_machine_used_up_is_made_anew_for_the_next_machine() {
    let enrolled = |nodes: &[(usize, u32)]| {
        let mut items = wanted(nodes);
        for item in items
            .iter_mut()
            .filter(|i| i.key.resource.kind == "account")
        {
            item.used_up = true;
        }
        items
    };
    let (mut model, _) = made(&[(0, 1), (1, 1)]);
    let plan = model.plan(&enrolled(&[(0, 2), (1, 1)]));
    let account = |a: &&Action| a.key.resource.kind == "account";
    let accounts: Vec<_> = plan.actions.iter().filter(account).collect();
    assert_eq!(accounts.len(), 1);
    assert_eq!((accounts[0].verb, accounts[0].attempt), (Verb::Make, 2));
    // A machine that was only begun may have used it up already.
    let disk = key(&site(), "volume", "worker-1");
    model.recorded.get_mut(&disk).expect("recorded").state = ResourceState::Planned;
    let plan = model.plan(&enrolled(&[(0, 1), (1, 1)]));
    assert!(!plan.actions.iter().any(|a| account(&a)), "{plan:?}");
    // One that was never begun may come after the token's end.
    let (mut model, _) = made(&[(0, 1), (1, 1)]);
    for kind in ["volume", "domain"] {
        let part = key(&site(), kind, "worker-1");
        model.recorded.get_mut(&part).expect("recorded").state = ResourceState::Wanted;
    }
    let plan = model.plan(&enrolled(&[(0, 1), (1, 1)]));
    let accounts: Vec<_> = plan.actions.iter().filter(account).collect();
    assert_eq!(accounts.len(), 1, "{plan:?}");
    let of = accounts[0].node().map(|n| n.0.as_str());
    assert_eq!((of, accounts[0].attempt), (Some("worker-1"), 2));
}

#[test]
fn an_image_that_a_machine_was_made_from_stays_when_new_ones_start_from_another() {
    let (model, mut items) = made(&[(0, 1)]);
    let (old, new) = (key(&site(), "image", "i"), key(&site(), "image", "j"));
    for item in &mut items {
        if item.key == old {
            item.key = new.clone();
        }
    }
    let plan = model.plan(&items);
    assert_eq!(said(&plan), ["make image j 1"]);
    let plan = model.plan(&[]);
    let last = plan
        .actions
        .iter()
        .position(|a| a.key == old)
        .expect("removed");
    assert!(!plan.actions[last].needs.is_empty(), "after the disk");
}

#[test]
fn what_is_shared_goes_with_its_last_user_unless_it_is_to_be_kept() {
    let (mut model, _) = made(&[(0, 1)]);
    let image = key(&site(), "image", "i");
    let recorded = |model: &Model| model.recorded.values().cloned().collect::<Vec<_>>();
    let used = plan(&[], &recorded(&model), &model.observed(), &|k| *k == image);
    assert_eq!(used.released, std::slice::from_ref(&image));
    assert!(!used.actions.iter().any(|a| a.key == image));
    let unused = model.plan(&[]);
    assert!(unused.actions.iter().any(|a| a.key == image));
    model.recorded.get_mut(&image).expect("recorded").scope = Scope::Site { keep: true };
    assert_eq!(model.plan(&[]).released, [image]);
}

#[test]
fn data_that_outlives_its_node_is_never_removed_whatever_is_recorded_and_there() {
    let directory = key(&Owner::Files, "directory", "d");
    let (data, domain) = (key(&site(), "data", "s"), key(&site(), "domain", "s"));
    let of_node = Scope::Data(node(0));
    let items = [
        item(directory.clone(), Scope::Deployment, &[], 1),
        item(data.clone(), of_node, &[&directory], 1),
        item(domain.clone(), Scope::Node(node(0)), &[&data], 2),
    ];
    let states = [
        ResourceState::Wanted,
        ResourceState::Planned,
        ResourceState::Made,
        ResourceState::Removing,
        ResourceState::Removed,
    ];
    let seen = [
        None,
        Some(Health::Present),
        Some(Health::Broken),
        Some(Health::Going),
    ];
    for (state, health, wanted) in states.iter().flat_map(|state| {
        let each = seen.iter().map(move |health| (*state, *health));
        each.flat_map(|(state, health)| [true, false].map(|wanted| (state, health, wanted)))
    }) {
        let record = |item: &Item, state| ResourceRecord {
            key: item.key.clone(),
            scope: item.scope.clone(),
            after: item.after.clone(),
            deadline: item.deadline,
            state,
            attempt: 1,
            node_attempt: 1,
            token: String::new(),
            handle: None,
            reached_at: None,
            error: None,
        };
        // All that it stands on, and what stands on it, is made anew.
        let recorded = [
            record(&items[0], ResourceState::Removing),
            record(&items[1], state),
            record(&items[2], ResourceState::Made),
        ];
        let found = health.map(|health| (data.clone(), health));
        let observed = Observed {
            asked: [site()].into(),
            found: found.into_iter().collect(),
        };
        let items = if wanted { &items[..] } else { &[] };
        let plan = plan(items, &recorded, &observed, &|_| false);
        let what = format!("{state:?}, {health:?}, wanted: {wanted}: {plan:?}");
        let removed = |a: &&Action| a.verb == Verb::Remove && a.key == data;
        assert_eq!(plan.actions.iter().filter(removed).count(), 0, "{what}");
        let makes = plan
            .actions
            .iter()
            .any(|a| a.verb == Verb::Make && a.key == data);
        let stands = state == ResourceState::Made && health.is_some();
        assert_eq!(makes, wanted && !stands, "{what}");
        let released = state != ResourceState::Removed && !wanted;
        assert_eq!(plan.released.contains(&data), released, "{what}");
    }
}
