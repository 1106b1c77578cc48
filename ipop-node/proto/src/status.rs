//! What a node says of itself: presence to the other members, status to its administrator.
//!
//! The JSON form of [`NodeStatus`] is what `ipop-node status --json` prints and what the
//! provisioner asks for over XMPP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::de::value::{self, StrDeserializer};
use serde::de::{Deserializer, IntoDeserializer as _};
use serde::{Deserialize, Serialize};

use crate::address::OverlayAddrs;
use crate::candidate::CandidateKind;
use crate::config::{AllowSection, OverlayMode};
use crate::signal::Fingerprint;

/// How far a node's role is (its services, apart from the overlay itself).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum RoleState {
    /// Not reported yet.
    #[default]
    Pending,
    /// The role's health check passed.
    Ready,
    /// The role's health check failed.
    Failed {
        /// What it printed last, one line.
        detail: String,
    },
}

/// What a node publishes in its presence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advertisement {
    /// Node name, unique in its overlay (`frontend-0`, `worker-3`).
    pub name: String,
    /// Overlay addresses it answers for.
    pub addrs: OverlayAddrs,
    /// How far its role is.
    pub role: RoleState,
    /// Names of the members it has a link to, sorted.
    pub linked: Vec<String>,
    /// Version of `ipop-node`.
    pub version: String,
    /// Of the certificate that it shows, on a node with `[pinning]`: what its peers' owners approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
}

/// Where the node stands with its XMPP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum SignIn {
    /// Connecting, or waiting to connect again.
    Connecting {
        /// Why the last attempt ended, if there was one.
        last_error: Option<String>,
    },
    /// There is no account: peers are known by configuration.
    NotConfigured,
    /// Signed in.
    Online,
    /// The server refused the account; retried slowly.
    Refused {
        /// The server's condition (RFC 6120 section 6.5).
        condition: String,
    },
}

/// Why a packet was dropped. Every dropped packet is counted under exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// Destination is no member's address.
    NoMember,
    /// The member is known but its link is not up.
    NoLink,
    /// Not an IPv4 or IPv6 packet, or cut short.
    Malformed,
    /// Multicast or broadcast, which this mode does not carry.
    Multicast,
    /// Larger than the overlay MTU.
    TooBig,
    /// A decrypted packet whose source is not the sending member's address.
    WrongSource,
    /// A decrypted packet whose destination is not this node's address.
    WrongDestination,
    /// A datagram from the underlay that belongs to no link.
    UnknownDatagram,
    /// A record that is not authentic.
    BadRecord,
    /// A record that was seen before, or is so old that this is not known.
    Replayed,
    /// A frame from a member in mode `route`, or a packet from one in mode `switch`.
    WrongMode,
    /// A record that carries what only a later version understands, or nothing at all.
    UnknownContent,
    /// The keys have sealed as much as they may, and new ones are not there yet.
    KeysWorn,
    /// A queue was full.
    QueueFull,
    /// The operating system refused to send.
    SendFailed,
    /// A frame of a station that may not be learned where it came from.
    Unlearned,
    /// A frame by which somebody does what only another one may, or a packet that no rule allows.
    NotAllowed,
    /// A frame for everybody, of which there were too many.
    Storm,
    /// A frame between the overlay and a LAN that another node forwards for.
    Blocked,
    /// A frame of the overlay whose station is not behind this node.
    Returning,
    /// A frame for the next bridge only, or a probe from where none can come.
    ForBridges,
    /// A frame that may hide what is inside.
    Hidden,
    /// The underlay marked congestion on the datagram of a packet whose ends do not know of ECN (RFC
    /// 6040 section 4.2).
    Congested,
    /// A revocation list of a member, or a piece of one, that is not to be believed.
    BadList,
}

impl DropReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 24] = [
        Self::NoMember,
        Self::NoLink,
        Self::Malformed,
        Self::Multicast,
        Self::TooBig,
        Self::WrongSource,
        Self::WrongDestination,
        Self::UnknownDatagram,
        Self::BadRecord,
        Self::Replayed,
        Self::WrongMode,
        Self::UnknownContent,
        Self::KeysWorn,
        Self::QueueFull,
        Self::SendFailed,
        Self::Unlearned,
        Self::NotAllowed,
        Self::Storm,
        Self::Blocked,
        Self::Returning,
        Self::ForBridges,
        Self::Hidden,
        Self::Congested,
        Self::BadList,
    ];
}

/// Reads drops, without those for reasons that only a later version has.
fn known_drops<'de, D>(deserializer: D) -> Result<BTreeMap<DropReason, u64>, D::Error>
where
    D: Deserializer<'de>,
{
    let drops = BTreeMap::<String, u64>::deserialize(deserializer)?;
    let known = drops.into_iter().filter_map(|(reason, count)| {
        let reason: StrDeserializer<'_, value::Error> = reason.as_str().into_deserializer();
        Some((DropReason::deserialize(reason).ok()?, count))
    });
    Ok(known.collect())
}

/// How far the link to a peer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum LinkState {
    /// No link and none under way.
    Down {
        /// Why: the last failure, or what is waited for.
        why: String,
    },
    /// Waiting for the peer's half.
    Signalling,
    /// ICE connectivity checks under way.
    Checking,
    /// A candidate pair works; DTLS handshake under way.
    Handshaking,
    /// Packets flow.
    Up,
}

/// One end of the candidate pair in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairEnd {
    /// Kind of the candidate.
    pub kind: CandidateKind,
    /// Its transport address.
    pub addr: SocketAddr,
}

/// A peer as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Node name.
    pub name: String,
    /// Full JID; empty for a peer by configuration.
    pub jid: String,
    /// Overlay addresses it advertised, or was configured with.
    pub addrs: OverlayAddrs,
    /// Link state.
    pub link: LinkState,
    /// Our end of the selected pair.
    pub local: Option<PairEnd>,
    /// The peer's end of the selected pair.
    pub remote: Option<PairEnd>,
    /// Last round-trip time of an ICE check on the selected pair, in microseconds.
    pub rtt_us: Option<u64>,
    /// Milliseconds from the peer's presence to the link being up.
    pub setup_ms: Option<u64>,
    /// Overlay bytes sent (IP packets, before encryption).
    pub tx_bytes: u64,
    /// Overlay packets sent.
    pub tx_packets: u64,
    /// Overlay bytes received.
    pub rx_bytes: u64,
    /// Overlay packets received.
    pub rx_packets: u64,
    /// Drops on this link.
    #[serde(deserialize_with = "known_drops")]
    pub drops: BTreeMap<DropReason, u64>,
    /// The groups that it is in, as its certificate says, or the configuration.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// What it does in the overlay, as its certificate says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

impl PeerStatus {
    /// `relay` when either end is relayed, else the local candidate's kind.
    pub fn link_kind(&self) -> Option<CandidateKind> {
        let (local, remote) = (self.local.as_ref()?, self.remote.as_ref()?);
        if remote.kind == CandidateKind::Relay {
            return Some(CandidateKind::Relay);
        }
        Some(local.kind)
    }
}

/// What the machine does for the data path; what it does not do is done packet by packet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathStatus {
    /// What is carried.
    pub mode: OverlayMode,
    /// Threads in each direction.
    pub threads: usize,
    /// The device gives and takes TCP super-packets.
    pub device_tcp: bool,
    /// The device gives and takes UDP super-packets.
    pub device_udp: bool,
    /// The device leaves transport checksums to this node, and takes packets without.
    pub device_checksums: bool,
    /// Sockets cut what is sent into datagrams (UDP_SEGMENT).
    pub socket_segmentation: bool,
    /// Sockets put received datagrams together (UDP_GRO).
    pub socket_coalescing: bool,
}

/// How the switch of a node in mode `switch` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchStatus {
    /// Whether frames pass between this node's own side and the overlay.
    pub is_forwarding: bool,
    /// The bridge that the device is a port of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// How many stations are known, by the name of the member that they are behind; those of this
    /// node's own side under `the LAN`.
    pub stations: BTreeMap<String, usize>,
    /// What somebody should look into, the newest last.
    pub alarms: Vec<AlarmStatus>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmStatus {
    /// Where it comes from: a member's name, or `the LAN`.
    pub origin: String,
    /// What it is, for people.
    pub trouble: String,
    /// Where that one is who has what is claimed, if it is about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Milliseconds since it was found last; it is looked for at most once in a minute.
    pub age_ms: u64,
    /// How often it was found.
    pub count: u64,
}

/// Members by name, `[names]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesStatus {
    /// What all names end in, `demo.ipop`.
    pub domain: String,
    /// Where DNS questions are answered; none while no address can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Who asks there, `systemd-resolved` or the path of a file; none where nobody was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// Members that have a name, this node included.
    pub members: usize,
    /// What keeps names from being resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The certificate of a node in an overlay with an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Its dNSName, `NAME.OVERLAY.ipop`.
    pub name: String,
    /// What the node does in the overlay, where the authority says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The groups that the node is in.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Seconds for which it is still valid.
    pub left_s: u64,
    /// No more than a third of its validity is left: it is time for another one.
    pub is_due: bool,
    /// The authority has revoked it: no peer has a link with this node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_revoked: bool,
    /// The newest revocation list of each authority that has made one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<RevocationListStatus>,
}

/// A revocation list that a node goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationListStatus {
    /// Its number: all members that hear of each other have the same one.
    pub number: u64,
    /// How many certificates are on it.
    pub revoked: usize,
}

/// Whom this node's owner has approved, on a node with `[pinning]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinningStatus {
    /// Of this node's own certificate.
    pub fingerprint: Fingerprint,
    /// Who has no link before its key is approved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<PinnedStatus>,
    /// How often somebody came who is not looked at, because so many wait already.
    #[serde(default)]
    pub unheard: u64,
    /// Who was approved, whether it is there or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approved: Vec<PinnedStatus>,
}

/// A peer that is, or is to be, approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedStatus {
    /// Its bare JID.
    pub account: String,
    /// Its node name.
    pub name: String,
    /// Its IPv4 overlay address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 overlay address.
    pub ipv6: Ipv6Addr,
    /// Of its certificate; none where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// Forty digits that its owner sees, too, when nobody between the two lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How it is not what was approved, where something was: its key is the approved one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<String>,
}

/// Who may reach what, on a node with rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// The groups that this node is in.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// The role that it has for rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The rules that are in force.
    pub rules: Vec<AllowSection>,
    /// Who sent what no rule allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<AlarmStatus>,
}

/// Everything a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Node name.
    pub name: String,
    /// Overlay name.
    pub overlay: String,
    /// Full JID when signed in, bare JID otherwise; empty without an account.
    pub jid: String,
    /// Version of `ipop-node`.
    pub version: String,
    /// Overlay addresses.
    pub addrs: OverlayAddrs,
    /// TUN device.
    pub interface: String,
    /// Overlay MTU in bytes.
    pub mtu: u16,
    /// How packets are carried.
    #[serde(default)]
    pub datapath: DatapathStatus,
    /// In mode `switch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<SwitchStatus>,
    /// Milliseconds since the node started.
    pub uptime_ms: u64,
    /// Standing with the XMPP server.
    pub sign_in: SignIn,
    /// Role state.
    pub role: RoleState,
    /// Candidates of this node.
    pub candidates: Vec<PairEnd>,
    /// Peers, sorted by name.
    pub peers: Vec<PeerStatus>,
    /// Drops that belong to no peer.
    #[serde(deserialize_with = "known_drops")]
    pub drops: BTreeMap<DropReason, u64>,
    /// Public SSH host key of the machine (`ssh-ed25519 AAAA…`), where it made its own and nobody
    /// else can know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_host_key: Option<String>,
    /// What makes this node a member, in an overlay with an authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// Where members are known by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NamesStatus>,
    /// Who was refused, because the authority does not say what they claim, or because it is not what was
    /// approved; the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<AlarmStatus>,
    /// Whom this node's owner has approved, and who waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinning: Option<PinningStatus>,
    /// Who may reach what, where there are rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
}
