//! Enrolment tokens on the embedded rendezvous, with a real ejabberd and its supervisor. Needs the
//! package `ejabberd`.

use std::time::{Duration, Instant, SystemTime};

use provisioner::name::NodeName;
use provisioner::secret::Secret;

mod site;
use site::Site;

fn node(name: &str) -> NodeName {
    NodeName(name.to_owned())
}

#[test]
fn a_token_dies_with_its_time_and_one_that_was_exchanged_does_not_take_the_password_with_it() {
    let site = Site::new("enrol");
    site.start();
    let rendezvous = &site.rendezvous;
    rendezvous.create_group().expect("a group");
    let api = rendezvous.api().expect("an API");
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let enrol = |name| {
        let account = rendezvous.create_enrolment(&node(name), now + hour);
        account.expect("an account").password
    };
    let is = |name, password: &Secret<String>| api.check_password(name, password).expect("known");

    let (unused, used) = (enrol("unused"), enrol("used"));
    assert_eq!(unused, enrol("unused"), "a launch that is repeated");
    assert!(!rendezvous.is_enrolled(&node("used")).expect("known"));
    assert!(!rendezvous.is_enrolled(&node("none")).expect("known"));
    // What the node does by XEP-0077.
    let own = Secret::new("its own".to_owned());
    api.change_password("used", &own).expect("changed");
    assert!(rendezvous.is_enrolled(&node("used")).expect("known"));
    assert!(!is("used", &used), "a token is used once");

    assert_eq!(rendezvous.expire_tokens(now).expect("looked"), []);
    assert!(is("unused", &unused), "its time is not over");
    let killed = rendezvous.expire_tokens(now + hour).expect("looked");
    assert_eq!(killed, [node("unused")]);
    assert!(!is("unused", &unused), "it is still good");
    assert!(is("used", &own), "the password is another");
    assert_ne!(enrol("unused"), unused, "a dead token is given out again");
}

#[test]
fn the_supervisor_kills_a_token_in_time_by_itself() {
    let site = Site::new("enrol-late");
    site.start();
    let rendezvous = &site.rendezvous;
    rendezvous.create_group().expect("a group");
    let expires = SystemTime::now() + Duration::from_secs(1);
    let account = rendezvous.create_enrolment(&node("worker-0"), expires);
    let token = account.expect("an account").password;
    let api = rendezvous.api().expect("an API");
    let began = Instant::now();
    while api.check_password("worker-0", &token).expect("known") {
        assert!(began.elapsed() < Duration::from_secs(60), "it lives");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(SystemTime::now() >= expires, "killed too early");
}
