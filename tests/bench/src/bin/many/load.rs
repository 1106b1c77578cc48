//! What the hub is given to carry: as many flows to one peer as to many.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::crowd::{Crowd, overlay};

/// Flows, whether to one peer or to many.
const FLOWS: usize = 100;
/// Port of the sinks.
const PORT: u16 = 5001;

/// A kind of load.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// TCP connections, each with as much as goes through.
    Streams,
    /// Datagrams of 64 bytes, one for each flow in turn, as many as one thread sends.
    Datagrams,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Streams => "TCP, 100 streams",
            Self::Datagrams => "UDP, 64 bytes",
        })
    }
}

impl Load {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Streams, Self::Datagrams];

    /// Sends for so long, in [`FLOWS`] flows to the first `peers` peers.
    pub fn run(self, crowd: &Crowd, peers: u16, time: Duration) {
        let peers = usize::from(peers);
        match self {
            Self::Streams => streams(crowd, peers, time),
            Self::Datagrams => datagrams(crowd, peers, time),
        }
    }
}

fn streams(crowd: &Crowd, peers: usize, time: Duration) {
    for netns in &crowd.members[..peers] {
        let listener = netns.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
        let listener = listener.expect("a free port");
        let count = FLOWS / peers;
        // They end with their connections.
        std::thread::spawn(move || {
            for stream in listener.incoming().take(count).flatten() {
                std::thread::spawn(move || discard(stream));
            }
        });
    }
    let (failed, failures) = mpsc::channel();
    crowd.hub_netns.inside(|| {
        std::thread::scope(|scope| {
            for flow in 0..FLOWS / peers * peers {
                let failed = failed.clone();
                scope.spawn(move || {
                    if let Err(error) = stream(overlay(1 + flow % peers), time) {
                        let _ = failed.send(error);
                    }
                });
            }
        });
    });
    drop(failed);
    if let Ok(error) = failures.recv() {
        panic!("a stream to a peer: {error}");
    }
}

fn stream(to: Ipv4Addr, time: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((to, PORT))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let block = vec![0; 64 * 1024];
    let end = Instant::now() + time;
    while Instant::now() < end {
        stream.write_all(&block)?;
    }
    Ok(())
}

fn discard(mut stream: TcpStream) {
    let mut block = vec![0; 256 * 1024];
    while stream.read(&mut block).is_ok_and(|read| read > 0) {}
}

fn datagrams(crowd: &Crowd, peers: usize, time: Duration) {
    // Never read: what they have no room for is lost without a word.
    let sinks: Vec<_> = crowd.members[..peers]
        .iter()
        .map(|netns| netns.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))))
        .map(|socket| socket.expect("a free port"))
        .collect();
    crowd.hub_netns.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
        let end = Instant::now() + time;
        while Instant::now() < end {
            for flow in 0..FLOWS {
                // A full queue of the device loses some.
                let _ = socket.send_to(&[0; 64], (overlay(1 + flow % peers), PORT));
            }
        }
    });
    drop(sinks);
}
