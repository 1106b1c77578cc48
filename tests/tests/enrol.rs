//! Nodes that exchange a single-use token for a password of their own. Needs root; see the crate's
//! documentation.

use ipop_proto::status::{LinkState, SignIn};
use ipop_tests::ejabberd::{DOMAIN, Ejabberd};
use ipop_tests::lab::{Lab, PATIENCE, TOKEN};
use ipop_tests::node::{HOST_KEY, Node};
use ipop_tests::wait_until;
use serde_json::json;

/// Whether this is the password of `node-1`.
fn is_password(server: &Ejabberd, password: &str) -> bool {
    let account = json!({ "user": "node-1", "host": DOMAIN, "password": password });
    match server.api("check_password", &account).trim() {
        "0" => true,
        "1" => false,
        other => panic!("check_password answered {other}"),
    }
}

fn assert_enrolled(server: &Ejabberd, node: &Node) -> String {
    let password = node.own_password().expect("a password of its own");
    assert_ne!(password, TOKEN);
    assert!(is_password(server, &password), "not taken by the server");
    assert!(!is_password(server, TOKEN), "the token is still good");
    password
}

#[test]
fn a_node_enrols_links_keeps_its_password_and_tells_its_host_key() {
    let mut lab = Lab::enrolling(2);
    lab.join_all();
    lab.ping_all();
    let password = assert_enrolled(&lab.server, &lab.nodes[1]);
    assert_eq!(lab.nodes[0].status().ssh_host_key, None);
    let key = lab.nodes[1].status().ssh_host_key;
    assert_eq!(key.as_deref(), Some(HOST_KEY));
    // Started again it has no use for the token, which others may have read meanwhile.
    lab.nodes[1].kill();
    lab.nodes[1].start();
    lab.wait_linked();
    assert_eq!(assert_enrolled(&lab.server, &lab.nodes[1]), password);
}

#[test]
fn a_node_that_is_killed_while_it_enrols_joins_at_the_next_start() {
    for fault in ["enrol-written", "enrol-changed"] {
        let mut lab = Lab::enrolling(2);
        lab.nodes[0].start();
        lab.nodes[1].start_and_die(fault);
        assert_eq!(lab.nodes[1].own_password(), None, "confirmed too early");
        let used = !is_password(&lab.server, TOKEN);
        assert_eq!(used, fault == "enrol-changed");
        lab.nodes[1].start();
        lab.wait_linked();
        assert_enrolled(&lab.server, &lab.nodes[1]);
    }
}

#[test]
fn a_token_that_was_used_or_has_expired_is_refused_and_the_node_says_so() {
    let mut lab = Lab::enrolling(2);
    // What expiry does, and what somebody does who was quicker.
    let other = json!({ "user": "node-1", "host": DOMAIN, "newpass": "somebody else's" });
    lab.server.api("change_password", &other);
    lab.nodes[1].start();
    let node = &lab.nodes[1];
    let condition = wait_until("the refusal", PATIENCE, || match node.status().sign_in {
        SignIn::Refused { condition } => Some(condition),
        _ => None,
    });
    assert_eq!(
        condition,
        "not-authorized: the enrolment token was used already, has expired, or is not this \
         account's"
    );
    assert_eq!(node.own_password(), None);
    assert!(is_password(&lab.server, "somebody else's"));
    assert!(
        node.status()
            .peers
            .iter()
            .all(|peer| peer.link != LinkState::Up)
    );
}
