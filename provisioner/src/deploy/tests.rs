//! A deployment made of fakes that fail, panic and stay silent where a test wants them to.

mod authority;
mod elastic;
mod fakes;
mod share;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use super::apply::Options;
use super::destroy::Removal;
use super::engine::{Engine, Opened, directory};
use super::interrupt::Interrupt;
use super::join::Limits;
use super::outcome::Outcome;
use super::settings::Settings;
use super::*;
use crate::error::ExitCode;
use crate::event::{Event, Stage};
use crate::layout::Layout;
use crate::plan::elastic::Elastic;
use crate::plan::roles::Roles;
use crate::plan::scale::{Change, Size, scale};
use crate::plan::tests::demo;
use crate::plan::{ClusterPlan, NodePlan};
use crate::provider::Scope;
use crate::rendezvous::config::{EmbeddedConfig, RendezvousConfig};
use crate::site::Sites;
use crate::state::Database;
use crate::state::record::{NewDeployment, Phase, ResourceRecord, ResourceState};
use fakes::{Fakes, Fault};

/// One machine with a state directory.
struct Bench {
    _dir: tempfile::TempDir,
    layout: Layout,
    settings: Settings,
    id: i64,
    fakes: Fakes,
    interrupt: Interrupt,
    events: Mutex<Vec<Event>>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let layout = Layout {
            state: dir.path().join("state"),
            cache: dir.path().join("cache"),
        };
        layout.create().expect("directories");
        let plan = demo();
        let sites = Sites::default().iter().cloned().collect();
        let settings = Settings {
            elastic: Elastic::default(),
            shares: Vec::new(),
            sites,
            rendezvous: RendezvousConfig::default(),
            tag: "0000002a".to_owned(),
            scheduler: Default::default(),
            authority: true,
            rules: Vec::new(),
            lan: false,
        };
        let database = Database::open(&layout.database()).expect("opens");
        let new = NewDeployment {
            name: plan.name.clone(),
            uid: "00112233445566ff".to_owned(),
            quorum: None,
            domain: plan.domain.clone(),
            net4: plan.nets.ipv4.to_string(),
            net6: plan.nets.net6(),
            settings: settings.to_json().expect("JSON"),
            nodes: plan.nodes.iter().map(NodePlan::record).collect(),
        };
        let id = database.create(&new, SystemTime::now()).expect("recorded");
        let directory = ResourceRecord {
            key: directory(&layout, &plan.name),
            scope: Scope::Deployment,
            after: Vec::new(),
            deadline: Duration::from_secs(5),
            state: ResourceState::Wanted,
            attempt: 1,
            node_attempt: 1,
            token: String::new(),
            handle: None,
            reached_at: None,
            error: None,
        };
        database.want(id, &[directory]).expect("recorded");
        let fakes = Fakes::new(&layout, id);
        Self {
            _dir: dir,
            layout,
            settings,
            id,
            fakes,
            interrupt: Interrupt::default(),
            events: Mutex::new(Vec::new()),
        }
    }

    fn database(&self) -> Database {
        Database::open(&self.layout.database()).expect("opens")
    }

    /// With an engine of its own, as another process would have.
    fn with<T>(&self, act: impl FnOnce(&Engine<'_>) -> T) -> T {
        let database = self.database();
        let deployment = database.deployment("demo").expect("read").expect("there");
        let settings = Settings::of(&deployment).expect("whole");
        let settings = match self.settings.rendezvous == settings.rendezvous {
            true => settings,
            false => self.settings.clone(),
        };
        let events = |event| self.events.lock().expect("whole").push(event);
        act(&Engine {
            layout: &self.layout,
            database: &database,
            deployment: &deployment,
            settings: &settings,
            parts: &self.fakes,
            interrupt: &self.interrupt,
            began: Instant::now(),
            events: &events,
            opened: Opened::default(),
        })
    }

    fn options(timeout: Duration) -> Options {
        Options {
            limits: Limits {
                timeout: Some(timeout),
                poll: Duration::from_millis(2),
            },
            quorum: None,
            replace: 0,
            wait: true,
        }
    }

    fn launch(&self, timeout: Duration) -> Result<Outcome, CliError> {
        self.with(|engine| engine.apply(&Self::options(timeout)))
    }

    /// As [`Self::launch`]; a panic outside of actions, in the building of an image, ends it as it
    /// would end the process.
    fn launch_or_panic(&self) -> Result<Outcome, CliError> {
        let launched = catch_unwind(AssertUnwindSafe(|| self.launch(LONG)));
        launched.unwrap_or_else(|_| Err(CliError::new(ExitCode::Internal, "step panics")))
    }

    fn destroy(&self) -> Removal {
        self.with(|engine| engine.destroy()).expect("carried out")
    }

    /// Changes which workers are wanted, as the first part of `provision scale`.
    fn want(&self, changes: &[&str]) {
        let database = self.database();
        let deployment = database.deployment("demo").expect("read").expect("there");
        let nodes = database.nodes(self.id).expect("read");
        let plan = ClusterPlan::recorded(&deployment, &nodes).expect("whole");
        let changes: Vec<Change> = changes.iter().map(|c| c.parse().expect("valid")).collect();
        let size = Size {
            memory_mib: None,
            cpus: None,
        };
        let site = |name: &str| self.settings.site(name);
        let scaling =
            scale(&plan, &nodes, &changes, site, &Roles::default(), size).expect("planned");
        let added: Vec<_> = scaling.added.iter().map(NodePlan::record).collect();
        database
            .rescale(self.id, &deployment.settings, &added, &scaling.removed)
            .expect("recorded");
    }

    fn nodes(&self) -> Vec<String> {
        let nodes = self.database().nodes(self.id).expect("read");
        nodes.into_iter().map(|n| n.name.0).collect()
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(self.fakes.existing(), [] as [&str; 0]);
        assert!(!self.layout.deployment("demo").exists());
        assert!(self.database().deployments().expect("read").is_empty());
        assert!(self.database().was_destroyed("demo").expect("read"));
    }
}

/// Long enough for whatever needs no time at all.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn nodes_that_join_are_reported_with_every_stage_and_destroy_removes_all() {
    let bench = Bench::new();
    let outcome = bench.launch(LONG).expect("launched");
    assert!(outcome.joined, "{outcome:?}");
    let names: Vec<_> = outcome.nodes.iter().map(|n| n.name.0.as_str()).collect();
    assert_eq!(names, ["frontend-0", "worker-0", "worker-1"]);
    let database = bench.database();
    let deployment = database.deployment("demo").expect("read").expect("there");
    assert_eq!(deployment.phase, Phase::Joined);
    for node in database.nodes(bench.id).expect("read") {
        assert_eq!(node.stages.len(), 6, "{node:?}");
        assert!(node.stages.is_sorted_by(|a, b| a.1 <= b.1), "{node:?}");
    }
    let records = database.resources(bench.id).expect("read");
    assert!(
        records.iter().all(|r| r.state == ResourceState::Made),
        "{records:?}"
    );
    let handles = records.iter().filter(|r| r.handle.is_some()).count();
    assert_eq!(handles, 9, "what a site calls its things is kept");
    let journal = database.journal(bench.id).expect("read");
    assert_eq!(journal.len(), records.len());
    assert!(
        journal
            .iter()
            .all(|l| l.ended_ms.is_some() && l.error.is_none())
    );
    let removal = bench.destroy();
    assert_eq!(
        removal.summary(),
        "4 accounts, 1 directory, 3 domains, 2 images, 1 network, 1 process, 1 roster group, 3 volumes"
    );
    bench.assert_nothing_is_left();
}

#[test]
fn whatever_step_fails_or_dies_destroy_removes_what_was_made() {
    for fault in [Fault::Error, Fault::Panic] {
        for step in 1.. {
            let bench = Bench::new();
            bench.fakes.fail_at(step, fault);
            let result = bench.launch_or_panic();
            bench.fakes.heal();
            bench.destroy();
            bench.assert_nothing_is_left();
            match result {
                Ok(_) => {
                    assert!(step > 20, "only {step} steps were tried");
                    break;
                }
                Err(error) => assert!(error.to_string().contains("step"), "{error}"),
            }
        }
    }
}

#[test]
fn whatever_step_fails_or_dies_a_second_try_makes_what_is_missing_and_nothing_twice() {
    for fault in [Fault::Error, Fault::Panic] {
        for step in 1.. {
            let bench = Bench::new();
            bench.fakes.fail_at(step, fault);
            let failed = bench.launch_or_panic().is_err();
            bench.fakes.heal();
            let outcome = bench.launch(LONG).expect("continued");
            assert!(outcome.joined, "step {step}: {outcome:?}");
            for node in bench.nodes() {
                let name = format!("ipop-demo-{node}");
                for kind in ["volume", "domain"] {
                    assert_eq!(
                        bench.fakes.births(kind, &name),
                        1,
                        "step {step}: {kind} {name}"
                    );
                }
            }
            bench.destroy();
            bench.assert_nothing_is_left();
            if !failed {
                assert!(step > 20, "only {step} steps were tried");
                break;
            }
        }
    }
}

#[test]
fn a_deployment_that_lacks_nothing_is_left_alone_by_a_second_try() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    let todo = bench.with(|engine| {
        let nodes = engine.database.nodes(bench.id).expect("read");
        engine.preview(nodes).expect("planned")
    });
    assert_eq!(todo.actions, []);
    assert_eq!(todo.released, []);
    let steps = bench.fakes.steps();
    bench.launch(LONG).expect("nothing to do");
    assert_eq!(bench.fakes.steps(), steps);
}

#[test]
fn what_vanished_or_broke_is_made_again_by_a_second_try() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.fakes.vanish("domain", "ipop-demo-worker-0");
    bench.fakes.break_down("volume", "ipop-demo-worker-1");
    assert!(bench.launch(LONG).expect("repaired").joined);
    let births = |kind, node| bench.fakes.births(kind, &format!("ipop-demo-{node}"));
    assert_eq!(births("domain", "worker-0"), 2);
    assert_eq!(births("volume", "worker-0"), 1, "its disk was whole");
    assert_eq!(births("volume", "worker-1"), 2);
    assert_eq!(births("domain", "worker-1"), 2, "it stands on the disk");
    assert_eq!(births("domain", "frontend-0"), 1);
    bench.destroy();
    bench.assert_nothing_is_left();
}

#[test]
fn workers_are_added_and_removed_and_the_others_stay() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.want(&["+2@local"]);
    assert!(bench.launch(LONG).expect("scaled").joined);
    assert_eq!(bench.nodes().len(), 5);
    bench.want(&["-3"]);
    assert!(bench.launch(LONG).expect("scaled").joined);
    assert_eq!(bench.nodes(), ["frontend-0", "worker-0"]);
    for node in ["frontend-0", "worker-0"] {
        assert_eq!(
            bench.fakes.births("domain", &format!("ipop-demo-{node}")),
            1
        );
    }
    let left = bench.fakes.existing();
    assert!(!left.iter().any(|l| l.contains("worker-1")), "{left:?}");
    bench.want(&["+1@local"]);
    assert!(bench.launch(LONG).expect("scaled").joined);
    assert_eq!(bench.nodes(), ["frontend-0", "worker-0", "worker-1"]);
    assert_eq!(bench.fakes.births("domain", "ipop-demo-worker-1"), 2);
    bench.destroy();
    bench.assert_nothing_is_left();
}

#[test]
fn whatever_step_of_a_change_of_size_fails_a_second_try_finishes_it() {
    for (changes, nodes) in [(["+1@local"], 4), (["-1"], 2)] {
        for step in 1.. {
            let bench = Bench::new();
            bench.launch(LONG).expect("launched");
            bench.want(&changes);
            let before = bench.fakes.steps();
            bench.fakes.fail_at(before + step, Fault::Error);
            bench.fakes.fail_removal(step);
            let failed = bench.launch(LONG).is_err();
            bench.fakes.heal();
            assert!(bench.launch(LONG).expect("continued").joined);
            assert_eq!(bench.nodes().len(), nodes, "step {step} of {changes:?}");
            bench.destroy();
            bench.assert_nothing_is_left();
            if !failed {
                assert!(step > 2, "only {step} steps were tried");
                break;
            }
        }
    }
}

#[test]
fn with_a_quorum_a_worker_that_does_not_join_is_no_error() {
    let bench = Bench::new();
    bench.fakes.silent("worker-1", "");
    let options = Options {
        quorum: Some(1),
        ..Bench::options(LONG)
    };
    let began = Instant::now();
    let outcome = bench
        .with(|engine| engine.apply(&options))
        .expect("launched");
    assert!(
        began.elapsed() < LONG / 2,
        "nobody waits for more than a quorum"
    );
    assert!(outcome.enough && !outcome.joined, "{outcome:?}");
}

#[test]
fn a_worker_that_cannot_be_made_keeps_no_other_back_where_a_quorum_allows() {
    let bench = Bench::new();
    bench.fakes.refuse("domain ipop-demo-worker-0");
    let options = Options {
        quorum: Some(1),
        ..Bench::options(LONG)
    };
    let outcome = bench
        .with(|engine| engine.apply(&options))
        .expect("launched");
    assert!(outcome.enough && !outcome.joined, "{outcome:?}");
    let stuck = outcome.nodes[1].stuck.as_ref().expect("stuck");
    assert_eq!(
        stuck.why,
        "worker-0: domain `ipop-demo-worker-0`: out of capacity"
    );
    let error = bench.launch(LONG).expect_err("all were asked for");
    assert_eq!(
        error.message,
        "worker-0: domain `ipop-demo-worker-0`: out of capacity"
    );
}

#[test]
fn a_machine_that_enrols_is_trusted_by_the_host_key_it_reports_and_keeps_its_account() {
    let bench = Bench::new();
    bench.fakes.enrol();
    bench.fakes.report("worker-1", "AAAA\n* ssh-rsa AAAA");
    let known = || {
        let path = bench.layout.ssh("demo").join("known_hosts");
        std::fs::read_to_string(path).expect("written")
    };
    let line =
        |node: &str, key: &str| format!("{node}.demo.ipop ssh-ed25519 AAAAC3NzaC1lZDI1NTE5{key}\n");
    assert!(bench.launch(LONG).expect("launched").joined);
    let frontend = line("frontend-0", "frontend+0");
    assert_eq!(
        known(),
        format!("{frontend}{}", line("worker-0", "worker+0"))
    );
    let warned = |event: &Event| match event {
        Event::Warning { message } => message.contains("`worker-1` reports an SSH host key"),
        _ => false,
    };
    assert!(bench.events.lock().expect("whole").iter().any(warned));
    assert!(
        bench.fakes.expiries() > 0,
        "tokens that nobody used live on"
    );

    // A password of its own is not taken from a machine that stands.
    bench.launch(LONG).expect("launched");
    assert_eq!(bench.fakes.password("worker-0"), "secret 1");
    bench.fakes.vanish("domain", "ipop-demo-worker-0");
    bench.fakes.report("worker-0", "another");
    assert!(bench.launch(LONG).expect("launched").joined);
    assert_eq!(bench.fakes.password("worker-0"), "secret 2");
    assert_eq!(bench.fakes.password("frontend-0"), "secret 1");
    assert_eq!(
        known(),
        format!("{frontend}{}", line("worker-0", "another"))
    );
}

#[test]
fn stragglers_and_dead_machines_are_replaced_as_often_as_asked_for() {
    let bench = Bench::new();
    bench.fakes.silent_machine("worker-1", 1);
    bench.fakes.stopped("worker-0");
    let options = Options {
        replace: 2,
        ..Bench::options(Duration::from_millis(500))
    };
    let outcome = bench
        .with(|engine| engine.apply(&options))
        .expect("launched");
    assert!(outcome.joined, "{outcome:?}");
    for node in ["worker-0", "worker-1"] {
        let name = format!("ipop-demo-{node}");
        assert_eq!(bench.fakes.births("domain", &name), 2, "{node}");
        assert_eq!(bench.fakes.births("volume", &name), 2, "{node}");
    }
    assert_eq!(bench.fakes.births("domain", "ipop-demo-frontend-0"), 1);
    bench.destroy();
    bench.assert_nothing_is_left();
}

#[test]
fn without_waiting_the_machines_are_started_and_the_phase_says_so() {
    let bench = Bench::new();
    bench.fakes.silent("worker-0", "");
    let options = Options {
        wait: false,
        ..Bench::options(LONG)
    };
    let outcome = bench
        .with(|engine| engine.apply(&options))
        .expect("launched");
    assert!(outcome.enough && !outcome.waited);
    let deployment = bench.database().deployment("demo").expect("read");
    assert_eq!(deployment.expect("there").phase, Phase::Started);
}

#[test]
fn what_others_use_or_is_to_be_kept_outlives_the_deployment() {
    let bench = Bench::new();
    bench.fakes.keep_images();
    bench.launch(LONG).expect("launched");
    bench.destroy();
    assert_eq!(bench.fakes.existing(), ["image frontend", "image worker"]);

    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    let other = NewDeployment {
        name: "other".to_owned(),
        uid: "ffeeddccbbaa0011".to_owned(),
        quorum: None,
        domain: "other.ipop".to_owned(),
        net4: "10.200.8.0/24".to_owned(),
        net6: "fd12::/64".to_owned(),
        settings: bench.settings.to_json().expect("JSON"),
        nodes: Vec::new(),
    };
    let database = bench.database();
    let id = database
        .create(&other, SystemTime::now())
        .expect("recorded");
    let image = database.resources(bench.id).expect("read");
    let image = image
        .into_iter()
        .find(|r| r.key.resource.id == "worker" && r.node().is_none());
    database
        .want(id, &[image.expect("an image")])
        .expect("recorded");
    bench.destroy();
    assert_eq!(bench.fakes.existing(), ["image worker"]);
}

#[test]
fn a_dry_run_shows_what_would_be_done_and_changes_nothing() {
    let bench = Bench::new();
    let preview = || {
        bench.with(|engine| {
            let nodes = engine.database.nodes(bench.id).expect("read");
            let plan = engine.preview(nodes).expect("planned");
            preview::Preview::new("demo", &plan, BTreeMap::new()).text()
        })
    };
    let clean = |text: String| {
        let state = bench.layout.state.display().to_string();
        let lines = text.replace(&state, "STATE");
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        lines.lines().map(words).collect::<Vec<_>>().join("\n")
    };
    let new = clean(preview());
    assert_eq!(bench.fakes.existing(), [] as [&str; 0]);
    bench.launch(LONG).expect("launched");
    let nothing = clean(preview());
    bench.want(&["+2@local", "-1@local"]);
    bench.want(&["-1@local"]);
    bench.want(&["+1@local"]);
    let scaled = clean(preview());
    let removed = bench.with(|engine| {
        let plan = engine.preview_destroy().expect("planned");
        preview::Preview::new("demo", &plan, BTreeMap::new()).text()
    });
    let all = [new, nothing, scaled, clean(removed)];
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn what_cannot_be_removed_is_named_and_a_second_destroy_removes_it() {
    for step in 1.. {
        let bench = Bench::new();
        bench.launch(LONG).expect("launched");
        bench.fakes.fail_removal(step);
        let removal = bench.destroy();
        if removal.leftover.is_empty() {
            assert!(step > 10, "only {step} steps were tried");
            bench.assert_nothing_is_left();
            break;
        }
        let error = removal.check().expect_err("something is left");
        assert_eq!(error.code, ExitCode::Leftover);
        assert!(
            error.message.contains(&removal.leftover[0].resource.id),
            "{error}"
        );
        bench.fakes.heal();
        bench.destroy().check().expect("all removed");
        bench.assert_nothing_is_left();
    }
}

#[test]
fn what_does_not_answer_is_tried_once_and_all_of_it_is_named() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.fakes.unreachable();
    let removal = bench.destroy();
    // Several at a time of the site; what stands on them is not tried at all.
    assert!(bench.fakes.removals() <= 8, "{}", bench.fakes.removals());
    let directory = 1;
    assert_eq!(
        removal.leftover.len(),
        bench.fakes.existing().len() + directory
    );
    assert!(
        removal.leftover.iter().all(|l| l.why == "no route to host"),
        "{removal:?}"
    );
    bench.fakes.heal();
    bench.destroy().check().expect("all removed");
    bench.assert_nothing_is_left();
}

#[test]
fn a_worker_that_never_boots_is_named_with_its_stage_and_console_and_hangs_nothing() {
    let bench = Bench::new();
    bench
        .fakes
        .silent("worker-1", "[    1.0] Kernel panic - not syncing");
    let outcome = bench.launch(SHORT).expect("launched");
    assert!(!outcome.joined);
    let stuck: Vec<_> = outcome
        .nodes
        .iter()
        .filter_map(|n| n.stuck.as_ref())
        .collect();
    assert_eq!(stuck.len(), 1, "{outcome:?}");
    assert_eq!(stuck[0].reached, Some(Stage::Created));
    assert_eq!(stuck[0].console, ["[    1.0] Kernel panic - not syncing"]);
    let deployment = bench
        .database()
        .deployment("demo")
        .expect("read")
        .expect("there");
    assert_eq!(deployment.phase, Phase::Partial);
    bench.destroy();
    bench.assert_nothing_is_left();
}

#[test]
fn a_machine_that_stopped_is_not_waited_for() {
    let bench = Bench::new();
    bench.fakes.silent("worker-1", "");
    bench.fakes.stopped("worker-1");
    let began = Instant::now();
    let outcome = bench.launch(LONG).expect("launched");
    assert!(began.elapsed() < LONG / 2);
    let stuck = outcome.nodes[2].stuck.as_ref().expect("stuck");
    assert_eq!(stuck.why, "its machine stopped");
}

#[test]
fn a_rendezvous_that_cannot_be_watched_is_warned_of_once_and_named() {
    let bench = Bench::new();
    bench.fakes.unwatchable();
    let outcome = bench.launch(SHORT).expect("launched");
    let events = bench.events.lock().expect("whole");
    let warnings = events
        .iter()
        .filter(|e| matches!(e, Event::Warning { .. }))
        .count();
    assert_eq!(warnings, 1, "{events:?}");
    let why = &outcome.nodes[0].stuck.as_ref().expect("stuck").why;
    assert_eq!(why, "the rendezvous cannot be watched: ejabberd is stopped");
}

#[test]
fn a_rendezvous_that_stopped_is_started_again_with_its_own_addresses() {
    let bench = Bench::new();
    bench.fakes.halts();
    let outcome = bench.launch(LONG).expect("launched");
    assert!(outcome.joined, "{outcome:?}");
    assert!(!bench.fakes.halted());
}

#[test]
fn nodes_are_not_asked_for_their_status_through_a_rendezvous_that_died() {
    let bench = Bench::new();
    bench.fakes.silent("worker-1", "");
    bench.fakes.dies_after(1);
    let outcome = bench.launch(SHORT).expect("launched");
    assert!(!outcome.joined);
}

#[test]
fn a_site_whose_machines_cannot_reach_the_rendezvous_is_refused_unless_it_listens_elsewhere() {
    let mut bench = Bench::new();
    bench.fakes.remote();
    let error = bench.launch(LONG).expect_err("nobody could sign in");
    assert_eq!(error.code, ExitCode::Config);
    assert_eq!(
        error.message,
        "machines of site `local` cannot reach the rendezvous of this machine"
    );
    bench.destroy();
    bench.assert_nothing_is_left();

    bench = Bench::new();
    bench.fakes.remote();
    bench.settings.rendezvous = RendezvousConfig::Embedded(EmbeddedConfig {
        listen: vec![[203, 0, 113, 7].into()],
        ..EmbeddedConfig::default()
    });
    assert!(bench.launch(LONG).expect("launched").joined);
}

#[test]
fn a_machine_of_somebody_else_is_neither_taken_over_nor_removed() {
    let bench = Bench::new();
    bench.fakes.foreign("domain", "ipop-demo-worker-0");
    let error = bench.launch(LONG).expect_err("the name is taken");
    assert_eq!(error.code, ExitCode::Name);
    assert_eq!(
        error.message,
        "site `local` already has a domain `ipop-demo-worker-0`"
    );
    bench.destroy().check().expect("nothing was made");
    assert_eq!(bench.fakes.existing(), ["domain ipop-demo-worker-0"]);
}

#[test]
fn after_an_interrupt_nothing_more_is_made() {
    let bench = Bench::new();
    bench.interrupt.set();
    let error = bench.launch(LONG).expect_err("interrupted");
    assert_eq!(error.code, ExitCode::Interrupted);
    assert_eq!(bench.fakes.existing(), [] as [&str; 0]);
    bench.destroy();
    bench.assert_nothing_is_left();
}
