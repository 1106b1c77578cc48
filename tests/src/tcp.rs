//! Streams put together from captured segments, and whether TLS hides what they carry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::capture::Segment;

/// Sender and receiver of one direction of a connection.
type Direction = ((IpAddr, u16), (IpAddr, u16));

/// The bytes of each direction, in order.
///
/// # Panics
///
/// When a segment is missing.
pub fn streams(segments: &[Segment]) -> BTreeMap<Direction, Vec<u8>> {
    let mut first = BTreeMap::new();
    let mut streams: BTreeMap<Direction, Vec<u8>> = BTreeMap::new();
    for segment in segments.iter().filter(|segment| segment.syn) {
        first.insert((segment.from, segment.to), segment.seq.wrapping_add(1));
    }
    let mut sorted: Vec<(u32, &Segment)> = segments
        .iter()
        .filter(|segment| !segment.payload.is_empty())
        .map(|segment| {
            let start = first
                .get(&(segment.from, segment.to))
                .copied()
                .unwrap_or(segment.seq);
            (segment.seq.wrapping_sub(start), segment)
        })
        .collect();
    sorted.sort_by_key(|(at, _)| *at);
    for (at, segment) in sorted {
        let stream = streams.entry((segment.from, segment.to)).or_default();
        // A segment that the capture missed would hide everything after it from who looks.
        let known = stream.len().checked_sub(at as usize).unwrap_or_else(|| {
            let (from, to) = (segment.from, segment.to);
            panic!("a gap after {} bytes from {from:?} to {to:?}", stream.len())
        });
        // What was sent again is there already.
        if let Some(payload) = segment.payload.get(known..) {
            stream.extend_from_slice(payload);
        }
    }
    streams
}

/// Splits a stream into what precedes STARTTLS and the rest, which must be whole TLS records but
/// for the last. None when it is not of that form.
pub fn clear_part(stream: &[u8]) -> Option<(&[u8], usize)> {
    let text = String::from_utf8_lossy(stream);
    let begun = ["<starttls", "<proceed"]
        .iter()
        .filter_map(|word| text.rfind(word))
        .max()?;
    let end = begun + stream.get(begun..)?.iter().position(|byte| *byte == b'>')? + 1;
    let (clear, mut rest) = stream.split_at(end);
    // `<starttls xmlns='…'></starttls>` is the same element.
    for closing in [&b"</starttls>"[..], b"</proceed>"] {
        rest = rest.strip_prefix(closing).unwrap_or(rest);
    }
    let mut records = 0;
    while let Some(header) = rest.get(..5) {
        if !matches!(header[..3], [20..=23, 3, 1..=4]) {
            return None;
        }
        records += 1;
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        rest = rest.get(5 + length..).unwrap_or_default();
    }
    Some((clear, records))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_after_starttls_is_noticed() {
        let tls = b"<stream><starttls xmlns='urn:x'/>\x16\x03\x01\x00\x01x\x17\x03\x03\x00\x02yy";
        assert_eq!(
            clear_part(tls).map(|(clear, records)| (clear.len(), records)),
            Some((33, 2))
        );
        assert!(clear_part(b"<stream><starttls xmlns='urn:x'/><auth>secret</auth>").is_none());
        assert!(clear_part(b"<stream><auth>secret</auth>").is_none());
    }

    #[test]
    #[should_panic(expected = "a gap after 3 bytes")]
    fn a_missing_segment_is_noticed() {
        let segment = |seq: u32, payload: &[u8]| Segment {
            from: ([192, 0, 2, 1].into(), 1),
            to: ([192, 0, 2, 2].into(), 2),
            seq,
            syn: seq == 0,
            payload: payload.to_vec(),
        };
        streams(&[segment(0, b""), segment(1, b"abc"), segment(5, b"e")]);
    }

    #[test]
    fn segments_are_put_in_order_once() {
        let (a, b) = (([192, 0, 2, 1].into(), 1), ([192, 0, 2, 2].into(), 2));
        let segment = |seq: u32, syn: bool, payload: &[u8]| Segment {
            from: a,
            to: b,
            seq,
            syn,
            payload: payload.to_vec(),
        };
        let segments = [
            segment(u32::MAX, true, b""),
            segment(3, false, b"def"),
            segment(0, false, b"abc"),
            segment(0, false, b"abc"),
        ];
        assert_eq!(streams(&segments)[&(a, b)], b"abcdef");
    }
}
