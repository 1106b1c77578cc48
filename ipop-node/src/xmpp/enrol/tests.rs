//! Files of the password, and what a server with the rendezvous's own settings lets be changed.

use std::os::unix::fs::PermissionsExt;

use ipop_testbed::ejabberd::{DOMAIN, Ejabberd};
use tokio_xmpp::xmlstream::FallibleStreamElement;

use super::super::account::Account;
use super::super::connect::{header, start_tls};
use super::*;

#[test]
fn two_passwords_differ_and_have_256_bits() {
    let (a, b) = (generate(), generate());
    assert_ne!(a, b);
    assert_eq!(a.expose().len(), 64);
    assert!(a.expose().bytes().all(|c| c.is_ascii_hexdigit()));
}

#[test]
fn a_password_is_written_for_its_owner_alone_and_confirmed_by_its_name() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let enrolment = Enrolment {
        token: Password::new("t"),
        password_file: dir.path().join("password"),
    };
    let pending = enrolment.pending_file();
    assert_eq!(read(&pending).expect("no file"), None);
    let password = generate();
    file::replace(&pending, password.expose(), SECRET).expect("written");
    let mode = fs::metadata(&pending).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(read(&enrolment.password_file).expect("no file"), None);
    enrolment.confirm().expect("renamed");
    let kept = read(&enrolment.password_file).expect("readable");
    assert_eq!(kept, Some(password));
    assert_eq!(read(&pending).expect("no file"), None);
}

#[test]
fn an_empty_file_is_no_password() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("password");
    fs::write(&path, "\n").expect("written");
    assert_eq!(read(&path).expect("readable"), None);
}

fn login(server: &Ejabberd, user: &str, password: &str) -> Login {
    Login::new(Account {
        jid: format!("{user}@{DOMAIN}"),
        resource: "ipop".to_owned(),
        password: Password::new(password),
        servers: server.servers(),
        ca_pem: server.ca_pem().as_bytes().to_vec(),
    })
    .expect("a usable account")
}

#[tokio::test]
async fn an_account_changes_its_own_password_and_nothing_else() {
    let server = Ejabberd::start();
    for user in ["a", "b"] {
        server.register(user, "token");
    }
    let (a, timing) = (login(&server, "a", "token"), Timing::default());
    let (mut stream, _) = connect(&a, &timing).await.expect("signed in");
    for fields in [
        &[("username", "b"), ("password", "new")][..],
        &[("username", "c"), ("password", "new")],
        &[("remove", "")],
    ] {
        let refused = register(&mut stream, &a, fields.iter().copied()).await;
        match refused.expect_err("nothing else") {
            // Versions of ejabberd differ in which of the two it is.
            SignInError::Enrolment(said) => assert!(
                matches!(said.as_str(), "forbidden" | "not-allowed"),
                "{fields:?}: {said}"
            ),
            other => panic!("{other}"),
        }
    }
    change(&mut stream, &a, &Password::new("mine"))
        .await
        .expect("its own");
    let again = |user, password| {
        let login = login(&server, user, password);
        async move { connect(&login, &Timing::default()).await.map(drop) }
    };
    again("a", "mine").await.expect("the new password");
    let old = again("a", "token").await.expect_err("the old password");
    assert_eq!(old.refused.as_deref(), Some("not-authorized"));
    again("b", "token").await.expect("another's is as it was");
}

#[tokio::test]
async fn nobody_registers_in_band() {
    let server = Ejabberd::start();
    let c = login(&server, "c", "token");
    let timeouts = tokio_xmpp::xmlstream::Timeouts::tight();
    let tcp = tokio::net::TcpStream::connect(c.servers[0]).await;
    let tls = start_tls(&c, timeouts, tcp.expect("a connection"))
        .await
        .expect("TLS");
    let stream = tokio_xmpp::xmlstream::initiate_stream(
        tokio::io::BufStream::new(tls),
        tokio_xmpp::parsers::ns::JABBER_CLIENT,
        header(&c),
        timeouts,
    )
    .await
    .expect("a stream");
    let (_, mut stream) = stream
        .recv_features::<FallibleStreamElement>()
        .await
        .expect("features");
    let fields = [("username", "c"), ("password", "mine")];
    register(&mut stream, &c, fields)
        .await
        .expect_err("no account for everybody");
    let known = server.api("registered_users", &serde_json::json!({ "host": DOMAIN }));
    assert_eq!(known.trim(), "[]");
}
