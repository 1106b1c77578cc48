//! Which of what the protocol says has a record.

use std::net::IpAddr;
use std::time::SystemTime;

use ipop_proto::address::OverlayAddrs;
use ipop_proto::audit::{Event, Record};
use ipop_proto::overlay::Output;

/// The record of it, by whom it was written left out; none of what is no link's beginning, end or refusal.
pub(super) fn told(output: &Output) -> Option<Record> {
    let record = match output {
        Output::LinkUp { peer, key, .. } => about(Event::LinkUp, peer, key.as_ref()),
        Output::LinkDown { peer, key, why, .. } => Record {
            why: Some(why.clone()),
            ..about(Event::LinkDown, peer, key.as_ref())
        },
        Output::Refused {
            account,
            peer,
            addrs,
            key,
            why,
            ..
        } => Record {
            account: Some(account.clone()),
            addrs: texts(addrs),
            why: Some(why.clone()),
            ..about(Event::LinkRefused, peer, key.as_ref())
        },
        Output::Denied {
            peer,
            key,
            count,
            last,
        } => Record {
            why: Some(last.to_string()),
            count: Some(*count),
            ..about(Event::Denied, peer, key.as_ref())
        },
        _ => return None,
    };
    Some(record)
}

/// Of the node with this name, which has shown this key.
fn about(event: Event, peer: &str, key: Option<&String>) -> Record {
    Record {
        node: Some(peer.to_owned()),
        key: key.cloned(),
        ..Record::new(event, SystemTime::now())
    }
}

fn texts(addrs: &OverlayAddrs) -> Vec<String> {
    let addrs = [IpAddr::from(addrs.ipv4.addr), addrs.ipv6.addr.into()];
    addrs.map(|addr| addr.to_string()).to_vec()
}
