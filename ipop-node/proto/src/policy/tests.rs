use proptest::prelude::*;

use super::*;
use crate::config::PortList;

fn member(name: &str, groups: &[&str], role: Option<&str>) -> Member {
    Member {
        name: name.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        role: role.map(str::to_owned),
    }
}

fn rule(from: &str, to: &str, rest: &str) -> AllowSection {
    toml::from_str(&format!("from = \"{from}\"\nto = \"{to}\"\n{rest}")).expect("a rule")
}

fn policy(rules: &[AllowSection]) -> Policy {
    Policy::new(rules).expect("rules")
}

#[test]
fn members_with_a_group_in_common_reach_each_other_and_nobody_else_does_without_a_rule() {
    let policy = policy(&[rule("group:lake", "node:lake-data", "port = 2049")]);
    let alice = member("alice", &["lake"], None);
    let data = member("lake-data", &["storage"], None);
    let other = member("other", &["storage", "crew"], None);
    let alone = member("alone", &[], None);
    assert_eq!(policy.allowed(&data, &other), Allowed::everything());
    assert_eq!(
        policy.ask(&data, &other, What::Icmp),
        Answer::Common("storage")
    );
    for (from, to) in [
        (&data, &alice),
        (&other, &alice),
        (&alice, &other),
        (&alone, &data),
        (&alone, &alone),
    ] {
        assert!(policy.allowed(from, to).is_nothing(), "{from:?} to {to:?}");
    }
    let allowed = policy.allowed(&alice, &data);
    assert_eq!(summary(&allowed), "tcp/2049, udp/2049");
    assert_eq!(Policy::new(&[]), None);
}

#[test]
fn selectors_are_of_what_is_certified() {
    let everybody = [
        member("a", &["lake"], Some("worker")),
        member("lake", &["b"], None),
        member("worker", &[], Some("lake")),
    ];
    for (selector, selected) in [
        ("group:lake", [true, false, false]),
        ("node:lake", [false, true, false]),
        ("role:lake", [false, false, true]),
        ("any", [true; 3]),
        ("role:worker", [true, false, false]),
    ] {
        let selector: Selector = selector.parse().expect("a selector");
        let selects = [0, 1, 2].map(|at: usize| selector.selects(&everybody[at]));
        assert_eq!(selects, selected, "{selector}");
    }
}

#[test]
fn rules_are_read_as_sentences() {
    for (from, to, rest, text) in [
        (
            "group:lake",
            "node:lake-data",
            "protocol = \"tcp\"\nport = 2049",
            "members of group lake may reach lake-data on TCP port 2049",
        ),
        (
            "role:worker",
            "any",
            "port = [22, \"80-90\"]",
            "nodes with role worker may reach everybody on TCP and UDP ports 22, 80-90",
        ),
        (
            "any",
            "group:lake",
            "protocol = \"icmp\"",
            "everybody may reach members of group lake with ICMP (ping)",
        ),
        (
            "node:a",
            "node:b",
            "protocol = \"udp\"",
            "a may reach b on every UDP port",
        ),
        ("node:a", "node:b", "", "a may reach b with everything"),
    ] {
        assert_eq!(sentence(&rule(from, to, rest)), text);
    }
}

#[test]
fn what_is_asked_is_read_as_it_is_written() {
    for text in ["tcp/2049", "udp/53", "icmp"] {
        assert_eq!(
            text.parse::<What>().map(|what| what.to_string()),
            Ok(text.to_owned())
        );
    }
    assert_eq!("22".parse(), Ok(What::Tcp(22)));
    for text in ["", "tcp", "tcp/0", "tcp/65536", "icmp/1", "sctp/1", "nfs"] {
        assert!(text.parse::<What>().is_err(), "{text}");
    }
}

fn any_rule() -> impl Strategy<Value = AllowSection> {
    let selector = || {
        prop_oneof![
            "[ab]".prop_map(Selector::Group),
            "[ab]".prop_map(Selector::Node),
            "[ab]".prop_map(Selector::Role),
            Just(Selector::Any),
        ]
    };
    let protocol = prop_oneof![
        Just(Protocol::Any),
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Icmp),
    ];
    let ports = prop::collection::vec((1..6_u16, 0..3_u16), 0..3);
    (selector(), selector(), protocol, ports).prop_map(|(from, to, protocol, ports)| AllowSection {
        from,
        to,
        protocol,
        port: match protocol {
            Protocol::Icmp => PortList::default(),
            _ => PortList(
                ports
                    .iter()
                    .map(|(first, more)| *first..=first + more)
                    .collect(),
            ),
        },
    })
}

fn any_member() -> impl Strategy<Value = Member> {
    let groups = prop::collection::btree_set("[ab]", 0..2);
    let role = prop::option::of("[ab]");
    ("[ab]", groups, role).prop_map(|(name, groups, role)| Member { name, groups, role })
}

proptest! {
    #[test]
    fn people_are_told_what_is_done_with_packets(
        rules in prop::collection::vec(any_rule(), 1..6),
        from in any_member(),
        to in any_member(),
    ) {
        let policy = policy(&rules);
        let allowed = policy.allowed(&from, &to);
        let may = |what| policy.ask(&from, &to, what) != Answer::Denied;
        for port in 1..10 {
            prop_assert_eq!(allowed.tcp.has(port), may(What::Tcp(port)), "tcp/{}", port);
            prop_assert_eq!(allowed.udp.has(port), may(What::Udp(port)), "udp/{}", port);
        }
        prop_assert_eq!(allowed.icmp, may(What::Icmp));
        prop_assert_eq!(allowed.others, allowed == Allowed::everything());
    }
}
