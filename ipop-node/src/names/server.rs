//! DNS over UDP and TCP (RFC 1035 section 4.2, RFC 7766).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipop_proto::names::Names;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Longest question that is read, in bytes: one name, and options that are left out.
const LONGEST: usize = 4096;
/// Connections at once.
const CONNECTIONS: usize = 16;
/// A connection that says nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// After an error of a socket.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Listens on `addr`.
    pub(super) async fn bind(
        addr: SocketAddr,
        names: watch::Receiver<Arc<Names>>,
    ) -> io::Result<Self> {
        let udp = UdpSocket::bind(addr).await?;
        let addr = udp.local_addr()?;
        let tcp = TcpListener::bind(addr).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(udp, names.clone()));
        tasks.spawn(connections(tcp, names));
        Ok(Self {
            addr,
            _tasks: tasks,
        })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn datagrams(socket: UdpSocket, names: watch::Receiver<Arc<Names>>) {
    let mut buffer = [0; LONGEST];
    loop {
        let answered = async {
            let (len, from) = socket.recv_from(&mut buffer).await?;
            let answer = names.borrow().answer(&buffer[..len]);
            if let Some(answer) = answer {
                socket.send_to(&answer, from).await?;
            }
            io::Result::Ok(())
        };
        // Whoever asked is gone, for one: the next question is not.
        if let Err(error) = answered.await {
            tracing::debug!(%error, "no answer for a name");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn connections(listener: TcpListener, names: watch::Receiver<Arc<Names>>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let names = names.clone();
                open.spawn(async move {
                    let _ends_with_the_connection = place;
                    if let Err(error) = converse(stream, &names).await {
                        tracing::debug!(%error, "a connection for names has ended");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no connection for names");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers until the other end has no more questions.
async fn converse(mut stream: TcpStream, names: &watch::Receiver<Arc<Names>>) -> io::Result<()> {
    let idle = |_| io::Error::from(io::ErrorKind::TimedOut);
    loop {
        let question = async {
            let len = usize::from(stream.read_u16().await?);
            if len > LONGEST {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            let mut question = vec![0; len];
            stream.read_exact(&mut question).await?;
            Ok(question)
        };
        let question = match tokio::time::timeout(IDLE, question).await.map_err(idle)? {
            Ok(question) => question,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(answer) = names.borrow().answer(&question) else {
            return Ok(());
        };
        let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let message = [&len.to_be_bytes()[..], &answer].concat();
        let sent = stream.write_all(&message);
        tokio::time::timeout(IDLE, sent).await.map_err(idle)??;
    }
}
