//! Deployments that nobody destroys: their time ends, or their database is lost. Needs what the
//! kill tests need.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipop_tests::ejabberd::Ejabberd;
use ipop_tests::kill::bench::finish;
use ipop_tests::kill::{Bench, Cell, libvirt::Libvirt};
use ipop_tests::wait_until;
use serde_json::Value;

/// For a destroy after the end, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(240);

fn create(cell: &Cell<'_>, ttl: &[&str]) {
    let mut words = vec!["cluster", "--frontend", "local", "--no-wait", "--name"];
    words.push(cell.name());
    words.extend(ttl);
    let run = finish(cell.provision(&words));
    run.ok().expect("a cluster");
}

fn status(cell: &Cell<'_>) -> Value {
    let run = finish(cell.provision(&["status", cell.name(), "--json"]));
    run.ok().expect("a status");
    let line = run.output.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.expect("an object")).expect("JSON")
}

/// How the end comes about on this machine.
fn keeper(without_systemd: &'static str) -> &'static str {
    if Path::new("/run/systemd/system").is_dir() {
        "systemd"
    } else {
        without_systemd
    }
}

fn ends_by_itself(bench: &Bench, without_systemd: &'static str) {
    let cell = bench.cell();
    create(&cell, &["--ttl", "8h"]);
    let before = status(&cell);
    assert_eq!(before["kept"]["by"], keeper(without_systemd), "{before}");
    let hours = before["remaining_seconds"].as_u64().expect("an end");
    assert!((7 * 3600..=8 * 3600).contains(&hours), "{before}");
    assert!(!cell.look().is_empty());

    let sooner = finish(cell.provision(&["extend", cell.name(), "--ttl", "5s"]));
    sooner.ok().expect("another end");
    wait_until("everything to be destroyed", PATIENCE, || {
        (cell.look().is_empty() && cell.nothing_local().is_ok()).then_some(())
    });
    wait_until("all processes to end", PATIENCE, || {
        cell.processes().is_empty().then_some(())
    });
}

#[test]
fn a_deployment_with_a_server_of_its_own_ends_when_its_time_is_over() {
    let bench = Bench::embedded("libvirt", Box::new(Libvirt::start()));
    ends_by_itself(&bench, "supervisor");
}

#[test]
fn a_deployment_on_an_external_server_ends_when_its_time_is_over() {
    let ejabberd = Arc::new(Ejabberd::start());
    let bench = Bench::new("libvirt", Box::new(Libvirt::start()), ejabberd);
    ends_by_itself(&bench, "process");
}

#[test]
fn an_end_can_be_taken_back_and_no_orphan_survives_gc() {
    let bench = Bench::embedded("libvirt", Box::new(Libvirt::start()));
    let cell = bench.cell();
    create(&cell, &["--ttl", "1h"]);
    let endless = finish(cell.provision(&["extend", cell.name(), "--no-ttl"]));
    endless.ok().expect("no end");
    assert_eq!(status(&cell)["remaining_seconds"], Value::Null);
    assert!(cell.processes().len() >= 2, "{:?}", cell.processes());

    cell.delete_database();
    let listed = finish(cell.provision(&["gc", "--dry-run"]));
    listed.ok().expect("a list");
    assert!(
        listed
            .output
            .contains(&format!("left over of `{}`", cell.name())),
        "{listed:?}"
    );
    assert!(!cell.look().is_empty());
    let asked = finish(cell.provision(&["gc"]));
    assert_eq!(asked.code, Some(2), "nobody can be asked: {asked:?}");
    cell.gc().ok().expect("removed");
    assert_eq!(cell.look(), Vec::<String>::new());
    cell.nothing_local().expect("no directory");
    assert_eq!(cell.processes(), Vec::<String>::new());
}
