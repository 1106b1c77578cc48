//! Workers that come when jobs wait.

use super::*;
use crate::plan::elastic::limit;
use crate::plan::scheduler::Scheduler;

impl Bench {
    /// Has two elastic workers: `worker-2` and `worker-3`.
    fn elastic(&self) {
        let plan = ClusterPlan {
            scheduler: Scheduler::Slurm,
            ..demo()
        };
        let database = self.database();
        let nodes = database.nodes(self.id).expect("read");
        let limits = ["2@local".parse().expect("valid")];
        let sites = Sites::default();
        let site = |name: &str| sites.find(name);
        let size = Size {
            memory_mib: None,
            cpus: None,
        };
        let limited = limit(&plan, &nodes, &limits, site, &Roles::default(), size);
        let settings = Settings {
            elastic: limited.expect("planned").elastic,
            ..self.settings.clone()
        };
        let settings = settings.to_json().expect("JSON");
        database.set_settings(self.id, &settings).expect("kept");
    }

    fn follow(&self, wanted: &[&str]) -> Result<(), CliError> {
        let wanted = wanted.iter().map(|name| (*name).to_owned()).collect();
        self.with(|engine| {
            let nodes = engine.database.nodes(self.id).expect("read");
            engine.follow(&engine.settings.elastic.follow(&wanted, &nodes))
        })
    }

    fn phase(&self) -> Phase {
        let found = self.database().deployment("demo").expect("read");
        found.expect("there").phase
    }

    fn births_of(&self, node: &str) -> usize {
        self.fakes.births("domain", &format!("ipop-demo-{node}"))
    }
}

#[test]
fn elastic_workers_come_and_go_and_the_deployment_stays_joined() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.elastic();
    bench
        .follow(&["worker-3", "worker-9", "frontend-0"])
        .expect("made");
    assert_eq!(
        bench.nodes(),
        ["frontend-0", "worker-0", "worker-1", "worker-3"]
    );
    assert_eq!(bench.phase(), Phase::Joined);
    bench.follow(&[]).expect("removed");
    assert_eq!(bench.nodes(), ["frontend-0", "worker-0", "worker-1"]);
    assert_eq!(bench.phase(), Phase::Joined);
    let left = bench.fakes.existing();
    assert!(!left.iter().any(|l| l.contains("worker-3")), "{left:?}");
    bench.follow(&["worker-3"]).expect("made again");
    assert_eq!(bench.births_of("worker-3"), 2);
    assert_eq!(bench.births_of("worker-0"), 1);
    bench.destroy();
    bench.assert_nothing_is_left();
}

#[test]
fn whatever_step_fails_or_dies_the_next_look_finishes_it_and_destroy_leaves_nothing() {
    for fault in [Fault::Error, Fault::Panic] {
        for step in 1.. {
            let bench = Bench::new();
            bench.launch(LONG).expect("launched");
            bench.elastic();
            bench.fakes.fail_at(bench.fakes.steps() + step, fault);
            let followed = catch_unwind(AssertUnwindSafe(|| bench.follow(&["worker-2"])));
            let failed = !matches!(followed, Ok(Ok(())));
            bench.fakes.heal();
            if step % 2 == 0 {
                bench.follow(&["worker-2"]).expect("finished");
                assert_eq!(bench.births_of("worker-2"), 1, "step {step}");
            }
            bench.destroy();
            bench.assert_nothing_is_left();
            if !failed {
                assert!(step > 3, "only {step} steps were tried");
                break;
            }
        }
    }
}
