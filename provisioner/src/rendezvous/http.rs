//! One POST of JSON to an API, over a Unix socket or over TLS with a pinned CA.
//!
//! HTTP/1.0 (RFC 1945), one request a connection: every server and proxy speaks it, and its
//! answers have no chunks.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Longest wait for any one step of a request.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer taken, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// Where an API listens.
#[derive(Debug, Clone)]
pub enum Target {
    /// A Unix socket of this machine; what its answers are worth is decided by file permissions.
    Unix {
        /// The socket.
        socket: PathBuf,
        /// Virtual host to ask for.
        host: String,
    },
    /// HTTPS, verified against one CA.
    Tls {
        /// Host name or address, which the certificate must name.
        host: String,
        /// TCP port.
        port: u16,
        /// TLS settings with the pinned CA.
        tls: Arc<ClientConfig>,
    },
}

/// A target's address or CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Neither `https://host[:port]/path` nor `unix:/path`.
    #[error("`{0}` is neither https://host:port/path nor unix:/path")]
    Url(String),
    /// No certificate in the CA file.
    #[error("the CA file holds no usable PEM certificate")]
    Ca,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

impl Target {
    /// Reads `https://host[:port][/path]` or `unix:/path`; returns the target and the path before
    /// the command, without a trailing slash. Through a socket, the virtual host asked for is
    /// `domain`.
    pub fn parse(url: &str, domain: &str, ca_pem: &str) -> Result<(Self, String), TargetError> {
        if let Some(path) = url.strip_prefix("unix:") {
            let (socket, host) = (PathBuf::from(path), domain.to_owned());
            return Ok((Self::Unix { socket, host }, "/api".to_owned()));
        }
        let bad = || TargetError::Url(url.to_owned());
        let rest = url.strip_prefix("https://").ok_or_else(bad)?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or_else(bad)?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Ok(443), str::parse).map_err(|_| bad())?;
        if host.is_empty() || path.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(bad());
        }
        let tls = Arc::new(pinned(ca_pem)?);
        Ok((
            Self::Tls {
                host: host.to_owned(),
                port,
                tls,
            },
            path.trim_end_matches('/').to_owned(),
        ))
    }

    /// Sends one POST and reads the answer to its end.
    pub fn post(&self, path: &str, authorization: Option<&str>, json: &str) -> io::Result<Answer> {
        match self {
            Self::Unix { socket, host } => {
                let stream = connect_unix(socket)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                exchange(stream, host, path, authorization, json)
            }
            Self::Tls { host, port, tls } => {
                let name =
                    ServerName::try_from(host.clone()).map_err(|e: InvalidDnsNameError| {
                        io::Error::new(io::ErrorKind::InvalidInput, e)
                    })?;
                let stream = connect(host, *port)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                let connection =
                    ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
                exchange(
                    StreamOwned::new(connection, stream),
                    host,
                    path,
                    authorization,
                    json,
                )
            }
        }
    }
}

/// Connects to a Unix socket whose path may be longer than a socket's address (unix(7)): the
/// address then goes by a descriptor of the socket's directory.
pub fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = File::open(dir)?;
    let through = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name);
    UnixStream::connect(through)
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn pinned(ca_pem: &str) -> Result<ClientConfig, TargetError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|_| TargetError::Ca)?)?;
    }
    if roots.is_empty() {
        return Err(TargetError::Ca);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    path: &str,
    authorization: Option<&str>,
    json: &str,
) -> io::Result<Answer> {
    let mut head = format!(
        "POST {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n",
        json.len()
    );
    if let Some(value) = authorization {
        head.push_str(&format!("Authorization: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(json.as_bytes())?;
    stream.flush()?;
    let mut bytes = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut bytes) {
        // Servers that close without a TLS close_notify; Content-Length tells whether all is here.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    parse(&bytes).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is not HTTP or was cut short",
        )
    })
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let split = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let (head, body) = (
        std::str::from_utf8(&bytes[..split]).ok()?,
        &bytes[split + 4..],
    );
    let mut lines = head.split("\r\n");
    let status = lines.next()?;
    let status = status
        .starts_with("HTTP/1.")
        .then(|| status.split(' ').nth(1)?.parse().ok())??;
    let length: Option<usize> = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok());
    let body = match length {
        Some(length) => body.get(..length)?,
        None => body,
    };
    Some(Answer {
        status,
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_shorter_than_it_says_is_refused() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(
            parse(whole),
            Some(Answer {
                status: 200,
                body: b"abc".to_vec()
            })
        );
        assert_eq!(parse(&whole[..whole.len() - 1]), None);
        assert_eq!(parse(b"SSH-2.0-x\r\n\r\n"), None);
    }

    #[test]
    fn only_https_and_unix_addresses_are_taken() {
        for bad in [
            "http://h/api",
            "h:5443",
            "https:///api",
            "https://h:x/api",
            "https://[::1/api",
        ] {
            assert!(
                matches!(Target::parse(bad, "d", ""), Err(TargetError::Url(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            Target::parse("https://h/api", "d", ""),
            Err(TargetError::Ca)
        ));
        let (target, path) = Target::parse("unix:/run/api.sock", "d", "").expect("valid");
        assert!(
            matches!(target, Target::Unix { socket, .. } if socket == Path::new("/run/api.sock"))
        );
        assert_eq!(path, "/api");
    }
}
