//! An overlay with an authority as `provision` makes one. Needs root; see the crate's documentation.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use ipop_proto::audit::key_id;
use ipop_proto::authority::Validity;
use ipop_proto::authority::issue::{Issuer, Subject};
use ipop_proto::link::Identity;
use ipop_tests::deployed::{Lab, PATIENCE, said};
use ipop_tests::wait_until;
use provisioner::plan::personal::First;
use provisioner::provider::Delivery;
use provisioner::secret::Secret;
use rcgen::PublicKeyData as _;

const REFUSED: &str = "the peer is refused: the certificate is not of this overlay's authority";

fn fingerprint(path: &Path) -> String {
    let pem = fs::read_to_string(path).expect("there");
    let identity = Identity::from_pem(&pem).expect("a key and its certificate");
    identity.fingerprint().to_string()
}

/// What the owner's side knows a node's key by.
fn key_of(path: &Path) -> String {
    let pem = fs::read_to_string(path).expect("there");
    let identity = Identity::from_pem(&pem).expect("a key and its certificate");
    let subject = Subject {
        name: "any".to_owned(),
        overlay: "any".to_owned(),
        addrs: Vec::new(),
        role: None,
        groups: Default::default(),
    };
    let request = subject.request(&identity).expect("a request");
    let (_, key) = Subject::of_request(&request).expect("the same");
    key_id(&key.subject_public_key_info())
}

#[test]
fn a_machine_gets_its_certificate_once_and_a_stolen_account_gets_neither_that_nor_a_link() {
    let mut lab = Lab::of_machines();
    let front = lab.keys(&lab.plan.nodes[0], Delivery::Private);
    lab.place(0, &front, Delivery::Private).start();
    // Its machine comes up while nobody signs.
    let worker = lab.keys(&lab.plan.nodes[1], Delivery::Enrolment);
    lab.place(1, &worker, Delivery::Enrolment).start();
    lab.nodes[1].trouble("no certificate yet");
    lab.start_registrar();
    lab.nodes[1].meets(&lab.nodes[0]);
    let certificate = lab.nodes[1].status().and_then(|status| status.certificate);
    let certificate = certificate.expect("one");
    assert_eq!(certificate.name, "worker-0.demo.ipop");
    // Started again it has what it needs, and asks nobody.
    let own = fingerprint(&lab.nodes[1].path("identity.pem"));
    lab.nodes[1].kill();
    fs::remove_file(lab.nodes[1].path("log")).expect("there");
    lab.nodes[1].start();
    lab.nodes[1].meets(&lab.nodes[0]);
    assert_eq!(fingerprint(&lab.nodes[1].path("identity.pem")), own);
    let log = fs::read_to_string(lab.nodes[1].path("log")).expect("there");
    assert!(!log.contains("certificate obtained"), "{log}");

    // Somebody has the account of the other worker, before it is used, and not its secret.
    let mut stolen = lab.keys(&lab.plan.nodes[2], Delivery::Enrolment);
    let account = stolen.account.jid.clone();
    let membership = stolen.membership.as_mut().expect("a member");
    membership.first = First::Asked(Secret::new("a guess".to_owned()));
    lab.place(2, &stolen, Delivery::Enrolment).start();
    lab.nodes[2].trouble("answered `forbidden`");
    // Who signs has noted it: who asked, as whom, for which key.
    let refused = lab.audit(&["--event", "refused", "--since", "5m"]);
    let [first, more @ ..] = refused.as_slice() else {
        panic!("it is not written down");
    };
    assert!(more.len() <= 2, "one a minute, and how many more: {more:?}");
    assert_eq!(first.node.as_deref(), Some("worker-1"));
    assert_eq!(first.account.as_deref(), Some(account.as_str()));
    let why = "it does not prove that it is the node";
    assert_eq!(first.why.as_deref(), Some(why));
    let signed = lab.audit(&["--event", "certified", "--node", "worker-0"]);
    let [signed] = signed.as_slice() else {
        panic!("once: {signed:?}");
    };
    assert_eq!(signed.by, "registrar");
    assert_eq!(signed.key, Some(key_of(&lab.nodes[1].path("identity.pem"))));
    assert!(first.key.is_some() && first.key != signed.key);
    // Nor does it help to believe anybody oneself.
    lab.nodes[2].kill();
    let thief = &lab.nodes[2];
    thief.edit(|config| {
        let from = config.find("[authority]").expect("there");
        let to = config.find("[xmpp]").expect("there");
        format!("{}{}", &config[..from], &config[to..])
    });
    lab.nodes[2].start();
    for honest in 0..2 {
        lab.nodes[honest].refuses(&account, REFUSED);
        assert!(!lab.nodes[honest].is_linked_to("worker-1"));
        let addr = lab.nodes[honest].addr.clone();
        assert!(!lab.nodes[2].netns.reaches(&addr), "{addr} answers");
    }
    assert!(lab.nodes[0].is_linked_to("worker-0"), "the others stay");
}

#[test]
fn nothing_is_signed_while_the_authoritys_key_is_locked() {
    let mut lab = Lab::of_people();
    lab.start_registrar();
    let alice = lab.invite("alice");
    for number in [0, alice] {
        let keys = lab.keys(&lab.plan.nodes[number], Delivery::Enrolment);
        lab.place(number, &keys, Delivery::Enrolment);
    }
    lab.nodes[0].start();
    wait_until("the first certificate", PATIENCE, || {
        lab.nodes[0].status()?.certificate
    });
    let key = lab.layout.authority("demo").join("ca.key");
    let [right, wrong] = ["correct horse", "correct horsf"].map(|passphrase| {
        let path = lab.layout.state.join(passphrase);
        fs::write(&path, format!("{passphrase}\n")).expect("written");
        path.display().to_string()
    });
    let authority = |lab: &Lab, command: &str, file: Option<&str>| {
        let file = file.map(|file| ["--passphrase-file", file]);
        let words = ["authority", command, "demo", "--json"];
        lab.provision(
            &[
                &words,
                file.iter()
                    .flatten()
                    .copied()
                    .collect::<Vec<_>>()
                    .as_slice(),
            ]
            .concat(),
        )
    };
    let is_now = |output: &Output, custody: &str| {
        assert_eq!(said(output)["custody"], custody, "{output:?}");
    };
    let refused = |output: &Output, code: i32, words: &str| {
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(words), "{error}");
    };
    is_now(&authority(&lab, "show", None), "plain");
    is_now(&authority(&lab, "encrypt", Some(&right)), "unlocked");
    let text = fs::read_to_string(&key).expect("there");
    assert!(
        text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
        "{text}"
    );
    is_now(&authority(&lab, "lock", None), "locked");

    // Whoever asks waits; whoever was let in stays.
    lab.nodes[1].start();
    lab.nodes[1].trouble("no certificate yet");
    refused(
        &lab.provision(&["user", "invite", "demo", "bob"]),
        6,
        "locked",
    );
    refused(
        &lab.provision(&["user", "remove", "demo", "alice"]),
        6,
        "authority unlock",
    );
    refused(
        &authority(&lab, "unlock", Some(&wrong)),
        3,
        "the passphrase is wrong",
    );
    refused(&authority(&lab, "unlock", None), 2, "--passphrase-file");
    is_now(&authority(&lab, "show", None), "locked");
    assert!(
        lab.audit(&["--event", "certified", "--node", "alice"])
            .is_empty()
    );

    is_now(&authority(&lab, "unlock", Some(&right)), "unlocked");
    lab.nodes[1].meets(&lab.nodes[0]);
    is_now(&authority(&lab, "decrypt", Some(&right)), "plain");
    let text = fs::read_to_string(&key).expect("there");
    assert!(text.starts_with("-----BEGIN PRIVATE KEY-----"), "{text}");
}

#[test]
fn a_certificate_that_ends_is_renewed_for_the_same_key() {
    let mut lab = Lab::of_machines();
    let node = lab.plan.nodes[0].clone();
    let mut keys = lab.keys(&node, Delivery::Private);
    // What the machine was given is old by now.
    let membership = keys.membership.as_mut().expect("a member");
    let First::Given(given) = &membership.first else {
        panic!("it is given its key");
    };
    let identity = Identity::from_pem(given.expose()).expect("a key and its certificate");
    let office = lab.layout.authority("demo");
    let read = |name: &str| fs::read_to_string(office.join(name)).expect("there");
    let authority = Issuer::from_pem(&read("ca.key"), &read("ca.pem")).expect("an authority");
    let subject = Subject {
        name: node.name.0.clone(),
        overlay: "demo".to_owned(),
        addrs: vec![node.addrs.ipv4.addr.into(), node.addrs.ipv6.addr.into()],
        role: None,
        groups: Default::default(),
    };
    let request = subject.request(&identity).expect("a request");
    let (subject, key) = Subject::of_request(&request).expect("the same");
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let validity = Validity {
        not_before: now - 20 * hour,
        not_after: now + hour,
    };
    let (old, _) = authority
        .sign(&subject, &key, validity, [1; 16])
        .expect("signed");
    let old = identity.certified(&old).expect("its key");
    membership.first = First::Given(Secret::new(old.to_pem().expect("PEM")));
    // Nobody is there to sign when it asks first, as while a deployment's server starts.
    lab.place(0, &keys, Delivery::Private).start();
    let log = lab.nodes[0].path("log");
    wait_until("a question that nobody answers", PATIENCE, || {
        let log = fs::read_to_string(&log).expect("there");
        log.contains("there is no other certificate yet")
            .then_some(())
    });
    lab.start_registrar();
    let certificate = || lab.nodes[0].status()?.certificate;
    let left = wait_until("another certificate", PATIENCE, || {
        certificate().filter(|c| !c.is_due).map(|c| c.left_s)
    });
    assert!(left > 300 * 86_400, "{left} s");
    let pem = fs::read_to_string(lab.nodes[0].path("identity.pem")).expect("there");
    let renewed = Identity::from_pem(&pem).expect("a key and its certificate");
    let key = |identity: &Identity| {
        let request = subject.request(identity).expect("a request");
        let (_, key) = Subject::of_request(&request).expect("the same");
        key.der_bytes().to_vec()
    };
    assert_eq!(key(&renewed), key(&identity));
}
