//! A member whose certificate is revoked while the server is gone; see the module of the lab.

mod authorized;

use std::fs;
use std::time::Instant;

use authorized::{Lab, PATIENCE, files, program, run};
use ipop_proto::audit::Event;
use ipop_proto::authority::RevocationList;
use ipop_proto::status::LinkState;
use ipop_testbed::wait_until;

const REVOKED: &str = "the peer is refused: the certificate is revoked";
/// The one that is to go.
const GONE: u8 = 3;

/// Four members that reach each other, with this in `[overlay]` besides.
fn linked(extra: &str) -> Lab {
    let mut lab = Lab::new(GONE + 1);
    for number in 0..=GONE {
        lab.start_with(number, extra);
    }
    for node in &lab.nodes {
        for other in lab
            .nodes
            .iter()
            .filter(|other| other.addrs() != node.addrs())
        {
            node.reach(other);
        }
    }
    lab
}

/// Has the authority revoke the last one, and gives the list to one member.
fn revoke(lab: &Lab, to: usize) {
    let office = lab.office.path();
    let said = run(program()
        .args(["authority", "revoke", "--json"])
        .args(files(office))
        .arg(lab.nodes[usize::from(GONE)].file("signed")));
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["number"], 1);
    let list = lab.nodes[to].file("authority.crl");
    fs::copy(office.join("authority.crl"), list).expect("copied");
}

fn is_linked(lab: &Lab, node: usize) -> bool {
    let peer = lab.peer(node, GONE);
    peer.is_some_and(|peer| peer.link == LinkState::Up)
}

/// The numbers of the lists that a node goes by.
fn lists(lab: &Lab, node: usize) -> Vec<u64> {
    let certificate = lab.nodes[node].status().certificate.expect("one");
    certificate.lists.iter().map(|list| list.number).collect()
}

/// Whether nothing of the revoked one gets to the others, nor back, and all others reach each other.
fn is_shut_out(lab: &Lab) {
    let (gone, members) = lab.nodes.split_last().expect("four");
    for member in members {
        for addr in member.addrs() {
            assert!(!gone.netns.reaches(&addr), "{addr} answers");
        }
        for addr in gone.addrs() {
            assert!(!member.netns.reaches(&addr), "{addr} answers");
        }
        for other in members
            .iter()
            .filter(|other| other.addrs() != member.addrs())
        {
            member.reach(other);
        }
    }
}

#[test]
fn every_member_drops_a_revoked_one_without_the_server_and_refuses_it_from_then_on() {
    let mut lab = linked("");
    lab.server.stop();
    revoke(&lab, 0);
    let begun = Instant::now();
    lab.hang_up(0);
    let mut ended = [None; GONE as usize];
    wait_until("the end of every link", PATIENCE, || {
        for (node, ended) in ended.iter_mut().enumerate() {
            if ended.is_none() && !is_linked(&lab, node) {
                *ended = Some(begun.elapsed());
            }
        }
        ended.iter().all(Option::is_some).then_some(())
    });
    println!("links to the revoked member ended, seen after: {ended:?}");
    for node in 0..usize::from(GONE) {
        assert_eq!(lab.refusal(node, GONE), REVOKED);
        assert_eq!(lists(&lab, node), [1]);
        let log = lab.nodes[node].log();
        assert!(log.contains("revocation list taken"), "{log}");
        // Over a restart too: that the file is read then is tested beside what reads it.
        let kept = fs::read_to_string(lab.nodes[node].file("identity.revoked")).expect("kept");
        let kept = RevocationList::from_pem(&kept).expect("lists");
        assert_eq!(
            kept.iter().map(RevocationList::number).collect::<Vec<_>>(),
            [1]
        );
    }
    let key = lab.key(GONE);
    for node in 0..usize::from(GONE) {
        let gone = format!("node-{GONE}");
        let up = lab.record(node, &Event::LinkUp, &gone);
        let down = lab.record(node, &Event::LinkDown, &gone);
        assert_eq!(
            (up.key.as_ref(), down.key.as_ref()),
            (Some(&key), Some(&key))
        );
        assert_eq!(down.why.as_deref(), Some(REVOKED));
        assert!(up.time <= down.time, "{up:?} {down:?}");
        let taken = lab.record(node, &Event::ListInForce, &format!("node-{node}"));
        assert_eq!(taken.list, Some(1));
    }
    is_shut_out(&lab);
    // The server comes back, and so does the revoked one: with it others would be reached.
    lab.server.resume();
    lab.nodes[usize::from(GONE)].kill();
    lab.start(GONE);
    // Nobody gives this one the list again.
    lab.nodes[1].kill();
    lab.start(1);
    let is_refused = |lab: &Lab, node: usize| {
        let alarms = lab.nodes[node].status().refused;
        let of_late = |alarm: &&ipop_proto::status::AlarmStatus| {
            alarm.trouble == REVOKED && (node == 1 || alarm.count > 1)
        };
        alarms.iter().find(of_late).map(|_| ())
    };
    for node in 0..usize::from(GONE) {
        wait_until("a refusal", PATIENCE, || is_refused(&lab, node));
        assert!(!is_linked(&lab, node));
        assert_eq!(lists(&lab, node), [1]);
    }
    lab.nodes[1].reach(&lab.nodes[0]);
    is_shut_out(&lab);
    // Once it knows, it does not even start.
    let gone = usize::from(GONE);
    lab.nodes[gone].kill();
    let list = lab.office.path().join("authority.crl");
    fs::copy(list, lab.nodes[gone].file("authority.crl")).expect("copied");
    lab.start(GONE);
    let (status, log) = lab.nodes[gone].ended();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(
        log.contains("caused by: the certificate is revoked"),
        "{log}"
    );
}

#[test]
fn a_switch_has_no_member_left_that_is_revoked() {
    let mut lab = linked("mode = \"switch\"\n");
    lab.server.stop();
    revoke(&lab, 2);
    lab.hang_up(2);
    for node in 0..usize::from(GONE) {
        wait_until("the end of a link", PATIENCE, || {
            (!is_linked(&lab, node)).then_some(())
        });
        assert_eq!(lists(&lab, node), [1]);
    }
    is_shut_out(&lab);
    let name = format!("node-{GONE}");
    for node in 0..usize::from(GONE) {
        let switch = lab.nodes[node].status().switch.expect("in mode switch");
        assert!(!switch.stations.contains_key(&name), "{switch:?}");
    }
}
