use super::*;
use crate::plan::tests::demo;
use crate::plan::{Request, World, plan};
use crate::site::Sites;

const SIZE: Size = Size {
    memory_mib: None,
    cpus: None,
};

/// A front end, a worker that stays, and two more on `lab` while jobs wait.
fn elastic() -> ClusterPlan {
    let request = Request {
        name: Some("demo".to_owned()),
        frontend: vec!["1@local".parse().expect("valid")],
        workers: vec!["1@local".parse().expect("valid")],
        elastic: vec!["2@lab".parse().expect("valid")],
        scheduler: Scheduler::Slurm,
        ..Request::default()
    };
    plan(&request, &sites(), &World::default()).expect("planned")
}

fn sites() -> Sites {
    let text = "[site.lab]\nkind = \"libvirt\"\nmax = 3\ncpus = 4\n";
    Sites::parse(text, "sites.toml").expect("valid")
}

fn records(plan: &ClusterPlan) -> Vec<NodeRecord> {
    plan.nodes.iter().map(NodePlan::record).collect()
}

fn change(plan: &ClusterPlan, nodes: &[NodeRecord], limits: &[&str]) -> Result<Limited, CliError> {
    let sites = sites();
    let limits: Vec<Limit> = limits.iter().map(|l| l.parse().expect("valid")).collect();
    let roles = Roles::new([("gpu".to_owned(), Ok(vec![WORKER.to_owned()]))]);
    limit(plan, nodes, &limits, |name| sites.find(name), &roles, SIZE)
}

fn names<'a>(workers: impl IntoIterator<Item = &'a NodePlan>) -> Vec<&'a str> {
    workers.into_iter().map(|w| w.name.0.as_str()).collect()
}

fn wanted(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn elastic_workers_are_planned_after_the_others_and_are_no_nodes_yet() {
    let plan = elastic();
    assert_eq!(names(&plan.nodes), ["frontend-0", "worker-0"]);
    assert_eq!(names(&plan.elastic.workers), ["worker-1", "worker-2"]);
    assert_eq!(plan.elastic.to_string(), "2@lab");
    assert!(plan.sites().contains("lab"));
    let first = plan.elastic.workers[0].addrs.ipv4.addr;
    assert_eq!(u32::from(first) & 0xff, 3);
    let second = plan.elastic.workers[1].addrs.ipv4.addr;
    assert_eq!(
        plan.elastic.told(),
        format!("600\nworker-1 {first} 4 512 lab\nworker-2 {second} 4 512 lab\nend\n")
    );
    assert_eq!(Elastic::default().told(), "end\n");
}

#[test]
fn those_who_are_wanted_come_and_the_others_go_within_the_limits() {
    let plan = elastic();
    let mut nodes = records(&plan);
    let all = wanted(&["worker-0", "worker-1", "worker-2", "worker-3", "frontend-0"]);
    let scaling = plan.elastic.follow(&all, &nodes);
    assert_eq!(names(&scaling.added), ["worker-1", "worker-2"]);
    assert!(scaling.removed.is_empty());
    nodes.extend(scaling.added.iter().map(NodePlan::record));
    assert_eq!(plan.elastic.follow(&all, &nodes), Scaling::default());
    let scaling = plan.elastic.follow(&wanted(&["worker-2"]), &nodes);
    assert_eq!((scaling.added.len(), scaling.removed.len()), (0, 1));
    assert_eq!(scaling.removed[0].0, "worker-1");
    // Not made beside itself while it is removed.
    nodes[2].wanted = false;
    assert_eq!(plan.elastic.follow(&all, &nodes), Scaling::default());
    assert_eq!(
        plan.elastic.follow(&wanted(&["worker-2"]), &nodes),
        Scaling::default()
    );
}

#[test]
fn names_addresses_and_places_of_those_who_are_away_are_not_free() {
    let plan = elastic();
    let more = ["+1@lab".parse().expect("valid")];
    let sites = sites();
    let scaled = |plan: &ClusterPlan| {
        let site = |name: &str| sites.find(name);
        crate::plan::scale::scale(plan, &records(plan), &more, site, &Roles::default(), SIZE)
    };
    let scaling = scaled(&plan).expect("planned");
    let new = &scaling.added[0];
    assert_eq!((new.name.0.as_str(), new.slot), ("worker-3", 2));
    assert_eq!(u32::from(new.addrs.ipv4.addr) & 0xff, 5);
    let mut full = plan;
    full.nodes.extend(scaling.added);
    let error = scaled(&full).expect_err("the site takes three");
    assert!(error.message.contains("4 nodes are wanted"), "{error}");
}

#[test]
fn workers_that_stay_do_not_go_in_the_place_of_elastic_ones() {
    let mut plan = elastic();
    plan.nodes.extend(plan.elastic.workers.clone());
    let fewer = ["-1".parse().expect("valid")];
    let sites = sites();
    let site = |name: &str| sites.find(name);
    let roles = Roles::default();
    let scaling = crate::plan::scale::scale(&plan, &records(&plan), &fewer, site, &roles, SIZE);
    assert_eq!(scaling.expect("planned").removed[0].0, "worker-0");
}

#[test]
fn a_lower_limit_takes_those_first_who_are_away() {
    let plan = elastic();
    let mut nodes = records(&plan);
    nodes.push(plan.elastic.workers[1].record());
    let one = change(&plan, &nodes, &["1@lab"]).expect("planned");
    assert_eq!(names(&one.elastic.workers), ["worker-2"]);
    assert!(one.removed.is_empty());
    let none = change(&plan, &nodes, &["0@lab"]).expect("planned");
    assert!(none.elastic.is_empty());
    assert_eq!(none.removed, [NodeName("worker-2".to_owned())]);
}

#[test]
fn a_higher_limit_takes_free_names_and_is_one_of_its_role() {
    let plan = elastic();
    let nodes = records(&plan);
    let more = change(&plan, &nodes, &["3@lab", "1:gpu@local"]).expect("planned");
    assert_eq!(
        names(&more.elastic.workers),
        ["worker-1", "worker-2", "worker-3", "worker-4"]
    );
    assert_eq!(more.elastic.workers[3].image, "gpu");
    assert_eq!(more.elastic.to_string(), "1:gpu@local, 3@lab");
    assert!(more.removed.is_empty());
    let error = change(&plan, &nodes, &["4@lab"]).expect_err("the site takes three");
    assert_eq!(error.code, ExitCode::Usage);
    let error = change(&demo(), &records(&demo()), &["1@lab"]).expect_err("no scheduler");
    assert!(error.message.contains("a scheduler"), "{error}");
}

#[test]
fn a_limit_is_a_number_of_a_site() {
    for text in ["", "6", "+6@lab", "-1@lab", "@lab", "0", "00@lab"] {
        text.parse::<Limit>().expect_err(text);
    }
    let none: Limit = "0:gpu@lab".parse().expect("none");
    assert_eq!((none.count, none.role.as_deref()), (0, Some("gpu")));
}
