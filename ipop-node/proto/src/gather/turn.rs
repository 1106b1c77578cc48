//! The two forms in which TURN carries datagrams: indications and channel messages
//! (RFC 8656 sections 11 and 12.4).

use std::net::SocketAddr;

use bytes::{Buf, BufMut, BytesMut};
use rand::Rng;
use rand::rngs::StdRng;
use rtc_stun::attributes::{ATTR_DATA, ATTR_XOR_PEER_ADDRESS};
use rtc_stun::message::{
    CLASS_INDICATION, METHOD_SEND, Message, MessageType, Setter, TransactionId,
};
use rtc_turn::proto::data::Data;
use rtc_turn::proto::peeraddr::PeerAddress;

use super::stun;
use crate::status::DropReason;

/// Channel number and length.
const CHANNEL_HEADER: usize = 4;

/// Wraps for a bound channel. No padding: over UDP none is needed.
pub(super) fn channel_data(number: u16, payload: &[u8]) -> Result<BytesMut, DropReason> {
    let length = u16::try_from(payload.len()).map_err(|_| DropReason::TooBig)?;
    let mut raw = BytesMut::with_capacity(CHANNEL_HEADER + payload.len());
    raw.put_u16(number);
    raw.put_u16(length);
    raw.put_slice(payload);
    Ok(raw)
}

/// Unwraps a channel message.
pub(super) fn parse_channel_data(mut raw: BytesMut) -> Option<(u16, BytesMut)> {
    if raw.len() < CHANNEL_HEADER {
        return None;
    }
    let number = raw.get_u16();
    let length = usize::from(raw.get_u16());
    if length > raw.len() {
        return None;
    }
    raw.truncate(length);
    Some((number, raw))
}

/// Wraps for a peer without a channel.
pub(super) fn send_indication(
    rng: &mut StdRng,
    peer: SocketAddr,
    payload: &[u8],
) -> Result<BytesMut, DropReason> {
    // The whole message's length has 16 bits; attributes and headers take less than 64 bytes.
    if payload.len() > usize::from(u16::MAX) - 64 {
        return Err(DropReason::TooBig);
    }
    let mut id = TransactionId::default();
    rng.fill_bytes(&mut id.0);
    let setters: [Box<dyn Setter>; 4] = [
        Box::new(id),
        Box::new(MessageType::new(METHOD_SEND, CLASS_INDICATION)),
        Box::new(PeerAddress {
            ip: peer.ip(),
            port: peer.port(),
        }),
        Box::new(Data(payload.to_vec())),
    ];
    let mut message = Message::new();
    message
        .build(&setters)
        .map_err(|_| DropReason::SendFailed)?;
    Ok(BytesMut::from(&message.raw[..]))
}

/// Reads a Data indication.
pub(super) fn parse_data_indication(message: &Message) -> Option<(SocketAddr, BytesMut)> {
    let peer = stun::address(message, ATTR_XOR_PEER_ADDRESS)?;
    let data = message.get(ATTR_DATA).ok()?;
    Some((peer, BytesMut::from(&data[..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_message_comes_back_and_padding_is_ignored() {
        let mut raw = channel_data(0x4001, b"abc").expect("fits");
        assert_eq!(&raw[..], b"\x40\x01\x00\x03abc");
        raw.put_u8(0);
        assert_eq!(
            parse_channel_data(raw),
            Some((0x4001, BytesMut::from(&b"abc"[..])))
        );
    }

    #[test]
    fn a_channel_message_cut_short_is_refused() {
        assert_eq!(
            parse_channel_data(BytesMut::from(&b"\x40\x01\x00\x04abc"[..])),
            None
        );
        assert_eq!(parse_channel_data(BytesMut::from(&b"\x40\x01"[..])), None);
    }
}
