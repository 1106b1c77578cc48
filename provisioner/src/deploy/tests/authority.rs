//! What an overlay's authority makes of the nodes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use ipop_node::audit::Trail;
use ipop_proto::authority::issue::Subject;
use ipop_proto::authority::proof::Proof;
use ipop_proto::authority::{Authority, Certified, Serial};
use ipop_proto::link::Identity;
use ipop_proto::stanza::certificate::CertificateRequest;

use super::*;
use crate::audit::{Audit, By, LIMIT};

fn key_file(bench: &Bench) -> PathBuf {
    bench.layout.authority("demo").join("ca.key")
}

/// What the authority says of a node by what its machine was given.
fn certified(bench: &Bench, node: &str) -> (Identity, Certified) {
    let pem = bench.fakes.identity(node).expect("given");
    let identity = Identity::from_pem(&pem).expect("a key and its certificate");
    let ca = std::fs::read_to_string(bench.layout.authority("demo").join("ca.pem"));
    let authority = Authority::from_pem(&ca.expect("made"), "demo").expect("a certificate");
    let certified = authority.certify(identity.chain(), SystemTime::now());
    (identity, certified.expect("a member"))
}

#[test]
fn every_machine_has_a_key_of_its_own_and_a_certificate_for_what_it_is() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    let mut keys = Vec::new();
    for node in bench.database().nodes(bench.id).expect("read") {
        let (identity, certified) = certified(&bench, &node.name.0);
        assert_eq!(certified.name, node.name.0);
        let addrs: Vec<_> = certified.addrs.iter().map(ToString::to_string).collect();
        assert_eq!(addrs, [node.ipv4, node.ipv6]);
        assert_eq!(certified.role, Some(node.role));
        keys.push(identity.fingerprint().to_string());
    }
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 3);
    let mode = key_file(&bench).metadata().expect("made").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    bench.destroy();
    bench.assert_nothing_is_left();
}

#[test]
fn a_machine_that_is_made_again_has_its_key_again_and_another_node_of_its_name_has_not() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    let before = bench.fakes.identity("worker-1");
    bench.fakes.vanish("domain", "ipop-demo-worker-1");
    bench.launch(LONG).expect("repaired");
    assert_eq!(bench.fakes.identity("worker-1"), before);
    bench.want(&["-1"]);
    bench.launch(LONG).expect("scaled");
    bench.want(&["+1@local"]);
    bench.launch(LONG).expect("scaled");
    assert_ne!(bench.fakes.identity("worker-1"), before);
    certified(&bench, "worker-1");
}

#[test]
fn machines_that_enrol_have_a_secret_for_one_key_and_no_key() {
    let bench = Bench::new();
    bench.fakes.enrol();
    bench.launch(LONG).expect("launched");
    assert_eq!(bench.fakes.identity("worker-0"), None);
    let token = |node| {
        let token = bench.fakes.given(node, crate::bundle::CERTIFICATE_TOKEN);
        token.expect("given")
    };
    let before = token("worker-0");
    assert_ne!(token("worker-1"), before);
    let config = bench.fakes.given("worker-0", crate::bundle::NODE_CONFIG);
    assert!(!config.expect("given").contains(&before));
    // Another machine makes another key.
    bench.fakes.vanish("domain", "ipop-demo-worker-0");
    bench.launch(LONG).expect("repaired");
    assert_ne!(token("worker-0"), before);
}

#[test]
fn an_authority_whose_key_is_gone_is_not_made_anew() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    std::fs::remove_file(key_file(&bench)).expect("removed");
    bench.want(&["+1@local"]);
    let error = bench.launch(LONG).expect_err("it cannot be made");
    let gone = "ca.key of the overlay's authority is gone";
    assert!(error.message.contains(gone), "{error}");
}

#[test]
fn a_deployment_without_an_authority_goes_on_without_one() {
    let mut bench = Bench::new();
    bench.settings.authority = false;
    let settings = bench.settings.to_json().expect("JSON");
    let database = bench.database();
    database
        .rescale(bench.id, &settings, &[], &[])
        .expect("recorded");
    bench.launch(LONG).expect("launched");
    assert_eq!(bench.fakes.identity("worker-0"), None);
    assert!(!bench.layout.authority("demo").exists());
}

const ACCOUNT: &str = "account worker-1";

/// The certificates on the overlay's revocation list.
fn revoked(bench: &Bench) -> Option<(u64, Vec<Serial>)> {
    let list = crate::authority::read_list(&bench.layout.authority("demo")).expect("readable")?;
    Some((list.number(), list.revoked().keys().cloned().collect()))
}

#[test]
fn a_node_that_is_not_wanted_is_revoked_before_anything_of_it_is_removed_and_once() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    let (_, gone) = certified(&bench, "worker-1");
    assert_eq!(revoked(&bench), None);
    bench.want(&["-1"]);
    // Nobody can be reached to remove anything.
    bench.fakes.unreachable();
    bench.launch(LONG).expect_err("nobody answers");
    let list = Some((1, vec![gone.serial.clone()]));
    assert_eq!(revoked(&bench), list);
    assert!(bench.fakes.existing().contains(&ACCOUNT.to_owned()));
    bench.fakes.heal();
    bench.launch(LONG).expect("scaled");
    assert!(!bench.fakes.existing().contains(&ACCOUNT.to_owned()));
    assert_eq!(revoked(&bench), list, "once");
    // Another node of its name is another one.
    bench.want(&["+1@local"]);
    bench.launch(LONG).expect("scaled");
    let (_, other) = certified(&bench, "worker-1");
    assert_ne!(other.serial, gone.serial);
    assert_eq!(revoked(&bench).map(|(number, _)| number), Some(1));
    bench.destroy();
    bench.assert_nothing_is_left();
}

/// What is written down of some node, or of none, by event.
fn written(bench: &Bench, node: Option<&str>) -> Vec<String> {
    let trail = Trail::new(bench.layout.audit("demo"), LIMIT, true);
    let kept = trail.read().expect("readable");
    assert_eq!(kept.damaged, 0);
    let of_node = |record: &&ipop_proto::audit::Record| record.node.as_deref() == node;
    let of_node = kept.records.iter().filter(of_node);
    of_node.map(|record| record.event.to_string()).collect()
}

#[test]
fn what_becomes_of_nodes_is_written_down_once_and_stays_when_all_is_destroyed() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.launch(LONG).expect("nothing to do");
    bench.want(&["-1"]);
    bench.fakes.unreachable();
    bench.launch(LONG).expect_err("nobody answers");
    assert_eq!(written(&bench, Some("worker-1")), ["certified", "revoked"]);
    bench.fakes.heal();
    bench.launch(LONG).expect("scaled");
    bench.launch(LONG).expect("nothing to do");
    bench.destroy();
    bench.assert_nothing_is_left();
    let removed = ["certified", "revoked", "account-closed"];
    assert_eq!(written(&bench, Some("worker-1")), removed);
    assert_eq!(written(&bench, Some("worker-0")), ["certified"]);
    assert_eq!(written(&bench, None), ["destroyed"]);
}

#[test]
fn what_cannot_be_written_down_keeps_nobody_in() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    let path = bench.layout.audit("demo");
    std::fs::remove_file(&path).expect("there");
    std::fs::create_dir(&path).expect("made");
    bench.want(&["-1"]);
    bench.launch(LONG).expect("scaled");
    assert!(!bench.fakes.existing().contains(&ACCOUNT.to_owned()));
    assert_eq!(revoked(&bench).map(|(number, _)| number), Some(1));
}

#[test]
fn an_account_is_not_closed_while_its_node_cannot_be_revoked() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    let list = crate::authority::list_path(&bench.layout.authority("demo"));
    std::fs::write(&list, "damaged").expect("written");
    bench.want(&["-1"]);
    let error = bench.launch(LONG).expect_err("it has to wait");
    assert_eq!(error.code, ExitCode::Leftover, "{error}");
    assert!(bench.fakes.existing().contains(&ACCOUNT.to_owned()));
    std::fs::remove_file(&list).expect("there");
    bench.launch(LONG).expect("scaled");
    assert!(!bench.fakes.existing().contains(&ACCOUNT.to_owned()));
    assert_eq!(revoked(&bench).map(|(number, _)| number), Some(1));
}

#[test]
fn a_machine_that_enrols_anew_leaves_no_certificate_that_is_good() {
    let bench = Bench::new();
    bench.fakes.enrol();
    bench.launch(LONG).expect("launched");
    let now = SystemTime::now();
    let node = demo().nodes[1].clone();
    let enrol = || {
        let token = bench
            .fakes
            .given("worker-0", crate::bundle::CERTIFICATE_TOKEN);
        let identity = Identity::generate().expect("an identity");
        let subject = Subject {
            name: node.name.0.clone(),
            overlay: "demo".to_owned(),
            addrs: vec![node.addrs.ipv4.addr.into(), node.addrs.ipv6.addr.into()],
            role: None,
            groups: Default::default(),
        };
        let request = subject.request(&identity).expect("a request");
        let proof = token.map(|token| Proof::of(&request, &token));
        let dir = bench.layout.authority("demo");
        let audit = Audit::new(&bench.layout, "demo", By::Registrar, &[]);
        let office = crate::authority::Authority::open(&dir, "demo", audit, now);
        let asked = CertificateRequest { request, proof };
        office
            .expect("there")
            .grant(&node, &asked, now)
            .expect("signed")
    };
    enrol();
    bench.fakes.vanish("domain", "ipop-demo-worker-0");
    bench.launch(LONG).expect("repaired");
    let (number, serials) = revoked(&bench).expect("the one before");
    assert_eq!((number, serials.len()), (1, 1));
    enrol();
}
