use super::*;
use crate::rendezvous::Endpoint;

/// A front end and two workers on `local`.
pub fn demo() -> ClusterPlan {
    let request = Request {
        name: Some("demo".to_owned()),
        frontend: vec!["1@local".parse().expect("valid")],
        workers: vec!["2@local".parse().expect("valid")],
        ..Request::default()
    };
    let world = World {
        seed: [0x12, 0x34, 0x56, 0x78, 0x9a, 0, 1],
        ..World::default()
    };
    plan(&request, &Sites::default(), &world).expect("planned")
}

fn refused(request: &Request, world: &World) -> String {
    let sites = Sites::parse("[site.lab]\nkind = \"libvirt\"\nmax = 2\n", "sites.toml");
    plan(request, &sites.expect("valid"), world)
        .expect_err("refused")
        .to_string()
}

#[test]
fn a_cluster_has_its_front_end_first_and_numbers_its_workers() {
    let plan = demo();
    let names: Vec<_> = plan.names().into_iter().map(|n| n.0).collect();
    assert_eq!(names, ["frontend-0", "worker-0", "worker-1"]);
    assert_eq!(plan.domain, "demo.ipop");
    let addrs = plan.nodes[2].addrs;
    assert_eq!(u32::from(addrs.ipv4.addr) & 0xff, 3);
    assert_eq!(addrs.ipv6.to_string(), "fd12:3456:789a:1::3/64");
    assert_eq!(plan.nodes[0].memory_mib, 512);
}

#[test]
fn workers_on_several_sites_are_numbered_through() {
    let request = Request {
        frontend: vec!["1@local".parse().expect("valid")],
        workers: vec![
            "1@lab".parse().expect("valid"),
            "2@local".parse().expect("valid"),
        ],
        memory_mib: Some(1024),
        ..Request::default()
    };
    let sites = Sites::parse("[site.lab]\nkind = \"libvirt\"\ncpus = 4\n", "sites.toml");
    let plan = plan(&request, &sites.expect("valid"), &World::default()).expect("planned");
    let workers: Vec<_> = plan
        .workers()
        .iter()
        .map(|n| (n.name.0.as_str(), n.site.as_str()))
        .collect();
    assert_eq!(
        workers,
        [
            ("worker-0", "lab"),
            ("worker-1", "local"),
            ("worker-2", "local")
        ]
    );
    assert_eq!((plan.nodes[1].cpus, plan.nodes[1].memory_mib), (4, 1024));
}

#[test]
fn without_a_name_the_first_free_default_is_taken() {
    for (taken, expected) in [
        (&[][..], "cluster"),
        (&["cluster"], "cluster-2"),
        (&["cluster", "cluster-2"], "cluster-3"),
    ] {
        let request = Request {
            frontend: vec!["1@local".parse().expect("valid")],
            ..Request::default()
        };
        let names = taken.iter().map(|n| (*n).to_owned()).collect();
        let world = World {
            names,
            ..World::default()
        };
        assert_eq!(
            plan(&request, &Sites::default(), &world)
                .expect("planned")
                .name,
            expected
        );
    }
}

#[test]
fn a_request_that_cannot_be_met_says_what_to_change() {
    let ask = |name: Option<&str>, frontend: &[&str], workers: &[&str]| Request {
        name: name.map(str::to_owned),
        frontend: frontend.iter().map(|g| g.parse().expect("valid")).collect(),
        workers: workers.iter().map(|g| g.parse().expect("valid")).collect(),
        ..Request::default()
    };
    let world = World {
        names: ["demo".to_owned()].into(),
        ..World::default()
    };
    let cases = [
        ask(None, &["1@locale"], &[]),
        ask(None, &["1@local"], &["3@lab"]),
        ask(None, &["1@local", "1@lab"], &[]),
        ask(Some("Demo!"), &["1@local"], &[]),
        ask(Some("demo"), &["1@local"], &[]),
    ];
    let messages: Vec<_> = cases
        .iter()
        .map(|request| refused(request, &world))
        .collect();
    insta::assert_snapshot!(messages.join("\n\n"));
}

#[test]
fn personal_data_is_rendered_for_the_role() {
    let plan = demo();
    let endpoint = Endpoint {
        domain: plan.domain.clone(),
        servers: vec!["192.168.211.1:5222".to_owned()],
        ca_pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
    };
    let config =
        personal::config(&plan, &plan.nodes[1], &endpoint, "worker-0@demo.ipop").expect("rendered");
    ipop_proto::config::NodeConfig::parse(&config).expect("the node takes it");
    insta::assert_snapshot!("node_config", config);
    insta::assert_snapshot!("role_env", personal::environment(&plan, &plan.nodes[1]));
    insta::assert_snapshot!("exports", personal::exports(&plan).expect("rendered"));
}
