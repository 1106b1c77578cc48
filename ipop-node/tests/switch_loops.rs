//! Several nodes that are bridged to one LAN. Needs root; see the module of the LANs.

#[expect(dead_code, reason = "shared with other tests")]
mod lans;

use ipop_testbed::wait_until;

use lans::{BROADCAST, Host, Lans, PATIENCE, count, frame, heard, name};

/// Which of the first two nodes, which share a LAN, forwards, when it is one alone.
fn forwarder(lans: &Lans) -> Option<usize> {
    match [0, 1].map(|at| lans.forwards(at)) {
        [true, false] => Some(0),
        [false, true] => Some(1),
        _ => None,
    }
}

/// Broadcasts from either side are heard once on the other, and where they came from never again.
fn is_free_of_loops(lans: &Lans, text: &str) {
    let [near, beside, far] = &lans.hosts[..] else {
        unreachable!("three hosts")
    };
    let wires = [near, beside, far].map(Host::wire);
    let from_near = frame(BROADCAST, near.mac(), &format!("near {text}"));
    let from_far = frame(BROADCAST, far.mac(), &format!("far {text}"));
    wires[0].send(&from_near);
    let mut at_far = heard(&wires[2], &[&from_near]);
    wires[2].send(&from_far);
    let mut at_near = heard(&wires[0], &[&from_far]);
    // What comes now comes after all that could go round.
    let last = frame(BROADCAST, beside.mac(), &format!("last {text}"));
    wires[1].send(&last);
    at_far.extend(heard(&wires[2], &[&last]));
    at_near.extend(heard(&wires[0], &[&last]));
    let at_beside = heard(&wires[1], &[&from_near, &from_far]);
    let counts = [at_near, at_beside, at_far]
        .map(|heard| (count(&heard, &from_near), count(&heard, &from_far)));
    assert_eq!(counts, [(0, 1), (1, 1), (1, 0)], "{text}");
}

#[test]
fn of_two_nodes_on_one_lan_one_stands_down_and_takes_over_when_the_other_dies() {
    let mut lans = Lans::prepared(&[""; 3]);
    lans.join(0, 1);
    for at in 0..3 {
        lans.start(at);
    }
    lans.wait_linked(2);
    let first = wait_until("one that forwards", PATIENCE, || forwarder(&lans));
    is_free_of_loops(&lans, "of two");
    lans.hosts[0].pings(&lans.hosts[2], &[]);

    lans.nodes[first].kill();
    let second = 1 - first;
    wait_until("the other one to forward", PATIENCE, || {
        lans.forwards(second).then_some(())
    });
    for (from, to) in [(0, 2), (2, 0), (1, 2)] {
        lans.hosts[from].pings(&lans.hosts[to], &[]);
    }
    is_free_of_loops(&lans, "of one");

    lans.start(first);
    let alarm = lans.wait_alarm(second, "the LAN", "is on it, too, and forwards for it");
    assert_eq!(alarm.holder, Some(name(first)));
    wait_until("the first one to forward again", PATIENCE, || {
        (forwarder(&lans) == Some(first)).then_some(())
    });
    is_free_of_loops(&lans, "of two again");
}

#[test]
fn a_node_that_restarts_disturbs_nobody_else() {
    let mut lans = Lans::linked(&[""; 3]);
    let [a, b, c] = &lans.hosts[..] else {
        unreachable!("three hosts")
    };
    for (from, to) in [(a, b), (b, c), (c, a)] {
        from.pings(to, &[]);
    }
    let mut pings = a.netns.command("ping");
    let [b4, _] = b.addrs();
    let pings = pings
        .args(["-n", "-q", "-i", "0.1", "-w", "300", &b4])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("`ip` runs");
    lans.nodes[2].kill();
    lans.start(2);
    lans.wait_linked(2);
    // SIGINT: what it has counted is said.
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pings.id().to_string()])
        .status();
    assert!(sent.expect("`kill` runs").success());
    let said = pings.wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let count = |of: &str| -> Option<u32> {
        let words: Vec<_> = said.split_whitespace().collect();
        let at = words.iter().position(|word| word.starts_with(of))?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    let (sent, received) = (count("packets"), count("received"));
    let lost = sent.zip(received).map(|(sent, received)| sent - received);
    // The answer to the last one may be under way.
    assert!(sent > Some(10) && lost <= Some(1), "{said}");
    lans.hosts[2].pings(&lans.hosts[0], &[]);
}
