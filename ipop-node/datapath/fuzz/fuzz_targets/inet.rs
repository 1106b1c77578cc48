//! Any bytes: the headers found are inside the packet and in order.
#![no_main]

use ipop_datapath::inet::{Headers, Layer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| {
    for layer in [Layer::Ip, Layer::Ethernet] {
        let Ok(headers) = Headers::parse(layer, packet) else {
            continue;
        };
        assert!(headers.ip_at < headers.transport_at);
        assert!(headers.transport_at <= headers.payload_at);
        assert!(headers.payload_at <= headers.end);
        assert!(headers.end <= packet.len());
        assert!(headers.source(packet).is_some());
        assert!(headers.destination(packet).is_some());
        if let Some(offset) = headers.checksum_offset() {
            assert!(headers.transport_at + usize::from(offset) + 2 <= headers.payload_at);
        }
    }
});
