//! The service manager's notification socket (sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the service manager how the node is, when there is one to tell.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    last: String,
}

impl Notifier {
    /// Connects to `$NOTIFY_SOCKET`; without one, or when it does not answer, nobody is told.
    pub fn from_env() -> Self {
        let socket = match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) if !name.is_empty() => connect(name.as_bytes())
                .inspect_err(
                    |error| tracing::warn!(%error, "no notifications to the service manager"),
                )
                .ok(),
            _ => None,
        };
        Self {
            socket,
            last: String::new(),
        }
    }

    /// The node is up: TUN device and control socket are there.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The node is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`; sent when it differs from the last.
    pub fn status(&mut self, line: String) {
        if self.last != line {
            self.send(&format!("STATUS={line}"));
            self.last = line;
        }
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::debug!(%error, "service manager not told");
        }
    }
}

fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let addr = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&addr)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_sent_once_until_it_changes() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        manager.set_nonblocking(true).expect("non-blocking");
        let mut notifier = Notifier {
            socket: Some(connect(path.as_os_str().as_bytes()).expect("connected")),
            last: String::new(),
        };
        notifier.ready();
        notifier.status("signed in".to_owned());
        notifier.status("signed in".to_owned());
        notifier.status("refused".to_owned());
        let mut seen = Vec::new();
        let mut buf = [0; 64];
        while let Ok(n) = manager.recv(&mut buf) {
            seen.push(String::from_utf8_lossy(&buf[..n]).into_owned());
        }
        assert_eq!(seen, ["READY=1", "STATUS=signed in", "STATUS=refused"]);
    }
}
