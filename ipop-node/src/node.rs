//! The one task that owns the protocol's state, and the loop that drives it.

mod audit;
mod membership;
mod pinning;
mod policy;
mod report;
mod switching;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use ipop_proto::address::{Overlay4, Overlay6, OverlayAddrs};
use ipop_proto::config::NodeConfig;
use ipop_proto::names::Names;
use ipop_proto::overlay::{Identity, Output, Overlay, OverlayConfig, StaticPeer};
use ipop_proto::status::{RoleState, SignIn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use self::audit::Audit;
use self::membership::{Renewal, Renewals};
use self::switching::Switching;
use crate::bridge;
use crate::control::{self, Answer, Question, Request};
use crate::datapath::{Datapath, Taken};
use crate::names::NameService;
use crate::notify::Notifier;
use crate::pins::PinFile;
use crate::services::ice_servers;
use crate::settings::{Membership, Settings};
use crate::tun::{self, Device, TunError};
use crate::underlay::{self, AddressWatch, Rules};
use crate::xmpp::{self, AccountError, Event, Preparation, Session, Timing};

/// Longest time for saying good-bye to the XMPP server.
const GOODBYE: Duration = Duration::from_millis(1500);
/// XMPP events handled before packets get their turn.
const EVENT_BATCH: usize = 32;
/// Packets and datagrams handled before others get their turn.
const TAKEN_BATCH: usize = 64;

/// The node could not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] control::ServerError),
    /// The TUN device cannot be made.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The account cannot be used.
    #[error("unusable XMPP account")]
    Account(#[from] AccountError),
    /// No DTLS certificate.
    #[error(transparent)]
    Identity(#[from] ipop_proto::link::IdentityError),
    /// The operating system refuses something a node cannot do without.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A part of the node ended although the node goes on: a defect.
    #[error("the task of the {0} has ended")]
    Ended(&'static str),
    /// The TUN device is gone.
    #[error("the TUN device `{interface}` cannot be read any more")]
    TunLost {
        /// Its name.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Runs a node until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> Result<(), NodeError> {
    let system = |what| move |source| NodeError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("handle SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("handle SIGINT"))?;
    let Settings {
        source,
        config,
        account,
        enrolment,
        identity,
        membership,
        pinning,
        ssh_host_key,
    } = settings;
    let mut renewal = Renewal::new().map_err(system("handle SIGHUP"))?;
    // First, because it is what tells a second node from the first.
    let mut control = control::Server::start(&config.node.control)?;
    let mut watch = AddressWatch::start().map_err(system("listen for address changes"))?;
    leave_bridge(&config);
    let device = tun::create(&config, threads())?;
    let (session, mut events) = match account {
        None => (None, None),
        Some(account) => {
            // Whoever has a certificate is online without asking.
            let lacks = membership.as_ref().filter(|m| m.certified.is_none());
            let preparation = Preparation {
                enrolment,
                requester: lacks.and_then(|m| m.requester.clone()),
            };
            let opened = xmpp::open_prepared(account, preparation, Timing::default())?;
            (Some(opened.0), Some(opened.1))
        }
    };
    let mut node = Node::new(source, config, device, session, identity, ssh_host_key)?;
    if let Some(membership) = membership {
        node.believe(membership);
    }
    if let Some((file, pins)) = pinning {
        node.overlay.set_pins(Instant::now(), pins);
        node.pin_file = Some(file);
    }
    node.apply_rules();
    node.add_peers();
    node.rebind();
    node.advertise();
    node.notifier.ready();
    tracing::info!(
        name = node.config.node.name,
        ipv4 = %node.config.overlay.ipv4,
        ipv6 = %node.config.overlay.ipv6,
        interface = node.config.overlay.interface,
        "node started"
    );
    let ended = node
        .drive(
            &mut terminate,
            &mut interrupt,
            &mut renewal,
            &mut control,
            &mut watch,
            &mut events,
        )
        .await;
    node.leave().await;
    ended
}

/// The device, which is about to be made or to go, is no port of the bridge.
fn leave_bridge(config: &NodeConfig) {
    let Some(bridge) = &config.switch.bridge else {
        return;
    };
    let device = &config.overlay.interface;
    if let Err(error) = bridge::leave(bridge, device) {
        tracing::warn!(bridge, device, %error, "the device stays a port of the bridge");
    }
}

struct Node {
    /// Where the configuration is.
    source: PathBuf,
    config: NodeConfig,
    overlay: Overlay,
    datapath: Datapath,
    /// None in mode `route`.
    switching: Option<Switching>,
    /// None without an account.
    session: Option<Session>,
    rules: Rules,
    notifier: Notifier,
    started: Instant,
    sign_in: SignIn,
    /// Full JID when signed in.
    jid: Option<String>,
    role: RoleState,
    /// What was advertised last; told again when it changes.
    linked: Vec<String>,
    /// Public SSH host key of this machine, where it made its own.
    ssh_host_key: Option<String>,
    /// Its place in an overlay with an authority.
    membership: Option<Membership>,
    /// Where it is kept whom the owner has approved; none where nobody has to be.
    pin_file: Option<PinFile>,
    /// When to look whether it is time for another certificate; none where nobody is asked for one.
    renewals: Option<Renewals>,
    /// Where members are known by name.
    names: Option<NameService>,
    /// Where what happens to links is written down, if somewhere.
    audit: Option<Audit>,
}

impl Node {
    fn new(
        source: PathBuf,
        config: NodeConfig,
        device: Device,
        session: Option<Session>,
        identity: Option<Identity>,
        ssh_host_key: Option<String>,
    ) -> Result<Self, NodeError> {
        let started = Instant::now();
        let overlay_config = OverlayConfig {
            name: config.node.name.clone(),
            addrs: config.addrs(),
            mtu: config.overlay.mtu,
            mode: config.overlay.mode,
            relay_only: config.ice.relay_only,
        };
        let identity = identity.map_or_else(Identity::generate, Ok)?;
        let datapath = Datapath::start(device, &config, started);
        let datapath = datapath.map_err(|source| NodeError::System {
            what: "start the threads that carry packets",
            source,
        })?;
        Ok(Self {
            source,
            switching: Switching::new(&config, &datapath),
            overlay: Overlay::new(started, overlay_config, identity, rand::random()),
            datapath,
            rules: Rules::new(&config),
            notifier: Notifier::from_env(),
            started,
            sign_in: match session {
                Some(_) => SignIn::Connecting { last_error: None },
                None => SignIn::NotConfigured,
            },
            jid: None,
            role: RoleState::default(),
            linked: Vec::new(),
            session,
            ssh_host_key,
            membership: None,
            pin_file: None,
            renewals: None,
            names: name_service(&config),
            audit: Self::records(&config.node.name, config.audit.as_ref())?,
            config,
        })
    }

    /// Tells the protocol the peers by configuration.
    fn add_peers(&mut self) {
        let own = self.config.addrs();
        for peer in &self.config.peers {
            let addrs = OverlayAddrs {
                ipv4: Overlay4 {
                    addr: peer.ipv4,
                    ..own.ipv4
                },
                ipv6: Overlay6 {
                    addr: peer.ipv6,
                    ..own.ipv6
                },
            };
            let peer = StaticPeer {
                name: peer.name.clone(),
                addrs,
                fingerprint: peer.fingerprint,
                endpoints: peer.endpoints.clone(),
                groups: peer.groups.clone(),
            };
            self.overlay.add_static(Instant::now(), peer);
        }
    }

    /// The loop. What is rare comes first, so that a flood of packets cannot delay it; what comes
    /// often is taken in batches.
    async fn drive(
        &mut self,
        terminate: &mut Signal,
        interrupt: &mut Signal,
        renewal: &mut Renewal,
        control: &mut control::Server,
        watch: &mut AddressWatch,
        events: &mut Option<mpsc::Receiver<Event>>,
    ) -> Result<(), NodeError> {
        let mut timer = Timer::new();
        loop {
            let switch = self.switching.as_ref().map(Switching::poll_timeout);
            let renewal_at = self.renewals.as_ref().map(Renewals::next);
            let audit_at = self.audit.as_ref().and_then(Audit::next);
            let due = [self.overlay.poll_timeout(), switch, renewal_at, audit_at];
            timer.set(due.into_iter().flatten().min());
            tokio::select! {
                biased;
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                () = renewal.asked() => self.reload(),
                () = timer.passed() => {
                    let now = Instant::now();
                    self.overlay.set_time(SystemTime::now());
                    self.overlay.handle_timeout(now);
                    self.switch_timeout(now);
                    self.ask_for_renewal(now, renewal);
                    if let Some(audit) = &mut self.audit {
                        audit.look(now);
                    }
                    self.put_out();
                }
                question = control.next() => {
                    let question = question.ok_or(NodeError::Ended("control socket"))?;
                    self.answer(question);
                }
                () = watch.changed() => {
                    self.rebind();
                    self.look_for_bridge();
                }
                event = next(events) => {
                    let mut event = Some(event.ok_or(NodeError::Ended("XMPP session"))?);
                    for _ in 0..EVENT_BATCH {
                        let Some(now) = event.take() else { break };
                        self.handle_event(now);
                        event = events.as_mut().and_then(|events| events.try_recv().ok());
                    }
                }
                taken = self.datapath.next() => self.take_in(taken)?,
            }
            self.take_handed();
        }
    }

    /// Feeds the protocol with what the threads of the data path leave to it.
    fn take_in(&mut self, first: Taken) -> Result<(), NodeError> {
        self.overlay.set_time(SystemTime::now());
        let mut next = Some(first);
        for _ in 0..TAKEN_BATCH {
            // For each: a check that is sent here may be answered within the batch, and its round trip
            // takes time.
            let now = Instant::now();
            match next {
                Some(Taken::Packet(packet)) => self.overlay.handle_packet(now, &packet),
                Some(Taken::Datagram {
                    local,
                    remote,
                    payload,
                }) => self.overlay.handle_datagram(now, local, remote, payload),
                // They are looked at after every event.
                Some(Taken::Handed) => {}
                Some(Taken::NewKeys(peer)) => self.overlay.handle_new_keys(now, peer),
                Some(Taken::Lost(source)) => {
                    return Err(NodeError::TunLost {
                        interface: self.config.overlay.interface.clone(),
                        source,
                    });
                }
                None => break,
            }
            self.put_out();
            next = self.datapath.try_next();
        }
        Ok(())
    }

    /// Does everything the protocol wants done.
    fn put_out(&mut self) {
        let mut lists = Vec::new();
        while let Some(output) = self.overlay.poll_output() {
            self.record(&output);
            match output {
                Output::Transmit(transmit) => self.datapath.send(&transmit),
                Output::Packet(packet) => self.datapath.deliver(&packet),
                Output::Switch { peer, matter } => self.take_opened(peer, matter),
                Output::Path { peer, path } => self.set_path(peer, path),
                Output::Signal { to, signal } => {
                    if let Some(session) = &self.session {
                        session.signal(to, signal);
                    }
                }
                Output::Revoked { list, from } => lists.push((list, from)),
                Output::Refused {
                    account,
                    fingerprint,
                    why,
                    is_new: true,
                    ..
                } => {
                    let fingerprint = fingerprint.map(tracing::field::display);
                    tracing::warn!(account, fingerprint, why, "peer refused");
                }
                // Told before.
                Output::Refused { .. } => {}
                Output::Waits {
                    account,
                    peer,
                    fingerprint,
                } => {
                    let fingerprint = fingerprint.map(tracing::field::display);
                    tracing::info!(account, peer, fingerprint, "peer waits to be approved");
                }
                Output::Denied {
                    peer, count, last, ..
                } => {
                    tracing::warn!(peer, count, %last, "peer sends what no rule allows");
                }
                Output::LinkUp {
                    peer, fingerprint, ..
                } => {
                    let fingerprint = fingerprint.map(tracing::field::display);
                    tracing::info!(peer, fingerprint, "link up");
                    self.links_changed();
                }
                Output::LinkDown {
                    peer,
                    fingerprint,
                    why,
                    ..
                } => {
                    let fingerprint = fingerprint.map(tracing::field::display);
                    tracing::info!(peer, fingerprint, why, "link down");
                    self.links_changed();
                }
            }
        }
        self.datapath.publish();
        self.put_out_frames();
        // Links have ended and peers are told before a disk is waited for.
        for (list, from) in lists {
            self.revoked(&list, from.as_deref());
        }
    }

    fn links_changed(&mut self) {
        if let Some(names) = &self.names {
            names.learn(self.overlay.named());
        }
        let linked = self.overlay.linked();
        if linked != self.linked {
            self.linked = linked;
            self.advertise();
        }
    }

    fn handle_event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Online { jid } => {
                tracing::info!(jid, "signed in");
                self.sign_in = SignIn::Online;
                self.jid = Some(jid.clone());
                self.overlay.online(now, jid);
                self.look_for_renewal(now);
            }
            Event::Offline { error } => {
                // The session repeats this for every attempt that fails.
                if matches!(
                    self.sign_in,
                    SignIn::Connecting {
                        last_error: Some(_)
                    }
                ) {
                    tracing::debug!(error, "still not signed in");
                } else {
                    tracing::warn!(error, "not signed in, trying again");
                }
                self.signed_out(
                    now,
                    SignIn::Connecting {
                        last_error: Some(error),
                    },
                );
            }
            Event::Refused { condition } => {
                tracing::error!(
                    condition,
                    jid = self.config.xmpp.as_ref().map(|xmpp| &xmpp.jid),
                    "the XMPP server refuses the account"
                );
                self.signed_out(now, SignIn::Refused { condition });
            }
            Event::Presence {
                from,
                advertisement,
            } => {
                self.overlay.peer_present(now, from, advertisement);
            }
            Event::Unavailable { from } => self.overlay.peer_gone(now, &from),
            Event::Expelled { jid } => {
                tracing::info!(jid, "no longer a member");
                self.overlay.peer_expelled(now, &jid);
            }
            Event::Signal { from, signal } => self.overlay.handle_signal(now, &from, signal),
            Event::SignalFailed { to, sid, condition } => {
                self.overlay.signal_failed(now, &to, &sid, &condition);
            }
            Event::StatusQuery { from, id } => {
                let status = self.status(now);
                if let Some(session) = &self.session {
                    session.answer_status(from, id, status);
                }
            }
            Event::Certified => self.renew_certificate(),
            Event::CertificateRequest { from, id, .. } => {
                // No node signs for anybody.
                if let Some(session) = &self.session {
                    session.answer_certificate(from, id, None);
                }
            }
            Event::Revocations { from, id, list } => {
                let answer = self.told_list(now, &from, &list);
                // In force means that links have ended.
                self.put_out();
                if let Some(session) = &self.session {
                    session.answer_revocations(from, id, answer);
                }
            }
            Event::Services(services) => {
                let servers = ice_servers(&services, SystemTime::now());
                tracing::debug!(count = servers.len(), "STUN and TURN servers");
                self.overlay.set_ice_servers(now, servers);
            }
        }
        self.put_out();
        self.notifier
            .status(report::line(&self.sign_in, &self.linked));
    }

    fn signed_out(&mut self, now: Instant, sign_in: SignIn) {
        self.sign_in = sign_in;
        if self.jid.take().is_some() {
            self.overlay.offline(now);
        }
    }

    fn answer(&mut self, question: Question) {
        let answer = match question.request {
            Request::Status => Answer::Status(Box::new(self.status(Instant::now()))),
            Request::Role { role } => {
                if self.role != role {
                    tracing::info!(?role, "role reported");
                    self.role = role;
                    self.advertise();
                }
                Answer::Done
            }
            Request::Approve {
                peer,
                code,
                fingerprint,
            } => self.approve(&peer, code.as_deref(), fingerprint),
            Request::Forget { peer } => self.forget(&peer),
            Request::Rules { rules } => self.take_rules(rules),
        };
        // Whoever asked may have hung up.
        let _ = question.reply.send(answer);
    }

    /// Makes the sockets those of the machine's addresses now.
    fn rebind(&mut self) {
        match underlay::addresses(&self.rules) {
            Ok(addresses) => {
                if self.datapath.rebind(&addresses) {
                    let sockets = self.datapath.sockets();
                    tracing::debug!(?sockets, "local addresses changed");
                    self.overlay.set_sockets(Instant::now(), sockets);
                    self.put_out();
                    if let Some(session) = &self.session {
                        session.retry_now();
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "local addresses cannot be listed"),
        }
    }

    /// Tells the members, and the service manager, how this node is.
    fn advertise(&mut self) {
        if let Some(session) = &self.session {
            session.advertise(self.advertisement());
        }
        self.notifier
            .status(report::line(&self.sign_in, &self.linked));
    }

    /// Says good-bye to peers and server. The TUN device goes with the datapath.
    async fn leave(mut self) {
        leave_bridge(&self.config);
        self.notifier.stopping();
        tracing::info!("leaving");
        if let Some(names) = self.names.take() {
            names.stop().await;
        }
        self.overlay.leave(Instant::now());
        self.put_out();
        if let Some(session) = &self.session
            && tokio::time::timeout(GOODBYE, session.leave())
                .await
                .is_err()
        {
            tracing::debug!("the XMPP server does not answer the good-bye");
        }
        self.put_out();
        self.end_records().await;
    }
}

fn name_service(config: &NodeConfig) -> Option<NameService> {
    let names = || Names::new(&config.overlay.name, &config.node.name, config.addrs());
    let section = config.names.as_ref()?;
    Some(NameService::start(
        section,
        names(),
        &config.overlay.interface,
    ))
}

/// The next event of a session, if there is one.
async fn next(events: &mut Option<mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

/// Pairs of threads that carry packets: one for every two processors, up to four.
fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, 4)
}

/// One timer, set anew only when the deadline moves.
struct Timer {
    at: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    fn new() -> Self {
        Self {
            at: None,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    fn set(&mut self, at: Option<Instant>) {
        if self.at != at {
            self.at = at;
            if let Some(at) = at {
                self.sleep.as_mut().reset(at.into());
            }
        }
    }

    async fn passed(&mut self) {
        match self.at {
            Some(_) => {
                self.sleep.as_mut().await;
                // Done with: polled again only after it is set anew.
                self.at = None;
            }
            None => std::future::pending().await,
        }
    }
}
