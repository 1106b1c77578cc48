use ipop_proto::candidate::CandidateKind;

use super::*;
use crate::deploy::outcome::{NodeOutcome, Outcome, Stuck};

fn events() -> Vec<Event> {
    let node = NodeName("worker-0".to_owned());
    let progress = |done| Event::Progress {
        what: "image worker".to_owned(),
        done,
        total: 8,
    };
    vec![
        Event::Step {
            message: "starting the rendezvous".to_owned(),
        },
        progress(0),
        progress(1),
        progress(8),
        Event::Warning {
            message: "software emulation is used".to_owned(),
        },
        Event::Stage {
            node,
            stage: Stage::SignedIn,
            seconds: 61.25,
        },
    ]
}

fn outcome() -> Outcome {
    let node = |name: &str, stuck| NodeOutcome {
        name: NodeName(name.to_owned()),
        role: "worker".to_owned(),
        site: "local".to_owned(),
        ipv4: "10.200.7.2".to_owned(),
        ipv6: "fd12:3456:789a::2".to_owned(),
        link: Some(CandidateKind::Host),
        rtt_us: Some(1870),
        joined_seconds: Some(91.04),
        stuck,
    };
    let stuck = Stuck {
        reached: Some(Stage::Booted),
        why: "it did not sign in to the rendezvous".to_owned(),
        console: vec![
            "[  OK  ] Started ipop-node.service".to_owned(),
            "ipop: booted".to_owned(),
        ],
    };
    let failed = NodeOutcome {
        link: None,
        rtt_us: None,
        joined_seconds: None,
        ..node("worker-1", Some(stuck))
    };
    Outcome {
        name: "demo".to_owned(),
        joined: false,
        enough: false,
        waited: true,
        seconds: 900.2,
        nodes: vec![node("worker-0", None), failed],
    }
}

#[test]
fn plain_reports_have_one_line_an_event_and_a_line_a_quarter() {
    let plain = plain::Plain::new(Vec::new());
    events().into_iter().for_each(|e| plain.emit(e));
    insta::assert_snapshot!(String::from_utf8(plain.into_inner()).expect("text"));
}

#[test]
fn json_reports_have_one_object_a_line_and_end_with_the_result() {
    let json = json::Json::new(Vec::new());
    events().into_iter().for_each(|e| json.emit(e));
    json.result(&outcome());
    let text = String::from_utf8(json.into_inner()).expect("text");
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("an object a line");
        assert!(value["event"].is_string(), "{line}");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn the_result_names_the_nodes_that_did_not_join_and_why() {
    insta::assert_snapshot!(table::outcome(&outcome()));
}

#[test]
fn of_nodes_that_nobody_waited_for_none_is_said_to_have_joined() {
    let outcome = Outcome {
        waited: false,
        seconds: 2.0,
        nodes: Vec::new(),
        ..outcome()
    };
    let text = table::outcome(&outcome);
    assert!(!text.contains("nodes joined"), "{text}");
    assert!(text.contains("`demo` was started in 2 s"), "{text}");
    assert!(text.contains("provision status demo"), "{text}");
}

#[test]
fn bars_take_every_event_and_can_be_ended() {
    let report = Report::new(Mode::Terminal, &[NodeName("worker-0".to_owned())]);
    events().into_iter().for_each(|e| report.emit(e));
    report.emit(Event::Stage {
        node: NodeName("nobody".to_owned()),
        stage: Stage::Ready,
        seconds: 1.0,
    });
    report.finish(&outcome(), |_| String::new());
}
