mod lan;

use super::*;
use crate::provider::Delivery;
use crate::rendezvous::{Account, Endpoint};
use crate::secret::Secret;
use personal::{First, Keys, Membership};

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

/// What people in the group `lake` may do at front ends, and a ping for everybody.
pub fn rules() -> Vec<AllowSection> {
    let text = "[[allow]]\nfrom = \"group:lake\"\nto = \"role:frontend\"\nprotocol = \"tcp\"\n\
                port = 2049\n[[allow]]\nfrom = \"any\"\nto = \"any\"\nprotocol = \"icmp\"\n";
    policy::read_rules(text, "rules.toml").expect("rules")
}

fn keys(jid: &str) -> Keys {
    Keys {
        account: Account {
            jid: jid.to_owned(),
            password: Secret::new("sesame".to_owned()),
        },
        host_key: None,
        authorized_key: "ssh-ed25519 AAAA".to_owned(),
        membership: None,
    }
}

/// The configuration of a node in an overlay with an authority, as the node takes it.
pub fn config(plan: &ClusterPlan, node: &NodePlan) -> ipop_proto::config::NodeConfig {
    let endpoint = Endpoint {
        domain: plan.domain.clone(),
        servers: vec!["192.168.211.1:5222".to_owned()],
        ca_pem: String::new(),
    };
    let keys = Keys {
        membership: Some(Membership {
            authority_pem: String::new(),
            issuer: "provision@demo.ipop/issuer".to_owned(),
            first: First::Asked(Secret::new("simsim".to_owned())),
        }),
        ..keys(&format!("{}@demo.ipop", node.name))
    };
    let config = personal::config(plan, node, &endpoint, &keys, Delivery::Enrolment);
    let config = config.expect("rendered");
    ipop_proto::config::NodeConfig::parse(&config).expect("the node takes it")
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
    let config_of = |delivery| {
        let keys = keys("worker-0@demo.ipop");
        personal::config(&plan, &plan.nodes[1], &endpoint, &keys, delivery).expect("rendered")
    };
    let config = config_of(Delivery::Private);
    ipop_proto::config::NodeConfig::parse(&config).expect("the node takes it");
    insta::assert_snapshot!("node_config", config);
    let enrolling = config_of(Delivery::Enrolment);
    ipop_proto::config::NodeConfig::parse(&enrolling).expect("the node takes it");
    insta::assert_snapshot!("node_config_enrolling", enrolling);
    insta::assert_snapshot!("role_env", personal::environment(&plan, &plan.nodes[1]));
    insta::assert_snapshot!("exports", exports::of_frontend(&plan).expect("rendered"));
}

#[test]
fn a_scheduler_adds_a_credential_and_two_exports() {
    let plan = ClusterPlan {
        scheduler: Scheduler::Slurm,
        ..demo()
    };
    let exports = exports::of_frontend(&plan).expect("rendered");
    insta::assert_snapshot!("exports_with_scheduler", exports);
    let endpoint = Endpoint {
        domain: plan.domain.clone(),
        servers: vec!["192.168.211.1:5222".to_owned()],
        ca_pem: String::new(),
    };
    let keys = keys("worker-0@demo.ipop");
    let credential = |plan: &ClusterPlan| {
        let node = &plan.nodes[1];
        let bundle = personal::bundle(plan, node, &endpoint, &keys, Delivery::Enrolment);
        let mut bundle = bundle.expect("complete");
        bundle.credentials.remove("ipop.scheduler")
    };
    let slurm = credential(&plan).expect("given");
    assert_eq!(slurm.expose(), b"slurm\n");
    assert!(
        credential(&demo()).is_none(),
        "a file with nothing in it is a file"
    );
}

#[test]
fn a_scheduler_needs_machines_that_start_from_images() {
    let sites = "[site.lab]\nkind = \"libvirt\"\n\
                 [site.machines]\nkind = \"ssh\"\nhosts = [\"root@m1.example\"]\n\
                 [site.ucsd]\nkind = \"rocks\"\nhost = \"root@ucsd.example\"\nbridge = \"br0\"\n\
                 addresses = \"10.1.128.0/24\"\n\
                 [site.bare]\nkind = \"cloudlab\"\nproject = \"p\"\nprofile = \"f\"\ntoken_env = \"T\"\n\
                 [site.hosts]\nkind = \"cloudlab\"\nproject = \"p\"\nprofile = \"f\"\ntoken_env = \"T\"\n\
                 vms_per_machine = 2\n";
    let sites = Sites::parse(sites, "sites.toml").expect("valid");
    let ask = |frontend: &str, worker: &str, scheduler| {
        let request = Request {
            frontend: vec![format!("1@{frontend}").parse().expect("valid")],
            workers: vec![format!("1@{worker}").parse().expect("valid")],
            scheduler,
            ..Request::default()
        };
        plan(&request, &sites, &World::default())
    };
    for (frontend, worker) in [("local", "lab"), ("lab", "hosts"), ("hosts", "local")] {
        let planned = ask(frontend, worker, Scheduler::Slurm).expect("planned");
        assert_eq!(planned.scheduler, Scheduler::Slurm);
    }
    for (frontend, worker, named) in [
        ("local", "machines", "machines"),
        ("ucsd", "local", "ucsd"),
        ("local", "bare", "bare"),
    ] {
        ask(frontend, worker, Scheduler::None).expect("planned");
        let error = ask(frontend, worker, Scheduler::Slurm).expect_err("refused");
        assert_eq!(error.code, ExitCode::Usage);
        assert!(
            error.message.contains(&format!("site `{named}`")),
            "{error}"
        );
        assert!(error.to_string().contains("vms_per_machine"), "{error}");
    }
}

#[test]
fn an_overlay_that_extends_a_lan_takes_its_addresses_from_it() {
    let sites = "[site.ucsd]\nkind = \"rocks\"\nhost = \"root@ucsd.example\"\nbridge = \"br0\"\n\
                 addresses = \"10.1.128.0/29\"\nmtu = 1400\n";
    let sites = Sites::parse(sites, "sites.toml").expect("valid");
    let request = |workers: &str| Request {
        name: Some("lake".to_owned()),
        frontend: vec!["1@ucsd".parse().expect("valid")],
        workers: vec![workers.parse().expect("valid")],
        ..Request::default()
    };
    let lake = plan(&request("1@local"), &sites, &World::default()).expect("planned");
    let endpoint = Endpoint {
        domain: lake.domain.clone(),
        servers: vec!["192.0.2.1:5222".to_owned()],
        ca_pem: String::new(),
    };
    let [front, worker] = [0, 1].map(|number| {
        let node = &lake.nodes[number];
        let jid = format!("{}@lake.ipop", node.name);
        let config = personal::config(&lake, node, &endpoint, &keys(&jid), Delivery::Private);
        let config = config.expect("rendered");
        ipop_proto::config::NodeConfig::parse(&config).expect("the node takes it")
    });
    // The front end's device is a port of its bridge: no station, and no smaller than the LAN.
    assert_eq!(front.overlay.ipv4.to_string(), "10.1.1.1/16");
    assert_eq!((front.overlay.mtu, front.overlay.mac), (1500, None));
    assert_eq!(front.ice.ignore_interfaces, ["br0"]);
    assert_eq!(worker.overlay.ipv4.to_string(), "10.1.128.2/16");
    let mac = worker.overlay.mac.map(|mac| mac.to_string());
    assert_eq!(
        (worker.overlay.mtu, mac.as_deref()),
        (1400, Some("02:49:0a:01:80:02"))
    );
    assert!(worker.ice.ignore_interfaces.is_empty());
    for config in [&front, &worker] {
        assert_eq!(config.overlay.mode, ipop_proto::config::OverlayMode::Switch);
    }
    let environment = personal::environment(&lake, &lake.nodes[1]);
    assert!(
        environment.contains("IPOP_FRONTEND4=10.1.1.1\n"),
        "{environment}"
    );
    let error = plan(&request("6@local"), &sites, &World::default()).expect_err("too many");
    assert_eq!(error.message, "10.1.128.0/29 has no room for 7 nodes");
    let with_rules = Request {
        rules: rules(),
        ..request("1@local")
    };
    let error = plan(&with_rules, &sites, &World::default()).expect_err("a switch");
    assert!(error.message.starts_with("there are no rules"), "{error}");
}

#[test]
fn a_bundle_for_user_data_holds_no_secret_but_the_token() {
    let plan = demo();
    let endpoint = Endpoint {
        domain: plan.domain.clone(),
        servers: vec!["192.168.211.1:5222".to_owned()],
        ca_pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
    };
    let keys = |host_key: Option<&str>| Keys {
        host_key: host_key.map(|key| Secret::new(key.as_bytes().to_vec())),
        ..keys("worker-0@demo.ipop")
    };
    let names = |keys: &Keys, delivery| {
        let bundle = personal::bundle(&plan, &plan.nodes[1], &endpoint, keys, delivery);
        bundle.map(|b| b.credentials.into_keys().collect::<Vec<_>>())
    };
    let enrolling = names(&keys(Some("host")), Delivery::Enrolment).expect("complete");
    assert_eq!(
        enrolling,
        [
            "ipop.ca",
            "ipop.config",
            "ipop.enrol-token",
            "ipop.env",
            "ssh.authorized_keys.root",
            "system.hostname"
        ]
    );
    let private = names(&keys(Some("host")), Delivery::Private).expect("complete");
    let has = |name: &str| private.iter().any(|n| n == name);
    assert!(has("ipop.password") && has("ipop.ssh-host-key"));
    let error = names(&keys(None), Delivery::Private).expect_err("no key");
    assert_eq!(error.message, "`worker-0` was given no SSH host key");
}

#[test]
fn a_node_is_given_its_certificate_or_asks_for_it_where_others_read_what_it_is_given() {
    let plan = demo();
    let endpoint = Endpoint {
        domain: plan.domain.clone(),
        servers: vec!["192.168.211.1:5222".to_owned()],
        ca_pem: String::new(),
    };
    let bundle = |first, delivery| {
        let keys = Keys {
            host_key: Some(Secret::new(b"host".to_vec())),
            membership: Some(Membership {
                authority_pem: "the authority".to_owned(),
                issuer: "provision@demo.ipop/issuer".to_owned(),
                first,
            }),
            ..keys("worker-0@demo.ipop")
        };
        let bundle = personal::bundle(&plan, &plan.nodes[1], &endpoint, &keys, delivery);
        let bundle = bundle.expect("complete").credentials;
        assert_eq!(bundle["ipop.authority"].expose(), b"the authority");
        let config = String::from_utf8_lossy(bundle["ipop.config"].expose()).into_owned();
        ipop_proto::config::NodeConfig::parse(&config).expect("the node takes it");
        (bundle, config)
    };
    let secret = || Secret::new("secret".to_owned());
    let (given, config) = bundle(First::Given(secret()), Delivery::Private);
    assert_eq!(given["ipop.identity"].expose(), b"secret");
    assert!(!given.contains_key("ipop.certificate-token"));
    insta::assert_snapshot!("node_config_authority", config);
    let (asked, config) = bundle(First::Asked(secret()), Delivery::Enrolment);
    assert_eq!(asked["ipop.certificate-token"].expose(), b"secret");
    assert!(!asked.contains_key("ipop.identity"), "others can read it");
    insta::assert_snapshot!("node_config_authority_enrolling", config);
}

#[test]
fn a_roles_templates_are_rendered_with_what_the_node_is_told() {
    let plan = demo();
    let render = |source: &str| {
        let templates = [("ipop.role.motd".to_owned(), source.to_owned())].into();
        personal::of_role(&plan, &plan.nodes[1], &templates)
    };
    let rendered = render("{{ node }} at {{ site }}: {{ frontend4 }}\n").expect("rendered");
    let frontend = plan.frontend().addrs.ipv4.addr;
    let expected = format!("worker-0 at local: {frontend}\n");
    assert_eq!(rendered["ipop.role.motd"], expected);
    let error = render("{{ nide }}").expect_err("no such name");
    assert_eq!(
        error.message,
        "cannot render the template `ipop.role.motd.j2` of the role `worker`"
    );
}

#[test]
fn a_reported_host_key_is_one_or_nothing() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1hMGQ1ZTQzYmY0ZjU0ZDk4ZGM1ZjI4ZDU2";
    let mut status: ipop_proto::status::NodeStatus = serde_json::from_value(serde_json::json!({
        "name": "worker-0", "overlay": "demo", "jid": "worker-0@demo.ipop", "version": "0",
        "addrs": { "ipv4": "10.73.0.2/24", "ipv6": "fd5a::2/64" }, "interface": "ipop0",
        "mtu": 1400, "uptime_ms": 0, "sign_in": { "state": "online" },
        "role": { "state": "ready" }, "candidates": [], "peers": [], "drops": {},
    }))
    .expect("a status of a node that reports no key");
    assert_eq!(personal::reported_host_key(&status).expect("none"), None);
    status.ssh_host_key = Some(format!("{key} root@host\n"));
    personal::reported_host_key(&status).expect_err("a comment");
    status.ssh_host_key = Some(format!("{key}\n"));
    assert_eq!(
        personal::reported_host_key(&status)
            .expect("a key")
            .as_deref(),
        Some(key)
    );
    for bad in [
        "",
        "ssh-ed25519",
        "ssh-rsa AAAA",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n* ssh-rsa A",
    ] {
        status.ssh_host_key = Some(bad.to_owned());
        personal::reported_host_key(&status).expect_err(bad);
    }
}
