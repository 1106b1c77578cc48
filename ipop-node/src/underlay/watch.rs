//! Says when the machine's addresses may have changed.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` (rtnetlink(7)).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Changes come in bursts: this long after the first they are looked at together.
const SETTLE: Duration = Duration::from_millis(200);
/// Looked at this often even without a notice: a socket may have failed to bind.
const POLL: Duration = Duration::from_secs(10);

/// Hears of address and link changes by a netlink socket that a task of its own reads.
#[derive(Debug)]
pub struct AddressWatch {
    changes: mpsc::Receiver<()>,
}

impl AddressWatch {
    /// Starts listening. Needs a tokio runtime with I/O and time.
    pub fn start() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            // Protocol 0: NETLINK_ROUTE.
            None,
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        // SAFETY: the `AsyncFd` owns the descriptor, which nobody else closes or exchanges.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(|e| e.into_parts().1)?;
        let (changed, changes) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = wait(&socket) => {}
                    () = changed.closed() => return,
                }
                // Full means that the last notice is not looked at yet: one is enough.
                let _ = changed.try_send(());
            }
        });
        Ok(Self { changes })
    }

    /// Returns when the addresses should be listed again. May be cancelled.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

async fn wait(socket: &AsyncFd<OwnedFd>) {
    match tokio::time::timeout(POLL, socket.readable()).await {
        Ok(Ok(mut ready)) => {
            tokio::time::sleep(SETTLE).await;
            // Cleared first: what arrives while it is emptied makes it ready again.
            ready.clear_ready();
            drain(socket.get_ref());
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "address changes are not heard of");
            tokio::time::sleep(POLL).await;
        }
        Err(_) => {}
    }
}

/// What changed does not matter: the list is read anew. An overrun (`ENOBUFS`) is a change too.
fn drain(socket: &OwnedFd) {
    let mut buf = [0u8; 8192];
    loop {
        match recv(socket, &mut buf, RecvFlags::empty()) {
            Ok(_) | Err(rustix::io::Errno::NOBUFS) => {}
            Err(_) => return,
        }
    }
}
