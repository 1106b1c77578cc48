//! Linux's own segmentation against ours: whatever is written to one TAP device comes out of
//! another one, which takes no super-packets.
//!
//! Needs root, `/dev/net/tun` and `ip`. Everything is in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bridge;
#[expect(dead_code, reason = "shared with the tests that do not need a kernel")]
#[path = "../offload/packets.rs"]
mod packets;
#[expect(dead_code, reason = "shared with the tests that do not need a kernel")]
#[path = "../offload/streams.rs"]
mod streams;

use ipop_datapath::coalesce::Coalescer;
use ipop_datapath::inet::Layer;
use ipop_datapath::segment::{Segments, Sum, Sums};
use ipop_datapath::vnet::{GsoType, VnetHdr};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use bridge::Bridge;
use packets::{ACK, CWR, FIN, PSH, Packet};
use streams::{ALL, coalesce, packet};

/// The Ethernet header, without and with a VLAN tag.
fn link() -> impl Strategy<Value = Vec<u8>> {
    let addresses = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1];
    prop::sample::select(vec![
        addresses.to_vec(),
        [&addresses[..], &[0x81, 0, 0, 5]].concat(),
    ])
}

fn cut(vnet: &VnetHdr, bytes: &[u8], sums: Sums) -> Vec<(Vec<u8>, Sum)> {
    let segments = Segments::of(Layer::Ethernet, vnet, bytes).unwrap();
    let write = |index| {
        let mut out = vec![0; segments.len(index)];
        let sum = segments.write(bytes, index, sums, &mut out);
        (out, sum)
    };
    (0..segments.count()).map(write).collect()
}

/// A super-packet and its gso size, which is 0 for a packet that only lacks its checksum.
fn any_super_packet() -> impl Strategy<Value = (Packet, usize)> {
    let flags = &[ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR, 0xff][..];
    let parts = (
        link().prop_flat_map(packet),
        vec(any::<u8>(), 3..9000),
        100_usize..1460,
        prop::sample::select(flags),
        any::<bool>(),
    );
    parts.prop_map(|(packet, payload, gso_size, flags, is_whole)| {
        // Linux takes no more than 64 segments of UDP, and no gso size that all fits in.
        let gso_size = match payload.len() {
            len if is_whole && len < 1400 => 0,
            len => gso_size.clamp(len / 64 + 1, len - 1),
        };
        (
            Packet {
                payload,
                flags,
                ..packet
            },
            gso_size,
        )
    })
}

fn run(test: impl Fn(&Bridge, Packet, usize) -> Result<(), TestCaseError> + Send) {
    Bridge::with(move |bridge| {
        let mut runner = TestRunner::new(Config {
            cases: 500,
            failure_persistence: None,
            ..Config::default()
        });
        if let Err(failure) = runner.run(&any_super_packet(), |(packet, gso_size)| {
            test(bridge, packet, gso_size)
        }) {
            panic!("{failure}");
        }
    });
}

#[test]
fn linux_cuts_super_packets_into_the_same_packets() {
    run(|bridge, packet, gso_size| {
        let (mut vnet, bytes) = packet.build_super(gso_size);
        if gso_size == 0 {
            vnet = VnetHdr {
                gso: GsoType::None,
                gso_ecn: false,
                hdr_len: 0,
                ..vnet
            };
        }
        let ours: Vec<_> = cut(&vnet, &bytes, Sums::Complete)
            .into_iter()
            .map(|(bytes, _)| bytes)
            .collect();
        prop_assert_eq!(bridge.pass(&vnet, &bytes, ours.len()), ours);
        Ok(())
    });
}

#[test]
fn linux_takes_what_was_put_together_and_cuts_it_again() {
    run(|bridge, packet, gso_size| {
        let packet = Packet {
            ip_options: Vec::new(),
            urgent: 0,
            flags: ACK,
            ..packet
        };
        let gso_size = gso_size.max(packet.payload.len() / 50 + 1);
        let expected: Vec<_> = packet
            .cut(gso_size)
            .iter()
            .map(|packet| packet.build(Sum::Complete))
            .collect();
        for sum in [Sum::Complete, Sum::Partial] {
            let packets: Vec<_> = packet
                .cut(gso_size)
                .iter()
                .map(|packet| (packet.build(sum), sum))
                .collect();
            let written = coalesce(&mut Coalescer::new(Layer::Ethernet, ALL), &packets, 1);
            prop_assert_eq!(written.len(), 1);
            let through = bridge.pass(&written[0].vnet, &written[0].bytes, expected.len());
            prop_assert_eq!(&through, &expected);
        }
        Ok(())
    });
}
