//! As much of a TURN client (RFC 8656) as shows what a server lets one do. Digests by `openssl`.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const ALLOCATE: u16 = 0x0003;
const CREATE_PERMISSION: u16 = 0x0008;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const REQUESTED_TRANSPORT: u16 = 0x0019;

/// A client of one server with long-term credentials (RFC 8489 section 9.2).
pub struct Turn {
    socket: UdpSocket,
    credentials: Vec<(u16, Vec<u8>)>,
    key: Vec<u8>,
    requests: u8,
}

impl Turn {
    /// Learns realm and nonce by being refused.
    pub fn new(server: SocketAddr, username: &str, password: &str) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a time-out");
        socket.connect(server).expect("connected");
        let mut turn = Self {
            socket,
            credentials: Vec::new(),
            key: Vec::new(),
            requests: 0,
        };
        let refusal = turn.exchange(ALLOCATE, &[(REQUESTED_TRANSPORT, vec![17, 0, 0, 0])]);
        assert_eq!(error_code(&refusal), Some(401), "a relay for everybody");
        let (realm, nonce) = (find(&refusal, REALM), find(&refusal, NONCE));
        let long_term = format!("{username}:{}:{password}", String::from_utf8_lossy(&realm));
        turn.key = openssl(&["md5", "-binary"], long_term.as_bytes());
        turn.credentials = vec![
            (USERNAME, username.as_bytes().to_vec()),
            (REALM, realm),
            (NONCE, nonce),
        ];
        turn
    }

    /// Asks for a relay; the error code when there is none.
    pub fn allocate(&mut self) -> Option<u16> {
        error_code(&self.exchange(ALLOCATE, &[(REQUESTED_TRANSPORT, vec![17, 0, 0, 0])]))
    }

    /// Asks to talk to a peer; the error code when that is not allowed.
    pub fn permit(&mut self, peer: Ipv4Addr) -> Option<u16> {
        let mut address = vec![0, 1, 0x21, 0x12];
        address.extend(peer.octets().iter().zip(COOKIE).map(|(a, b)| a ^ b));
        error_code(&self.exchange(CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, address)]))
    }

    fn exchange(&mut self, method: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<(u16, Vec<u8>)> {
        self.requests += 1;
        let mut body = Vec::new();
        for (kind, value) in attributes.iter().chain(&self.credentials) {
            append(&mut body, *kind, value);
        }
        let header = |length: usize| {
            let mut header = method.to_be_bytes().to_vec();
            header.extend(u16::try_from(length).expect("short").to_be_bytes());
            header.extend(COOKIE);
            header.extend([self.requests; 12]);
            header
        };
        if !self.key.is_empty() {
            let key: String = self.key.iter().map(|byte| format!("{byte:02x}")).collect();
            let option = format!("hexkey:{key}");
            let covered = [header(body.len() + 24), body.clone()].concat();
            let arguments = [
                "dgst", "-sha1", "-binary", "-mac", "HMAC", "-macopt", &option,
            ];
            append(&mut body, MESSAGE_INTEGRITY, &openssl(&arguments, &covered));
        }
        let request = [header(body.len()), body].concat();
        self.socket.send(&request).expect("sent");
        let mut answer = [0u8; 2048];
        let length = self.socket.recv(&mut answer).expect("an answer");
        parse(&answer[20..length])
    }
}

fn append(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(kind.to_be_bytes());
    body.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn parse(mut body: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut attributes = Vec::new();
    while body.len() >= 4 {
        let kind = u16::from_be_bytes([body[0], body[1]]);
        let length = usize::from(u16::from_be_bytes([body[2], body[3]]));
        attributes.push((kind, body[4..4 + length].to_vec()));
        body = &body[(4 + length.next_multiple_of(4)).min(body.len())..];
    }
    attributes
}

fn find(attributes: &[(u16, Vec<u8>)], kind: u16) -> Vec<u8> {
    let found = attributes.iter().find(|(k, _)| *k == kind);
    found
        .unwrap_or_else(|| panic!("no attribute {kind:#x}"))
        .1
        .clone()
}

fn error_code(attributes: &[(u16, Vec<u8>)]) -> Option<u16> {
    let (_, value) = attributes.iter().find(|(kind, _)| *kind == ERROR_CODE)?;
    Some(u16::from(value[2]) * 100 + u16::from(value[3]))
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input)
        .expect("written");
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success());
    output.stdout
}
