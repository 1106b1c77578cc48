use serde_json::{Value, json};

use super::*;

fn peer(name: &str, last: u8, role: &str, link: &Value) -> Value {
    json!({
        "name": name, "jid": "", "role": role, "link": link,
        "addrs": { "ipv4": format!("10.130.2.{last}/24"), "ipv6": format!("fd5a:1:2:3::{last:x}/64") },
        "tx_bytes": 0, "tx_packets": 0, "rx_bytes": 0, "rx_packets": 0, "drops": {},
    })
}

/// What the node of a member's machine says; `resolver` is who asks it for names.
fn status(resolver: Option<&str>) -> NodeStatus {
    let up = json!({ "state": "up" });
    let status = json!({
        "name": "alice-laptop", "overlay": "lake", "jid": "", "version": "0.1.0",
        "addrs": { "ipv4": "10.130.2.254/24", "ipv6": "fd5a:1:2:3::fe/64" },
        "interface": "ipop0", "mtu": 1400, "uptime_ms": 1,
        "sign_in": { "state": "online" }, "role": { "state": "pending" },
        "candidates": [], "drops": {},
        "peers": [
            peer("frontend-0", 1, "frontend", &up),
            peer("lake-data", 4, "share", &up),
            peer("photos", 5, "share", &json!({ "state": "down", "why": "no answer" })),
            peer("slow", 6, "share", &json!({ "state": "checking" })),
        ],
        "names": { "domain": "lake.ipop", "resolver": resolver, "members": 4 },
    });
    serde_json::from_value(status).expect("a status")
}

#[test]
fn a_share_is_mounted_by_its_name_where_names_are_resolved_and_by_its_address_elsewhere() {
    let place: Place = "/srv/lake".parse().expect("a folder");
    let mount = Mount::planned(
        &status(Some("systemd-resolved")),
        "lake-data",
        place.clone(),
    );
    let mount = mount.expect("a plan");
    assert_eq!(mount.source, "lake-data.lake.ipop:/srv/share");
    assert_eq!(mount.addr, Ipv4Addr::new(10, 130, 2, 4));
    let by_address = Mount::planned(&status(None), "lake-data", place).expect("a plan");
    assert_eq!(
        by_address.arguments().join(" "),
        "-t nfs4 -o vers=4.2,nosuid,nodev,retry=0 10.130.2.4:/srv/share /srv/lake"
    );
    assert!(by_address.arguments()[3].starts_with(OPTIONS));
}

#[test]
fn what_cannot_be_mounted_is_said_with_the_reason_and_a_way_out() {
    let refused = |share: &str| {
        let planned = Mount::planned(&status(None), share, Place::of(share));
        let error = planned.expect_err(share);
        format!("{error}\nexit code {}", error.code as u8)
    };
    let said = [
        "lake-dta",
        "nothing-like-it",
        "frontend-0",
        "photos",
        "slow",
    ]
    .map(refused);
    insta::assert_snapshot!(said.join("\n\n"));
}

#[test]
fn units_mount_it_when_it_is_touched() {
    let place = Place::of("lake-data");
    let mount = Mount::planned(&status(Some("/etc/resolv.conf")), "lake-data", place);
    let units = mount.expect("a plan").units();
    let said: Vec<_> = units
        .iter()
        .map(|(name, text)| format!("{name}\n{text}"))
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_place_is_a_plain_absolute_path_and_names_its_unit() {
    for (path, unit) in [
        ("/shares/lake-data", "shares-lake\\x2ddata.mount"),
        ("/srv/a.b/", "srv-a.b.mount"),
        ("/.hidden/x_y@z", "\\x2ehidden-x_y\\x40z.mount"),
    ] {
        let place: Place = path.parse().expect(path);
        assert_eq!(place.unit("mount"), unit);
    }
    for path in [
        "", "/", "lake", "/a/../b", "/a//b", "/./a", "/a b", "/a%b", "/a\\b", "/a\nb",
    ] {
        let refused = path.parse::<Place>();
        assert!(refused.is_err(), "{path:?} is {refused:?}");
    }
}

#[test]
fn what_is_mounted_at_a_place_is_the_share_or_is_left_alone() {
    let place = Place::of("lake-data");
    let at = |lines: &str| mounted(lines, &place, "lake", "lake-data");
    let nfs = |source: &str| format!("{source} /shares/lake-data nfs4 rw,vers=4.2 0 0\n");
    let automount = "systemd-1 /shares/lake-data autofs rw,fd=5 0 0\n";
    assert_eq!(at("/dev/vda / ext4 rw 0 0\n"), Mounted::Nothing);
    assert_eq!(at(automount), Mounted::Nothing);
    for source in [
        "lake-data.lake.ipop:/srv/share",
        "10.130.2.4:/srv/share",
        "[fd5a:1:2:3::4]:/srv/share",
    ] {
        assert_eq!(at(&nfs(source)), Mounted::Share, "{source}");
        assert_eq!(at(&format!("{automount}{}", nfs(source))), Mounted::Share);
    }
    for source in [
        "lake-data.pond.ipop:/srv/share",
        "photos.lake.ipop:/srv/share",
        "10.130.2.4:/export",
        "/dev/vdb",
    ] {
        assert_eq!(at(&nfs(source)), Mounted::Other(source.to_owned()));
    }
    let other = "/dev/vdb /shares/lake-data ext4 rw 0 0\n";
    assert_eq!(
        at(&format!("{}{other}", nfs("10.130.2.4:/srv/share"))),
        Mounted::Other("/dev/vdb".to_owned()),
        "what is seen is what was mounted last"
    );
}
