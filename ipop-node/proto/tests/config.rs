//! The configuration file: what is taken, and what is said of the rest.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipop_proto::address::MacAddr;
use ipop_proto::config::{
    AuditSection, AuthoritySection, IceSection, NodeConfig, NodeSection, OffloadSection,
    OverlayMode, OverlaySection, PinningSection, PolicySection, XmppSection, is_dns_label,
    parse_rules,
};
use ipop_proto::switch::Settings;
use ipop_proto::switch::guard::{Allowed, Place};
use proptest::prelude::*;

const GOOD: &str = r#"
[node]
name = "worker-0"
[overlay]
name = "demo"
ipv4 = "10.73.0.2/24"
ipv6 = "fd5a::2/64"
[xmpp]
jid = "worker-0@demo.ipop"
servers = ["192.0.2.1:5222", "[2001:db8::1]:5222"]
password_file = "ipop.password"
ca_file = "ipop.ca"
"#;

#[test]
fn a_short_file_gets_every_default() {
    let config = NodeConfig::parse(GOOD).expect("good");
    insta::assert_snapshot!("defaults", toml::to_string(&config).expect("TOML"));
}

#[test]
fn rules_are_for_members_that_somebody_vouches_for_and_are_refused_otherwise() {
    const RULE: &str = "[[allow]]\nfrom = \"group:lake\"\nto = \"node:b\"\nport = 2049\n";
    const AUTHORITY: &str = "[authority]\ncertificate = \"ca.pem\"\n";
    let named = GOOD.replace("\"worker-0\"", "\"worker-0\"\nidentity = \"i\"");
    let alone = &named[..named.find("[xmpp]").expect("there")];
    let peer = format!(
        "[[peer]]\nname = \"b\"\nipv4 = \"10.73.0.3\"\nipv6 = \"fd5a::3\"\nfingerprint = \"{}\"\n",
        vec!["AB"; 32].join(":")
    );
    let grouped = format!("{peer}groups = [\"storage\"]\n");
    let own = alone.replace("identity", "groups = [\"lake\"]\nidentity");
    for good in [
        format!("{named}{AUTHORITY}{RULE}"),
        format!("{alone}{AUTHORITY}{peer}{RULE}"),
        format!("{own}{grouped}{RULE}"),
        format!("{own}{grouped}"),
    ] {
        let config = NodeConfig::parse(&good).expect(&good);
        let text = toml::to_string(&config).expect("TOML");
        assert_eq!(NodeConfig::parse(&text).expect("its own text"), config);
    }
    let switch = |text: &str| text.replace("[overlay]", "[overlay]\nmode = \"switch\"");
    for (bad, why) in [
        (
            format!("{named}{RULE}"),
            "allow: needs an [authority] where there is [xmpp]",
        ),
        (
            format!("{named}{grouped}{RULE}"),
            "allow: needs an [authority] where there is [xmpp]",
        ),
        (
            switch(&format!("{named}{AUTHORITY}{RULE}")),
            "allow: is for mode `route` only",
        ),
        (
            format!("{alone}{grouped}{}", RULE.replace("group:", "role:")),
            "allow: `role:NAME` needs an [authority]",
        ),
        (
            format!("{named}{AUTHORITY}{grouped}{RULE}"),
            "peer.groups: is for overlays without an [authority]",
        ),
        (
            format!("{own}{AUTHORITY}{peer}{RULE}"),
            "node.groups: is for overlays without an [authority]",
        ),
        (
            format!("{own}{}", grouped.replace("storage", "Storage")),
            "peer.groups: `Storage` is no",
        ),
        (
            format!("{named}{AUTHORITY}{RULE}protocol = \"icmp\"\n"),
            "allow.port: is of no use with protocol `icmp`",
        ),
    ] {
        let error = NodeConfig::parse(&bad).expect_err(why).to_string();
        assert!(error.starts_with(why), "{error} instead of {why}");
    }
}

#[test]
fn each_defect_is_named_by_key_or_line() {
    let long = "x".repeat(64);
    let defects = [
        (
            "unknown-key",
            "name = \"demo\"",
            "name = \"demo\"\ncolour = 1",
        ),
        ("missing-key", "jid = \"worker-0@demo.ipop\"\n", ""),
        ("missing-section", "[node]\nname = \"worker-0\"\n", ""),
        ("wrong-type", "name = \"demo\"", "name = 7"),
        ("no-toml", "[node]", "[node"),
        (
            "enrol-relative",
            "[xmpp]",
            "[xmpp]\nenrol_token_file = \"ipop.enrol-token\"",
        ),
        ("node-name", "\"worker-0\"", "\"Worker_0\""),
        ("node-name-long", "worker-0\"\n[", &format!("{long}\"\n[")),
        ("overlay-name-empty", "\"demo\"", "\"\""),
        ("no-prefix", "10.73.0.2/24", "10.73.0.2"),
        ("prefix-range", "fd5a::2/64", "fd5a::2/127"),
        ("mtu-small", "[xmpp]", "mtu = 1279\n[xmpp]"),
        ("mtu-big", "[xmpp]", "mtu = 9001\n[xmpp]"),
        (
            "mac-without-frames",
            "[xmpp]",
            "mac = \"02:49:0a:01:80:02\"\n[xmpp]",
        ),
        ("interface-empty", "[xmpp]", "interface = \"\"\n[xmpp]"),
        (
            "interface-template",
            "[xmpp]",
            "interface = \"ipop%d\"\n[xmpp]",
        ),
        (
            "interface-long",
            "[xmpp]",
            "interface = \"abcdefghijklmnop\"\n[xmpp]",
        ),
        ("interface-slash", "[xmpp]", "interface = \"a/b\"\n[xmpp]"),
        ("interface-space", "[xmpp]", "interface = \"a b\"\n[xmpp]"),
        ("interface-colon", "[xmpp]", "interface = \"a:0\"\n[xmpp]"),
        (
            "no-servers",
            "[\"192.0.2.1:5222\", \"[2001:db8::1]:5222\"]",
            "[]",
        ),
        ("server-name", "192.0.2.1:5222", "xmpp.example:5222"),
        ("server-without-port", "192.0.2.1:5222", "192.0.2.1"),
        ("jid-resource", "demo.ipop", "demo.ipop/r"),
        ("jid-no-node", "worker-0@", "@"),
        ("jid-no-domain", "@demo.ipop", "@"),
        ("jid-domain-only", "worker-0@", ""),
        ("ice-port", "[node]", "[ice]\nport = 65536\n[node]"),
        (
            "ice-address",
            "[node]",
            "[ice]\nignore_addresses = [\"x\"]\n[node]",
        ),
        (
            "authority-without-identity",
            "[node]",
            "[authority]\ncertificate = \"ca.pem\"\n[node]",
        ),
        (
            "authority-token-without-issuer",
            "[node]",
            "[authority]\ncertificate = \"ca.pem\"\ntoken_file = \"t\"\n[node]\nidentity = \"/i\"",
        ),
        (
            "authority-issuer-without-resource",
            "[node]",
            "[authority]\ncertificate = \"ca.pem\"\nissuer = \"a@b\"\n[node]\nidentity = \"/i\"",
        ),
        (
            "authority-issuer-and-identity-of-others",
            "[node]",
            "[authority]\ncertificate = \"ca.pem\"\nissuer = \"a@b/c\"\n[node]\nidentity = \"i\"",
        ),
        (
            "pinning-with-an-authority",
            "[node]",
            "[pinning]\n[authority]\ncertificate = \"ca.pem\"\n[node]\nidentity = \"i\"",
        ),
        ("pinning-without-identity", "[node]", "[pinning]\n[node]"),
        (
            "pinning-of-something-else",
            "[node]",
            "[pinning]\npins = \"p\"\n[node]\nidentity = \"i\"",
        ),
    ];
    let mut all = String::new();
    for (name, from, to) in defects {
        assert!(GOOD.contains(from), "{name}");
        let text = GOOD.replacen(from, to, 1);
        let error = NodeConfig::parse(&text).expect_err(name);
        all.push_str(&format!(
            "---- {name} ----\n{}\n",
            error.to_string().trim_end()
        ));
    }
    insta::assert_snapshot!("defects", all);
}

const STATIC: &str = r#"
[node]
name = "a"
identity = "identity.pem"
[overlay]
name = "demo"
ipv4 = "10.73.0.1/24"
ipv6 = "fd5a::1/64"
[ice]
port = 4915
[[peer]]
name = "b"
ipv4 = "10.73.0.2"
ipv6 = "fd5a::2"
fingerprint = "sha-256 AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99"
endpoints = ["198.51.100.2:4915", "[2001:db8::2]:4915"]
[[peer]]
name = "c"
ipv4 = "10.73.0.3"
ipv6 = "fd5a::3"
fingerprint = "00:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99"
"#;

#[test]
fn records_go_to_a_file_that_has_a_place() {
    let with = |file: &str| NodeConfig::parse(&format!("{GOOD}[audit]\nfile = \"{file}\"\n"));
    let config = with("/var/lib/ipop-node/audit.jsonl").expect("good");
    let text = toml::to_string(&config).expect("TOML");
    assert_eq!(NodeConfig::parse(&text).expect("its own text"), config);
    let error = with("audit.jsonl").expect_err("relative").to_string();
    assert!(error.contains("audit.file"), "{error}");
}

#[test]
fn rules_that_a_node_is_told_go_to_a_file_that_has_a_place() {
    let with = |file: &str| NodeConfig::parse(&format!("{GOOD}[policy]\nkeep = \"{file}\"\n"));
    let config = with("/var/lib/ipop-node/rules.toml").expect("good");
    let text = toml::to_string(&config).expect("TOML");
    assert_eq!(NodeConfig::parse(&text).expect("its own text"), config);
    let error = with("rules.toml").expect_err("relative").to_string();
    assert!(error.contains("policy.keep"), "{error}");
    // They are checked like those of the file: nobody says here who is in which group.
    let rules = parse_rules("[[allow]]\nfrom = \"any\"\nto = \"any\"\n").expect("a rule");
    let error = config.with_rules(rules).expect_err("no authority");
    assert!(error.to_string().contains("[authority]"), "{error}");
    assert_eq!(config.with_rules(Vec::new()).expect("none"), config);
}

#[test]
fn peers_need_no_server() {
    let config = NodeConfig::parse(STATIC).expect("good");
    let text = toml::to_string(&config).expect("TOML");
    assert_eq!(NodeConfig::parse(&text).expect("its own text"), config);
    insta::assert_snapshot!("static", text);
    // Nor do they exclude one.
    let xmpp = &GOOD[GOOD.find("[xmpp]").expect("there")..];
    NodeConfig::parse(&format!("{STATIC}{xmpp}")).expect("both");
}

#[test]
fn each_defect_of_a_peer_is_named_by_key_or_line() {
    let peers = &STATIC[STATIC.find("[[peer]]").expect("there")..];
    let defects = [
        ("neither-peer-nor-xmpp", peers, ""),
        ("no-identity", "identity = \"identity.pem\"\n", ""),
        ("unknown-key", "name = \"b\"", "name = \"b\"\nport = 1"),
        ("missing-key", "ipv4 = \"10.73.0.2\"\n", ""),
        ("name", "\"b\"", "\"B\""),
        ("own-name", "\"b\"", "\"a\""),
        ("name-twice", "\"c\"", "\"b\""),
        ("prefix", "10.73.0.2", "10.73.0.2/24"),
        ("outside", "10.73.0.2", "10.74.0.2"),
        ("outside-6", "fd5a::2", "fd5b::2"),
        ("own-address", "fd5a::2", "fd5a::1"),
        ("address-twice", "10.73.0.3", "10.73.0.2"),
        ("fingerprint-hash", "sha-256", "sha-1"),
        ("fingerprint-short", "AA:BB:CC:", ""),
        ("fingerprint-digit", "AA:BB:CC:", "AA:BB:CG:"),
        ("fingerprint-twice", "\"00:", "\"AA:"),
        ("endpoint-name", "198.51.100.2:4915", "b.example:4915"),
        ("endpoint-without-port", "198.51.100.2:4915", "198.51.100.2"),
        ("endpoint-any", "198.51.100.2:4915", "0.0.0.0:4915"),
    ];
    let mut all = String::new();
    for (name, from, to) in defects {
        assert!(STATIC.contains(from), "{name}");
        let text = STATIC.replacen(from, to, 1);
        let error = NodeConfig::parse(&text).expect_err(name);
        all.push_str(&format!(
            "---- {name} ----\n{}\n",
            error.to_string().trim_end()
        ));
    }
    insta::assert_snapshot!("static-defects", all);
}

const SWITCH: &str = r#"
[switch]
bridge = "br0"
ageing_s = 60
member_stations = 100
lans = ["frontend-0", "worker-0"]
[switch.dhcp]
node = "frontend-0"
mac = "02:00:5e:10:00:01"
[switch.router]
node = "*"
[switch.storm]
broadcast = { frames = 10, bytes = 1000 }
[[switch.address]]
ip = "10.1.0.1"
mac = "02:00:5e:10:00:01"
[[switch.address]]
ip = "fd00:1::1"
mac = "02:00:5e:10:00:01"
"#;

/// A configuration in mode `switch`, with that section.
fn switched(section: &str) -> String {
    let mode = "[overlay]\nmode = \"switch\"\nmtu = 1500\n";
    GOOD.replace("[overlay]\n", mode) + section
}

#[test]
fn a_switch_is_told_what_to_allow() {
    let config = NodeConfig::parse(&switched(SWITCH)).expect("good");
    let text = toml::to_string(&config).expect("TOML");
    assert_eq!(NodeConfig::parse(&text).expect("its own text"), config);
    insta::assert_snapshot!("switch", text);
    let addrs = config.addrs();
    let settings = config.switch.settings("worker-0", addrs);
    insta::assert_debug_snapshot!("switch-settings", settings);
    let own = config.switch.settings("frontend-0", addrs).policy.dhcp;
    assert!(
        matches!(
            own,
            Allowed::Only {
                place: Place::Here,
                ..
            }
        ),
        "{own:?}"
    );
    let default = NodeConfig::parse(&switched("")).expect("good");
    let expected = Settings {
        own: settings.own,
        ..Settings::default()
    };
    assert_eq!(default.switch.settings("worker-0", addrs), expected);
}

#[test]
fn each_defect_of_a_switch_is_named_by_key_or_line() {
    let defects = [
        ("unknown-key", "ageing_s", "aging_s"),
        ("unknown-role", "[switch.dhcp]", "[switch.dhpc]"),
        (
            "unknown-key-of-role",
            "node = \"*\"",
            "node = \"*\"\nname = \"x\"",
        ),
        ("bridge", "\"br0\"", "\"br/0\""),
        ("bridge-is-device", "\"br0\"", "\"ipop0\""),
        ("mtu", "mtu = 1500", "mtu = 1400"),
        ("mode", "mode = \"switch\"", "mode = \"route\""),
        ("ageing", "= 60", "= 9"),
        ("limit", "= 100\n", "= 0\n"),
        ("lan", "[\"frontend-0\"", "[\"front end\""),
        ("own-lan", ", \"worker-0\"]", "]"),
        ("node", "node = \"frontend-0", "node = \"Frontend"),
        ("mac", "02:00:5e:10:00:01", "02:00:5e:10:00"),
        (
            "address-mac",
            "ip = \"fd00:1::1\"\nmac = \"02",
            "ip = \"fd00:1::1\"\nmac = \"03",
        ),
        ("address-twice", "fd00:1::1", "10.1.0.1"),
        ("rate", "{ frames = 10, bytes = 1000 }", "{ frames = 10 }"),
    ];
    let good = switched(SWITCH);
    let mut all = String::new();
    for (name, from, to) in defects {
        assert!(good.contains(from), "{name}");
        let error = NodeConfig::parse(&good.replacen(from, to, 1)).expect_err(name);
        all.push_str(&format!(
            "---- {name} ----\n{}\n",
            error.to_string().trim_end()
        ));
    }
    insta::assert_snapshot!("switch-defects", all);
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
}

fn config() -> impl Strategy<Value = NodeConfig> {
    let names = (
        label(),
        label(),
        "[a-z][a-z0-9_.-]{0,14}",
        "/[a-z é\"\\\\]{1,20}",
    );
    let addrs = (any::<[u8; 4]>(), any::<[u8; 16]>(), 1..=30u8, 8..=126u8);
    let servers = prop::collection::vec(any::<(IpAddr, u16)>(), 1..4);
    let ice = (
        any::<u16>(),
        prop::collection::vec(".{0,8}", 0..3),
        prop::collection::vec(any::<IpAddr>(), 0..3),
        any::<bool>(),
    );
    (names, addrs, 1280..=9000u16, servers, ice).prop_map(
        |((node, overlay, interface, path), (v4, v6, p4, p6), mtu, servers, ice)| NodeConfig {
            audit: ice.3.then(|| AuditSection {
                file: path.clone().into(),
            }),
            policy: ice.3.then(|| PolicySection {
                keep: path.clone().into(),
            }),
            authority: ice.3.then(|| AuthoritySection {
                certificate: path.clone().into(),
                revoked: (mtu % 2 == 0).then(|| path.clone().into()),
                keep: (mtu % 3 == 0).then(|| path.clone().into()),
                issuer: None,
                token_file: None,
                given: None,
            }),
            pinning: (!ice.3 && mtu % 2 == 0).then(|| PinningSection {
                keep: (mtu % 3 == 0).then(|| path.clone().into()),
            }),
            xmpp: Some(XmppSection {
                jid: format!("{node}@{overlay}.ipop"),
                servers: servers
                    .into_iter()
                    .map(|(ip, port)| SocketAddr::new(ip, port).to_string())
                    .collect(),
                password_file: path.clone().into(),
                enrol_token_file: ice.3.then(|| "ipop.enrol-token".into()),
                ca_file: "ipop.ca".into(),
            }),
            node: NodeSection {
                name: node,
                identity: (ice.3 || mtu % 2 == 0).then(|| path.clone().into()),
                ssh_host_key: ice.3.then(|| path.clone().into()),
                groups: BTreeSet::new(),
                control: path.into(),
            },
            overlay: OverlaySection {
                name: overlay,
                ipv4: format!("{}/{p4}", std::net::Ipv4Addr::from(v4))
                    .parse()
                    .expect("valid"),
                ipv6: format!("{}/{p6}", std::net::Ipv6Addr::from(v6))
                    .parse()
                    .expect("valid"),
                interface,
                mode: if ice.3 {
                    OverlayMode::Switch
                } else {
                    OverlayMode::Route
                },
                mtu,
                mac: ice.3.then_some(MacAddr([2, 0, 0, 0, 0, 1])),
            },
            ice: IceSection {
                port: ice.0,
                ignore_interfaces: ice.1,
                ignore_addresses: ice.2,
                relay_only: ice.3,
            },
            offload: OffloadSection {
                segmentation: ice.3,
                ..OffloadSection::default()
            },
            switch: Default::default(),
            names: None,
            peers: Vec::new(),
            allow: Vec::new(),
        },
    )
}

proptest! {
    #[test]
    fn a_rendered_configuration_reads_back(config in config()) {
        let text = toml::to_string(&config).expect("TOML");
        prop_assert_eq!(NodeConfig::parse(&text).expect("its own text"), config);
    }

    #[test]
    fn a_damaged_file_never_panics(at in any::<prop::sample::Index>(), junk in ".{0,4}") {
        let at = at.index(GOOD.len());
        let mut text = GOOD.to_owned();
        text.replace_range(at..=at, &junk);
        if let Ok(config) = NodeConfig::parse(&text) {
            prop_assert!(is_dns_label(&config.node.name));
        }
    }

    #[test]
    fn garbage_never_panics(text in "(.|\n){0,200}") {
        let _ = NodeConfig::parse(&text);
    }
}
