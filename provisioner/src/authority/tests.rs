use super::*;
use crate::plan::tests::demo;

fn day(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

#[test]
fn a_certificate_is_made_anew_for_the_same_key_when_a_third_of_it_is_left() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = Authority::open(dir.path(), "demo", now).expect("made");
    let node = &demo().nodes[1];
    let at = |days| {
        let identity = authority.identity(node, now + day(days)).expect("signed");
        identity.expose().clone()
    };
    let first = at(0);
    assert_eq!(at(200), first);
    let second = at(300);
    assert_ne!(second, first);
    let key = |pem: &str| pem[..pem.find("-----BEGIN CERT").expect("there")].to_owned();
    assert_eq!(key(&second), key(&first));
}

#[test]
fn it_is_made_once_and_signs_for_what_a_node_is_now() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let open = || Authority::open(dir.path(), "demo", now).expect("there");
    let pem = open().certificate_pem().to_owned();
    assert_eq!(open().certificate_pem(), pem);
    let plan = demo();
    let first = open().identity(&plan.nodes[1], now).expect("signed");
    let moved = NodePlan {
        addrs: plan.host(77),
        ..plan.nodes[1].clone()
    };
    let second = open().identity(&moved, now).expect("signed");
    assert_ne!(second.expose(), first.expose());
}
