//! Signals, advertisements, status and services in their XML form.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use ipop_proto::address::OverlayAddrs;
use ipop_proto::candidate::{Candidate, CandidateKind};
use ipop_proto::service::IceServerKind;
use ipop_proto::signal::{Fingerprint, LinkDescription, SessionId, Setup, Signal, TerminateReason};
use ipop_proto::stanza::advertisement::{self, NotAdvertised};
use ipop_proto::stanza::services::{self, ServiceTransport};
use ipop_proto::stanza::{JingleError, JingleFault, NS_NODE, jingle, status};
use ipop_proto::status::{Advertisement, DropReason, NodeStatus, RoleState, SignIn};
use proptest::prelude::*;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza_error::StanzaError;

fn xml(element: &Element) -> String {
    String::from(element).replace("><", ">\n<")
}

fn reparse(element: &Element) -> Element {
    String::from(element).parse().expect("well-formed")
}

fn sid() -> SessionId {
    SessionId("a73sjjvkla37jfea".to_owned())
}

fn host() -> Candidate {
    Candidate {
        foundation: "1".to_owned(),
        kind: CandidateKind::Host,
        addr: "[2001:db8::9:1]:9000".parse().expect("valid"),
        priority: 2_130_706_431,
        related: None,
    }
}

fn relay() -> Candidate {
    Candidate {
        foundation: "2".to_owned(),
        kind: CandidateKind::Relay,
        addr: "192.0.2.3:45664".parse().expect("valid"),
        priority: 16_777_215,
        related: Some("198.51.100.7:4000".parse().expect("valid")),
    }
}

fn half(setup: Setup) -> LinkDescription {
    LinkDescription {
        ufrag: "8hhy".to_owned(),
        pwd: "asd88fgpdd777uzjYhagZg".to_owned(),
        fingerprint: Fingerprint(std::array::from_fn(|i| u8::try_from(i * 8).expect("small"))),
        setup,
        candidates: vec![host(), relay()],
    }
}

fn advertised() -> Advertisement {
    Advertisement {
        name: "worker-0".to_owned(),
        addrs: addrs(),
        role: RoleState::Failed {
            detail: "mount.nfs: <é> & \"\u{ffff}\"".to_owned(),
        },
        linked: vec!["frontend-0".to_owned()],
        version: "0.1.0".to_owned(),
        fingerprint: None,
    }
}

fn addrs() -> OverlayAddrs {
    OverlayAddrs {
        ipv4: "10.73.0.2/24".parse().expect("valid"),
        ipv6: "fd5a::2/64".parse().expect("valid"),
    }
}

fn node_status() -> NodeStatus {
    NodeStatus {
        name: "worker-0".to_owned(),
        overlay: "demo".to_owned(),
        jid: "worker-0@demo.ipop/ipop".to_owned(),
        version: "0.1.0".to_owned(),
        addrs: addrs(),
        interface: "ipop0".to_owned(),
        mtu: 1400,
        datapath: Default::default(),
        switch: None,
        uptime_ms: 1234,
        sign_in: SignIn::Online,
        role: RoleState::Ready,
        candidates: Vec::new(),
        peers: Vec::new(),
        drops: BTreeMap::new(),
        ssh_host_key: None,
        certificate: None,
        names: None,
        refused: Vec::new(),
        pinning: None,
        policy: None,
    }
}

#[test]
fn each_stanza_has_its_snapshot() {
    let snapshots = [
        (
            "initiate",
            jingle::to_element(&Signal::Initiate {
                sid: sid(),
                description: half(Setup::Actpass),
            }),
        ),
        (
            "accept",
            jingle::to_element(&Signal::Accept {
                sid: sid(),
                description: half(Setup::Active),
            }),
        ),
        (
            "candidates",
            jingle::to_element(&Signal::Candidates {
                sid: sid(),
                ufrag: "8hhy".to_owned(),
                candidates: vec![relay()],
            }),
        ),
        (
            "terminate",
            jingle::to_element(&Signal::Terminate {
                sid: sid(),
                reason: TerminateReason::ConnectivityError,
            }),
        ),
        (
            "advertisement",
            advertisement::to_element(&advertised()).expect("JSON"),
        ),
        ("status-query", status::query()),
        ("status", status::to_element(&node_status()).expect("JSON")),
        ("services-query", services::query()),
        (
            "error-fault",
            error(JingleFault::TooManyCandidates(65).to_stanza_error()),
        ),
        (
            "error-info",
            error(JingleFault::Action("session-info".to_owned()).to_stanza_error()),
        ),
        (
            "error-unknown-session",
            error(JingleError::UnknownSession.to_stanza_error()),
        ),
        (
            "error-out-of-order",
            error(JingleError::OutOfOrder.to_stanza_error()),
        ),
        (
            "error-tie-break",
            error(JingleError::TieBreak.to_stanza_error()),
        ),
    ];
    for (name, element) in snapshots {
        insta::assert_snapshot!(name, xml(&element));
    }
}

fn error(error: StanzaError) -> Element {
    error.into()
}

#[test]
fn each_deviation_of_a_signal_is_named() {
    let good = String::from(&jingle::to_element(&Signal::Initiate {
        sid: sid(),
        description: half(Setup::Actpass),
    }));
    let mut messages = Vec::new();
    for (from, to) in [
        ("urn:xmpp:jingle:1", "urn:xmpp:jingle:0"),
        ("session-initiate", "content-add"),
        ("session-initiate", "session-info"),
        ("a73sjjvkla37jfea", ""),
        ("creator='initiator'", "creator='responder'"),
        ("name='overlay'", "name='voice'"),
        ("<description xmlns='urn:ipop:overlay:0'/>", ""),
        ("urn:ipop:overlay:0", "urn:xmpp:jingle:apps:rtp:1"),
        ("ice-udp:1", "raw-udp:1"),
        ("apps:dtls:0", "apps:dtls:9"),
        ("sha-256", "sha-1"),
        ("actpass", "holdconn"),
        ("00:08:10", "00:08"),
        ("00:08:10", "00:08:1g"),
        ("00:08:10", "00:08:10:10"),
        ("00:08:10", "00:+8:10"),
        ("ufrag='8hhy'", "ufrag='8h'"),
        ("ufrag='8hhy'", ""),
        ("asd88fgpdd777uzjYhagZg", "asd88fgpdd777uzj Yhag"),
        ("component='1'", "component='one'"),
        ("ip='192.0.2.3'", "ip='example.org'"),
        ("ip='192.0.2.3'", "ip='0.0.0.0'"),
        ("ip='192.0.2.3'", "ip='ff02::1'"),
        ("port='45664'", "port='0'"),
        ("port='45664'", "port='65536'"),
        ("priority='16777215'", "priority='-1'"),
        ("foundation='2'", "foundation='2 2'"),
        ("rel-port='4000'", ""),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        let element: Element = bad.parse().expect("well-formed");
        let fault = jingle::from_element(&element).expect_err(from);
        messages.push(format!("{from} -> {to}\n    {fault}"));
    }
    insta::assert_snapshot!("deviations", messages.join("\n"));
}

#[test]
fn what_only_a_later_version_knows_of_in_a_signal_is_left_out() {
    let signal = Signal::Initiate {
        sid: sid(),
        description: half(Setup::Actpass),
    };
    let known = String::from(&jingle::to_element(&signal));
    let later = known
        .replace("<candidate ", "<candidate tcptype='passive' ")
        .replace("<transport ", "<transport renomination='1' ")
        .replace("<content ", "<security xmlns='urn:ipop:later'/><content ")
        .replace(
            "<fingerprint ",
            "<trickle xmlns='urn:ipop:later'/><fingerprint ",
        );
    assert_ne!(later, known);
    let read = |text: &str| jingle::from_element(&text.parse().expect("well-formed"));
    assert_eq!(read(&later), Ok(signal));

    let only_host = Signal::Initiate {
        sid: sid(),
        description: LinkDescription {
            candidates: vec![host()],
            ..half(Setup::Actpass)
        },
    };
    let (before, relay) = known.split_at(known.rfind("<candidate ").expect("two"));
    for (from, to) in [
        ("component='1'", "component='2'"),
        ("protocol='udp'", "protocol='tcp'"),
        ("type='relay'", "type='magic'"),
    ] {
        let later = relay.replace(from, to);
        assert_ne!(later, relay);
        assert_eq!(
            read(&format!("{before}{later}")),
            Ok(only_host.clone()),
            "{to}"
        );
    }
}

#[test]
fn exactly_one_content_is_wanted() {
    let content = "<content xmlns='urn:xmpp:jingle:1' creator='initiator' name='overlay'/>";
    for (contents, count) in [("".to_owned(), 0), (content.repeat(2), 2)] {
        let text = format!(
            "<jingle xmlns='urn:xmpp:jingle:1' action='transport-info' sid='s'>{contents}</jingle>"
        );
        assert_eq!(
            jingle::from_element(&text.parse().expect("well-formed")),
            Err(JingleFault::Count {
                what: "content",
                count
            })
        );
    }
}

#[test]
fn more_candidates_than_the_limit_are_refused() {
    let with = |n| {
        jingle::from_element(&jingle::to_element(&Signal::Candidates {
            sid: sid(),
            ufrag: "8hhy".to_owned(),
            candidates: vec![host(); n],
        }))
    };
    assert!(with(jingle::MAX_CANDIDATES).is_ok());
    assert_eq!(with(65), Err(JingleFault::TooManyCandidates(65)));
}

#[test]
fn an_answer_cannot_offer_either_role() {
    let element = jingle::to_element(&Signal::Accept {
        sid: sid(),
        description: half(Setup::Actpass),
    });
    let fault = jingle::from_element(&element).expect_err("actpass in an answer");
    assert_eq!(
        fault.to_string(),
        "<fingerprint/> has setup=`actpass`, expected `active` or `passive`"
    );
}

#[test]
fn a_session_ends_whatever_the_reason_given() {
    for (reason, expected) in [
        ("<reason><gone/></reason>", TerminateReason::Success),
        (
            "<reason><text>bye</text><timeout/></reason>",
            TerminateReason::ConnectivityError,
        ),
        (
            "<reason><media-error/></reason>",
            TerminateReason::GeneralError,
        ),
        (
            "<reason><unheard-of/></reason>",
            TerminateReason::GeneralError,
        ),
        ("", TerminateReason::GeneralError),
    ] {
        let text = format!(
            "<jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='s'>{reason}</jingle>"
        );
        assert_eq!(
            jingle::from_element(&text.parse().expect("well-formed")),
            Ok(Signal::Terminate {
                sid: SessionId("s".to_owned()),
                reason: expected
            })
        );
    }
}

#[test]
fn an_advertisement_survives_xml_whatever_its_characters() {
    let element = reparse(&advertisement::to_element(&advertised()).expect("JSON"));
    assert_eq!(
        advertisement::find(&[element]).expect("found"),
        advertised()
    );
}

#[test]
fn what_only_a_later_version_knows_of_in_presence_and_status_is_left_out() {
    let with = |element: Element, from: &str, to: &str| -> Element {
        let text = String::from(&element);
        let later = text.replacen(from, to, 1);
        assert_ne!(later, text);
        later.parse().expect("well-formed")
    };
    let element = advertisement::to_element(&advertised()).expect("JSON");
    let element = with(element, "{", "{\"mtu\":1400,\"routes\":[\"10.0.0.0/8\"],");
    let element = with(
        element,
        "<json ",
        "<more xmlns='urn:ipop:later'/><json later='1' ",
    );
    let found = advertisement::find(&[Element::bare("overlay", "urn:ipop:node:9"), element]);
    assert_eq!(found.expect("found"), advertised());

    let mut known = node_status();
    known.drops.insert(DropReason::Malformed, 7);
    let element = status::to_element(&known).expect("JSON");
    let element = with(
        element,
        "\"malformed\"",
        "\"of-a-later-version\":3,\"malformed\"",
    );
    let element = with(element, "{", "{\"later\":{},");
    assert_eq!(status::from_element(Some(&element)).expect("read"), known);
}

#[test]
fn an_advertisement_that_cannot_be_told_on_is_refused() {
    type Spoil = fn(&mut Advertisement);
    let spoilt: [(Spoil, &str); 5] = [
        (|a| a.name = "x".repeat(64), "is no node name"),
        (
            |a| a.name = "Work er".to_owned(),
            "`Work er` is no node name",
        ),
        (|a| a.linked.push(String::new()), "`` is no node name"),
        (
            |a| a.linked = vec!["a".to_owned(); 5000],
            "links to 5000 members, more than 2048",
        ),
        (|a| a.version = "1".repeat(65), "version of 65 bytes"),
    ];
    for (spoil, message) in spoilt {
        let mut advertisement = advertised();
        spoil(&mut advertisement);
        let element = advertisement::to_element(&advertisement).expect("JSON");
        let error = advertisement::find(&[element]).expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn a_long_detail_of_a_peers_role_is_cut_to_one_short_line() {
    let mut advertisement = advertised();
    advertisement.role = RoleState::Failed {
        detail: format!("\u{1b}[31m\n{}", "ä".repeat(300)),
    };
    let element = advertisement::to_element(&advertisement).expect("JSON");
    let RoleState::Failed { detail } = advertisement::find(&[element]).expect("found").role else {
        panic!("another role state");
    };
    assert_eq!(detail.chars().count(), 200);
    assert!(detail.starts_with(" [31m ä"), "{detail}");
}

#[test]
fn a_presence_without_a_readable_advertisement_says_why() {
    let find =
        |xml: &str| advertisement::find(&[xml.parse().expect("well-formed")]).expect_err(xml);
    assert!(matches!(
        advertisement::find(&[]),
        Err(NotAdvertised::Absent)
    ));
    assert!(matches!(
        find("<c xmlns='http://jabber.org/protocol/caps'/>"),
        NotAdvertised::Absent
    ));
    assert!(matches!(
        find("<overlay xmlns='urn:ipop:node:1'/>"),
        NotAdvertised::OtherVersion(version) if version == "urn:ipop:node:1"
    ));
    let json = "<json xmlns='urn:xmpp:json:0'>[1, {}]</json>";
    for content in [
        "",
        "text",
        json,
        &json.repeat(2),
        "<json xmlns='urn:xmpp:json:0'/>",
    ] {
        let text = format!("<overlay xmlns='{NS_NODE}'>{content}</overlay>");
        assert!(
            matches!(find(&text), NotAdvertised::Unreadable(_)),
            "{text}"
        );
    }
}

#[test]
fn a_status_survives_xml_and_its_absence_is_an_error() {
    let element = reparse(&status::to_element(&node_status()).expect("JSON"));
    assert_eq!(
        status::from_element(Some(&element)).expect("status"),
        node_status()
    );
    assert!(status::is_query(&status::query()));
    assert!(status::from_element(None).is_err());
    assert!(status::from_element(Some(&status::query())).is_err());
}

#[test]
fn services_that_cannot_be_used_are_marked_or_left_out() {
    let element: Element = "<services xmlns='urn:xmpp:extdisco:2'>\
        <service type='stun' host='stun.example.org'/>\
        <service type='turn' transport='udp' host='2001:db8::5' port='3479' restricted='1' \
            username='1400:x' password='sesame' expires='2026-11-22T19:30:00Z'/>\
        <service type='turn' transport='tcp' host='192.0.2.5' port='3478'/>\
        <service type='turns' transport='tcp' host='192.0.2.5' port='5349'/>\
        <service type='sip' host='192.0.2.5'/>\
        <service type='stun' host='192.0.2.5' port='high'/>\
        <service type='stun' port='3478'/>\
        </services>"
        .parse()
        .expect("well-formed");
    let found = services::from_element(Some(&element)).expect("services");
    assert_eq!(found.len(), 4);
    assert_eq!((found[0].kind, found[0].port), (IceServerKind::Stun, 3478));
    assert_eq!(
        found[1].password.as_ref().map(|p| p.expose()),
        Some("sesame")
    );
    assert_eq!(
        found[1].expires,
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_375_800))
    );
    assert_eq!(found[1].transport, ServiceTransport::Udp);
    assert_eq!(
        found[2].transport,
        ServiceTransport::Other("tcp".to_owned())
    );
    assert_eq!(
        found[3].transport,
        ServiceTransport::Other("tls over tcp".to_owned())
    );
    assert!(!format!("{found:?}").contains("sesame"));
    assert!(services::from_element(None).is_err());
}

fn addr() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<Ipv4Addr>().prop_map(IpAddr::V4);
    let v6 = any::<Ipv6Addr>().prop_map(|ip| IpAddr::V6(ip).to_canonical());
    (prop_oneof![v4, v6], 1..=u16::MAX)
        .prop_filter("unicast", |(ip, _)| {
            !ip.is_unspecified() && !ip.is_multicast()
        })
        .prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let kind = prop_oneof![
        Just(CandidateKind::Host),
        Just(CandidateKind::Srflx),
        Just(CandidateKind::Prflx),
        Just(CandidateKind::Relay),
    ];
    let candidate = (
        "[A-Za-z0-9+/]{1,32}",
        kind,
        addr(),
        any::<u32>(),
        prop::option::of(addr()),
    )
        .prop_map(|(foundation, kind, addr, priority, related)| Candidate {
            foundation,
            kind,
            addr,
            priority,
            related,
        });
    prop::collection::vec(candidate, 0..=8)
}

fn description(setup: impl Strategy<Value = Setup>) -> impl Strategy<Value = LinkDescription> {
    let credentials = ("[A-Za-z0-9+/]{4,256}", "[A-Za-z0-9+/]{22,256}");
    (credentials, any::<[u8; 32]>(), setup, candidates()).prop_map(
        |((ufrag, pwd), fingerprint, setup, candidates)| LinkDescription {
            ufrag,
            pwd,
            fingerprint: Fingerprint(fingerprint),
            setup,
            candidates,
        },
    )
}

fn signal() -> impl Strategy<Value = Signal> {
    let sid = || "[ -~]{1,128}".prop_map(SessionId);
    let answer = || prop_oneof![Just(Setup::Active), Just(Setup::Passive)];
    let reason = prop_oneof![
        Just(TerminateReason::Success),
        Just(TerminateReason::ConnectivityError),
        Just(TerminateReason::SecurityError),
        Just(TerminateReason::AlternativeSession),
        Just(TerminateReason::GeneralError),
    ];
    prop_oneof![
        (
            sid(),
            description(prop_oneof![Just(Setup::Actpass), answer()])
        )
            .prop_map(|(sid, description)| Signal::Initiate { sid, description }),
        (sid(), description(answer()))
            .prop_map(|(sid, description)| Signal::Accept { sid, description }),
        (sid(), "[A-Za-z0-9+/]{4,256}", candidates()).prop_map(|(sid, ufrag, candidates)| {
            Signal::Candidates {
                sid,
                ufrag,
                candidates,
            }
        }),
        (sid(), reason).prop_map(|(sid, reason)| Signal::Terminate { sid, reason }),
    ]
}

/// Elements made of the words that Jingle is made of, in no order.
fn garbage() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "jingle",
        "content",
        "description",
        "transport",
        "fingerprint",
        "candidate",
        "reason",
        "overlay",
        "json",
        "services",
        "service",
        "status",
    ]);
    let namespace = prop::sample::select(vec![
        "urn:xmpp:jingle:1",
        "urn:ipop:overlay:0",
        "urn:xmpp:jingle:transports:ice-udp:1",
        "urn:xmpp:jingle:apps:dtls:0",
        "urn:ipop:node:0",
        "urn:xmpp:json:0",
        "urn:ipop:status:0",
        "urn:xmpp:extdisco:2",
    ]);
    let attribute = prop::sample::select(vec![
        "action='session-initiate'",
        "action='transport-info'",
        "sid='s'",
        "name='overlay'",
        "creator='initiator'",
        "ufrag='abcd'",
        "hash='sha-256'",
        "setup='active'",
        "ip='::1'",
        "port='99999999999'",
        "component='1'",
        "protocol='udp'",
        "type='turn'",
        "host='é'",
        "expires='never'",
        "foundation='💥'",
        "priority='-1'",
    ]);
    let attributes = prop::collection::btree_set(attribute, 0..6).prop_map(|set| {
        let mut names = std::collections::BTreeSet::new();
        set.into_iter()
            .filter(|a| names.insert(a.split('=').next().expect("a name").to_owned()))
            .collect::<Vec<_>>()
            .join(" ")
    });
    let leaf = (
        name.clone(),
        namespace.clone(),
        attributes.clone(),
        "[a-f0-9:{}\\[\\]é💥]{0,40}",
    )
        .prop_map(|(n, ns, a, text)| format!("<{n} xmlns='{ns}' {a}>{text}</{n}>"));
    leaf.prop_recursive(4, 24, 4, move |inner| {
        (
            name.clone(),
            namespace.clone(),
            attributes.clone(),
            prop::collection::vec(inner, 0..4),
        )
            .prop_map(|(n, ns, a, children)| {
                format!("<{n} xmlns='{ns}' {a}>{}</{n}>", children.concat())
            })
    })
}

proptest! {
    #[test]
    fn every_signal_survives_xml(signal in signal()) {
        let element = reparse(&jingle::to_element(&signal));
        prop_assert_eq!(jingle::from_element(&element), Ok(signal));
    }

    #[test]
    fn garbage_never_panics_and_faults_never_hold_much(xml in garbage()) {
        let element: Element = xml.parse().expect("well-formed");
        if let Err(fault) = jingle::from_element(&element) {
            prop_assert!(fault.to_string().len() < 400);
            let _ = fault.to_stanza_error();
        }
        let _ = advertisement::find(std::slice::from_ref(&element));
        let _ = status::from_element(Some(&element));
        let _ = services::from_element(Some(&element));
    }

    #[test]
    fn a_damaged_signal_never_panics(signal in signal(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = String::from(&jingle::to_element(&signal)).into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(element) = String::from_utf8_lossy(&text).parse::<Element>() {
            let _ = jingle::from_element(&element);
        }
    }
}
