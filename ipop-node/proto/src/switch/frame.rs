//! Frames that a switch makes itself.

use ipop_datapath::ethernet::Header;
use ipop_datapath::stations::Mac;

/// Where a frame's VLAN tags begin.
const TAGS_AT: usize = 12;

/// The header of a frame from `source` to `destination` with the tags and the EtherType of `frame`,
/// whose header is `header`.
pub(super) fn reply_header(
    header: &Header,
    frame: &[u8],
    destination: Mac,
    source: Mac,
) -> Vec<u8> {
    let mut reply = Vec::with_capacity(128);
    reply.extend(destination);
    reply.extend(source);
    reply.extend(&frame[TAGS_AT..header.payload_at]);
    reply
}
