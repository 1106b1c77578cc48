//! A node's status for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use ipop_proto::config::OverlayMode;
use ipop_proto::status::{
    AlarmStatus, CertificateStatus, DatapathStatus, DropReason, LinkState, NamesStatus, NodeStatus,
    PairEnd, PeerStatus, PinningStatus, RevocationListStatus, RoleState, SignIn, SwitchStatus,
};

/// The text of `ipop-node status`.
pub fn table(status: &NodeStatus) -> String {
    let mut out = String::new();
    let mut field = |name: &str, value: &str| line(&mut out, &format!("{name:<12}{value}"));
    field(
        "node",
        &format!("{} on overlay {}", status.name, status.overlay),
    );
    field(
        "version",
        &format!("{}, up {}", status.version, seconds(status.uptime_ms)),
    );
    field(
        "addresses",
        &format!("{}, {}", status.addrs.ipv4, status.addrs.ipv6),
    );
    field(
        "interface",
        &format!("{}, MTU {} bytes", status.interface, status.mtu),
    );
    field("carries", &datapath(&status.datapath));
    if let Some(status) = &status.switch {
        field("switch", &switch(status));
    }
    let account = match status.jid.as_str() {
        "" => "none",
        jid => jid,
    };
    field("account", account);
    field("signed in", &sign_in(&status.sign_in));
    if let Some(status) = &status.certificate {
        field("certificate", &certificate(status));
        if !status.groups.is_empty() {
            field("groups", &or_none(status.groups.iter().cloned()));
        }
        for list in &status.lists {
            let RevocationListStatus { number, revoked } = list;
            field("revoked", &format!("{revoked} by list {number}"));
        }
    }
    if let Some(status) = &status.names {
        field("names", &names(status));
    }
    if let Some(policy) = &status.policy {
        let count = policy.rules.len();
        field("rules", &format!("{count}, see `ipop-node policy`"));
    }
    if let Some(pinning) = &status.pinning {
        field("approved", &pinning.approved.len().to_string());
    }
    field("role", &role(&status.role));
    field("candidates", &or_none(status.candidates.iter().map(end)));
    field("dropped", &drops(&status.drops));
    peers(&mut out, &status.peers);
    if let Some(status) = &status.pinning {
        waiting(&mut out, status);
    }
    let of_switch = status.switch.iter().flat_map(|status| &status.alarms);
    let denied = status.policy.iter().flat_map(|policy| &policy.denied);
    alarms(
        &mut out,
        status.refused.iter().chain(of_switch).chain(denied),
    );
    out
}

/// Who has no link before its key is approved.
fn waiting(out: &mut String, status: &PinningStatus) {
    for (at, peer) in status.waiting.iter().enumerate() {
        if at == 0 {
            line(out, "");
            line(out, "WAITING to be approved, see `ipop-node peers`");
        }
        let code = peer.code.as_deref().unwrap_or("without a key");
        line(out, &format!("    {}: {code}", peer.name));
    }
    if status.unheard > 0 {
        line(out, &format!("    {} more, not looked at", status.unheard));
    }
}

fn alarms<'a>(out: &mut String, alarms: impl Iterator<Item = &'a AlarmStatus>) {
    for (at, alarm) in alarms.enumerate() {
        if at == 0 {
            line(out, "");
            line(out, "ALARMS");
        }
        let AlarmStatus {
            origin, trouble, ..
        } = alarm;
        let holder = alarm.holder.as_ref();
        let holder = holder.map_or_else(String::new, |holder| format!("; {holder} has it"));
        let often = match alarm.count {
            1 => String::new(),
            count => format!(", {count} times"),
        };
        let age = seconds(alarm.age_ms);
        line(
            out,
            &format!("    {origin}: {trouble}{holder} ({age} ago{often})"),
        );
    }
}

fn peers(out: &mut String, peers: &[PeerStatus]) {
    if peers.is_empty() {
        line(out, "peers       none");
        return;
    }
    let rows = peers.iter().map(row);
    let head = ["PEER", "ADDRESS", "LINK", "KIND", "RTT", "SENT", "RECEIVED"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    out.push('\n');
    for (i, row) in rows.iter().enumerate() {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        line(out, &cells.collect::<Vec<_>>().join("  "));
        if let Some(peer) = i.checked_sub(1).and_then(|i| peers.get(i)) {
            details(out, peer);
        }
    }
}

fn row(peer: &PeerStatus) -> [String; 7] {
    let dash = || "-".to_owned();
    [
        peer.name.clone(),
        peer.addrs.ipv4.addr.to_string(),
        link(&peer.link).to_owned(),
        peer.link_kind().map_or_else(dash, |kind| kind.to_string()),
        peer.rtt_us.map_or_else(dash, milliseconds),
        bytes(peer.tx_bytes),
        bytes(peer.rx_bytes),
    ]
}

/// What does not fit a column: the pair, the reason for no link, the drops.
fn details(out: &mut String, peer: &PeerStatus) {
    if let (Some(local), Some(remote)) = (&peer.local, &peer.remote) {
        line(out, &format!("    {} <-> {}", end(local), end(remote)));
    }
    if !peer.groups.is_empty() {
        let groups = or_none(peer.groups.iter().cloned());
        line(out, &format!("    groups: {groups}"));
    }
    if let LinkState::Down { why } = &peer.link {
        line(out, &format!("    no link: {why}"));
    }
    if !peer.drops.is_empty() {
        line(out, &format!("    dropped: {}", drops(&peer.drops)));
    }
}

/// One line without blanks at its end; control characters from a peer stay out of the terminal.
fn line(out: &mut String, text: &str) {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    // Writing to a string does not fail.
    let _ = writeln!(out, "{}", text.trim_end());
}

/// What is carried, and what the machine does not do for it.
fn datapath(status: &DatapathStatus) -> String {
    let what = match status.mode {
        OverlayMode::Route => "IP packets",
        OverlayMode::Switch => "Ethernet frames",
    };
    let offloads = [
        (status.device_tcp, "TCP super-packets"),
        (status.device_udp, "UDP super-packets"),
        (status.device_checksums, "checksum offload"),
        (status.socket_segmentation, "UDP segmentation offload"),
        (status.socket_coalescing, "UDP receive offload"),
    ];
    let missing: Vec<_> = offloads
        .iter()
        .filter(|(is_there, _)| !is_there)
        .map(|(_, name)| *name)
        .collect();
    match missing.as_slice() {
        [] => format!("{what}, with every offload"),
        missing => format!("{what}, without {}", missing.join(", ")),
    }
}

/// Where members are known by name, and whether the system asks there.
fn names(status: &NamesStatus) -> String {
    let asked = match (&status.error, &status.resolver, status.listen) {
        (Some(error), ..) => error.clone(),
        (None, Some(resolver), _) => format!("asked by {resolver}"),
        (None, None, Some(listen)) => format!("by questions to {listen}"),
        (None, None, None) => "not yet".to_owned(),
    };
    format!("{} in {}, {asked}", status.members, status.domain)
}

/// Who this node is by its certificate, and for how long.
fn certificate(status: &CertificateStatus) -> String {
    let role = status.role.as_ref();
    let role = role.map_or_else(String::new, |role| format!(", {role}"));
    let left = match status.left_s {
        _ if status.is_revoked => "revoked: peers refuse it".to_owned(),
        0 => "ended: peers refuse it".to_owned(),
        left if left < 2 * 86_400 => format!("{} h left", left / 3600),
        left => format!("{} d left", left / 86_400),
    };
    let due = if status.is_due { ", to be renewed" } else { "" };
    format!("{}{role}, {left}{due}", status.name)
}

/// Whether it forwards, and where how many stations are.
fn switch(status: &SwitchStatus) -> String {
    let standing = if status.is_forwarding {
        "forwards"
    } else {
        "does not forward"
    };
    let stations = status.stations.iter();
    let stations = stations.map(|(place, count)| format!("{count} at {place}"));
    let bridge = status.bridge.as_ref();
    let bridge = bridge.map_or_else(String::new, |bridge| format!(" for bridge {bridge}"));
    format!("{standing}{bridge}, stations: {}", or_none(stations))
}

fn sign_in(sign_in: &SignIn) -> String {
    match sign_in {
        SignIn::NotConfigured => "no: peers are known by configuration".to_owned(),
        SignIn::Online => "yes".to_owned(),
        SignIn::Connecting { last_error: None } => "connecting".to_owned(),
        SignIn::Connecting {
            last_error: Some(error),
        } => format!("no: {error}"),
        SignIn::Refused { condition } => {
            format!("no: the server refuses the account ({condition})")
        }
    }
}

fn role(role: &RoleState) -> String {
    match role {
        RoleState::Pending => "not reported yet".to_owned(),
        RoleState::Ready => "ready".to_owned(),
        RoleState::Failed { detail } if detail.is_empty() => "failed".to_owned(),
        RoleState::Failed { detail } => format!("failed: {detail}"),
    }
}

fn link(link: &LinkState) -> &'static str {
    match link {
        LinkState::Down { .. } => "down",
        LinkState::Signalling => "signalling",
        LinkState::Checking => "checking",
        LinkState::Handshaking => "handshaking",
        LinkState::Up => "up",
    }
}

fn end(end: &PairEnd) -> String {
    format!("{} {}", end.kind, end.addr)
}

fn drops(drops: &BTreeMap<DropReason, u64>) -> String {
    or_none(
        drops
            .iter()
            .map(|(reason, count)| format!("{count} {}", name(*reason))),
    )
}

/// The reason as JSON names it.
fn name(reason: DropReason) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{reason:?}"),
    }
}

fn or_none(items: impl Iterator<Item = String>) -> String {
    let text = items.collect::<Vec<_>>().join(", ");
    if text.is_empty() {
        "none".to_owned()
    } else {
        text
    }
}

fn seconds(ms: u64) -> String {
    let s = ms / 1000;
    match (s / 86400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

/// Bytes in binary units.
fn bytes(n: u64) -> String {
    let mut unit = 1u64;
    for name in ["B", "KiB", "MiB", "GiB"] {
        if n / unit < 1024 {
            let whole = n / unit;
            let tenth = n % unit * 10 / unit;
            return if unit == 1 {
                format!("{whole} B")
            } else {
                format!("{whole}.{tenth} {name}")
            };
        }
        unit *= 1024;
    }
    format!("{}.{} TiB", n / unit, n % unit / (unit / 10))
}

#[cfg(test)]
pub(super) mod tests {
    use ipop_proto::address::OverlayAddrs;
    use ipop_proto::candidate::CandidateKind;
    use ipop_proto::signal::Fingerprint;
    use ipop_proto::status::{PinnedStatus, PolicyStatus};

    use super::*;

    fn addrs(n: u8) -> OverlayAddrs {
        OverlayAddrs {
            ipv4: format!("10.73.0.{n}/24").parse().expect("valid"),
            ipv6: format!("fd5a::{n}/64").parse().expect("valid"),
        }
    }

    fn peer(n: u8, name: &str, link: LinkState) -> PeerStatus {
        PeerStatus {
            name: name.to_owned(),
            jid: format!("{name}@demo.ipop/ipop-1"),
            addrs: addrs(n),
            link,
            local: None,
            remote: None,
            rtt_us: None,
            setup_ms: None,
            tx_bytes: 0,
            tx_packets: 0,
            rx_bytes: 0,
            rx_packets: 0,
            drops: BTreeMap::new(),
            groups: Default::default(),
            role: None,
        }
    }

    #[test]
    fn a_status_is_shown_as_reviewed() {
        insta::assert_snapshot!(table(&status()));
    }

    /// One with everything in it.
    pub fn status() -> NodeStatus {
        let end = |addr: &str, kind| {
            Some(PairEnd {
                kind,
                addr: addr.parse().expect("valid"),
            })
        };
        let up = PeerStatus {
            local: end("192.0.2.1:40000", CandidateKind::Host),
            remote: end("192.0.2.7:40001", CandidateKind::Srflx),
            rtt_us: Some(1234),
            tx_bytes: 5_000_000,
            rx_bytes: 999,
            groups: ["crew", "lake"].map(str::to_owned).into(),
            ..peer(2, "worker-0", LinkState::Up)
        };
        let why = "no answer to session-initiate\u{1b}[2J".to_owned();
        let down = PeerStatus {
            drops: BTreeMap::from([(DropReason::NoLink, 3)]),
            ..peer(3, "worker-1", LinkState::Down { why })
        };
        NodeStatus {
            name: "frontend-0".to_owned(),
            overlay: "demo".to_owned(),
            jid: "frontend-0@demo.ipop/ipop-0".to_owned(),
            version: "0.1.0".to_owned(),
            addrs: addrs(1),
            interface: "ipop0".to_owned(),
            mtu: 1400,
            datapath: Default::default(),
            switch: Some(SwitchStatus {
                is_forwarding: true,
                bridge: Some("br0".to_owned()),
                stations: BTreeMap::from([("the LAN".to_owned(), 2), ("worker-0".to_owned(), 3)]),
                alarms: vec![AlarmStatus {
                    origin: "worker-0".to_owned(),
                    trouble: "02:00:00:00:00:07 is somewhere else, too".to_owned(),
                    holder: Some("the LAN".to_owned()),
                    age_ms: 61_000,
                    count: 2,
                }],
            }),
            uptime_ms: 3_723_000,
            sign_in: SignIn::Online,
            role: RoleState::Ready,
            candidates: end("192.0.2.1:40000", CandidateKind::Host)
                .into_iter()
                .collect(),
            peers: vec![up, down],
            drops: BTreeMap::from([(DropReason::NoMember, 2), (DropReason::Multicast, 8)]),
            ssh_host_key: None,
            certificate: Some(CertificateStatus {
                name: "frontend-0.demo.ipop".to_owned(),
                role: Some("frontend".to_owned()),
                groups: ["storage".to_owned()].into(),
                left_s: 20 * 86_400,
                is_due: true,
                is_revoked: false,
                lists: vec![RevocationListStatus {
                    number: 3,
                    revoked: 2,
                }],
            }),
            names: Some(NamesStatus {
                domain: "demo.ipop".to_owned(),
                listen: Some(([127, 0, 73, 1], 53).into()),
                resolver: Some("systemd-resolved".to_owned()),
                members: 2,
                error: None,
            }),
            refused: vec![AlarmStatus {
                origin: "worker-1@demo.ipop".to_owned(),
                trouble: "the certificate is not of this overlay's authority".to_owned(),
                holder: None,
                age_ms: 1_000,
                count: 1,
            }],
            pinning: Some(PinningStatus {
                fingerprint: Fingerprint([1; 32]),
                waiting: vec![PinnedStatus {
                    account: "worker-2@demo.ipop".to_owned(),
                    name: "worker-2".to_owned(),
                    ipv4: [10, 73, 0, 4].into(),
                    ipv6: "fd5a::4".parse().expect("valid"),
                    fingerprint: Some(Fingerprint([4; 32])),
                    code: Some(["01234"; 8].join(" ")),
                    changed: None,
                }],
                unheard: 2,
                approved: Vec::new(),
            }),
            policy: Some(PolicyStatus {
                rules: vec![toml::from_str("from = \"any\"\nto = \"any\"").expect("a rule")],
                denied: vec![AlarmStatus {
                    origin: "worker-0".to_owned(),
                    trouble: "sends what no rule allows, tcp/22 last".to_owned(),
                    holder: None,
                    age_ms: 2_000,
                    count: 7,
                }],
                ..PolicyStatus::default()
            }),
        }
    }

    #[test]
    fn sizes_are_in_binary_units() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }
}
