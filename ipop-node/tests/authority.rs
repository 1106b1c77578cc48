//! An overlay with an authority, over a real ejabberd; see the module of the lab.

mod authorized;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use authorized::{DAYS, DOMAIN, Lab, PATIENCE, office, program, run};
use ipop_proto::audit::Event;
use ipop_proto::status::LinkState;
use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;

#[test]
fn an_account_with_the_right_password_and_no_certificate_gets_no_link_and_is_named() {
    let mut lab = Lab::new(3);
    lab.start(0);
    lab.start(1);
    // Somebody who has the password, and a key of his own.
    let thief = &lab.nodes[2];
    fs::remove_file(thief.file("identity.pem")).expect("there");
    run(program()
        .args(["identity", "--create"])
        .arg(thief.file("identity.pem")));
    let config = lab.config(2, 3);
    lab.nodes[2].start(&config);
    lab.nodes[0].reach(&lab.nodes[1]);
    lab.nodes[1].reach(&lab.nodes[0]);
    for honest in 0..2 {
        assert_eq!(
            lab.refusal(honest, 2),
            "the peer is refused: the certificate is not of this overlay's authority"
        );
        let peer = lab.peer(honest, 2).expect("present");
        assert_ne!(peer.link, LinkState::Up);
        let addr = &lab.nodes[honest].addrs()[0];
        assert!(!lab.nodes[2].netns.reaches(addr), "{addr} answers");
    }
    let socket = lab.nodes[0].file("control.sock");
    let people = run(program().args(["status", "--control"]).arg(socket));
    let alarm = format!("    node-2@{DOMAIN}: the peer is refused: ");
    assert!(
        people.lines().any(|line| line.starts_with(&alarm)),
        "{people}"
    );
    for honest in 0..2 {
        let up = lab.record(honest, &Event::LinkUp, &format!("node-{}", 1 - honest));
        assert_eq!(up.key, Some(lab.key(1 - honest as u8)));
        // The thief's own key, and what he claims.
        let refused = lab.record(honest, &Event::LinkRefused, "node-2");
        assert_eq!(refused.key, Some(lab.key(2)));
        assert_eq!(refused.account, Some(format!("node-2@{DOMAIN}")));
        assert_eq!(refused.addrs, lab.nodes[2].addrs());
        assert_eq!(refused.why, Some(lab.refusal(honest, 2)));
        let records = lab.records(honest);
        let has_link = |r: &ipop_proto::audit::Record| {
            r.event == Event::LinkUp && r.node.as_deref() == Some("node-2")
        };
        assert!(!records.iter().any(has_link), "{records:?}");
        let file = lab.nodes[honest].file("audit.jsonl");
        let mode = fs::metadata(file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let own = people.lines().find(|line| line.starts_with("certificate"));
    assert_eq!(own, Some("certificate node-0.test.ipop, 89 d left"));
}

#[test]
fn a_member_that_claims_the_address_of_another_is_refused_and_the_other_has_it() {
    let mut lab = Lab::new(3);
    // Its certificate is the authority's, for address 3; it says that it has address 2.
    let config = lab.config(2, 2);
    lab.nodes[2].start(&config);
    lab.start(0);
    assert_eq!(
        lab.refusal(0, 2),
        "the peer is refused: it claims the addresses of node-2 (10.73.0.2, fd73:5a::2), and the \
         certificate says node-2 (10.73.0.3, fd73:5a::3)"
    );
    // Who has it comes later.
    lab.start(1);
    lab.nodes[0].reach(&lab.nodes[1]);
    assert_eq!(lab.peer(0, 1).expect("present").link, LinkState::Up);
    assert_ne!(lab.peer(0, 2).expect("present").link, LinkState::Up);
    let own = lab.refusal(1, 2);
    assert_eq!(own, "it advertises this node's own address 10.73.0.2");
}

#[test]
fn a_certificate_is_renewed_while_the_node_runs() {
    let mut lab = Lab::new(2);
    lab.certify(0, 1);
    // Another authority follows.
    let next = office();
    let next_pem = fs::read_to_string(next.path().join("authority.pem")).expect("there");
    let both = lab.nodes[0].file("authority.pem");
    let old_pem = fs::read_to_string(&both).expect("there");
    fs::write(&both, old_pem + &next_pem).expect("written");
    lab.start(0);
    lab.start(1);
    lab.nodes[0].reach(&lab.nodes[1]);
    let left = |lab: &Lab| lab.nodes[0].status().certificate.expect("one").left_s;
    assert!(left(&lab) <= 86_400);
    // What peers would refuse is not taken.
    let identity = lab.nodes[0].file("identity.pem");
    let old = fs::read(&identity).expect("there");
    fs::copy(lab.nodes[1].file("identity.pem"), &identity).expect("copied");
    lab.hang_up(0);
    wait_until("a complaint", PATIENCE, || {
        let log = lab.nodes[0].log();
        log.contains("certificate not renewed").then_some(())
    });
    assert!(left(&lab) <= 86_400);
    fs::write(&identity, old).expect("written");
    lab.office = next;
    lab.certify(0, DAYS);
    lab.hang_up(0);
    wait_until("the new certificate", PATIENCE, || {
        (left(&lab) > 86_400).then_some(())
    });
    assert_eq!(lab.peer(0, 1).expect("present").link, LinkState::Up);
    assert_eq!(lab.peer(1, 0).expect("present").link, LinkState::Up);
    let renewed = lab.record(0, &Event::CertificateRenewed, "node-0");
    assert_eq!(renewed.key, Some(lab.key(0)));
    assert!(renewed.serial.is_some(), "{renewed:?}");
    // What was refused, and its own that it read again, are none.
    let events = lab.records(0).into_iter().map(|record| record.event);
    let renewals = events.filter(|event| *event == Event::CertificateRenewed);
    assert_eq!(renewals.count(), 1);
    // New links are made with it: nothing else would be believed.
    lab.nodes[1].kill();
    lab.certify(1, DAYS);
    fs::write(lab.nodes[1].file("authority.pem"), next_pem).expect("written");
    lab.start(1);
    lab.nodes[1].reach(&lab.nodes[0]);
    assert!(lab.nodes[1].status().refused.is_empty());
    assert!(lab.nodes[0].status().refused.is_empty());
}

#[test]
fn a_name_is_its_certificates_and_only_this_machine_may_ask() {
    let mut lab = Lab::new(3);
    // Its certificate is for node-2, and it says that it is somebody else.
    let config = lab
        .config(2, 3)
        .replace("name = \"node-2\"", "name = \"lake-data\"");
    lab.nodes[2].start(&config);
    let config = lab.config(0, 1)
        + "[authority]\ncertificate = \"authority.pem\"\n\
           [names]\nresolver = \"none\"\nlisten = \"127.0.0.1:5300\"\n";
    lab.nodes[0].start(&config);
    lab.start(1);
    lab.nodes[0].reach(&lab.nodes[1]);
    lab.refusal(0, 2);
    let names = lab.nodes[0].status().names.expect("configured");
    assert_eq!(names.members, 2, "{names:?}");
    assert_eq!(names.listen, Some(([127, 0, 0, 1], 5300).into()));
    assert_eq!(names.resolver, None);

    let ask = |netns: &Netns, server: &str, name: &str| {
        let question: Vec<u8> = [
            &[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
            &[name.len() as u8],
        ]
        .concat()
        .into_iter()
        .chain(name.bytes())
        .chain(*b"\x04test\x04ipop\0\0\x01\0\x01")
        .collect();
        let server = server.to_owned();
        netns.inside(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bound");
            socket
                .set_read_timeout(Some(Duration::from_secs(2)))
                .expect("set");
            socket.connect((server.as_str(), 5300)).expect("connected");
            socket.send(&question).ok()?;
            let mut answer = [0; 512];
            let len = socket.recv(&mut answer).ok()?;
            Some((answer[3] & 15, answer[..len].to_vec()))
        })
    };
    let own = &lab.nodes[0].netns;
    let (code, answer) = ask(own, "127.0.0.1", "node-1").expect("an answer");
    assert_eq!((code, answer[7]), (0, 1), "{answer:?}");
    assert!(answer.ends_with(&[10, 73, 0, 2]), "{answer:?}");
    for nobody in ["node-2", "lake-data"] {
        let (code, answer) = ask(own, "127.0.0.1", nobody).expect("an answer");
        assert_eq!((code, answer[7]), (3, 0), "{nobody}: {answer:?}");
    }
    let [frontend, _] = lab.nodes[0].addrs();
    assert_eq!(ask(&lab.nodes[1].netns, &frontend, "node-1"), None);
}
