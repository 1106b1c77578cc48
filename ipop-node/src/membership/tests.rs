use std::os::unix::fs::PermissionsExt as _;

use ipop_proto::config::NodeConfig;
use ipop_proto::invitation::{Admission, Terms};

use super::*;

fn invitation(overlay: &str) -> Invitation {
    Invitation {
        terms: Terms {
            overlay: overlay.to_owned(),
            node: "alice".into(),
            ipv4: "10.130.2.9/24".parse().expect("an address"),
            ipv6: "fd5a::9/64".parse().expect("an address"),
            jid: format!("alice@{overlay}.ipop"),
            servers: vec!["192.0.2.1:5222".into()],
            token: "sesame".into(),
            expires: 0,
            frontend: (
                "10.130.2.1".parse().expect("an address"),
                "fd5a::1".parse().expect("an address"),
            ),
            admission: Some(Admission {
                issuer: format!("provision@{overlay}.ipop/issuer"),
                token: "simsim".into(),
            }),
            rules: Vec::new(),
        },
        ca: vec![0x30, 0x00],
        authority: Some(vec![0x30, 0x01]),
    }
}

fn machine() -> (tempfile::TempDir, Memberships) {
    let root = tempfile::tempdir().expect("a directory");
    let memberships = Memberships::of(root.path());
    (root, memberships)
}

fn add(memberships: &Memberships, overlay: &str) -> Result<(), MembershipError> {
    memberships.add(&invitation(overlay), &memberships.places(overlay, true))
}

#[test]
fn a_membership_is_a_configuration_that_runs_and_secrets_for_root_alone() {
    let (root, memberships) = machine();
    add(&memberships, "lake").expect("written");
    assert_eq!(memberships.names(), ["lake"]);
    let text = fs::read_to_string(memberships.config("lake")).expect("written");
    let config = NodeConfig::parse(&text).expect("sound");
    assert_eq!(config.overlay.interface, "ipop0");
    let xmpp = config.xmpp.expect("an account");
    assert_eq!(
        xmpp.password_file,
        root.path().join("var/lib/ipop-node/lake/password")
    );
    let dir = root.path().join("etc/ipop-node/lake");
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("token")), 0o600);
    assert_eq!(mode(&root.path().join("var/lib/ipop-node/lake")), 0o700);
    assert!(!text.contains("sesame") && !text.contains("simsim"));
    assert_eq!(
        config.node.identity,
        Some(root.path().join("var/lib/ipop-node/lake/identity.pem"))
    );
    let section = config.authority.expect("an authority");
    let beside = |path: Option<PathBuf>| dir.join(path.expect("named"));
    let token = beside(section.token_file);
    assert_eq!(mode(&token), 0o600);
    assert_eq!(fs::read_to_string(token).expect("there"), "simsim");
    let authority = fs::read_to_string(beside(Some(section.certificate)));
    assert!(
        authority
            .expect("there")
            .starts_with("-----BEGIN CERTIFICATE")
    );
}

#[test]
fn a_second_overlay_has_its_own_socket_and_device_and_the_same_one_is_refused() {
    let (_root, memberships) = machine();
    add(&memberships, "lake").expect("written");
    let error = add(&memberships, "lake").expect_err("a member already");
    assert!(matches!(error, MembershipError::Member(name) if name == "lake"));
    let places = memberships.places("a-long-name-of-an-overlay", true);
    assert_eq!(places.interface, "ipop-a-long-nam");
    assert!(places.control.ends_with("a-long-name-of-an-overlay.sock"));
    // Another node of this machine has the default places.
    memberships.remove("lake").expect("removed");
    assert_eq!(memberships.places("lake", false).interface, "ipop-lake");
}

#[test]
fn what_is_left_is_gone_and_what_never_was_is_named() {
    let (root, memberships) = machine();
    add(&memberships, "lake").expect("written");
    let password = root.path().join("var/lib/ipop-node/lake/password");
    fs::write(&password, "mine").expect("written");
    memberships.remove("lake").expect("removed");
    assert!(!password.exists() && memberships.names().is_empty());
    add(&memberships, "sea").expect("written");
    for name in ["lake", "..", "", "sea/../sea"] {
        let error = memberships.remove(name).expect_err(name).to_string();
        assert_eq!(
            error,
            format!("this machine is no member of `{name}`, but of sea")
        );
    }
}

#[test]
fn a_join_that_was_killed_is_no_membership_and_in_nobodys_way() {
    let (root, memberships) = machine();
    let part = root.path().join("etc/ipop-node/.lake.part");
    fs::create_dir_all(&part).expect("made");
    fs::write(part.join("token"), "old").expect("written");
    assert!(memberships.names().is_empty());
    add(&memberships, "lake").expect("written");
    let token = root.path().join("etc/ipop-node/lake/token");
    assert_eq!(fs::read_to_string(token).expect("there"), "sesame");
}
