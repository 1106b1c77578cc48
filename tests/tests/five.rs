//! Five nodes, and what happens to them. Needs root; see the crate's documentation.

use std::time::Duration;

use ipop_proto::status::SignIn;
use ipop_tests::lab::{Families, Lab, PATIENCE};
use ipop_tests::wait_until;

#[test]
fn five_nodes_ping_through_every_pair_also_after_one_was_killed_and_one_has_left() {
    let mut lab = Lab::lan(5, Families::Both);
    lab.join_all();
    lab.ping_all();

    lab.nodes[2].kill();
    lab.nodes[2].start();
    lab.wait_linked();
    lab.ping_all();

    let device = |lab: &Lab| {
        lab.nodes[4]
            .netns
            .output(&["ip", "link", "show", "ipop0"])
            .status
            .success()
    };
    assert!(device(&lab));
    let status = lab.nodes[4].terminate(Duration::from_secs(15));
    assert!(status.success(), "{status}");
    assert!(!device(&lab), "the TUN device is left behind");
    for node in &lab.nodes[..4] {
        let what = format!("{} sees node-4 gone", node.name());
        wait_until(&what, Duration::from_secs(10), || {
            node.link(&lab.nodes[4]).is_none().then_some(())
        });
    }
}

#[test]
fn an_expelled_member_loses_its_working_links() {
    let mut lab = Lab::lan(3, Families::Both);
    lab.join_all();
    lab.ping_all();
    lab.server.expel("node-1");
    for (a, b) in [(0, 1), (2, 1), (1, 0)] {
        let what = format!("node-{a} to lose node-{b}");
        wait_until(&what, PATIENCE, || {
            lab.nodes[a].peer(&lab.nodes[b]).is_none().then_some(())
        });
    }
    for addr in lab.nodes[1].addrs() {
        assert!(!lab.nodes[0].netns.reaches(&addr), "{addr} answered");
    }
    lab.nodes[0].ping(&lab.nodes[2], PATIENCE);
}

#[test]
fn links_outlive_the_server_and_a_new_node_joins_when_it_is_back() {
    let mut lab = Lab::lan(3, Families::Both);
    for node in &mut lab.nodes[..2] {
        node.start();
    }
    let linked = |lab: &Lab| lab.nodes[0].link(&lab.nodes[1]).is_some().then_some(());
    wait_until("a link", PATIENCE, || linked(&lab));

    lab.server.stop();
    let online = |lab: &Lab, n: usize| lab.nodes[n].status().sign_in == SignIn::Online;
    wait_until("the end of the session", PATIENCE, || {
        (!online(&lab, 0)).then_some(())
    });
    lab.nodes[0].ping(&lab.nodes[1], PATIENCE);
    assert!(linked(&lab).is_some());

    lab.nodes[2].start();
    lab.server.resume();
    lab.wait_linked();
    lab.ping_all();
}

#[test]
fn a_wrong_password_is_said_to_be_refused() {
    let mut lab = Lab::lan(1, Families::Both);
    lab.server.api(
        "change_password",
        &serde_json::json!({ "user": "node-0", "host": "xmpp.test", "newpass": "another" }),
    );
    lab.nodes[0].start();
    let refused = |status: SignIn| match status {
        SignIn::Refused { condition } => Some(condition),
        _ => None,
    };
    let condition = wait_until("the refusal", PATIENCE, || {
        refused(lab.nodes[0].status().sign_in)
    });
    assert_eq!(condition, "not-authorized");
}
