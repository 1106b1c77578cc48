//! The channel against OpenSSL's DTLS 1.2, over real sockets and real time.
//!
//! Needs the package `openssl`.

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ipop_datapath::envelope::{Envelope, Kind};
use ipop_datapath::secret::{Side, Suite};
use sha2::{Digest, Sha256};

use crate::link::Identity;
use crate::link::channel::Channel;
use crate::link::trust::Expected;
use crate::signal::Fingerprint;

const PATIENCE: Duration = Duration::from_secs(30);
const PACKET: Envelope = Envelope {
    kind: Kind::Packet,
    partial_sum: false,
};

/// OpenSSL's end, killed when dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(dir: &Path, words: &str) -> Peer {
    let child = Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("`openssl` is installed");
    Peer(child)
}

/// Makes a key and a certificate and gives its fingerprint.
fn certificate(dir: &Path) -> Fingerprint {
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem \
                 -out cert.pem -days 2 -subj /CN=peer -outform PEM";
    let done = openssl(dir, words).0.wait().expect("our child");
    assert!(done.success());
    let mut der = openssl(dir, "x509 -in cert.pem -outform DER");
    let mut bytes = Vec::new();
    let stdout = der.0.stdout.as_mut().expect("piped");
    stdout.read_to_end(&mut bytes).expect("read");
    Fingerprint(Sha256::digest(&bytes).into())
}

/// Exchanges a line each way with OpenSSL on the other side.
fn exchange(side: Side, cipher: &str, suite: Suite) {
    let dir = std::env::temp_dir().join(format!(
        "ipop-openssl-{}-{cipher}-{side:?}",
        std::process::id()
    ));
    std::fs::create_dir_all(&dir).expect("a directory");
    let fingerprint = certificate(&dir);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("ours");
    let common = format!("-dtls1_2 -cipher {cipher} -cert cert.pem -key key.pem -quiet");
    let mut peer = match side {
        // The port is free for as long as it takes, having just been given out.
        Side::Client => {
            let port = UdpSocket::bind("127.0.0.1:0").expect("bound");
            let addr = port.local_addr().expect("bound");
            drop(port);
            socket.connect(addr).expect("ours");
            let words = format!("s_server -accept {} -Verify 1 {common}", addr.port());
            openssl(&dir, &words)
        }
        Side::Server => {
            let port = socket.local_addr().expect("bound").port();
            openssl(
                &dir,
                &format!("s_client -connect 127.0.0.1:{port} {common}"),
            )
        }
    };
    let identity = Arc::new(Identity::generate().expect("identity"));
    let mut channel =
        Channel::new(side, &identity, Expected::new(fingerprint, None)).expect("channel");
    let start = Instant::now();
    channel.start(start).expect("started");

    let (mut contents, mut said, mut heard) = (Vec::new(), false, Vec::new());
    let mut stdout = peer.0.stdout.take().expect("piped");
    // A client shows its keys with a record of nothing before it has anything to say.
    let expected = match side {
        Side::Client => &b"\x00\x00\x01\x00a packet for openssl"[..],
        Side::Server => b"\x01\x00a packet for openssl",
    };
    let reader = std::thread::spawn(move || {
        let mut line = vec![0; expected.len()];
        stdout.read_exact(&mut line).map(|()| line)
    });
    while heard.is_empty() || !reader.is_finished() {
        assert!(start.elapsed() < PATIENCE, "{side:?} {cipher}: {heard:?}");
        if channel.is_established() && !said {
            said = true;
            let keys = channel.poll_keys().expect("keys");
            assert_eq!(keys.sending.suite(), suite);
            channel
                .seal(PACKET, b"a packet for openssl")
                .expect("sealed");
            // What OpenSSL reads it sends as one record: an envelope and a packet.
            let stdin = peer.0.stdin.as_mut().expect("piped");
            stdin
                .write_all(b"\x01\x00a packet for us\n")
                .expect("written");
        }
        while let Some(datagram) = channel.poll_transmit() {
            // Refused while the server is not there yet; the flight is sent again.
            let _ = socket.send(&datagram);
        }
        let mut buffer = [0; 2048];
        match socket.recv_from(&mut buffer) {
            Ok((n, from)) => {
                socket.connect(from).expect("ours");
                let datagram = BytesMut::from(&buffer[..n]);
                channel
                    .open(Instant::now(), datagram, &mut contents)
                    .unwrap_or_else(|rejected| panic!("{side:?} {cipher}: {rejected:?}"));
            }
            Err(_) => channel.handle_timeout(Instant::now()).expect("goes on"),
        }
        heard.extend(contents.drain(..).map(|content| {
            assert_eq!(content.envelope, PACKET);
            content.bytes
        }));
    }
    assert_eq!(heard, [&b"a packet for us\n"[..]]);
    let line = reader.join().expect("no panic").expect("a line");
    assert_eq!(line, expected);
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn openssl_as_the_server_opens_our_records_and_we_open_its() {
    exchange(
        Side::Client,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        Suite::Aes128Gcm,
    );
    exchange(
        Side::Client,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        Suite::ChaCha20Poly1305,
    );
}

#[test]
fn openssl_as_the_client_opens_our_records_and_we_open_its() {
    exchange(
        Side::Server,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        Suite::Aes128Gcm,
    );
    exchange(
        Side::Server,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        Suite::ChaCha20Poly1305,
    );
}
