use std::collections::BTreeSet;

use ipop_node::audit::Trail;
use ipop_proto::authority::Serial;
use ipop_proto::authority::proof::Proof;

use super::*;
use crate::audit::{By, LIMIT};
use crate::layout::Layout;
use crate::plan::tests::demo;
use crate::plan::{MEMBER, member};

/// The authority in `dir`, which writes down beside it what it does.
pub(super) fn open(dir: &Path, now: SystemTime) -> Result<Authority, AuthorityError> {
    let audit = Audit::new(&layout(dir), "demo", By::Registrar, &[]);
    Authority::open(dir, "demo", audit, now)
}

fn layout(dir: &Path) -> Layout {
    Layout {
        state: dir.to_owned(),
        cache: dir.to_owned(),
    }
}

/// What was written down: event, node, and why.
fn written(dir: &Path) -> Vec<Record> {
    let trail = Trail::new(layout(dir).audit("demo"), LIMIT, true);
    trail.read().expect("readable").records
}

fn day(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

#[test]
fn a_certificate_is_made_anew_for_the_same_key_when_a_third_of_it_is_left() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
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
    let open = || open(dir.path(), now).expect("there");
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
    let authority = open(dir.path(), now).expect("made");
    let plan = demo();
    let (node, other) = (&plan.nodes[1], &plan.nodes[2]);
    let token = |node: &NodePlan| {
        let entry = authority.token(node, &password("first"), now);
        entry.expect("made").secret.expose().clone()
    };
    let (secret, others) = (token(node), token(other));
    let secret = secret.as_str();
    let [own, thief] = [(); 2].map(|()| Identity::generate().expect("an identity"));
    let ask = |request| match authority.grant(node, &request, now) {
        Ok(pem) => Ok(pem),
        Err(GrantError::Refused(why)) => Err(why),
        Err(GrantError::Failed(error)) => panic!("{error}"),
    };
    let unproven = Err("it does not prove that it is the node".to_owned());
    assert_eq!(ask(request(node, &thief, None)), unproven);
    assert_eq!(ask(request(node, &thief, Some("sesame"))), unproven);
    assert_eq!(ask(request(node, &thief, Some(&others))), unproven);
    let stolen = CertificateRequest {
        proof: request(node, &own, Some(secret)).proof,
        ..request(node, &thief, None)
    };
    assert_eq!(ask(stolen), unproven, "the proof of another request");
    let elsewhere = Err("it asks to be another node, or to have other addresses".to_owned());
    assert_eq!(ask(request(other, &own, Some(secret))), elsewhere);
    // What it is, it is not asked.
    let pem = ask(request(node, &own, Some(secret))).expect("signed");
    let own = own.certified(&pem).expect("its key");
    let believed = authority::Authority::from_pem(authority.certificate_pem(), "demo");
    let certified = believed.expect("a certificate").certify(own.chain(), now);
    let certified = certified.expect("a member");
    assert_eq!(
        (certified.name, certified.role),
        (node.name.0.clone(), Some("worker".into()))
    );
    // From then on its key is enough, and nothing is without.
    let again = ask(request(node, &own, None)).expect("its key");
    assert_eq!(again, pem, "whoever asks often has one certificate");
    let another = Err("it has another key than before".to_owned());
    assert_eq!(ask(request(node, &thief, Some(secret))), another);
    assert_eq!(token(node), secret);
}

#[test]
fn with_another_first_password_comes_another_secret_and_another_key_may_come() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
    let node = &demo().nodes[1];
    let [old, new] = ["first", "second"].map(|account| {
        let entry = authority.token(node, &password(account), now);
        let token = entry.expect("made").secret;
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

/// The groups that an identity's certificate has.
fn groups(authority: &Authority, identity: &Identity, now: SystemTime) -> Vec<String> {
    let believed = authority::Authority::from_pem(authority.certificate_pem(), "demo");
    let believed = believed.expect("a certificate");
    let certified = believed.certify(identity.chain(), now).expect("a member");
    certified.groups.into_iter().collect()
}

#[test]
fn a_certificate_says_the_groups_that_are_recorded_and_so_does_the_next_one() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
    let plan = demo();
    let name = NodeName("alice".to_owned());
    let lake = ["crew", "lake"].map(str::to_owned);
    let alice = member::invite(&plan, &[], &name, lake.clone().into()).expect("room");
    let own = enrol(&authority, &alice, "first", now);
    assert_eq!(groups(&authority, &own, now), lake);
    let later = now + day(300);
    let ask = |node: &NodePlan| {
        let asked = request(node, &own, None);
        let pem = authority.grant(node, &asked, later).expect("signed");
        own.certified(&pem).expect("its key")
    };
    let renewed = ask(&alice);
    assert_ne!(renewed.fingerprint(), own.fingerprint());
    assert_eq!(groups(&authority, &renewed, later), lake);
    assert_eq!(ask(&alice).fingerprint(), renewed.fingerprint());
    // With other groups it is another certificate, also before its time.
    let moved = NodePlan {
        groups: ["lake".to_owned()].into(),
        ..alice
    };
    assert_eq!(groups(&authority, &ask(&moved), later), ["lake"]);

    let given = authority.identity(&plan.nodes[0], now).expect("signed");
    let given = Identity::from_pem(given.expose()).expect("a key and its certificate");
    assert_eq!(groups(&authority, &given, now), ["cluster"]);
}

/// What nodes think of certificates once they have the authority's list.
struct Judge(authority::Authority, PathBuf);

impl Judge {
    fn of(authority: &Authority) -> Self {
        let believed = authority::Authority::from_pem(authority.certificate_pem(), "demo");
        Self(believed.expect("a certificate"), authority.dir.clone())
    }

    /// The list as it is now, by its number and how many are on it.
    fn list(&self) -> Option<(u64, usize)> {
        let list = read_list(&self.1).expect("readable")?;
        Some((list.number(), list.revoked().len()))
    }

    fn is_revoked(&self, identity: &Identity, now: SystemTime) -> bool {
        if let Some(list) = read_list(&self.1).expect("readable") {
            self.0.take(list).expect("the authority's");
        }
        match self.0.certify(identity.chain(), now) {
            Ok(_) => false,
            Err(authority::Refused::Revoked) => true,
            Err(other) => panic!("{other}"),
        }
    }
}

fn enrol(authority: &Authority, node: &NodePlan, account: &str, now: SystemTime) -> Identity {
    let entry = authority.token(node, &password(account), now);
    let secret = entry.expect("made").secret;
    let own = Identity::generate().expect("an identity");
    let asked = request(node, &own, Some(secret.expose()));
    let pem = authority.grant(node, &asked, now).expect("signed");
    own.certified(&pem).expect("its key")
}

#[test]
fn all_certificates_of_a_node_are_revoked_and_it_gets_no_other_one() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
    let (plan, judge) = (demo(), Judge::of(&authority));
    let (asks, given, stays) = (&plan.nodes[1], &plan.nodes[2], &plan.nodes[0]);
    let first = enrol(&authority, asks, "first", now);
    let later = now + day(300);
    let asked = request(asks, &first, None);
    let pem = authority.grant(asks, &asked, later).expect("signed");
    let second = first.certified(&pem).expect("its key");
    let pem = |node| {
        let pem = authority.identity(node, later).expect("signed");
        Identity::from_pem(pem.expose()).expect("a key and its certificate")
    };
    let (given_to, other) = (pem(given), pem(stays));
    assert_eq!(judge.list(), None);
    let none = NodeName("lan-0".to_owned());
    let revocation = authority.revoke(&none, "worker", later).expect("nothing");
    assert_eq!(revocation, Revocation::default());
    assert_eq!(judge.list(), None, "it never had one");

    let revoke = |node: &NodePlan| {
        let revocation = authority.revoke(&node.name, &node.role, later);
        revocation.expect("revoked")
    };
    let revocation = revoke(asks);
    assert_eq!((revocation.list, revocation.certificates), (Some(1), 2));
    assert_eq!(revocation.warning(&asks.name), None);
    for identity in [&first, &second] {
        assert!(judge.is_revoked(identity, later));
    }
    for identity in [&given_to, &other] {
        assert!(!judge.is_revoked(identity, later));
    }
    // Once more, as after a crash, it is the same.
    let again = revoke(asks);
    assert_eq!(
        (again.list, again.certificates, again.was_out),
        (Some(1), 2, true)
    );
    assert_eq!(judge.list(), Some((1, 2)));
    let refused = authority.grant(asks, &asked, later);
    assert!(matches!(refused, Err(GrantError::Refused(why)) if why == "it is revoked"));
    assert_eq!(revoke(given).list, Some(2));
    assert!(judge.is_revoked(&given_to, later) && judge.is_revoked(&second, later));
}

#[test]
fn whose_groups_change_gets_another_certificate_and_those_with_other_groups_are_revoked() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
    let (plan, judge) = (demo(), Judge::of(&authority));
    let in_groups = |groups: &[&str]| {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let name = NodeName("alice".to_owned());
        member::invite(&plan, &[], &name, groups).expect("room")
    };
    let (before, after) = (in_groups(&["lake"]), in_groups(&["crew", "lake"]));
    let standing = |node| authority.standing(node, now).expect("known");
    let regroup = |node| authority.regroup(node, now).expect("done");
    assert_eq!(standing(&before), Standing::Absent);
    assert_eq!(regroup(&before), Revocation::default());
    let first = enrol(&authority, &before, "first", now);
    assert_eq!(standing(&before), Standing::Certified);
    regroup(&before);
    assert_eq!(judge.list(), None, "it is as it should be");

    let ask = |node| {
        let asked = request(node, &first, None);
        let pem = authority.grant(node, &asked, now).expect("signed");
        first.certified(&pem).expect("its key")
    };
    let revocation = regroup(&after);
    assert_eq!((revocation.list, revocation.certificates), (Some(1), 1));
    assert!(judge.is_revoked(&first, now));
    assert_eq!(standing(&after), Standing::Lacking);
    regroup(&after);
    assert_eq!(judge.list(), Some((1, 1)), "once more it is the same");
    let second = ask(&after);
    assert!(!judge.is_revoked(&second, now));
    assert_eq!(groups(&authority, &second, now), ["crew", "lake"]);
    assert_eq!(standing(&after), Standing::Certified);

    // The first one says what it should again, and is good no more.
    regroup(&before);
    assert!(judge.is_revoked(&second, now));
    let third = ask(&before);
    assert!(!judge.is_revoked(&third, now));
    assert_eq!(groups(&authority, &third, now), ["lake"]);
    // Changed there and back before it asked.
    regroup(&after);
    regroup(&before);
    assert_eq!(standing(&before), Standing::Lacking);
    assert!(!judge.is_revoked(&ask(&before), now));
}

#[test]
fn with_another_first_password_the_certificate_before_is_revoked() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
    let (plan, judge) = (demo(), Judge::of(&authority));
    let before = enrol(&authority, &plan.nodes[1], "first", now);
    authority
        .token(&plan.nodes[1], &password("first"), now)
        .expect("the same");
    assert_eq!(judge.list(), None);
    let after = enrol(&authority, &plan.nodes[1], "second", now);
    assert!(judge.is_revoked(&before, now));
    assert!(!judge.is_revoked(&after, now));
}

#[test]
fn what_an_older_version_kept_is_revoked_as_far_as_it_is_known_and_said_to_be_so() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
    let (plan, judge) = (demo(), Judge::of(&authority));
    let (asks, given) = (&plan.nodes[1], &plan.nodes[2]);
    let first = enrol(&authority, asks, "first", now);
    let known = authority.identity(given, now).expect("signed");
    // As they were written before there were serial numbers in them.
    for node in [asks, given] {
        let kept = Kept::read(dir.path(), &node.name).expect("kept");
        let older = Kept {
            identity: kept.identity,
            key: kept.key,
            ..Kept::default()
        };
        older.write(dir.path(), &node.name).expect("written");
    }
    // What is signed from now on is known.
    let asked = request(asks, &first, None);
    let pem = authority.grant(asks, &asked, now).expect("signed");
    let second = first.certified(&pem).expect("its key");
    for node in [asks, given] {
        let revocation = authority.revoke(&node.name, &node.role, now);
        let revocation = revocation.expect("as far as it can be");
        assert_eq!(revocation.certificates, 1);
        let warning = revocation.warning(&node.name).expect("not all");
        assert!(warning.contains("cannot be revoked"), "{warning}");
    }
    let known = Identity::from_pem(known.expose()).expect("a key and its certificate");
    assert!(judge.is_revoked(&second, now) && judge.is_revoked(&known, now));
    assert!(!judge.is_revoked(&first, now), "nobody knows its number");
}

#[test]
fn machines_that_come_and_go_leave_room_on_the_list_and_what_has_ended_leaves_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
    let (plan, judge) = (demo(), Judge::of(&authority));
    let serials = (1..=849_u32).map(|n| Serial::new(&n.to_be_bytes()).expect("a number"));
    let many: Vec<_> = serials.collect();
    let list = authority.issuer.revoke(None, &many, now).expect("made");
    std::fs::write(list_path(dir.path()), list.pem()).expect("written");
    let revoke = |node: &NodePlan, role: &str, now| {
        authority.identity(node, now).expect("signed");
        authority.revoke(&node.name, role, now).expect("said")
    };
    let last = revoke(&plan.nodes[1], "worker", now);
    assert_eq!((last.list, last.left_out), (Some(2), 0));
    let full = revoke(&plan.nodes[2], "worker", now);
    assert_eq!(
        (full.list, full.certificates, full.left_out),
        (Some(2), 0, 1)
    );
    let warning = full.warning(&plan.nodes[2].name).expect("it stays good");
    assert!(warning.contains("is not revoked"), "{warning}");
    // There is room for people.
    let person = revoke(&plan.nodes[2], MEMBER, now);
    assert_eq!((person.certificates, judge.list()), (1, Some((3, 851))));
    // A year later none of these is good any more, whatever is on a list.
    let other = revoke(&plan.nodes[0], "frontend", now + NODE_LIFETIME + day(2));
    assert_eq!((other.certificates, judge.list()), (1, Some((4, 1))));
}

#[test]
fn a_list_that_cannot_be_followed_is_not_begun_anew() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
    let plan = demo();
    authority.identity(&plan.nodes[1], now).expect("signed");
    let name = &plan.nodes[1].name;
    authority.revoke(name, "worker", now).expect("revoked");
    let path = list_path(dir.path());
    let list = std::fs::read_to_string(&path).expect("made");
    for text in ["", &list[..100], &[list.as_str(), &list].concat()] {
        std::fs::write(&path, text).expect("written");
        let error = authority.revoke(name, "worker", now).expect_err("damaged");
        assert!(matches!(error, AuthorityError::List { .. }), "{error}");
    }
}

#[test]
fn what_is_signed_and_revoked_is_written_down_once_with_key_and_serial_number() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
    let plan = demo();
    let (asks, given) = (&plan.nodes[1], &plan.nodes[2]);
    let first = enrol(&authority, asks, "first", now);
    let asked = request(asks, &first, None);
    authority.grant(asks, &asked, now).expect("the same");
    authority
        .grant(asks, &asked, now + day(300))
        .expect("signed");
    authority.identity(given, now).expect("signed");
    authority.identity(given, now).expect("the same");
    let second = enrol(&authority, asks, "second", now);
    for _ in 0..2 {
        let revoked = authority.revoke(&asks.name, "worker", now);
        revoked.expect("revoked");
    }
    let keys = [&first, &second].map(|identity| key_of(&request(asks, identity, None)));
    let written = written(dir.path());
    let said: Vec<_> = written
        .iter()
        .map(|r| {
            let event = r.event.to_string();
            let whose = keys.iter().position(|key| *key == r.key);
            let why = r.why.clone().unwrap_or_default();
            (
                event,
                r.node.clone().unwrap_or_default(),
                whose,
                why,
                r.list,
            )
        })
        .collect();
    let of = |event: &str, node: &NodePlan, key: Option<usize>, why: &str, list| {
        let (event, why) = (event.to_owned(), why.to_owned());
        (event, node.name.0.clone(), key, why, list)
    };
    let another = "another machine may take its place";
    let expected = [
        of("certified", asks, Some(0), "first", None),
        of("certified", asks, Some(0), "renewed", None),
        of("certified", given, None, "first", None),
        of("revoked", asks, Some(0), another, Some(1)),
        of("revoked", asks, Some(0), another, Some(1)),
        of("certified", asks, Some(1), "first", None),
        of(
            "revoked",
            asks,
            Some(1),
            "taken out of the overlay",
            Some(2),
        ),
    ];
    assert_eq!(said, expected);
    let addrs = [
        asks.addrs.ipv4.addr.to_string(),
        asks.addrs.ipv6.addr.to_string(),
    ];
    assert_eq!(written[0].addrs, addrs);
    let serials = |event: &str| -> BTreeSet<_> {
        let of = written.iter().filter(|r| r.event.to_string() == event);
        let of = of.filter(|r| r.node.as_ref() == Some(&asks.name.0));
        of.filter_map(|r| r.serial.clone()).collect()
    };
    assert_eq!(serials("revoked").len(), 3);
    assert_eq!(serials("revoked"), serials("certified"));
    let list = read_list(dir.path()).expect("readable").expect("made");
    let on_list: BTreeSet<_> = list.revoked().keys().map(Serial::to_string).collect();
    assert_eq!(serials("revoked"), on_list);
}

#[test]
fn what_cannot_be_revoked_is_written_down_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = SystemTime::now();
    let authority = open(dir.path(), now).expect("made");
    let node = &demo().nodes[1];
    enrol(&authority, node, "first", now);
    let kept = Kept::read(dir.path(), &node.name).expect("kept");
    let older = Kept {
        key: kept.key,
        ..Kept::default()
    };
    older.write(dir.path(), &node.name).expect("written");
    for _ in 0..2 {
        let revoked = authority.revoke(&node.name, "worker", now);
        revoked.expect("as far as it can be");
    }
    let written = written(dir.path());
    let events: Vec<_> = written.iter().map(|r| r.event.to_string()).collect();
    assert_eq!(events, ["certified", "not-revoked"]);
}
