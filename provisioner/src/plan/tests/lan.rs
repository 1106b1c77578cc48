//! Clusters whose front end is launched with a LAN.

use ipop_proto::config::{NodeConfig, OverlayMode};

use super::*;
use crate::deploy::settings::Settings;
use crate::state::record::{Deployment, Phase};

const SITES: &str = r#"
[site.local]
kind = "libvirt"
[site.local.lan]
bridge = "br-lake"
address = "10.1.0.254/24"
addresses = "10.1.0.128/26"
machines = "10.1.0.64/26"

[site.lab]
kind = "libvirt"
lan = { bridge = "br-lab" }

[site.annex]
kind = "libvirt"

[site.machines]
kind = "ssh"
hosts = ["root@m1.example"]

[site.cloud]
kind = "ec2"
region = "us-west-2"

[site.ucsd]
kind = "rocks"
host = "root@ucsd.example"
bridge = "br7"
"#;

fn ask(frontend: &str, lan: bool, gateways: &[&str], workers: &[&str]) -> Request {
    let groups = |texts: &[&str]| texts.iter().map(|g| g.parse().expect("valid")).collect();
    Request {
        name: Some("lake".to_owned()),
        frontend: groups(&[frontend]),
        lan,
        gateways: groups(gateways),
        workers: groups(workers),
        ..Request::default()
    }
}

fn planned(request: &Request, world: &World) -> Result<ClusterPlan, CliError> {
    plan(
        request,
        &Sites::parse(SITES, "sites.toml").expect("valid"),
        world,
    )
}

/// What a node is given, by credential.
fn given(plan: &ClusterPlan, number: usize) -> (NodeConfig, impl Fn(&str) -> Option<String>) {
    let node = &plan.nodes[number];
    let endpoint = Endpoint {
        domain: plan.domain.clone(),
        servers: vec!["192.0.2.1:5222".to_owned()],
        ca_pem: String::new(),
    };
    let keys = keys(&format!("{}@lake.ipop", node.name));
    let bundle = personal::bundle(plan, node, &endpoint, &keys, Delivery::Enrolment);
    let bundle = bundle.expect("complete");
    let text = move |name: &str| {
        let content = bundle.credentials.get(name)?;
        Some(String::from_utf8_lossy(content.expose()).into_owned())
    };
    let config = text("ipop.config").expect("given");
    (NodeConfig::parse(&config).expect("the node takes it"), text)
}

#[test]
fn a_front_end_with_a_lan_serves_it_and_gateways_and_workers_are_of_it() {
    let request = ask("1@local", true, &["1@lab"], &["1@annex", "1@local"]);
    let request = Request {
        scheduler: Scheduler::Slurm,
        ..request
    };
    let plan = planned(&request, &World::default()).expect("planned");
    let names: Vec<_> = plan.names().into_iter().map(|n| n.0).collect();
    assert_eq!(names, ["frontend-0", "gateway-0", "worker-0", "worker-1"]);
    assert_eq!(plan.workers().len(), 3, "a gateway is waited for");

    let (front, text) = given(&plan, 0);
    assert_eq!(front.switch.bridge.as_deref(), Some("br0"));
    assert_eq!(front.overlay.ipv4.to_string(), "10.1.0.254/24");
    assert_eq!((front.overlay.mtu, front.overlay.mac), (1500, None));
    assert_eq!(front.ice.ignore_interfaces, ["br0"]);
    insta::assert_snapshot!("lan_frontend", text("ipop.lan").expect("given"));
    insta::assert_snapshot!("lan_frontend_env", text("ipop.env").expect("given"));
    insta::assert_snapshot!("lan_exports", text("ipop.exports").expect("given"));
    assert!(text("ipop.scheduler").is_some());

    let (gateway, text) = given(&plan, 1);
    assert_eq!(gateway.switch.bridge.as_deref(), Some("br0"));
    assert_eq!(gateway.ice.ignore_interfaces, ["br0"]);
    assert_eq!((gateway.overlay.mtu, gateway.overlay.mac), (1500, None));
    insta::assert_snapshot!("lan_gateway", text("ipop.lan").expect("given"));
    let env = text("ipop.env").expect("given");
    assert!(
        env.contains("IPOP_INTERFACE=br0\nIPOP_ADDR4=10.1.0.130\nIPOP_ADDR6=::1\n"),
        "{env}"
    );
    assert!(text("ipop.scheduler").is_none() && text("ipop.exports").is_none());

    let (worker, text) = given(&plan, 2);
    assert_eq!(worker.switch.bridge, None);
    assert_eq!(worker.overlay.ipv4.to_string(), "10.1.0.131/24");
    assert!(worker.overlay.mac.is_some() && text("ipop.lan").is_none());
    for config in [&front, &gateway, &worker] {
        assert_eq!(config.overlay.mode, OverlayMode::Switch);
        let serves = [&config.switch.dhcp, &config.switch.router];
        let names = serves.map(|s| s.as_ref().map(|s| s.node.as_str()));
        assert_eq!(names, [Some("frontend-0"); 2]);
        let lans = ["frontend-0", "gateway-0"].map(str::to_owned);
        assert_eq!(config.switch.lans, lans.into());
    }
}

#[test]
fn gateways_on_one_lan_know_each_other() {
    let request = ask("1@local", true, &["2@lab"], &[]);
    let plan = planned(&request, &World::default()).expect("planned");
    for (at, other) in [(1, "10.1.0.131"), (2, "10.1.0.130")] {
        let (_, text) = given(&plan, at);
        let lan = text("ipop.lan").expect("given");
        assert!(lan.ends_with(&format!("\nLAN_GATEWAYS={other}\n")), "{lan}");
    }
}

#[test]
fn a_lan_is_there_where_it_was_asked_for_and_where_it_stands() {
    let plain = planned(&ask("1@local", false, &[], &["1@local"]), &World::default());
    let plain = plain.expect("planned");
    assert_eq!(plain.lan, None);
    let (config, text) = given(&plain, 0);
    assert_eq!(config.overlay.mode, OverlayMode::Route);
    assert!(text("ipop.lan").is_none());
    let rocks = planned(&ask("1@ucsd", false, &["1@lab"], &[]), &World::default());
    let rocks = rocks.expect("planned");
    let (front, text) = given(&rocks, 0);
    assert_eq!(front.switch.bridge.as_deref(), Some("br7"));
    assert!(text("ipop.lan").is_none(), "it stands already");
    let (gateway, text) = given(&rocks, 1);
    assert_eq!(gateway.switch.bridge.as_deref(), Some("br0"));
    assert!(text("ipop.lan").is_some());
}

#[test]
fn a_recorded_deployment_has_its_lan_and_its_gateways_again() {
    let request = ask("1@local", true, &["2@lab"], &["1@annex"]);
    let plan = planned(&request, &World::default()).expect("planned");
    let sites = Sites::parse(SITES, "sites.toml").expect("valid");
    let settings = |lan| Settings {
        sites: sites.iter().cloned().collect(),
        rendezvous: Default::default(),
        tag: String::new(),
        scheduler: plan.scheduler,
        authority: true,
        elastic: plan.elastic.clone(),
        rules: Vec::new(),
        lan,
        shares: Vec::new(),
    };
    let recorded = |lan| {
        let deployment = Deployment {
            id: 1,
            name: plan.name.clone(),
            uid: String::new(),
            owner: String::new(),
            expires: None,
            quorum: None,
            created: std::time::SystemTime::UNIX_EPOCH,
            phase: Phase::Joined,
            domain: plan.domain.clone(),
            net4: plan.nets.ipv4.to_string(),
            net6: plan.nets.net6(),
            settings: settings(lan).to_json().expect("written"),
        };
        let nodes: Vec<_> = plan.nodes.iter().map(NodePlan::record).collect();
        ClusterPlan::recorded(&deployment, &nodes).expect("read")
    };
    assert_eq!(recorded(true), plan);
    // One that was launched before its site had a LAN goes on without.
    assert_eq!(recorded(false).lan, None);
}

#[test]
fn what_cannot_have_a_lan_or_a_gateway_is_refused_with_what_to_change() {
    let taken = World {
        lans: vec![("10.1.0.0/16".parse().expect("a network"), "pond".to_owned())],
        ..World::default()
    };
    let free = World::default();
    let with_rules = Request {
        rules: rules(),
        ..ask("1@local", true, &[], &[])
    };
    let cases = [
        (ask("1@annex", true, &[], &[]), &free),
        (ask("1@cloud", true, &[], &[]), &free),
        (ask("1@local", false, &["1@lab"], &[]), &free),
        (ask("1@local", true, &["1@annex"], &[]), &free),
        (ask("1@local", true, &["1@cloud"], &[]), &free),
        (ask("1@local", true, &["1@machines"], &[]), &free),
        (ask("1@local", true, &["1@local"], &[]), &free),
        (ask("1@local", true, &["1@lab"], &["61@annex"]), &free),
        (ask("1@local", true, &[], &[]), &taken),
        (with_rules, &free),
    ];
    let messages = cases.map(|(request, world)| {
        let error = planned(&request, world).expect_err("refused");
        assert_eq!(error.code, ExitCode::Usage);
        error.to_string()
    });
    insta::assert_snapshot!("lan_refused", messages.join("\n\n"));
}
