//! What the threads of the data path know of peers: made anew by the node's task for every change,
//! only read by them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ipop_datapath::prefix::PrefixTable;
use ipop_datapath::stations::PeerIndex;
use ipop_proto::overlay::{PeerKey, PeerPath};

use super::message::Name;
use super::socket::Socket;

/// A peer, the way there, and the sockets to take.
#[derive(Debug)]
pub struct Way {
    /// Whose.
    pub peer: PeerKey,
    /// The peer's number among those there are now.
    pub index: PeerIndex,
    /// As the overlay told it.
    pub path: PeerPath,
    /// Where to send to.
    pub remote: Name,
    /// One for each pair of threads.
    pub sockets: Vec<Arc<Socket>>,
}

/// Where a datagram came from: the local socket's address, who sent it, and the TURN channel it
/// was in.
pub type Origin = (SocketAddr, SocketAddr, Option<u16>);

/// The peers with a way.
#[derive(Debug, Default)]
pub struct Map {
    /// All of them; where a number is in use, the peer that has it.
    pub ways: Vec<Option<Arc<Way>>>,
    /// By overlay address.
    pub routes: PrefixTable<Arc<Way>>,
    /// By where their datagrams come from; `None` where several come from, which the overlay sorts
    /// out.
    pub origins: HashMap<Origin, Option<Arc<Way>>>,
    /// TURN servers that channels go through.
    pub has_channels: bool,
    /// Some peer's packets have to pass a gate, by the second.
    pub has_gates: bool,
    /// By the number that `epoll` gives.
    pub sockets: HashMap<u64, Arc<Socket>>,
}

impl Map {
    /// Puts together what there is.
    pub fn new(
        paths: &HashMap<PeerKey, (PeerIndex, PeerPath)>,
        sockets: impl Iterator<Item = (u64, Arc<Socket>)> + Clone,
    ) -> Self {
        let mut map = Self {
            sockets: sockets.clone().collect(),
            ..Self::default()
        };
        for (peer, (index, path)) in paths {
            let route = path.route;
            let own: Vec<_> = sockets
                .clone()
                .map(|(_, socket)| socket)
                .filter(|socket| socket.local() == route.local)
                .collect();
            if own.is_empty() {
                continue;
            }
            let way = Arc::new(Way {
                peer: *peer,
                index: *index,
                path: path.clone(),
                remote: route.remote.into(),
                sockets: own,
            });
            let (v4, v6) = (path.addrs.ipv4.addr, path.addrs.ipv6.addr);
            map.routes.insert(v4.into(), 32, way.clone());
            map.routes.insert(v6.into(), 128, way.clone());
            let at = usize::from(*index);
            if map.ways.len() <= at {
                map.ways.resize(at + 1, None);
            }
            map.ways[at] = Some(way.clone());
            map.has_channels |= route.channel.is_some();
            map.has_gates |= path.gate.is_some();
            map.origins
                .entry((route.local, route.remote, route.channel))
                .and_modify(|way| *way = None)
                .or_insert(Some(way));
        }
        map
    }
}
