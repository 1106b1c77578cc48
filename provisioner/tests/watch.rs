//! The watcher with a real ejabberd and nodes that are XMPP sessions only. Needs the package
//! `ejabberd`.

use std::time::{Duration, Instant};

use ipop_node::xmpp::{self, Event, Password, Session};
use ipop_proto::address::OverlayAddrs;
use ipop_proto::candidate::CandidateKind;
use ipop_proto::service::IceServerKind;
use ipop_proto::status::{
    Advertisement, LinkState, NodeStatus, PairEnd, PeerStatus, RoleState, SignIn,
};
use provisioner::event::Stage;
use provisioner::name::NodeName;
use provisioner::rendezvous::{Account, Endpoint};
use provisioner::secret::Secret;
use provisioner::watch::progress::{Change, NodeChange};
use provisioner::watch::{WatchError, WatchEvent, Watcher};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

mod site;
mod turn;
use site::Site;
use turn::Turn;

const PATIENCE: Duration = Duration::from_secs(60);

fn addrs() -> OverlayAddrs {
    OverlayAddrs {
        ipv4: "10.73.0.2/24".parse().expect("valid"),
        ipv6: "fd5a::2/64".parse().expect("valid"),
    }
}

/// A node that signs in, says what it is told to say, and answers for its status.
struct FakeNode {
    runtime: Runtime,
    session: Session,
    name: String,
}

impl FakeNode {
    fn sign_in(endpoint: &Endpoint, account: &Account, name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let login = xmpp::Account {
            jid: account.jid.clone(),
            resource: "ipop".to_owned(),
            password: Password::new(account.password.expose().clone()),
            servers: endpoint.servers.clone(),
            ca_pem: endpoint.ca_pem.clone().into_bytes(),
        };
        let guard = runtime.enter();
        let (session, events) = xmpp::open(login).expect("a usable account");
        drop(guard);
        runtime.spawn(answer(session.clone(), events, status(name)));
        Self {
            runtime,
            session,
            name: name.to_owned(),
        }
    }

    fn say(&self, role: RoleState, linked: &[&str]) {
        self.session.advertise(Advertisement {
            name: self.name.clone(),
            addrs: addrs(),
            role,
            linked: linked.iter().map(|name| (*name).to_owned()).collect(),
            version: "0.1.0".to_owned(),
            fingerprint: None,
        });
    }

    fn leave(self) {
        self.runtime.block_on(self.session.leave());
    }
}

async fn answer(session: Session, mut events: mpsc::Receiver<Event>, status: NodeStatus) {
    while let Some(event) = events.recv().await {
        if let Event::StatusQuery { from, id } = event {
            session.answer_status(from, id, status.clone());
        }
    }
}

fn status(name: &str) -> NodeStatus {
    let end = |kind| {
        Some(PairEnd {
            kind,
            addr: "192.0.2.1:4000".parse().expect("valid"),
        })
    };
    let peer = PeerStatus {
        name: "frontend-0".to_owned(),
        jid: "frontend-0@x/ipop".to_owned(),
        addrs: addrs(),
        link: LinkState::Up,
        local: end(CandidateKind::Host),
        remote: end(CandidateKind::Relay),
        rtt_us: Some(730),
        setup_ms: None,
        tx_bytes: 0,
        tx_packets: 0,
        rx_bytes: 0,
        rx_packets: 0,
        drops: Default::default(),
        groups: Default::default(),
        role: None,
    };
    NodeStatus {
        name: name.to_owned(),
        overlay: "x".to_owned(),
        jid: name.to_owned(),
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
        peers: if name == "frontend-0" {
            Vec::new()
        } else {
            vec![peer]
        },
        drops: Default::default(),
        ssh_host_key: None,
        certificate: None,
        names: None,
        refused: Vec::new(),
        pinning: None,
        policy: None,
    }
}

fn next(watcher: &mut Watcher) -> WatchEvent {
    watcher
        .next(Instant::now() + PATIENCE)
        .expect("the session goes on")
        .unwrap_or_else(|| panic!("nothing happened within {PATIENCE:?}"))
}

fn reached(node: &str, stage: Stage) -> WatchEvent {
    change(node, Change::Reached(stage))
}

fn change(node: &str, change: Change) -> WatchEvent {
    WatchEvent::Node(NodeChange {
        node: NodeName(node.to_owned()),
        change,
    })
}

#[test]
fn a_cluster_is_followed_until_it_has_joined_and_when_a_node_leaves() {
    let site = Site::new("rdv-watch");
    let endpoint = site.start();
    let (frontend, worker) = (NodeName("frontend-0".into()), NodeName("worker-0".into()));
    let nodes = [frontend.clone(), worker.clone()];
    site.rendezvous.create_group().expect("group");
    let accounts: Vec<Account> = nodes
        .iter()
        .map(|node| site.rendezvous.create_account(node).expect("account"))
        .collect();
    let mut watcher = Watcher::open(&site.rendezvous, &frontend, &nodes).expect("signed in");
    let soon = Instant::now() + Duration::from_millis(300);
    assert_eq!(
        watcher.next(soon).expect("goes on"),
        None,
        "nobody is there"
    );

    let f = FakeNode::sign_in(&endpoint, &accounts[0], "frontend-0");
    f.say(RoleState::Ready, &[]);
    assert_eq!(next(&mut watcher), reached("frontend-0", Stage::SignedIn));
    let w = FakeNode::sign_in(&endpoint, &accounts[1], "worker-0");
    w.say(RoleState::Pending, &[]);
    assert_eq!(next(&mut watcher), reached("worker-0", Stage::SignedIn));
    w.say(RoleState::Pending, &["frontend-0"]);
    assert_eq!(next(&mut watcher), reached("worker-0", Stage::Linked));
    f.say(RoleState::Ready, &["worker-0"]);
    assert_eq!(next(&mut watcher), reached("frontend-0", Stage::Linked));
    assert_eq!(next(&mut watcher), reached("frontend-0", Stage::Ready));
    w.say(
        RoleState::Failed {
            detail: "mount failed".into(),
        },
        &["frontend-0"],
    );
    let detail = "mount failed".to_owned();
    assert_eq!(
        next(&mut watcher),
        change("worker-0", Change::RoleFailed { detail })
    );
    assert!(!watcher.progress().all_joined());
    w.say(RoleState::Ready, &["frontend-0"]);
    assert_eq!(next(&mut watcher), reached("worker-0", Stage::Ready));
    assert!(watcher.progress().all_joined());

    let services = w
        .runtime
        .block_on(w.session.query_services())
        .expect("XEP-0215");
    let kinds: Vec<IceServerKind> = services.iter().map(|service| service.kind).collect();
    assert_eq!(kinds, [IceServerKind::Stun, IceServerKind::Turn]);
    assert!(services.iter().all(|service| service.host == "127.0.0.1"));
    let service = &services[1];
    assert!(service.expires.is_some());
    let (Some(user), Some(password)) = (&service.username, &service.password) else {
        panic!("no credentials: {service:?}")
    };
    let address = format!("{}:{}", service.host, service.port)
        .parse()
        .expect("an address");
    let mut turn = Turn::new(address, user, password.expose());
    assert_eq!(turn.allocate(), None, "it relays");
    assert_eq!(turn.permit("192.0.2.9".parse().expect("valid")), None);
    let metadata = "169.254.169.254".parse().expect("valid");
    assert_eq!(
        turn.permit(metadata),
        Some(403),
        "not to a cloud's metadata"
    );
    let mut thief = Turn::new(address, user, "wrong");
    assert_eq!(thief.allocate(), Some(401));

    let facts = watcher.facts(&worker).expect("an answer");
    assert_eq!(facts.link, Some(CandidateKind::Relay));
    assert_eq!(facts.rtt_us, Some(730));
    assert_eq!(facts.addrs, addrs());
    let facts = watcher.facts(&frontend).expect("an answer");
    assert_eq!((facts.link, facts.rtt_us), (None, None));

    w.leave();
    assert_eq!(next(&mut watcher), change("worker-0", Change::Lost));
    assert!(!watcher.progress().all_joined());
    assert!(matches!(watcher.facts(&worker), Err(WatchError::Absent(_))));

    site.rendezvous.stop().expect("stops");
    assert!(matches!(
        next(&mut watcher),
        WatchEvent::RendezvousLost { .. }
    ));
    watcher.leave();
    f.leave();
}

#[test]
fn a_wrong_password_is_told_at_once() {
    let site = Site::new("rdv-refused");
    let endpoint = site.start();
    site.rendezvous.create_group().expect("group");
    let mut account = site.rendezvous.operator().expect("operator");
    account.password = Secret::new("wrong".to_owned());
    let began = Instant::now();
    let error = Watcher::connect(
        &endpoint,
        &account,
        &NodeName("f".into()),
        Default::default(),
    )
    .err()
    .expect("refused");
    assert_eq!(
        error.to_string(),
        "the rendezvous refuses the account `provision@rdv-refused.ipop`: not-authorized"
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}
