//! The plaintext form of DTLS records (RFC 6347 section 4.1).

/// DTLS record header in bytes (RFC 6347 section 4.1).
const RECORD_HEADER: usize = 13;
/// Content type (RFC 5246 section 6.2.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
/// Content type.
pub(super) const HANDSHAKE: u8 = 22;
/// Content type.
const APPLICATION_DATA: u8 = 23;

/// Handshake type (RFC 5246 section 7.4).
const CLIENT_HELLO: u8 = 1;

/// What can be seen of a datagram's records without keys.
#[derive(Default)]
pub(super) struct Form {
    /// Epoch 0 handshake fragments.
    pub(super) fragments: Vec<(u16, u32)>,
    /// There is a handshake record of any epoch.
    pub(super) handshake: bool,
    /// Records that are kept until the peer's next epoch begins.
    pub(super) early: usize,
    /// There is a ClientHello in epoch 0.
    pub(super) client_hello: bool,
    /// There is application data in epoch 0.
    pub(super) plain_data: bool,
}

impl Form {
    /// `None` when the datagram is not a sequence of whole DTLS 1.2 records.
    pub(super) fn of(mut rest: &[u8]) -> Option<Self> {
        let mut form = Self::default();
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let header = rest.get(..RECORD_HEADER)?;
            let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let body = rest.get(RECORD_HEADER..RECORD_HEADER + length)?;
            // 254.255 is what a first ClientHello may carry (RFC 6347 section 4.2.1).
            if !(20..=23).contains(&header[0])
                || header[1] != 254
                || !(header[2] == 253 || header[2] == 255)
                || body.is_empty()
            {
                return None;
            }
            let epoch = u16::from_be_bytes([header[3], header[4]]);
            // Without renegotiation there is one ChangeCipherSpec, in epoch 0. The library takes
            // one of a later epoch without authentication, and moves on to an epoch that is not.
            if epoch > 0 && header[0] == CHANGE_CIPHER_SPEC {
                return None;
            }
            form.handshake |= header[0] == HANDSHAKE;
            if epoch > 0 {
                form.early += 1;
            } else if header[0] == HANDSHAKE {
                let message = body.get(..12)?;
                form.client_hello |= message[0] == CLIENT_HELLO;
                form.fragments.push((
                    u16::from_be_bytes([message[4], message[5]]),
                    u32::from_be_bytes([0, message[6], message[7], message[8]]),
                ));
            } else if header[0] == APPLICATION_DATA {
                form.plain_data = true;
            } else {
                // A ChangeCipherSpec or an alert: it makes a datagram more than a repeat.
                form.early += usize::from(header[0] == CHANGE_CIPHER_SPEC);
            }
            rest = &rest[RECORD_HEADER + length..];
        }
        Some(form)
    }
}
