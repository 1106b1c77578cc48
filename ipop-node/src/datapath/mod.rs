//! The packets between the device and the underlay.
//!
//! Packets of peers whose link is up never meet the node's task: for each queue of the device one
//! thread takes packets from it, seals them and sends them, and one receives datagrams, opens them
//! and writes them to the device. While there is little to do one does both ([`duty`]). What these
//! threads need to know is a [`Map`] that the task publishes; it is never changed. What they cannot do something about, signalling above all, they
//! leave in the task's [`Inbox`](inbox); frames that the switch has to look at, [apart](handed) from
//! that. What the switch wants sent the task [orders](orders) from them.

mod addresses;
mod batch;
#[cfg(test)]
mod double;
mod duty;
mod handed;
mod inbound;
mod inbox;
mod map;
mod message;
mod orders;
mod outbound;
mod queue;
mod sealer;
mod socket;
mod uplink;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use ipop_datapath::coalesce::Offload;
use ipop_datapath::envelope::Kind;
use ipop_datapath::published::{Published, Reader};
use ipop_datapath::stations::{LOCAL, PeerIndex, Stations};
use ipop_datapath::vnet::VnetHdr;
use ipop_proto::config::{NodeConfig, OffloadSection, OverlayMode};
use ipop_proto::net::Transmit;
use ipop_proto::overlay::{PeerKey, PeerPath, Traffic};
use ipop_proto::status::{DatapathStatus, DropReason};
use ipop_proto::switch::Tables;
use rustix::event::{EventfdFlags, epoll, eventfd};
use tokio::sync::mpsc;

use self::duty::Duty;
use self::handed::HandedOver;
pub use self::handed::{Handed, What};
use self::inbound::{Inbound, STOP};
use self::inbox::Inbox;
pub use self::inbox::Taken;
use self::map::Map;
use self::orders::{Order, Orders, orders};
use self::outbound::Outbound;
pub use self::queue::Queue;
use self::socket::{Socket, drop_reason};
use crate::tun::Device;

/// The threads, and what the node's task has of them.
pub struct Datapath {
    /// Port to bind, 0 for any.
    port: u16,
    mode: OverlayMode,
    offload: Offload,
    /// What the configuration wants of sockets.
    asked: OffloadSection,
    taken: mpsc::Receiver<Taken>,
    handed_over: Arc<HandedOver>,
    /// One for each thread that sends.
    orders: Vec<Orders>,
    map: Arc<Published<Map>>,
    /// What was published last.
    current: Reader<Map>,
    paths: HashMap<PeerKey, (PeerIndex, PeerPath)>,
    tables: Tables,
    started: Instant,
    /// Paths or sockets are not those of the published map.
    is_stale: bool,
    sockets: Vec<Bound>,
    next_number: u64,
    /// One for each thread that receives.
    epolls: Vec<Arc<OwnedFd>>,
    queue: Queue,
    drops: Arc<Traffic>,
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

/// What all threads have.
struct Common {
    map: Arc<Published<Map>>,
    inbox: Inbox,
    handed_over: Arc<HandedOver>,
    /// Drops that belong to no peer.
    drops: Arc<Traffic>,
    mode: OverlayMode,
    /// What the switch says.
    tables: Tables,
    /// What seconds are counted from: the ages of stations, and those of gates.
    started: Instant,
}

/// A socket, and the thread that reads it.
struct Bound {
    number: u64,
    socket: Arc<Socket>,
    thread: usize,
}

impl Datapath {
    /// Starts the threads; there are no sockets yet. Seconds are counted from `started`, as the overlay's
    /// are.
    pub fn start(device: Device, config: &NodeConfig, started: Instant) -> io::Result<Self> {
        let (inbox, taken) = Inbox::new();
        let map = Arc::new(Published::new(Map::default()));
        let drops = Arc::new(Traffic::default());
        let common = Common {
            map: map.clone(),
            inbox: inbox.clone(),
            handed_over: Arc::new(HandedOver::new(drops.clone())),
            drops: drops.clone(),
            mode: config.overlay.mode,
            tables: Tables {
                stations: Arc::new(Stations::with_age(config.switch.ageing_s)),
                ..Tables::default()
            },
            started,
        };
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let Some(queue) = device.queues.first().cloned() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut datapath = Self {
            port: config.ice.port,
            mode: config.overlay.mode,
            offload: device.offload,
            asked: config.offload,
            taken,
            handed_over: common.handed_over.clone(),
            orders: Vec::new(),
            current: Reader::new(map.clone()),
            map,
            paths: HashMap::new(),
            tables: common.tables.clone(),
            started: common.started,
            is_stale: false,
            sockets: Vec::new(),
            next_number: 0,
            epolls: Vec::new(),
            queue,
            drops,
            stop: stop.clone(),
            threads: Vec::new(),
        };
        for (number, queue) in device.queues.into_iter().enumerate() {
            let mtu = config.overlay.mtu;
            let (orders, ordered) = orders()?;
            datapath.orders.push(orders);
            let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
            let event = epoll::EventData::new_u64(STOP);
            epoll::add(&epoll, &stop, event, epoll::EventFlags::IN)?;
            datapath.epolls.push(epoll.clone());
            let outbound = Outbound::new(number, queue.clone(), &common, ordered, mtu);
            let duty = Arc::new(Duty::new(outbound, epoll.clone())?);
            let (end, own) = (stop.clone(), duty.clone());
            datapath.spawn("out", number, inbox.clone(), move || own.run(&end))?;

            let inbound = Inbound::new(queue, &common, config.addrs(), device.offload);
            datapath.spawn("in", number, inbox.clone(), move || {
                inbound.run(&epoll, &duty)
            })?;
        }
        Ok(datapath)
    }

    fn spawn(
        &mut self,
        name: &str,
        number: usize,
        inbox: Inbox,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let thread = std::thread::Builder::new()
            .name(format!("ipop-{name}-{number}"))
            // They keep their buffers elsewhere.
            .stack_size(256 * 1024)
            .spawn(move || {
                if let Err(error) = run() {
                    inbox.insist(Taken::Lost(error));
                }
            })?;
        self.threads.push(thread);
        Ok(())
    }

    /// The next thing the threads leave to the task. May be cancelled.
    pub async fn next(&mut self) -> Taken {
        tokio::select! {
            // Links before frames.
            biased;
            taken = self.taken.recv() => {
                taken.unwrap_or_else(|| Taken::Lost(io::ErrorKind::BrokenPipe.into()))
            }
            () = self.handed_over.arrived() => Taken::Handed,
        }
    }

    /// As [`Self::next`], if there is something already.
    pub fn try_next(&mut self) -> Option<Taken> {
        self.taken.try_recv().ok()
    }

    /// The next thing for the switch, if there is one.
    pub fn try_next_handed(&self) -> Option<Handed> {
        self.handed_over.take()
    }

    /// Where the threads look up what the switch knows, and what its seconds are counted from.
    pub fn tables(&self) -> (Tables, Instant) {
        (self.tables.clone(), self.started)
    }

    /// Makes the sockets those of `addresses`: keeps what is bound already, closes what is no
    /// longer there. An address that cannot be bound (yet) is left out. Returns whether anything
    /// changed.
    pub fn rebind(&mut self, addresses: &[IpAddr]) -> bool {
        let epolls = &self.epolls;
        let before = self.sockets.len();
        self.sockets.retain(|bound| {
            let stays = addresses.contains(&bound.socket.local().ip());
            if !stays {
                // The same happens when the last descriptor of it is closed.
                let _ = epoll::delete(&epolls[bound.thread], bound.socket.as_fd());
                if let Err(error) = bound.socket.close() {
                    tracing::warn!(local = %bound.socket.local(), %error, "socket not closed");
                }
            }
            stays
        });
        let mut changed = self.sockets.len() != before;
        for addr in addresses {
            if self.is_bound(*addr) {
                continue;
            }
            match self.bind(*addr) {
                Ok(local) => {
                    tracing::debug!(%local, "socket bound");
                    changed = true;
                }
                // An IPv6 address is not usable while duplicates of it are looked for.
                Err(error) => tracing::debug!(%addr, %error, "socket not bound"),
            }
        }
        self.is_stale |= changed;
        self.publish();
        changed
    }

    fn is_bound(&self, addr: IpAddr) -> bool {
        self.sockets.iter().any(|b| b.socket.local().ip() == addr)
    }

    /// Binds an address once for each thread that receives.
    fn bind(&mut self, addr: IpAddr) -> io::Result<SocketAddr> {
        let threads = self.epolls.len();
        let bind = |addr, shared| Socket::bind(addr, shared, self.asked);
        let first = bind(SocketAddr::new(addr, self.port), threads > 1)?;
        let local = first.local();
        let mut sockets = vec![first];
        while sockets.len() < threads {
            sockets.push(bind(local, true)?);
        }
        let start = self.sockets.len();
        for (thread, socket) in sockets.into_iter().enumerate() {
            self.sockets.push(Bound {
                number: self.next_number,
                socket: Arc::new(socket),
                thread,
            });
            self.next_number += 1;
        }
        // Before the first event can come, threads must know whose it is.
        self.is_stale = true;
        self.publish();
        for bound in &self.sockets[start..] {
            epoll::add(
                &self.epolls[bound.thread],
                bound.socket.as_fd(),
                epoll::EventData::new_u64(bound.number),
                epoll::EventFlags::IN,
            )?;
        }
        Ok(local)
    }

    /// The sockets, each by the address it is bound to.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        let first = self.sockets.iter().filter(|bound| bound.thread == 0);
        first.map(|bound| bound.socket.local()).collect()
    }

    /// The way to a peer is another one now; takes effect with [`Self::publish`]. Gives the number
    /// that the peer had before and the one that it has now. Whoever keeps anything by the former
    /// forgets it at once: it may be another peer's soon.
    pub fn set_path(
        &mut self,
        peer: PeerKey,
        path: Option<PeerPath>,
    ) -> (Option<PeerIndex>, Option<PeerIndex>) {
        let before = self.index_of(peer);
        match (path, before.or_else(|| self.free_index())) {
            (Some(path), Some(index)) => {
                self.paths.insert(peer, (index, path));
            }
            (Some(_), None) => tracing::warn!("more peers than there are numbers"),
            (None, _) => {
                self.paths.remove(&peer);
            }
        }
        self.is_stale = true;
        (before, self.index_of(peer))
    }

    /// The number of a peer that has a way.
    pub fn index_of(&self, peer: PeerKey) -> Option<PeerIndex> {
        self.paths.get(&peer).map(|(index, _)| *index)
    }

    fn free_index(&self) -> Option<PeerIndex> {
        let taken: HashSet<_> = self.paths.values().map(|(index, _)| *index).collect();
        (0..LOCAL).find(|index| !taken.contains(index))
    }

    /// Has content sent to a peer, after [`Self::publish`]: what is `kind` says what it is. It leaves
    /// with [`Self::wake`].
    pub fn order(&mut self, to: PeerIndex, kind: Kind, content: Bytes) {
        let way = self.current.get().ways.get(usize::from(to));
        let Some(way) = way.and_then(Option::clone) else {
            return self.drops.dropped(DropReason::NoLink);
        };
        let traffic = way.path.traffic.clone();
        let at = usize::from(to) % self.orders.len();
        if !self.orders[at].give(Order { way, kind, content }) {
            traffic.dropped(DropReason::QueueFull);
        }
    }

    /// Has what was ordered done.
    pub fn wake(&mut self) {
        self.orders.iter_mut().for_each(Orders::wake);
    }

    /// Counts a drop of what came from a peer, or from the device.
    pub fn dropped(&self, from: Option<PeerIndex>, reason: DropReason) {
        let way = from.and_then(|from| self.current.get().ways.get(usize::from(from))?.as_ref());
        let traffic = way.map_or(&self.drops, |way| &way.path.traffic);
        traffic.dropped(reason);
    }

    /// Lets the threads know what has changed.
    pub fn publish(&mut self) {
        if std::mem::take(&mut self.is_stale) {
            let sockets = self.sockets.iter();
            let sockets = sockets.map(|bound| (bound.number, bound.socket.clone()));
            self.map.publish(Map::new(&self.paths, sockets));
            self.current.refresh();
        }
    }

    /// Sends one datagram.
    pub fn send(&self, transmit: &Transmit) {
        let mut sockets = self.sockets.iter().map(|bound| &bound.socket);
        let Some(socket) = sockets.find(|socket| socket.local() == transmit.local) else {
            tracing::debug!(local = %transmit.local, "no socket to send from");
            return self.drops.dropped(DropReason::SendFailed);
        };
        if let Err(error) = socket.send(&transmit.payload, transmit.remote) {
            tracing::trace!(remote = %transmit.remote, %error, "datagram not sent");
            self.drops.dropped(drop_reason(&error));
        }
    }

    /// Writes one packet to the device.
    pub fn deliver(&self, packet: &[u8]) {
        let header = VnetHdr::default().to_bytes();
        let parts = [IoSlice::new(&header), IoSlice::new(packet)];
        if let Err(error) = self.queue.write(&parts) {
            tracing::trace!(%error, "packet not delivered");
            self.drops.dropped(DropReason::SendFailed);
        }
    }

    /// What the machine does for it.
    pub fn status(&self) -> DatapathStatus {
        let sockets = self.sockets.iter().map(|bound| bound.socket.offloads());
        let (segmentation, coalescing): (Vec<_>, Vec<_>) = sockets.unzip();
        DatapathStatus {
            mode: self.mode,
            threads: self.epolls.len(),
            device_tcp: self.offload.tcp,
            device_udp: self.offload.udp,
            device_checksums: self.offload.sums,
            socket_segmentation: !segmentation.is_empty() && segmentation.into_iter().all(|s| s),
            socket_coalescing: !coalescing.is_empty() && coalescing.into_iter().all(|c| c),
        }
    }

    /// What was dropped here and belongs to no peer.
    pub fn drops(&self) -> BTreeMap<DropReason, u64> {
        self.drops.drops()
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        // Both kinds of thread wait for this among other things.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        // One that reports a lost device waits for room in the inbox.
        self.taken.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
