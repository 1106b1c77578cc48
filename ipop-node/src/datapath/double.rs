//! The other end of links, on a socket of the loopback interface, for tests.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use ipop_datapath::generation::Generation;
use ipop_datapath::record::{ContentType, RecordHeader};
use ipop_datapath::secret::{Secret, Side, Suite};
use ipop_datapath::stations::PeerIndex;
use ipop_proto::address::OverlayAddrs;
use ipop_proto::config::OffloadSection;
use ipop_proto::link::Keys;
use ipop_proto::net::Route;
use ipop_proto::overlay::{PeerKey, PeerPath};
use ipop_proto::status::DropReason;

use super::map::Way;
use super::message::{MESSAGE, Receiver};
use super::socket::Socket;

/// Messages that are received by one call.
const MESSAGES: usize = 8;

/// A socket of this node.
pub fn socket() -> Arc<Socket> {
    let any = "127.0.0.1:0".parse().expect("valid");
    Arc::new(Socket::bind(any, false, OffloadSection::default()).expect("bound"))
}

/// A peer, and the way there.
pub struct Peer {
    pub way: Arc<Way>,
    keys: Generation,
    socket: Arc<Socket>,
}

impl Peer {
    /// A peer of that number, to which `from` sends. Its name, which makes its keys, is one that no
    /// other has in this test.
    pub fn new(name: u8, index: PeerIndex, from: &Arc<Socket>) -> Self {
        let secret = Secret {
            suite: Suite::Aes128Gcm,
            master: [name; 48],
            client_random: [1; 32],
            server_random: [2; 32],
        };
        let keys = |side| Generation::new(&secret, side).expect("keys");
        let socket = socket();
        let own = Arc::new(keys(Side::Client));
        let path = PeerPath {
            addrs: OverlayAddrs {
                ipv4: format!("10.73.0.{name}/24").parse().expect("valid"),
                ipv6: format!("fd5a::{name:x}/64").parse().expect("valid"),
            },
            route: Route {
                local: from.local(),
                remote: socket.local(),
                channel: None,
            },
            keys: Keys {
                sending: own.clone(),
                receiving: vec![own],
            },
            gate: None,
            fragments: Arc::default(),
            traffic: Arc::default(),
        };
        let way = Way {
            peer: PeerKey(name.into()),
            index,
            remote: path.route.remote.into(),
            path,
            sockets: vec![from.clone()],
        };
        Self {
            way: Arc::new(way),
            keys: keys(Side::Server),
            socket,
        }
    }

    /// A record for it with this content.
    pub fn sealed(&self, content: &[u8]) -> Vec<u8> {
        let keys = &self.way.path.keys.sending;
        let mut record = vec![0; keys.overhead() + content.len()];
        record[keys.prefix()..][..content.len()].copy_from_slice(content);
        let mut number = keys.reserve(1).expect("a number");
        keys.seal(ContentType::ApplicationData, &mut number, &mut record)
            .expect("sealed");
        record
    }

    /// What has arrived and is its own, in this order; `None` for what it cannot open.
    pub fn got(&self) -> Vec<Option<Vec<u8>>> {
        let mut receiver = Receiver::new(MESSAGES);
        let mut buffer = vec![0; MESSAGES * MESSAGE];
        let mut got = Vec::new();
        // The loopback interface delivers at once.
        while let Ok(messages) = receiver.receive(self.socket.as_fd(), &mut buffer) {
            for at in 0..messages {
                let message = receiver.message(at).expect("IPv4");
                let part = &mut buffer[at * MESSAGE..][..message.len];
                let datagrams = part.chunks_mut(message.segment);
                got.extend(datagrams.map(|datagram| self.open(datagram)));
            }
        }
        got
    }

    fn open(&self, datagram: &mut [u8]) -> Option<Vec<u8>> {
        let header = RecordHeader::read(datagram)?;
        let content = self.keys.open(&header, datagram).ok()?;
        Some(datagram[content].to_vec())
    }

    /// Packets for it that were dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let drops = self.way.path.traffic.drops();
        drops.get(&reason).copied().unwrap_or_default()
    }
}
