//! A STUN and TURN server for the simulated underlay (RFC 8489, RFC 8656; UDP, long-term
//! credentials). It is strict: what a server may refuse it refuses, and it remembers why.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use rtc_stun::attributes::{
    ATTR_DATA, ATTR_NONCE, ATTR_REALM, ATTR_USERNAME, ATTR_XOR_PEER_ADDRESS,
    ATTR_XOR_RELAYED_ADDRESS, AttrType,
};
use rtc_stun::crypto::RTCCryptoProvider;
use rtc_stun::crypto::providers::AwsLcRsProvider;
use rtc_stun::error_code::{ErrorCode, ErrorCodeAttribute};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter,
    METHOD_ALLOCATE, METHOD_BINDING, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_DATA,
    METHOD_REFRESH, METHOD_SEND, Message, MessageType, Setter, TransactionId,
};
use rtc_stun::textattrs::TextAttribute;
use rtc_stun::xoraddr::XorMappedAddress;
use rtc_turn::proto::channum::ChannelNumber;
use rtc_turn::proto::data::Data;
use rtc_turn::proto::lifetime::Lifetime;
use rtc_turn::proto::peeraddr::PeerAddress;
use rtc_turn::proto::reqtrans::RequestedTransport;

const REALM: &str = "sim";
const LIFETIME: Duration = Duration::from_secs(600);
const PERMISSION: Duration = Duration::from_secs(300);
const CHANNEL: Duration = Duration::from_secs(600);

/// A datagram the server sends: from, to, payload.
pub type Sent = (SocketAddr, SocketAddr, BytesMut);

/// The server.
pub struct TurnServer {
    addr: SocketAddr,
    relay: IpAddr,
    next_port: u16,
    nonce: u32,
    users: HashMap<String, String>,
    allocations: HashMap<SocketAddr, Allocation>,
    forbidden: Vec<IpAddr>,
    refused: Vec<u16>,
    dropped: u64,
    channel_messages: u64,
}

struct Allocation {
    user: String,
    relayed: SocketAddr,
    until: Instant,
    permissions: HashMap<IpAddr, Instant>,
    channels: HashMap<u16, (SocketAddr, Instant)>,
}

impl TurnServer {
    /// Listens on `addr`; relayed addresses are ports of `relay`.
    pub fn new(addr: SocketAddr, relay: IpAddr) -> Self {
        Self {
            addr,
            relay,
            next_port: 50_000,
            nonce: 1,
            users: HashMap::new(),
            allocations: HashMap::new(),
            forbidden: Vec::new(),
            refused: Vec::new(),
            dropped: 0,
            channel_messages: 0,
        }
    }

    /// Lets a user in.
    pub fn add_user(&mut self, name: &str, password: &str) {
        self.users.insert(name.to_owned(), password.to_owned());
    }

    /// Lets a user in no more, as when its credential has expired.
    pub fn remove_user(&mut self, name: &str) {
        self.users.remove(name);
    }

    /// Refuses permissions for `peer` with 403.
    pub fn forbid(&mut self, peer: IpAddr) {
        self.forbidden.push(peer);
    }

    /// Makes every nonce given so far stale.
    pub fn change_nonce(&mut self) {
        self.nonce += 1;
    }

    /// Forgets every allocation, as a restart does.
    pub fn restart(&mut self) {
        self.allocations.clear();
        self.nonce += 1;
    }

    /// Error codes it answered with, in order.
    pub fn refused(&self) -> &[u16] {
        &self.refused
    }

    /// Datagrams it dropped: no permission, no allocation, not to be understood.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Channel messages it took from clients.
    pub fn channel_messages(&self) -> u64 {
        self.channel_messages
    }

    /// Relayed addresses there are now.
    pub fn allocations(&self, now: Instant) -> usize {
        self.allocations.values().filter(|a| a.until > now).count()
    }

    /// Whether it listens on `addr`, or relays there.
    pub fn owns(&self, addr: SocketAddr) -> bool {
        addr == self.addr || addr.ip() == self.relay
    }

    /// Takes a datagram and gives what it sends because of it.
    pub fn handle(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> Vec<Sent> {
        self.allocations.retain(|_, a| a.until > now);
        let out = if to == self.addr {
            match payload.first() {
                Some(0x40..=0x4f) => self.channel(now, from, payload).into_iter().collect(),
                _ => self.message(now, from, payload),
            }
        } else {
            self.relay_inbound(now, from, to, payload)
                .into_iter()
                .collect()
        };
        if out.is_empty() {
            self.dropped += 1;
        }
        out
    }

    fn relay_inbound(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        relayed: SocketAddr,
        payload: &[u8],
    ) -> Option<Sent> {
        let (client, allocation) = self
            .allocations
            .iter()
            .find(|(_, a)| a.relayed == relayed)?;
        allocation
            .permissions
            .get(&peer.ip())
            .filter(|until| **until > now)?;
        let channel = allocation
            .channels
            .iter()
            .find(|(_, (p, u))| *p == peer && *u > now);
        let raw = match channel {
            Some((number, _)) => {
                let mut raw = BytesMut::new();
                raw.put_u16(*number);
                raw.put_u16(u16::try_from(payload.len()).ok()?);
                raw.put_slice(payload);
                raw
            }
            None => encode(&[
                Box::new(TransactionId([7; 12])),
                Box::new(MessageType::new(METHOD_DATA, CLASS_INDICATION)),
                Box::new(PeerAddress {
                    ip: peer.ip(),
                    port: peer.port(),
                }),
                Box::new(Data(payload.to_vec())),
            ])?,
        };
        Some((self.addr, *client, raw))
    }

    fn channel(&mut self, now: Instant, client: SocketAddr, payload: &[u8]) -> Option<Sent> {
        let number = u16::from_be_bytes([*payload.first()?, *payload.get(1)?]);
        let length = usize::from(u16::from_be_bytes([*payload.get(2)?, *payload.get(3)?]));
        let allocation = self.allocations.get(&client)?;
        let (peer, _) = allocation
            .channels
            .get(&number)
            .filter(|(_, until)| *until > now)?;
        allocation
            .permissions
            .get(&peer.ip())
            .filter(|until| **until > now)?;
        self.channel_messages += 1;
        Some((
            allocation.relayed,
            *peer,
            BytesMut::from(payload.get(4..4 + length)?),
        ))
    }

    fn message(&mut self, now: Instant, client: SocketAddr, payload: &[u8]) -> Vec<Sent> {
        let mut message = Message::new();
        message.raw = payload.to_vec();
        if message.decode().is_err() {
            return Vec::new();
        }
        if message.typ == MessageType::new(METHOD_SEND, CLASS_INDICATION) {
            return self.indication(now, client, &message).into_iter().collect();
        }
        if message.typ.class != CLASS_REQUEST {
            return Vec::new();
        }
        if message.typ.method == METHOD_BINDING {
            return self.succeed(&message, client, None, vec![mapped(client)]);
        }
        let (user, key) = match self.authenticate(&mut message) {
            Ok(known) => known,
            Err(code) => return self.refuse(&message, client, code),
        };
        match self.request(now, client, &user, &message) {
            Ok(attributes) => self.succeed(&message, client, Some(key), attributes),
            Err(code) => self.refuse(&message, client, code),
        }
    }

    fn indication(&self, now: Instant, client: SocketAddr, message: &Message) -> Option<Sent> {
        let allocation = self.allocations.get(&client)?;
        let peer = address(message, ATTR_XOR_PEER_ADDRESS)?;
        allocation
            .permissions
            .get(&peer.ip())
            .filter(|until| **until > now)?;
        let data = message.get(ATTR_DATA).ok()?;
        Some((allocation.relayed, peer, BytesMut::from(&data[..])))
    }

    /// Who sent the request, and the key its answer is signed with.
    fn authenticate(&self, message: &mut Message) -> Result<(String, Vec<u8>), u16> {
        let text = |m: &Message, a| TextAttribute::get_from_as(m, a).map(|t| t.text);
        let Ok(nonce) = text(message, ATTR_NONCE) else {
            return Err(401);
        };
        let (user, realm) = match (text(message, ATTR_USERNAME), text(message, ATTR_REALM)) {
            (Ok(user), Ok(realm)) => (user, realm),
            _ => return Err(400),
        };
        if nonce != self.nonce.to_string() {
            return Err(438);
        }
        let password = self.users.get(&user).ok_or(401_u16)?;
        let provider = AwsLcRsProvider::new();
        let key = MessageIntegrity::long_term_integrity_key(
            user.clone(),
            realm,
            password.clone(),
            provider.crypto(),
        )
        .map_err(|_| 500_u16)?;
        MessageIntegrity::check(message, &key, provider.crypto()).map_err(|_| 401_u16)?;
        FINGERPRINT.check(message).map_err(|_| 400_u16)?;
        Ok((user, key))
    }

    fn request(
        &mut self,
        now: Instant,
        client: SocketAddr,
        user: &str,
        message: &Message,
    ) -> Result<Vec<Box<dyn Setter>>, u16> {
        if message.typ.method == METHOD_ALLOCATE {
            let mut transport = RequestedTransport::default();
            transport.get_from(message).map_err(|_| 400_u16)?;
            if self.allocations.contains_key(&client) {
                return Err(437);
            }
            self.next_port += 1;
            let relayed = SocketAddr::new(self.relay, self.next_port);
            self.allocations.insert(
                client,
                Allocation {
                    user: user.to_owned(),
                    relayed,
                    until: now + LIFETIME,
                    permissions: HashMap::new(),
                    channels: HashMap::new(),
                },
            );
            return Ok(vec![
                Box::new(XorAddress(ATTR_XOR_RELAYED_ADDRESS, relayed)),
                mapped(client),
                Box::new(Lifetime(LIFETIME)),
            ]);
        }
        let allocation = self.allocations.get_mut(&client).ok_or(437_u16)?;
        if allocation.user != user {
            return Err(441);
        }
        match message.typ.method {
            METHOD_REFRESH => {
                let mut lifetime = Lifetime::default();
                let asked = lifetime.get_from(message).map_or(LIFETIME, |()| lifetime.0);
                if asked.is_zero() {
                    self.allocations.remove(&client);
                    return Ok(vec![Box::new(Lifetime(Duration::ZERO))]);
                }
                allocation.until = now + LIFETIME;
                Ok(vec![Box::new(Lifetime(LIFETIME))])
            }
            METHOD_CREATE_PERMISSION => {
                let peer = address(message, ATTR_XOR_PEER_ADDRESS).ok_or(400_u16)?;
                if self.forbidden.contains(&peer.ip()) {
                    return Err(403);
                }
                if peer.is_ipv4() != allocation.relayed.is_ipv4() {
                    return Err(443);
                }
                allocation.permissions.insert(peer.ip(), now + PERMISSION);
                Ok(Vec::new())
            }
            METHOD_CHANNEL_BIND => {
                let peer = address(message, ATTR_XOR_PEER_ADDRESS).ok_or(400_u16)?;
                let mut number = ChannelNumber::default();
                number.get_from(message).map_err(|_| 400_u16)?;
                let taken = allocation
                    .channels
                    .iter()
                    .any(|(n, (p, _))| (*n == number.0) != (*p == peer));
                if taken || !(0x4000..=0x4fff).contains(&number.0) {
                    return Err(400);
                }
                allocation.channels.insert(number.0, (peer, now + CHANNEL));
                allocation.permissions.insert(peer.ip(), now + PERMISSION);
                Ok(Vec::new())
            }
            _ => Err(400),
        }
    }

    fn succeed(
        &self,
        request: &Message,
        client: SocketAddr,
        key: Option<Vec<u8>>,
        attributes: Vec<Box<dyn Setter>>,
    ) -> Vec<Sent> {
        let provider = AwsLcRsProvider::new();
        let mut setters: Vec<Box<dyn Setter + '_>> = vec![
            Box::new(request.transaction_id),
            Box::new(MessageType::new(request.typ.method, CLASS_SUCCESS_RESPONSE)),
        ];
        setters.extend(attributes.into_iter().map(|a| a as Box<dyn Setter + '_>));
        if let Some(key) = key {
            let integrity =
                MessageIntegrity::new_raw_integrity_with_provider(key, provider.crypto());
            setters.push(Box::new(integrity));
        }
        setters.push(Box::new(FINGERPRINT));
        encode(&setters)
            .map(|raw| (self.addr, client, raw))
            .into_iter()
            .collect()
    }

    fn refuse(&mut self, request: &Message, client: SocketAddr, code: u16) -> Vec<Sent> {
        self.refused.push(code);
        let mut setters: Vec<Box<dyn Setter>> = vec![
            Box::new(request.transaction_id),
            Box::new(MessageType::new(request.typ.method, CLASS_ERROR_RESPONSE)),
            Box::new(ErrorCodeAttribute {
                code: ErrorCode(code),
                reason: b"no".to_vec(),
            }),
        ];
        if code == 401 || code == 438 {
            setters.push(Box::new(TextAttribute::new(ATTR_REALM, REALM.to_owned())));
            setters.push(Box::new(TextAttribute::new(
                ATTR_NONCE,
                self.nonce.to_string(),
            )));
        }
        encode(&setters)
            .map(|raw| (self.addr, client, raw))
            .into_iter()
            .collect()
    }
}

/// An address attribute in the XOR form.
struct XorAddress(AttrType, SocketAddr);

impl Setter for XorAddress {
    fn add_to(&self, message: &mut Message) -> Result<(), rtc_shared::error::Error> {
        let Self(kind, addr) = self;
        XorMappedAddress {
            ip: addr.ip(),
            port: addr.port(),
        }
        .add_to_as(message, *kind)
    }
}

fn mapped(client: SocketAddr) -> Box<dyn Setter> {
    Box::new(XorMappedAddress {
        ip: client.ip(),
        port: client.port(),
    })
}

fn address(message: &Message, kind: AttrType) -> Option<SocketAddr> {
    let mut addr = XorMappedAddress::default();
    addr.get_from_as(message, kind).ok()?;
    Some(SocketAddr::new(addr.ip, addr.port))
}

fn encode(setters: &[Box<dyn Setter + '_>]) -> Option<BytesMut> {
    let mut message = Message::new();
    message.build(setters).ok()?;
    Some(BytesMut::from(&message.raw[..]))
}
