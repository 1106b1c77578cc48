//! Two owners approve each other's nodes, in an overlay without an authority over a real ejabberd; see the module of
//! the lab.

#[expect(dead_code, reason = "shared with other tests")]
mod authorized;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use authorized::{DOMAIN, Lab, PATIENCE, program, run};
use ipop_proto::status::{LinkState, PinningStatus};
use ipop_testbed::wait_until;

const PINNING: &str = "[pinning]\nkeep = \"pins.json\"\n";

/// Starts a node whose owner approves its peers.
fn start(lab: &mut Lab, number: u8) {
    let config = lab.config(number, number + 1) + PINNING;
    lab.nodes[usize::from(number)].start(&config);
}

fn pinning(lab: &Lab, node: usize) -> PinningStatus {
    let status = lab.nodes[node].status();
    status.pinning.expect("peers are approved")
}

/// The comparison code of the only one who waits.
fn code(lab: &Lab, node: usize) -> String {
    wait_until("somebody who waits", PATIENCE, || {
        let waiting = pinning(lab, node).waiting;
        assert!(waiting.len() < 2, "{waiting:?}");
        waiting.into_iter().next()?.code
    })
}

fn owner(lab: &Lab, node: usize, words: &[&str]) -> Output {
    let socket = lab.nodes[node].file("control.sock");
    let command = program()
        .args(words)
        .arg("--control")
        .arg(socket)
        .stdin(std::process::Stdio::null())
        .output();
    command.expect("it runs")
}

/// What the owner of a node does, which succeeds.
fn does(lab: &Lab, node: usize, words: &[&str]) -> String {
    let output = owner(lab, node, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What the owner of a node does in vain: the exit code, and what is said.
fn fails(lab: &Lab, node: usize, words: &[&str]) -> (Option<i32>, String) {
    let output = owner(lab, node, words);
    assert!(!output.status.success(), "{words:?}: {output:?}");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    (output.status.code(), said)
}

fn reach_each_other(lab: &Lab) {
    lab.nodes[0].reach(&lab.nodes[1]);
    lab.nodes[1].reach(&lab.nodes[0]);
}

#[test]
fn a_link_needs_both_owners_and_outlives_restarts_and_a_thief_of_the_account_gets_none() {
    let mut lab = Lab::new(3);
    start(&mut lab, 0);
    start(&mut lab, 1);
    let codes = [code(&lab, 0), code(&lab, 1)];
    assert_eq!(codes[0], codes[1]);
    let shown = does(&lab, 0, &["peers"]);
    assert!(shown.contains(&codes[0]), "{shown}");
    let target = &lab.nodes[1].addrs()[0];
    assert!(!lab.nodes[0].netns.reaches(target), "{target} answers");

    // Nobody is approved without being known by something.
    let (exit, said) = fails(&lab, 0, &["approve", "node-1"]);
    assert_eq!(exit, Some(2), "{said}");
    let wrong = ["12345"; 8].join(" ");
    let (exit, said) = fails(&lab, 0, &["approve", "node-1", "--code", &wrong]);
    assert_eq!(exit, Some(9), "{said}");
    assert!(said.contains("hint: "), "{said}");
    let (exit, _) = fails(&lab, 0, &["approve", "node-7", "--code", &codes[0]]);
    assert_eq!(exit, Some(9));

    // One side is not enough.
    does(&lab, 0, &["approve", "node-1", "--code", &codes[1]]);
    wait_until("a refused session", PATIENCE, || {
        let LinkState::Down { why } = lab.peer(0, 1)?.link else {
            return None;
        };
        why.contains("its owner may not have approved")
            .then_some(())
    });
    assert!(!lab.nodes[0].netns.reaches(target), "{target} answers");
    let key = pinning(&lab, 0).fingerprint.to_string();
    does(&lab, 1, &["approve", "node-0", "--fingerprint", &key]);
    reach_each_other(&lab);

    for node in 0..2 {
        let file = lab.nodes[node].file("pins.json");
        let mode = fs::metadata(file).expect("kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        lab.nodes[node].kill();
    }
    start(&mut lab, 0);
    start(&mut lab, 1);
    reach_each_other(&lab);
    for node in 0..2 {
        assert_eq!(pinning(&lab, node).waiting, []);
        assert!(lab.nodes[node].status().refused.is_empty());
    }

    // Withdrawn, and given again.
    does(&lab, 1, &["forget", "node-0"]);
    wait_until("the end of the link", PATIENCE, || {
        let peer = lab.peer(0, 1)?;
        (peer.link != LinkState::Up).then_some(())
    });
    assert!(!lab.nodes[0].netns.reaches(target), "{target} answers");
    let again = code(&lab, 1);
    assert_eq!(again, codes[0], "nothing has changed");
    does(
        &lab,
        1,
        &["approve", &format!("node-0@{DOMAIN}"), "--code", &again],
    );
    reach_each_other(&lab);

    // Somebody has the account's password, name and address, and a key of his own.
    let config = lab.config(2, 2).replace("node-2", "node-1") + PINNING;
    lab.nodes[2].start(&config);
    let told = lab.refusal(0, 1);
    let thief = pinning(&lab, 2).fingerprint;
    let begin = format!("it has another key than the approved one: fingerprint {thief}, approved ");
    assert!(told.starts_with(&begin), "{told}");
    reach_each_other(&lab);
    let people = does(&lab, 0, &["status"]);
    let alarm = format!("    node-1@{DOMAIN}: {begin}");
    assert!(
        people.lines().any(|line| line.starts_with(&alarm)),
        "{people}"
    );
    // Nor does he when he is there alone, and his side would have the link.
    lab.nodes[1].end();
    let seen = code(&lab, 2);
    does(&lab, 2, &["approve", "node-0", "--code", &seen]);
    wait_until("the end of the link", PATIENCE, || {
        (lab.peer(0, 1)?.link != LinkState::Up).then_some(())
    });
    let (exit, said) = fails(&lab, 0, &["approve", "node-1", "--code", &seen]);
    assert_eq!(exit, Some(9), "{said}");
    assert!(said.contains("another key than the approved one"), "{said}");
    let target = &lab.nodes[0].addrs()[0];
    assert!(!lab.nodes[2].netns.reaches(target), "{target} answers");
    lab.nodes[2].kill();
    start(&mut lab, 1);
    reach_each_other(&lab);

    // What cannot be read is not taken for nobody.
    lab.nodes[0].kill();
    let file = lab.nodes[0].file("pins.json");
    let kept = fs::read_to_string(&file).expect("kept");
    fs::write(&file, &kept[..kept.len() / 2]).expect("written");
    start(&mut lab, 0);
    let (status, log) = lab.nodes[0].ended();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(
        log.contains("unusable file of approved peers pins.json"),
        "{log}"
    );
    run(program()
        .args(["check", "--config"])
        .arg(lab.nodes[0].file("ipop.config")));
}
