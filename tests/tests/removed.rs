//! A person who is removed by `provision user remove`, and whose machine wants to stay. Needs root; see the
//! crate's documentation.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use ipop_node::xmpp::{self, Event, Password, QueryError};
use ipop_proto::audit::{Event as Happened, Record};
use ipop_proto::authority::issue::Issuer;
use ipop_tests::answering;
use ipop_tests::deployed::{Lab, PATIENCE, records, said};
use ipop_tests::ejabberd::DOMAIN;
use ipop_tests::wait_until;
use provisioner::authority::read_list;
use provisioner::provider::Delivery;
use serde_json::json;

const REVOKED: &str = "the peer is refused: the certificate is revoked";
/// What the machines of the deployment do not let through: all that has to do with the server.
const CUT_OFF: &str = "table inet cut {
    chain in { type filter hook input priority 0; ip saddr 192.0.2.1 drop; }
    chain out { type filter hook output priority 0; ip daddr 192.0.2.1 drop; }
}";

/// A front end, two workers and the machine of a person, alice, whose number is given; all linked.
fn linked() -> (Lab, usize) {
    let mut lab = Lab::of_people();
    lab.start_registrar();
    let alice = lab.invite("alice");
    assert_eq!(alice, 3);
    for number in 0..=alice {
        let node = lab.plan.nodes[number].clone();
        let keys = lab.keys(&node, Delivery::Enrolment);
        lab.place(number, &keys, Delivery::Enrolment).start();
    }
    for (number, node) in lab.nodes.iter().enumerate() {
        for other in &lab.nodes[..number] {
            node.meets(other);
        }
    }
    (lab, alice)
}

/// What became of alice is recorded, in order, with time, key and who did it.
fn assert_is_written_down(lab: &Lab) {
    let records = lab.audit(&["--node", "alice"]);
    let said = |record: &Record| (record.event.to_string(), record.by.clone());
    let said: Vec<_> = records.iter().map(said).collect();
    let expected = [
        ("invited", "owner"),
        ("certified", "registrar"),
        ("revoked", "owner"),
        ("account-closed", "owner"),
    ];
    assert_eq!(said, expected.map(|(e, by)| (e.to_owned(), by.to_owned())));
    for record in &records {
        assert_eq!(record.person.as_deref(), Some("alice"));
    }
    let [invited, signed, revoked, _] = records.as_slice() else {
        panic!("four");
    };
    assert_eq!(invited.addrs, signed.addrs);
    assert!(signed.key.is_some() && signed.serial.is_some());
    assert_eq!(
        (&revoked.key, &revoked.serial),
        (&signed.key, &signed.serial)
    );
    assert_eq!(revoked.list, Some(1));
    let office = lab.layout.authority("demo");
    let list = read_list(&office).expect("readable").expect("made");
    let serials: Vec<_> = list.revoked().keys().map(ToString::to_string).collect();
    assert_eq!(serials, revoked.serial.iter().cloned().collect::<Vec<_>>());
    let have = lab.audit(&["--event", "list-in-force"]);
    let mut have: Vec<_> = have.iter().map(|r| (r.node.as_deref(), r.list)).collect();
    have.sort_unstable();
    let two = [(Some("frontend-0"), Some(1)), (Some("worker-0"), Some(1))];
    assert_eq!(have, two);
    // People see the same.
    let table = lab.provision(&["audit", "demo", "--event", "revoked"]);
    let table = String::from_utf8(table.stdout).expect("UTF-8");
    println!("{table}");
    let row = table.lines().nth(1).expect("one row");
    assert!(row.contains("alice") && row.contains("list 1"), "{row}");
    let wrong = lab.provision(&["audit", "demi"]);
    assert_eq!(wrong.status.code(), Some(4), "{wrong:?}");
}

/// What the machines have recorded of alice's links is there too, beside what the owner's side has.
fn assert_was_seen_by_machines(lab: &Lab) {
    let words = ["audit", "demo", "--nodes", "--node", "alice", "--json"];
    let machines = ["frontend-0", "worker-0", "worker-1"];
    let output = answering::provision(lab, &[], &words);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let all = records(&output);
    assert!(all.is_sorted_by_key(|record| record.time), "{all:?}");
    let of = |event: Happened, by: &str| {
        let mut of = all.iter().filter(|r| r.event == event && r.by == by);
        of.next_back()
            .unwrap_or_else(|| panic!("no {event} of {by} in {all:?}"))
    };
    let signed = of(Happened::Certified, "registrar");
    for machine in machines {
        let (up, down) = (
            of(Happened::LinkUp, machine),
            of(Happened::LinkDown, machine),
        );
        for record in [up, down] {
            assert_eq!(record.key, signed.key);
        }
        // The server's word may come before the list, but not to the one that it does not reach.
        let why = down.why.as_deref();
        let by_server = machine != "worker-1" && why == Some("the peer is no longer a member");
        assert!(why == Some(REVOKED) || by_server, "{down:?}");
    }
    // What one machine has, and no other; and one that does not answer.
    let words = [
        "audit",
        "demo",
        "--from",
        "worker-0",
        "--event",
        "link-down",
    ];
    let one = answering::provision(lab, &[], &words);
    let table = String::from_utf8_lossy(&one.stdout);
    assert!(one.status.success() && table.contains("alice"), "{one:?}");
    let mut rows = table.lines().skip(1);
    assert!(rows.all(|row| row.contains("worker-0")), "{table}");
    let words = ["audit", "demo", "--nodes", "--event", "link-down", "--json"];
    let partly = answering::provision(lab, &["worker-1"], &words);
    assert_eq!(partly.status.code(), Some(5), "{partly:?}");
    let warning = String::from_utf8_lossy(&partly.stderr);
    assert!(
        warning.contains("warning: records of `worker-1` are missing")
            && warning.contains("No route to host"),
        "{warning}"
    );
    let by: BTreeSet<_> = records(&partly).into_iter().map(|r| r.by).collect();
    assert_eq!(by, machines[..2].iter().map(ToString::to_string).collect());
    // Hers is not asked.
    let words = ["audit", "demo", "--from", "alice"];
    let hers = answering::provision(lab, &[], &words);
    assert_eq!(hers.status.code(), Some(4), "{hers:?}");
}

/// Tells the front end a list of the authority, as somebody else than the one who signs.
fn told_by_another(lab: &Lab) -> QueryError {
    let office = lab.layout.authority("demo");
    let read = |name: &str| fs::read_to_string(office.join(name)).expect("there");
    let authority = Issuer::from_pem(&read("ca.key"), &read("ca.pem")).expect("an authority");
    let list = authority.revoke(None, &[], std::time::SystemTime::now());
    let list = list.expect("made").der().to_vec();
    let account = lab.rendezvous.operator().expect("there");
    let endpoint = lab.rendezvous.endpoint().expect("known");
    let login = xmpp::Account {
        jid: account.jid,
        resource: "other".to_owned(),
        password: Password::new(account.password.expose().clone()),
        servers: endpoint.servers,
        ca_pem: endpoint.ca_pem.into_bytes(),
    };
    let frontend = lab.rendezvous.jid(&lab.nodes[0].name);
    lab.place.inside(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let (session, mut events) = xmpp::open(login).expect("an account");
            let seen = async {
                loop {
                    match events.recv().await.expect("it goes on") {
                        Event::Presence { from, .. } if from.starts_with(&frontend) => return from,
                        _ => {}
                    }
                }
            };
            let node = tokio::time::timeout(PATIENCE, seen).await.expect("seen");
            let told = session.tell_revocations(&node, list).await;
            session.leave().await;
            told.expect_err("taken from anybody")
        })
    })
}

#[test]
fn a_removed_person_is_out_in_seconds_also_of_who_cannot_reach_the_server_and_stays_out() {
    let (mut lab, alice) = linked();
    let account = lab.rendezvous.jid("alice");
    let error = told_by_another(&lab);
    assert!(
        matches!(&error, QueryError::Refused(_, why) if why == "forbidden"),
        "{error}"
    );
    let cut_off = alice - 1;
    // An honest machine would end its links when the server says so.
    for number in [cut_off, alice] {
        lab.nodes[number].netns.nft(CUT_OFF);
    }

    let begun = Instant::now();
    let (output, ended) = std::thread::scope(|scope| {
        let removing =
            scope.spawn(|| lab.provision(&["user", "remove", "demo", "alice", "--json"]));
        let mut ended = vec![None; alice];
        wait_until("the end of all links", PATIENCE, || {
            for (node, ended) in lab.nodes[..alice].iter().zip(&mut ended) {
                if ended.is_none() && !node.is_linked_to("alice") {
                    *ended = Some(begun.elapsed());
                }
            }
            ended.iter().all(Option::is_some).then_some(())
        });
        (removing.join().expect("no panic"), ended)
    });
    let took = begun.elapsed();
    let names = lab.nodes[..alice].iter().map(|node| node.name.as_str());
    let ended: Vec<_> = names.zip(ended.into_iter().flatten()).collect();
    println!("links to the removed machine ended, seen after {ended:?}; the command took {took:?}");
    let said = said(&output);
    println!("{said:#}");
    let revocation = &said["revocation"];
    assert_eq!(
        (&revocation["list"], &revocation["certificates"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(revocation["silent"], json!([lab.nodes[cut_off].name]));
    let mut have: Vec<String> =
        serde_json::from_value(revocation["acknowledged"].clone()).expect("names");
    have.sort_unstable();
    assert_eq!(have, ["frontend-0", "worker-0"]);

    let is_shut_out = |lab: &Lab| {
        let (gone, members) = lab.nodes.split_last().expect("four");
        for (number, member) in members.iter().enumerate() {
            assert!(!gone.netns.reaches(&member.addr), "{} answers", member.name);
            assert!(!member.netns.reaches(&gone.addr), "{} answers", gone.name);
            for other in &members[..number] {
                member.meets(other);
            }
        }
    };
    is_shut_out(&lab);
    assert_is_written_down(&lab);
    assert_was_seen_by_machines(&lab);

    // Whoever runs the server gives it the account back. It forgets what it knows, and has its key.
    let gone = &mut lab.nodes[alice];
    gone.kill();
    let password = fs::read_to_string(gone.path("password")).expect("its own");
    gone.netns.run(&["nft", "delete", "table", "inet", "cut"]);
    assert!(!gone.path("identity.revoked").exists(), "it was told");
    let user = account.split('@').next().expect("an account");
    let back = json!({ "user": user, "host": DOMAIN, "password": password });
    lab.server.api("register", &back);
    let group = user.strip_suffix(".alice").expect("the deployment's");
    let member = json!({ "user": user, "host": DOMAIN, "group": group, "grouphost": DOMAIN });
    lab.server.api("srg_user_add", &member);
    lab.nodes[alice].start();
    for node in &lab.nodes[..cut_off] {
        node.refuses(&account, REVOKED);
    }
    is_shut_out(&lab);
    // Nor does it get another certificate for its key.
    let list = read_list(&lab.layout.authority("demo")).expect("readable");
    assert_eq!(list.map(|list| list.revoked().len()), Some(1));
}

#[test]
fn who_was_away_is_told_when_it_comes_and_a_second_invitation_ends_the_first_certificate() {
    let mut lab = Lab::of_people();
    lab.start_registrar();
    let alice = lab.invite("alice");
    for number in [0, alice] {
        let node = lab.plan.nodes[number].clone();
        let keys = lab.keys(&node, Delivery::Enrolment);
        lab.place(number, &keys, Delivery::Enrolment).start();
    }
    lab.nodes[1].meets(&lab.nodes[0]);
    // Nobody else is there who could tell it.
    lab.nodes[0].kill();
    let output = lab.provision(&["user", "invite", "demo", "alice", "--again"]);
    assert!(output.status.success(), "{output:?}");
    let lists = |lab: &Lab| -> Option<Vec<u64>> {
        let certificate = lab.nodes[0].status()?.certificate?;
        Some(certificate.lists.iter().map(|list| list.number).collect())
    };
    lab.nodes[0].start();
    wait_until("the list", PATIENCE, || (lists(&lab)? == [1]).then_some(()));
    assert!(!lab.nodes[0].is_linked_to("alice"));
    // It is another machine that has the second invitation.
    lab.nodes[1].kill();
    let node = lab.plan.nodes[alice].clone();
    let keys = lab.keys(&node, Delivery::Enrolment);
    lab.nodes.pop();
    lab.place(alice, &keys, Delivery::Enrolment).start();
    lab.nodes[1].meets(&lab.nodes[0]);
}
