//! What happens to a deployment when no command runs, with a real ejabberd on loopback. Needs the
//! package `ejabberd` and `curl`.

use std::process::Command;

use provisioner::name::NodeName;
use provisioner::provider::Tags;
use provisioner::rendezvous::strays;

mod site;
use site::Site;

/// Whether the server takes a password for an account: 0 is yes.
fn accepts(site: &Site, user: &str, password: &str) -> bool {
    let socket = site.layout.rendezvous(&site.name).join("spool/api.sock");
    let arguments = serde_json::json!({
        "user": user, "host": format!("{}.ipop", site.name), "password": password,
    });
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "20"])
        .arg("--unix-socket")
        .arg(socket)
        .args(["--data", &arguments.to_string()])
        .arg("http://localhost/api/check_password")
        .output()
        .expect("curl runs");
    assert!(output.status.success(), "{output:?}");
    output.stdout == b"0"
}

#[test]
fn a_group_says_whose_it_is_and_a_banned_account_may_not_sign_in() {
    let site = Site::new("life-ban");
    site.start();
    let tags = Tags {
        owner: "00000000000000aa".to_owned(),
        deployment: site.name.clone(),
        uid: "00000000000000bb".to_owned(),
    };
    let api = site.rendezvous.api().expect("API");
    api.create_group("tagged", Some(&tags)).expect("made");
    api.create_group("plain", None).expect("made");
    assert_eq!(api.group_tags("tagged").expect("asked"), Some(tags));
    assert_eq!(api.group_tags("plain").expect("asked"), None);

    let node = NodeName("worker-0".into());
    site.rendezvous.create_group().expect("group");
    let account = site.rendezvous.create_account(&node).expect("account");
    let password = account.password.expose();
    assert!(accepts(&site, "worker-0", password));
    site.rendezvous.ban(&account.jid).expect("banned");
    assert!(!accepts(&site, "worker-0", password));
}

#[test]
fn supervisors_and_servers_are_found_when_all_their_files_are_gone() {
    let site = Site::new("life-stray");
    site.start();
    std::fs::remove_dir_all(site.layout.deployment(&site.name)).expect("removed");
    let found = strays(&site.layout).expect("listed");
    let names: Vec<_> = found.iter().map(|s| s.deployment.as_str()).collect();
    assert!(names.len() >= 2, "{found:?}");
    assert!(names.iter().all(|n| *n == site.name), "{found:?}");
    for stray in &found {
        let gone = stray.process.end(std::time::Duration::from_secs(30));
        assert!(gone.expect("signals"), "{stray:?}");
    }
    assert_eq!(strays(&site.layout).expect("listed"), []);
}
