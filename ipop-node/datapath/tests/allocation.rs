//! Nothing is allocated for a packet, once the first batches have gone through.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ipop_datapath::coalesce::{Coalescer, Offload};
use ipop_datapath::inet::Layer;
use ipop_datapath::policy::{Allowed, Direction, Ends, Gate};
use ipop_datapath::segment::{Segments, Sum, Sums};
use packets::Packet;

#[expect(dead_code, reason = "shared with the tests of what comes out")]
#[path = "offload/packets.rs"]
mod packets;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations the second of two runs makes.
fn allocations(mut run: impl FnMut()) -> usize {
    run();
    let before = ALLOCATIONS.get();
    run();
    ALLOCATIONS.get() - before
}

#[test]
fn cutting_allocates_nothing() {
    let packet = Packet {
        payload: vec![1; 40_000],
        ..Packet::default()
    };
    let (vnet, bytes) = packet.build_super(1400);
    let mut out = vec![0; 2000];
    let count = allocations(|| {
        let segments = Segments::of(Layer::Ip, &vnet, &bytes).unwrap();
        for index in 0..segments.count() {
            segments.write(&bytes, index, Sums::Complete, &mut out);
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn putting_together_allocates_nothing_after_the_first_batch() {
    let packet = Packet {
        payload: vec![1; 40_000],
        ..Packet::default()
    };
    let mut buffer = Vec::new();
    let mut ranges = Vec::new();
    for flow in 0..20 {
        for packet in (Packet {
            ports: (flow, 9),
            ..packet.clone()
        })
        .cut(1400)
        {
            let start = buffer.len();
            buffer.extend(packet.build(Sum::Complete));
            ranges.push(start..buffer.len());
        }
    }
    let mut coalescer = Coalescer::new(
        Layer::Ip,
        Offload {
            tcp: true,
            udp: true,
            sums: true,
        },
    );
    let fresh = buffer.clone();
    let count = allocations(|| {
        buffer.copy_from_slice(&fresh);
        coalescer.clear();
        for range in &ranges {
            coalescer.add(&buffer, range.clone(), Sum::Complete);
        }
        coalescer.finish(&mut buffer);
        assert_eq!(coalescer.groups().count(), 20);
    });
    assert_eq!(count, 0);
}

#[test]
fn asking_whether_a_packet_may_pass_allocates_nothing() {
    let ends = |last| Ends {
        v4: [10, 200, 0, last].into(),
        v6: [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into(),
    };
    let mut allowed = Allowed::default();
    allowed.udp.add(53, 53);
    let gate = Gate::new(
        ends(2),
        ends(1),
        allowed,
        Allowed::default(),
        Default::default(),
    );
    let packets: Vec<_> = (0..2000_u16)
        .map(|port| {
            let packet = Packet {
                udp: true,
                ports: (port, 53 + port % 2),
                ..Packet::default()
            };
            packet.build(Sum::Complete)
        })
        .collect();
    let mut passed = 0;
    let count = allocations(|| {
        passed = 0;
        for packet in &packets {
            passed += usize::from(gate.admits(Direction::In, packet, 1));
        }
    });
    assert_eq!((count, passed), (0, 1000));
}
