//! Two nodes behind NATs. Needs root; see the crate's documentation.

use ipop_proto::candidate::CandidateKind;
use ipop_tests::lab::{Lab, Mapping};

#[test]
fn nodes_behind_address_and_port_dependent_nats_link_through_turn() {
    let mut lab = Lab::behind_nats(Mapping::AddressAndPortDependent);
    lab.join_all();
    lab.ping_all();
    for (a, b) in [(0, 1), (1, 0)] {
        let peer = lab.nodes[a].link(&lab.nodes[b]).expect("linked");
        assert_eq!(peer.link_kind(), Some(CandidateKind::Relay), "{peer:?}");
    }
}

#[test]
fn nodes_behind_endpoint_independent_nats_link_directly() {
    let mut lab = Lab::behind_nats(Mapping::EndpointIndependent);
    lab.join_all();
    lab.ping_all();
    for (a, b) in [(0, 1), (1, 0)] {
        let peer = lab.nodes[a].link(&lab.nodes[b]).expect("linked");
        let (local, remote) = (peer.local.expect("a pair"), peer.remote.expect("a pair"));
        assert_ne!(local.kind, CandidateKind::Relay);
        assert!(
            matches!(remote.kind, CandidateKind::Srflx | CandidateKind::Prflx),
            "{local:?} {remote:?}"
        );
    }
}
