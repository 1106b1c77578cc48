//! What happens to a node whose machine, network or peer misbehaves. Needs root and `nftables`;
//! see the module of the pair.

mod static_pair;

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipop_proto::status::DropReason;
use ipop_testbed::wait_until;
use socket2::{Domain, Protocol, Socket, Type};

use static_pair::running::DEVICE;
use static_pair::{Node, PATIENCE, PORT, linked};

/// Bytes of the headers in front of a datagram that a raw socket gives.
const HEADERS: usize = 28;

#[test]
fn a_removed_device_ends_the_node_with_its_documented_exit_code() {
    let [mut a, _b] = linked([""; 2]);
    a.netns.run(&["ip", "link", "del", DEVICE]);
    let (status, log) = a.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    let error = log.find("error: the TUN device `ipop0` cannot be read any more");
    let hint = log.find("hint: somebody removed the device; start the node again");
    assert!(error.is_some() && error < hint, "{log}");
}

#[test]
fn a_device_whose_mtu_grows_is_told_the_overlays() {
    let [a, b] = linked([""; 2]);
    let [b4, b6] = b.addrs();
    a.netns.run(&["ip", "link", "set", DEVICE, "mtu", "9000"]);
    let refused = a.ping(&["-M", "do", "-s", "3000", &b4]);
    let text = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        text.contains("mtu = 1400") || text.contains("mtu=1400"),
        "{text}"
    );
    assert_eq!(a.dropped(DropReason::TooBig), 1);
    // The kernel has learned, and cuts what may be cut.
    for addr in [&b4, &b6] {
        wait_until("a large ping", PATIENCE, || {
            a.ping(&["-s", "3000", addr]).status.success().then_some(())
        });
    }
}

#[test]
fn a_device_whose_mtu_shrinks_carries_smaller_packets() {
    let [a, b] = linked([""; 2]);
    a.netns.run(&["ip", "link", "set", DEVICE, "mtu", "1280"]);
    for (from, to) in [(&a, &b), (&b, &a)] {
        for addr in to.addrs() {
            wait_until("a ping in fragments", PATIENCE, || {
                from.ping(&["-s", "3000", &addr])
                    .status
                    .success()
                    .then_some(())
            });
        }
    }
}

#[test]
fn what_the_kernel_refuses_to_send_is_counted_and_goes_on_when_it_no_longer_does() {
    let [a, b] = linked([""; 2]);
    a.netns.nft(&format!(
        "table inet fault {{
            chain out {{
                type filter hook output priority 0;
                udp dport {PORT} drop
            }}
        }}"
    ));
    let [b4, _] = b.addrs();
    assert!(!a.netns.reaches(&b4));
    assert!(a.dropped(DropReason::SendFailed) > 0);
    a.netns.run(&["nft", "delete", "table", "inet", "fault"]);
    a.reach(&b);
}

#[test]
fn an_underlay_that_goes_down_and_comes_up_again_carries_again() {
    let [a, b] = linked([""; 2]);
    a.netns.run(&["ip", "link", "set", "eth0", "down"]);
    let [b4, _] = b.addrs();
    assert!(!a.netns.reaches(&b4));
    a.netns.run(&["ip", "link", "set", "eth0", "up"]);
    a.reach(&b);
    b.reach(&a);
    assert!(a.is_linked() && b.is_linked());
}

#[test]
fn a_packet_with_anothers_source_goes_no_further() {
    let [a, b] = linked([""; 2]);
    let others = ["10.73.0.77/32", "fd73:5a::77/128"];
    for address in others {
        a.netns.address(DEVICE, address);
    }
    let [b4, b6] = b.addrs();
    assert_eq!(b.dropped(DropReason::WrongSource), 0);
    for (source, addr) in [("10.73.0.77", &b4), ("fd73:5a::77", &b6)] {
        assert!(!a.ping(&["-I", source, addr]).status.success());
    }
    assert_eq!(b.dropped(DropReason::WrongSource), 2);
    for address in others {
        a.netns
            .run(&["ip", "address", "del", address, "dev", DEVICE]);
    }
    a.reach(&b);
}

#[test]
fn records_that_are_cut_changed_repeated_or_lengthened_are_counted_and_harm_nothing() {
    let [a, b] = linked([""; 2]);
    let mut wire = Wire::new(&a, &b);
    let records: Vec<_> = (0..3).map(|_| wire.record(&a, &b)).collect();
    let before = [DropReason::Replayed, DropReason::BadRecord].map(|reason| b.dropped(reason));

    // In another order than they came in, and twice.
    for record in records.iter().rev().chain(&records) {
        wire.send(record);
    }
    let dropped = |n: u64, reason, before| {
        let what = format!("{n} counted as {reason:?}");
        wait_until(&what, PATIENCE, || {
            (b.dropped(reason) >= before + n).then_some(())
        });
        assert_eq!(b.dropped(reason), before + n);
    };
    dropped(6, DropReason::Replayed, before[0]);

    // A number that was never used, so that the window lets it through.
    let mut forged = records[2].clone();
    forged[7] ^= 0x40;
    wire.send(&forged);
    let mut claims_more = forged.clone();
    claims_more[11..13].copy_from_slice(&u16::MAX.to_be_bytes());
    for datagram in [
        &forged[..20],
        &claims_more,
        &[&forged[..], &[0; 20_000]].concat(),
    ] {
        wire.send(datagram);
    }
    dropped(4, DropReason::BadRecord, before[1]);
    a.reach(&b);
    assert!(b.is_linked());
}

/// The underlay as seen, and used, by somebody who holds no key.
struct Wire {
    /// In the namespace of the receiver: a copy of everything that it gets.
    heard: Socket,
    /// In the namespace of the sender: sends with the sender's address.
    forging: Socket,
}

impl Wire {
    fn new(from: &Node, to: &Node) -> Self {
        let raw = || -> io::Result<Socket> {
            let socket = Socket::new(
                Domain::IPV4,
                Type::from(libc::SOCK_RAW),
                Some(Protocol::UDP),
            )?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(socket)
        };
        Self {
            heard: to.netns.inside(raw).expect("a raw socket"),
            forging: from.netns.inside(raw).expect("a raw socket"),
        }
    }

    /// A record that came from `a` and was opened by `b`: of a ping.
    fn record(&mut self, a: &Node, b: &Node) -> Vec<u8> {
        let [b4, _] = b.addrs();
        assert!(a.netns.reaches(&b4));
        loop {
            let mut buffer = vec![0; 65_536];
            let len = self.heard.read(&mut buffer).expect("a datagram");
            buffer.truncate(len);
            // Application data of a ping, whatever else the nodes tell each other.
            let is_ping = buffer.get(HEADERS) == Some(&23) && len == HEADERS + 37 + 2 + 84;
            if is_ping {
                return buffer.split_off(HEADERS);
            }
        }
    }

    /// Sends a datagram as if the sender's node had.
    fn send(&self, payload: &[u8]) {
        let len = u16::try_from(8 + payload.len()).expect("a datagram");
        let port = PORT.to_be_bytes();
        // Without a checksum, which IPv4 allows.
        let header = [port, port, len.to_be_bytes(), [0, 0]].concat();
        let to = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 2), PORT));
        self.forging
            .send_to(&[&header, payload].concat(), &to.into())
            .expect("sent");
    }
}
