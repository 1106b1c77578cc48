//! The XMPP session against a real ejabberd. Needs Debian's `ejabberd` package.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipop_node::xmpp::{Account, Event, Password, QueryError, Session, Timing, open_with};
use ipop_proto::candidate::{Candidate, CandidateKind};
use ipop_proto::service::IceServerKind;
use ipop_proto::signal::{Fingerprint, LinkDescription, SessionId, Setup, Signal, TerminateReason};
use ipop_proto::status::{Advertisement, NodeStatus, RoleState, SignIn};
use ipop_testbed::ejabberd::{DOMAIN, Ejabberd, Options, own_loopback};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// For what needs the server; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session and its events.
struct Client {
    session: Session,
    events: mpsc::Receiver<Event>,
    name: &'static str,
    jid: String,
}

fn timing() -> Timing {
    Timing {
        retry_min: Duration::from_millis(100),
        retry_max: Duration::from_secs(1),
        settle: Duration::from_secs(2),
        ..Timing::default()
    }
}

fn account(server: &Ejabberd, name: &str, password: &str) -> Account {
    Account {
        jid: format!("{name}@{DOMAIN}"),
        resource: "ipop".to_owned(),
        password: Password::new(password),
        servers: server.servers(),
        ca_pem: server.ca_pem().as_bytes().to_vec(),
    }
}

impl Client {
    fn open(account: Account, name: &'static str) -> Self {
        let (session, events) = open_with(account, timing()).expect("a usable account");
        Self {
            session,
            events,
            name,
            jid: String::new(),
        }
    }

    /// Signs in as a member that advertises itself.
    async fn member(server: &Ejabberd, name: &'static str) -> Self {
        server.register(name, "pw");
        server.join(name);
        let mut client = Self::open(account(server, name, "pw"), name);
        client.session.advertise(advertisement(name));
        client.online().await;
        client
    }

    async fn online(&mut self) {
        self.jid = self
            .wait("to be online", |event| match event {
                Event::Online { jid } => Some(jid),
                _ => None,
            })
            .await;
    }

    /// The first event that `wanted` takes; others are passed over.
    async fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => {
                    seen.push(format!("{event:?}"));
                    if let Some(value) = wanted(event) {
                        return value;
                    }
                }
                Ok(None) => panic!(
                    "{}: the session ended, waiting {what}; saw {seen:#?}",
                    self.name
                ),
                Err(_) => panic!("{}: waited {what} in vain; saw {seen:#?}", self.name),
            }
        }
    }

    async fn sees(&mut self, other: &str) -> Advertisement {
        self.wait(&format!("to see {other}"), |event| match event {
            Event::Presence {
                from,
                advertisement,
            } if from == other => Some(advertisement),
            _ => None,
        })
        .await
    }

    async fn signalled(&mut self) -> (String, Signal) {
        self.wait("for a signal", |event| match event {
            Event::Signal { from, signal } => Some((from, signal)),
            _ => None,
        })
        .await
    }

    async fn failed(&mut self) -> (String, SessionId, String) {
        self.wait("for a failed signal", |event| match event {
            Event::SignalFailed { to, sid, condition } => Some((to, sid, condition)),
            _ => None,
        })
        .await
    }
}

fn advertisement(name: &str) -> Advertisement {
    Advertisement {
        name: name.to_owned(),
        addrs: addrs(),
        role: RoleState::Failed {
            detail: "mount: \u{fffe} <nein> & \"ja\"".to_owned(),
        },
        linked: vec!["other".to_owned()],
        version: "0.1.0".to_owned(),
        fingerprint: None,
    }
}

fn addrs() -> ipop_proto::address::OverlayAddrs {
    ipop_proto::address::OverlayAddrs {
        ipv4: "10.73.0.2/24".parse().expect("valid"),
        ipv6: "fd5a::2/64".parse().expect("valid"),
    }
}

fn sid(text: &str) -> SessionId {
    SessionId(text.to_owned())
}

fn initiate() -> Signal {
    Signal::Initiate {
        sid: sid("s1"),
        description: LinkDescription {
            ufrag: "abcd".to_owned(),
            pwd: "0123456789012345678901".to_owned(),
            fingerprint: Fingerprint([0xab; 32]),
            setup: Setup::Actpass,
            candidates: vec![candidate("192.0.2.1:4000"), candidate("[2001:db8::1]:4000")],
        },
    }
}

fn candidate(addr: &str) -> Candidate {
    Candidate {
        foundation: "1".to_owned(),
        kind: CandidateKind::Host,
        addr: addr.parse().expect("valid"),
        priority: 2_130_706_431,
        related: None,
    }
}

#[tokio::test]
async fn members_see_each_other_and_signal_in_order() {
    for tls13 in [true, false] {
        let server = Ejabberd::start_with(Options {
            tls13,
            ..Options::loopback()
        });
        let mut a = Client::member(&server, "a").await;
        let mut b = Client::member(&server, "b").await;
        assert_eq!(a.sees("b@xmpp.test/ipop").await, advertisement("b"));
        assert_eq!(b.sees("a@xmpp.test/ipop").await, advertisement("a"));

        let mut said = vec![initiate()];
        for n in 0..50 {
            said.push(Signal::Candidates {
                sid: sid("s1"),
                ufrag: "abcd".to_owned(),
                candidates: vec![candidate(&format!("192.0.2.2:{}", 5000 + n))],
            });
        }
        said.push(Signal::Terminate {
            sid: sid("s1"),
            reason: TerminateReason::SecurityError,
        });
        for signal in &said {
            a.session.signal(b.jid.clone(), signal.clone());
        }
        for signal in said {
            assert_eq!(b.signalled().await, (a.jid.clone(), signal));
        }

        let mut changed = advertisement("b");
        changed.role = RoleState::Ready;
        b.session.advertise(changed.clone());
        assert_eq!(a.sees(&b.jid).await, changed);

        // Changes that come one upon the other are told together, and the last one is not lost.
        for version in 0..200 {
            changed.version = version.to_string();
            b.session.advertise(changed.clone());
        }
        let mut heard = 0;
        a.wait("for the last change", |event| match event {
            Event::Presence {
                from,
                advertisement,
            } if from == b.jid => {
                heard += 1;
                (advertisement == changed).then_some(())
            }
            _ => None,
        })
        .await;
        assert!(heard < 50, "{heard} of 200 were told one by one");

        b.session.leave().await;
        a.wait("for b to leave", |event| {
            matches!(event, Event::Unavailable { from } if from == b.jid).then_some(())
        })
        .await;
        assert_eq!(server.connected(), [a.jid.clone()]);
    }
}

#[tokio::test]
async fn a_wrong_password_surfaces_at_once() {
    let server = Ejabberd::start();
    server.register("a", "right");
    let mut client = Client::open(account(&server, "a", "wrong"), "a");
    let event = timeout(Duration::from_secs(5), client.events.recv())
        .await
        .expect("in time");
    assert!(
        matches!(&event, Some(Event::Refused { condition }) if condition == "not-authorized"),
        "{event:?}"
    );
    // Retried slowly, and leaving does not wait for that.
    let left = timeout(Duration::from_secs(1), client.session.leave()).await;
    assert!(left.is_ok() && client.events.recv().await.is_none());
}

#[tokio::test]
async fn a_certificate_from_another_ca_is_refused() {
    let (server, other) = (Ejabberd::start(), Ejabberd::start());
    server.register("a", "pw");
    let mut account = account(&server, "a", "pw");
    account.ca_pem = other.ca_pem().as_bytes().to_vec();
    let mut client = Client::open(account, "a");
    match client.events.recv().await {
        Some(Event::Offline { error }) => {
            assert!(error.contains("invalid peer certificate"), "{error}")
        }
        event => panic!("{event:?}"),
    }
    assert!(server.connected().is_empty());
}

#[tokio::test]
async fn a_server_without_starttls_hears_nothing_but_the_stream_header() {
    let listener = TcpListener::bind((IpAddr::from(own_loopback()), 0))
        .await
        .expect("bound");
    let addr: SocketAddr = listener.local_addr().expect("bound");
    let heard = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("a client");
        tcp.write_all(
            b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' id='1' version='1.0' \
              xmlns:stream='http://etherx.jabber.org/streams' from='xmpp.test'><stream:features>\
              <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism>\
              <mechanism>SCRAM-SHA-1</mechanism></mechanisms></stream:features>",
        )
        .await
        .expect("a client");
        let mut heard = String::new();
        // The client closes when it sees the offer.
        let _ = tcp.read_to_string(&mut heard).await;
        heard
    });
    let server = Ejabberd::start();
    let mut account = account(&server, "a", "sesame");
    account.servers = vec![addr.to_string()];
    let mut client = Client::open(account, "a");
    match client.events.recv().await {
        Some(Event::Offline { error }) => assert_eq!(
            error,
            format!("{addr}: no STARTTLS offered; the password is never sent in the clear")
        ),
        event => panic!("{event:?}"),
    }
    let heard = heard.await.expect("heard");
    assert!(
        heard.contains("<stream:stream") && !heard.contains("<auth"),
        "{heard}"
    );
}

#[tokio::test]
async fn sessions_come_back_after_the_server_restarts() {
    let mut server = Ejabberd::start();
    let mut a = Client::member(&server, "a").await;
    let mut b = Client::member(&server, "b").await;
    a.sees(&b.jid).await;
    let mut server = tokio::task::spawn_blocking(move || {
        server.stop();
        server
    })
    .await
    .expect("stopped");
    for client in [&mut a, &mut b] {
        client
            .wait("to be offline", |event| {
                matches!(event, Event::Offline { .. }).then_some(())
            })
            .await;
    }
    a.session.signal(b.jid.clone(), initiate());
    assert_eq!(
        a.failed().await,
        (b.jid.clone(), sid("s1"), "not-connected".to_owned())
    );
    assert_eq!(
        a.session.query_status(&b.jid).await,
        Err(QueryError::Offline)
    );
    let server = tokio::task::spawn_blocking(move || {
        server.resume();
        server
    })
    .await
    .expect("started");
    // b never comes back: a tells so although no server ever said it.
    b.session.leave().await;
    a.online().await;
    a.wait("for b to be gone", |event| {
        matches!(event, Event::Unavailable { from } if from == b.jid).then_some(())
    })
    .await;
    drop(server);
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up() {
    let server = Ejabberd::start();
    server.register("a", "pw");
    let listener = TcpListener::bind((IpAddr::from(own_loopback()), 0))
        .await
        .expect("bound");
    let mut account = account(&server, "a", "pw");
    account.servers = vec![listener.local_addr().expect("bound").to_string()];
    let timing = Timing {
        ping_after: Duration::from_millis(500),
        ping_reply: Duration::from_secs(2),
        ..timing()
    };
    let (session, events) = open_with(account, timing).expect("a usable account");
    let mut a = Client {
        session,
        events,
        name: "a",
        jid: String::new(),
    };
    // On a busy machine the first attempts may take longer than the client waits for.
    let (mut near, mut far) = loop {
        let (mut near, _) = listener.accept().await.expect("a client");
        let mut far = TcpStream::connect(&server.servers()[0])
            .await
            .expect("the server");
        let is_online = tokio::select! {
            () = a.online() => true,
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
        };
        if is_online {
            break (near, far);
        }
    };
    {
        let forwarding = tokio::io::copy_bidirectional(&mut near, &mut far);
        tokio::pin!(forwarding);
        // Pings are answered: the stream outlives several of them.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(4)) => {}
            () = a.wait("for nothing", |event| matches!(event, Event::Offline { .. }).then_some(())) => {
                panic!("offline although the server answers")
            }
            end = &mut forwarding => panic!("{end:?}"),
        }
    }
    // Both sockets stay open, and nothing goes through any more.
    let since = Instant::now();
    a.wait("to notice", |event| {
        matches!(event, Event::Offline { .. }).then_some(())
    })
    .await;
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    drop((near, far));
}

#[tokio::test]
async fn services_come_with_credentials() {
    let server = Ejabberd::start();
    let mut a = Client::member(&server, "a").await;
    let services = a
        .wait("for services", |event| match event {
            Event::Services(services) => Some(services),
            _ => None,
        })
        .await;
    let turn = services
        .iter()
        .find(|s| s.kind == IceServerKind::Turn)
        .expect("a TURN service");
    assert_eq!(turn.port, 3478);
    assert!(turn.username.is_some() && turn.password.is_some() && turn.expires.is_some());
    let password = turn.password.as_ref().expect("just checked").expose();
    assert!(!format!("{services:?}").contains(password));
    assert!(services.iter().any(|s| s.kind == IceServerKind::Stun));
    assert_eq!(
        a.session.query_services().await.expect("an answer").len(),
        services.len()
    );
}

#[tokio::test]
async fn strangers_are_not_heard() {
    let server = Ejabberd::start();
    let mut a = Client::member(&server, "a").await;
    server.register("x", "pw");
    let mut stranger = Client::open(account(&server, "x", "pw"), "x");
    stranger.session.advertise(advertisement("x"));
    stranger.online().await;
    stranger.session.signal(a.jid.clone(), initiate());
    let (to, _, condition) = stranger.failed().await;
    assert_eq!(
        (to.as_str(), condition.as_str()),
        (a.jid.as_str(), "service-unavailable")
    );
    assert_eq!(
        stranger.session.query_status(&a.jid).await,
        Err(QueryError::Refused(
            a.jid.clone(),
            "service-unavailable".to_owned()
        ))
    );
    // A member's presence that comes later shows that nothing of the stranger came before.
    let b = Client::member(&server, "b").await;
    a.wait("for b alone", |event| match event {
        Event::Presence { from, .. } if from == b.jid => Some(()),
        Event::Presence { .. } | Event::Signal { .. } | Event::StatusQuery { .. } => {
            panic!("heard a stranger: {event:?}")
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_member_answers_for_its_status() {
    let server = Ejabberd::start();
    let mut a = Client::member(&server, "a").await;
    let b = Client::member(&server, "b").await;
    let status = NodeStatus {
        name: "a".to_owned(),
        overlay: "test".to_owned(),
        jid: a.jid.clone(),
        version: "0.1.0".to_owned(),
        addrs: addrs(),
        interface: "ipop0".to_owned(),
        mtu: 1400,
        datapath: Default::default(),
        switch: None,
        uptime_ms: 1,
        sign_in: SignIn::Online,
        role: RoleState::Ready,
        candidates: Vec::new(),
        peers: Vec::new(),
        drops: Default::default(),
        ssh_host_key: None,
        certificate: None,
        names: None,
        refused: Vec::new(),
        pinning: None,
        policy: None,
    };
    let (expected, asked) = (status.clone(), a.jid.clone());
    let answer = tokio::spawn(async move { b.session.query_status(&asked).await });
    let (from, id) = a
        .wait("for the query", |event| match event {
            Event::StatusQuery { from, id } => Some((from, id)),
            _ => None,
        })
        .await;
    a.session.answer_status(from, id, status);
    assert_eq!(answer.await.expect("asked"), Ok(expected));
}

#[tokio::test]
async fn a_member_added_later_is_seen_without_signing_in_again() {
    let server = Ejabberd::start();
    let mut a = Client::member(&server, "a").await;
    server.register("b", "pw");
    let mut b = Client::open(account(&server, "b", "pw"), "b");
    b.session.advertise(advertisement("b"));
    b.online().await;
    server.join("b");
    a.sees("b@xmpp.test/ipop").await;
    b.sees("a@xmpp.test/ipop").await;
    server.expel("b");
    a.wait("for b to be expelled", |event| {
        matches!(event, Event::Expelled { jid } if jid == "b@xmpp.test").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_newer_of_two_sessions_with_one_full_jid_replaces_the_older() {
    let server = Ejabberd::start();
    let mut watcher = Client::member(&server, "w").await;
    let mut first = Client::member(&server, "a").await;
    watcher.sees(&first.jid).await;
    let mut second = Client::open(account(&server, "a", "pw"), "second");
    second.session.advertise(advertisement("second"));
    second.online().await;
    assert_eq!(second.jid, first.jid);
    first
        .wait("to be replaced", |event| {
            matches!(event, Event::Refused { condition } if condition == "conflict").then_some(())
        })
        .await;
    // Only what the newer one does is asked for: in which order the server tells of the end of the
    // old session and the start of the new one is its own affair, which is why nodes bind a
    // resource that is new at each start.
    second.session.signal(watcher.jid.clone(), initiate());
    let from = watcher
        .wait("for a signal of the newer session", |event| match event {
            Event::Signal { from, .. } => Some(from),
            _ => None,
        })
        .await;
    assert_eq!(from, second.jid);
}
