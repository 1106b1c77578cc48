use ipop_proto::authority::proof::Proof;

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

fn password(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn request(node: &NodePlan, identity: &Identity, token: Option<&str>) -> CertificateRequest {
    let subject = Subject {
        name: node.name.0.clone(),
        overlay: "demo".to_owned(),
        addrs: vec![node.addrs.ipv4.addr.into(), node.addrs.ipv6.addr.into()],
        role: Some("frontend".to_owned()),
        groups: Default::default(),
    };
    let request = subject.request(identity).expect("a request");
    let proof = token.map(|token| Proof::of(&request, token));
    CertificateRequest { request, proof }
}

#[test]
fn a_node_that_proves_itself_gets_a_certificate_for_one_key_and_for_what_is_recorded() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = Authority::open(dir.path(), "demo", now).expect("made");
    let plan = demo();
    let (node, other) = (&plan.nodes[1], &plan.nodes[2]);
    let token = authority
        .token(&node.name, &password("first"))
        .expect("made");
    let token = token.expose().as_str();
    let [own, thief] = [(); 2].map(|()| Identity::generate().expect("an identity"));
    let ask = |request| match authority.grant(node, &request, now) {
        Ok(pem) => Ok(pem),
        Err(GrantError::Refused(why)) => Err(why),
        Err(GrantError::Failed(error)) => panic!("{error}"),
    };
    let unproven = Err("it does not prove that it is the node".to_owned());
    assert_eq!(ask(request(node, &thief, None)), unproven);
    assert_eq!(ask(request(node, &thief, Some("sesame"))), unproven);
    let others = authority
        .token(&other.name, &password("first"))
        .expect("made");
    assert_eq!(ask(request(node, &thief, Some(others.expose()))), unproven);
    let stolen = CertificateRequest {
        proof: request(node, &own, Some(token)).proof,
        ..request(node, &thief, None)
    };
    assert_eq!(ask(stolen), unproven, "the proof of another request");
    let elsewhere = Err("it asks to be another node, or to have other addresses".to_owned());
    assert_eq!(ask(request(other, &own, Some(token))), elsewhere);
    // What it is, it is not asked.
    let pem = ask(request(node, &own, Some(token))).expect("signed");
    let own = own.certified(&pem).expect("its key");
    let believed = authority::Authority::from_pem(authority.certificate_pem(), "demo");
    let certified = believed.expect("a certificate").certify(own.chain(), now);
    let certified = certified.expect("a member");
    assert_eq!(
        (certified.name, certified.role),
        (node.name.0.clone(), Some("worker".into()))
    );
    // From then on its key is enough, and nothing is without.
    let again = ask(request(node, &own, None)).expect("signed");
    assert_ne!(again, pem);
    let another = Err("it has another key than before".to_owned());
    assert_eq!(ask(request(node, &thief, Some(token))), another);
    assert_eq!(
        authority
            .token(&node.name, &password("first"))
            .expect("kept")
            .expose(),
        token
    );
}

#[test]
fn with_another_first_password_comes_another_secret_and_another_key_may_come() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = Authority::open(dir.path(), "demo", now).expect("made");
    let node = &demo().nodes[1];
    let [old, new] = ["first", "second"].map(|account| {
        let token = authority.token(&node.name, &password(account));
        let token = token.expect("made");
        let identity = Identity::generate().expect("an identity");
        let asked = request(node, &identity, Some(token.expose()));
        authority.grant(node, &asked, now).expect("signed");
        (token, asked)
    });
    assert_ne!(old.0.expose(), new.0.expose());
    authority.grant(node, &old.1, now).expect_err("it is over");
    forget(dir.path(), &node.name).expect("forgotten");
    authority.grant(node, &new.1, now).expect_err("it is gone");
}
