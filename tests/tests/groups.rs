//! Rules and groups of a deployment, tried from outside: who reaches what, and what `provision` says of it.
//! Needs root; see the crate's documentation.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ipop_proto::config::{AllowSection, parse_rules};
use ipop_proto::invitation::Invitation;
use ipop_tests::deployed::{Lab, Node, PATIENCE, said};
use ipop_tests::{answering, wait_until};
use provisioner::provider::Delivery;
use serde_json::json;

const RULES: &str = r#"
[[allow]]
from = "group:lake"
to = "role:frontend"
protocol = "tcp"
port = 2049
[[allow]]
from = "group:crew"
to = "group:lake"
protocol = "tcp"
port = 22
"#;

/// Other rules, by which `lake` has another port of the front end's.
const OTHER_RULES: &str = r#"
[[allow]]
from = "group:lake"
to = "role:frontend"
protocol = "tcp"
port = 22
[[allow]]
from = "group:crew"
to = "group:lake"
protocol = "tcp"
port = 22
"#;

/// Ports that everybody serves.
const SERVED: [u16; 2] = [2049, 22];
/// How long an answer may take within one machine. A check that something does not arrive takes so long.
const ANSWER: Duration = Duration::from_millis(700);

/// The machines that are placed, by their numbers among those.
const FRONTEND: usize = 0;
const WORKER: usize = 1;
const ALICE: usize = 2;
const BOB: usize = 3;

/// A front end, a worker, alice who is in `lake` and bob who is in `crew`; all linked, and all serve.
fn lab() -> (Lab, Vec<TcpListener>) {
    let mut lab = Lab::of_people_with(parse_rules(RULES).expect("rules"));
    lab.start_registrar();
    let alice = lab.invite_with("alice", &["--group", "lake"]);
    let bob = lab.invite_with("bob", &["--group", "crew"]);
    for number in [0, 1, alice, bob] {
        let node = lab.plan.nodes[number].clone();
        let keys = lab.keys(&node, Delivery::Enrolment);
        lab.place(number, &keys, Delivery::Enrolment).start();
    }
    let mut servers = Vec::new();
    for (number, node) in lab.nodes.iter().enumerate() {
        for other in &lab.nodes[..number] {
            are_linked(node, other);
        }
        for port in SERVED {
            let bind = || TcpListener::bind(("0.0.0.0", port)).expect("a port");
            servers.push(node.netns.inside(bind));
        }
    }
    (lab, servers)
}

/// Waits for a link, whatever it lets pass.
fn are_linked(node: &Node, other: &Node) {
    let what = format!("link between {} and {}", node.name, other.name);
    wait_until(&what, PATIENCE, || {
        (node.is_linked_to(&other.name) && other.is_linked_to(&node.name)).then_some(())
    });
}

fn connects(from: &Node, to: &Node, port: u16) -> bool {
    let to = SocketAddr::new(to.addr.parse().expect("an address"), port);
    let connect = || TcpStream::connect_timeout(&to, ANSWER).is_ok();
    from.netns.inside(connect)
}

/// What each reaches of each, by numbers and port.
fn reached(lab: &Lab) -> Vec<(usize, usize, u16)> {
    let mut reached = Vec::new();
    for (a, from) in lab.nodes.iter().enumerate() {
        for (b, to) in lab.nodes.iter().enumerate().filter(|(b, _)| *b != a) {
            for port in SERVED {
                let connects = connects(from, to, port);
                let what = format!("tcp/{port}");
                let asked = [
                    "policy", "demo", "explain", &from.name, &to.name, &what, "--json",
                ];
                let explained = said(&lab.provision(&asked));
                assert_eq!(explained["allowed"], json!(connects), "{explained}");
                if connects {
                    reached.push((a, b, port));
                }
            }
        }
    }
    reached
}

/// Leaves a node without rules, or with them again.
fn set_rules(node: &Node, rules: &str) {
    node.edit(|config| {
        let end = config.find("[[allow]]").unwrap_or(config.len());
        config[..end].to_owned() + rules
    });
    node.hang_up();
    wait_until("the rules", PATIENCE, || {
        let policy = node.status()?.policy;
        (policy.is_some() != rules.is_empty()).then_some(())
    });
}

#[test]
fn members_reach_what_the_rules_say_and_the_cluster_itself_with_either_end_alone() {
    let (mut lab, _servers) = lab();
    let rules = [(ALICE, FRONTEND, 2049), (BOB, ALICE, 22)];
    let own = [
        (FRONTEND, WORKER, 2049),
        (FRONTEND, WORKER, 22),
        (WORKER, FRONTEND, 2049),
        (WORKER, FRONTEND, 22),
    ];
    let mut expected = [&rules[..], &own].concat();
    expected.sort_unstable();
    let mut reached = reached(&lab);
    reached.sort_unstable();
    assert_eq!(reached, expected);
    let [frontend, _, alice, bob] = &lab.nodes[..] else {
        panic!("four are placed");
    };

    // Each end keeps to them by itself: alice's node without rules, then the front end's.
    set_rules(alice, "");
    assert!(!connects(alice, frontend, 22));
    assert!(connects(alice, frontend, 2049));
    let denied = wait_until("who knocked", PATIENCE, || {
        let denied = frontend.status()?.policy?.denied;
        (!denied.is_empty()).then_some(denied)
    });
    assert_eq!(denied[0].origin, "alice", "{denied:?}");
    set_rules(frontend, "");
    assert!(connects(alice, frontend, 22), "neither has rules");
    assert!(!connects(bob, frontend, 2049));
    set_rules(alice, RULES);
    assert!(!connects(alice, frontend, 22));
    set_rules(frontend, RULES);
    machines_take_other_rules_and_keep_them(&mut lab);
}

/// The deployment gets other rules while its nodes run.
fn machines_take_other_rules_and_keep_them(lab: &mut Lab) {
    let (old, new) = (parse_rules(RULES), parse_rules(OTHER_RULES));
    let (old, new) = (old.expect("rules"), new.expect("rules"));
    let has = |node: &Node, rules: &[AllowSection]| {
        let policy = node.status().expect("it runs").policy;
        assert_eq!(policy.expect("rules").rules, rules, "{}", node.name);
    };
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), OTHER_RULES).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let set = ["policy", "demo", "set", "--rules", path, "--json"];
    let opened =
        json!({"from": "alice", "to": "frontend-0", "now": "tcp/22", "no_more": "tcp/2049"});

    let tried = answering::provision(lab, &[], &[&set[..], &["--dry-run"]].concat());
    assert_eq!(said(&tried)["changes"], json!([opened]));
    has(&lab.nodes[FRONTEND], &old);

    // One does not answer, and another is not there at all.
    let partly = answering::provision(lab, &["worker-0"], &set);
    assert_eq!(partly.status.code(), Some(5), "{partly:?}");
    let text = String::from_utf8_lossy(&partly.stdout);
    let result: serde_json::Value =
        serde_json::from_str(text.lines().last().expect("a result")).expect("JSON");
    assert_eq!(result["changes"], json!([opened]));
    assert_eq!(result["told"], json!(["frontend-0"]));
    assert_eq!(result["own"], json!(["alice", "bob"]));
    let why = &result["silent"]["worker-0"];
    assert!(why.to_string().contains("No route to host"), "{result}");
    has(&lab.nodes[FRONTEND], &new);
    has(&lab.nodes[WORKER], &old);
    let older = |lab: &Lab| {
        let view = said(&lab.provision(&["policy", "demo", "--json"]));
        let older = view["older_rules"].as_object().expect("nodes").clone();
        older.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(older(lab), ["alice", "bob", "worker-0", "worker-1"]);
    // The front end has closed it, whatever hers say; what it has opened hers do not let out.
    let [frontend, alice] = [FRONTEND, ALICE].map(|number| &lab.nodes[number]);
    assert!(!connects(alice, frontend, 2049));
    assert!(!connects(alice, frontend, 22));
    set_rules(alice, OTHER_RULES);
    has(alice, &new);
    assert!(connects(alice, frontend, 22));

    // The same again tells who was not told; who is told is so after a restart, whatever the machine was made with.
    let again = answering::provision(lab, &[], &set);
    assert_eq!(again.status.code(), Some(5), "{again:?}");
    has(&lab.nodes[WORKER], &new);
    assert_eq!(older(lab), ["alice", "bob", "worker-1"]);
    for number in [FRONTEND, WORKER] {
        lab.nodes[number].kill();
        lab.nodes[number].start();
        wait_until("the node", PATIENCE, || lab.nodes[number].status());
        has(&lab.nodes[number], &new);
    }
    // Who is invited from now on, or anew, has the newest.
    let again = ["user", "invite", "demo", "bob", "--again", "--json"];
    let invited = said(&lab.provision(&again));
    let invitation = Invitation::parse(invited["token"].as_str().expect("a word"));
    assert_eq!(invitation.expect("an invitation").terms.rules, new);
    assert_eq!(older(lab), ["alice", "worker-1"]);
}

#[test]
fn who_is_put_in_a_group_or_taken_out_reaches_other_things_within_seconds_and_stays_a_member() {
    let (mut lab, _servers) = lab();
    let change = |lab: &Lab, verb: &str, person: &str| {
        let begun = Instant::now();
        let output = lab.provision(&["group", verb, "demo", "lake", person, "--json"]);
        let said = said(&output);
        println!(
            "{verb} {person}, the command took {:?}: {said}",
            begun.elapsed()
        );
        assert_eq!(said["certified"], json!([person]));
        begun
    };
    let comes_to = |lab: &Lab, person: usize, wanted: bool, begun: Instant| {
        wait_until("what the rules say now", PATIENCE, || {
            let [frontend, person] = [FRONTEND, person].map(|number| &lab.nodes[number]);
            let says = is_in_lake(person)? == wanted && person.is_linked_to(&frontend.name);
            (says && connects(person, frontend, 2049) == wanted).then_some(())
        });
        println!("it is so after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(30), "soon");
    };
    let begun = change(&lab, "add", "bob");
    comes_to(&lab, BOB, true, begun);
    let begun = change(&lab, "remove", "alice");
    comes_to(&lab, ALICE, false, begun);
    // Both are members as before, whatever they reach.
    let [frontend, worker, alice, bob] = &lab.nodes[..] else {
        panic!("four are placed");
    };
    for (a, b) in [
        (frontend, alice),
        (frontend, bob),
        (worker, alice),
        (alice, bob),
    ] {
        are_linked(a, b);
    }
    assert!(!connects(bob, alice, 22), "she is not in `lake` any more");
    assert!(connects(bob, frontend, 2049));

    // Who was away has what it should when it comes back, and keeps it.
    let alice = &mut lab.nodes[ALICE];
    alice.kill();
    let output = lab.provision(&["group", "add", "demo", "lake", "alice", "--json"]);
    assert_eq!(said(&output)["lacking"], json!(["alice"]));
    let begun = Instant::now();
    lab.nodes[ALICE].start();
    comes_to(&lab, ALICE, true, begun);
    lab.nodes[ALICE].kill();
    lab.nodes[ALICE].start();
    comes_to(&lab, ALICE, true, Instant::now());
}

/// Whether a node's certificate says that it is in the group.
fn is_in_lake(node: &Node) -> Option<bool> {
    let certificate = node.status()?.certificate?;
    Some(certificate.groups.contains("lake"))
}

#[test]
fn an_invitation_has_the_rules_and_lists_have_the_groups() {
    let rules = parse_rules(RULES).expect("rules");
    let mut lab = Lab::of_people_with(rules.clone());
    lab.invite_with("alice", &["--group", "lake"]);
    let again = [
        "user", "invite", "demo", "alice", "--again", "--group", "crew", "--json",
    ];
    let invited = said(&lab.provision(&again));
    assert_eq!(invited["groups"], json!(["crew", "lake"]));
    let word = invited["token"].as_str().expect("a word");
    let invitation = Invitation::parse(word).expect("an invitation");
    assert_eq!(invitation.terms.rules, rules);

    let second = ["user", "invite", "demo", "alice", "--machine", "phone"];
    assert!(lab.provision(&second).status.success());
    let phone = said(&lab.provision(&["user", "list", "demo", "--json"]));
    let groups: Vec<_> = phone["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|m| &m["groups"])
        .collect();
    assert_eq!(groups, [&json!(["crew", "lake"]); 2]);
    for group in ["cluster", "Lake"] {
        let refused = lab.provision(&["user", "invite", "demo", "eve", "--group", group]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
    assert!(
        lab.provision(&["user", "remove", "demo", "alice"])
            .status
            .success()
    );
    let groups = said(&lab.provision(&["group", "list", "demo", "--json"]));
    let names: Vec<_> = groups["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .map(|g| &g["name"])
        .collect();
    assert_eq!(names, ["cluster"]);
}
