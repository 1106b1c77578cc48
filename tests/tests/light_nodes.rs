//! Light nodes on a real server are counted as `provision` counts nodes.

use std::time::Duration;

use ipop_node::xmpp::{self, Account, Event, Password};
use ipop_tests::ejabberd::{DOMAIN, Ejabberd};
use ipop_tests::light_node::{Credentials, LightNodes, from_user_data};
use provisioner::bundle::Bundle;
use provisioner::name::NodeName;
use provisioner::watch::progress::Progress;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

fn credentials(server: &Ejabberd, node: &str, number: u8) -> Credentials {
    let role = node.split('-').next().expect("a role");
    let config = format!(
        "[node]\nname = \"{node}\"\n[overlay]\nname = \"t\"\nipv4 = \"10.73.0.{number}/24\"\n\
         ipv6 = \"fd73::{number}/64\"\n[xmpp]\njid = \"{node}@{DOMAIN}\"\nservers = {:?}\n\
         password_file = \"ipop.password\"\nca_file = \"ipop.ca\"\n",
        server.servers()
    );
    let of = |name: &str, text: String| (name.to_owned(), text.into_bytes());
    Credentials::from([
        of("ipop.config", config),
        of("ipop.password", format!("secret-{node}\n")),
        of("ipop.ca", server.ca_pem().to_owned()),
        of("ipop.env", format!("IPOP_NODE={node}\nIPOP_ROLE={role}\n")),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn light_nodes_join_in_the_eyes_of_the_watcher_and_leave_when_stopped() {
    let server = Ejabberd::start();
    let names = ["frontend-0", "worker-0", "worker-1", "worker-2"];
    for name in names.iter().chain(&["watcher"]) {
        server.register(name, &format!("secret-{name}"));
        server.join(name);
    }
    let account = Account {
        jid: format!("watcher@{DOMAIN}"),
        resource: "test".into(),
        password: Password::new("secret-watcher"),
        servers: server.servers(),
        ca_pem: server.ca_pem().as_bytes().to_vec(),
    };
    let (session, mut events) = xmpp::open(account).expect("a sound account");
    let nodes = LightNodes::default();
    for (number, name) in (1..).zip(names) {
        let credentials = credentials(&server, name, number);
        nodes.start(name, &credentials).expect("a sound bundle");
    }
    let name = |text: &str| NodeName(text.to_owned());
    let mut progress = Progress::new(name(names[0]), names.map(name));
    let joined = async {
        while !progress.all_joined() {
            if let Some(Event::Presence {
                from,
                advertisement,
            }) = events.recv().await
            {
                let node = from.split('@').next().expect("a local part");
                progress.presence(&name(node), &from, advertisement);
            }
        }
    };
    timeout(LIMIT, joined).await.expect("all join");

    let worker = progress.jid(&name("worker-1")).expect("present");
    let status = session.query_status(worker).await.expect("an answer");
    assert_eq!((status.name.as_str(), status.peers.len()), ("worker-1", 1));
    assert_eq!(status.peers[0].name, "frontend-0");
    let host_key = provisioner::plan::personal::reported_host_key(&status);
    assert!(host_key.expect("a key in form").is_some());

    nodes.stop("worker-1");
    let left = async {
        loop {
            match events.recv().await {
                Some(Event::Unavailable { from }) if from.starts_with("worker-1@") => return,
                Some(_) => {}
                None => panic!("the session ended"),
            }
        }
    };
    timeout(LIMIT, left).await.expect("it leaves");
}

#[test]
fn user_data_is_read_as_the_provisioner_writes_it() {
    let mut bundle = Bundle::default();
    bundle.set(provisioner::bundle::CA, "a certificate");
    let read = from_user_data(bundle.user_data().expose()).expect("readable");
    assert_eq!(read["ipop.ca"], b"a certificate");
    for bad in [
        &b"#!/bin/sh"[..],
        br#"{"version":2,"credentials":{}}"#,
        br#"{"version":1,"credentials":{"ipop.ca":"%"}}"#,
    ] {
        from_user_data(bad).expect_err("not ours");
    }
}
