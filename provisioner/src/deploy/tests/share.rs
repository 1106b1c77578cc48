//! Shares: machines come and go, their data stays.

use super::*;
use crate::bundle::EXPORTS;
use crate::plan::share::{Share, add};
use crate::provider::DATA;

const SHARE: &str = "lake-data";

impl Bench {
    /// As the first part of `provision share create`.
    fn want_share(&self, members: &[&str]) {
        let database = self.database();
        let deployment = database.deployment("demo").expect("read").expect("there");
        let nodes = database.nodes(self.id).expect("read");
        let plan = ClusterPlan::recorded(&deployment, &nodes).expect("whole");
        let mut settings = Settings::of(&deployment).expect("whole");
        let share = Share {
            name: NodeName(SHARE.to_owned()),
            size_gib: 2,
            members: members.iter().map(|m| (*m).to_owned()).collect(),
            growing: false,
            restoring: None,
        };
        let sites = Sites::default();
        let site = sites.find("local").expect("there");
        let size = Size {
            memory_mib: None,
            cpus: None,
        };
        let node = add(&plan, &nodes, site, &share, size).expect("room");
        settings.shares.push(share);
        let text = settings.to_json().expect("JSON");
        let added = [node.record()];
        database.rescale(self.id, &text, &added, &[]).expect("kept");
    }

    /// As the first part of `provision share destroy`.
    fn unwant_share(&self) {
        let database = self.database();
        let deployment = database.deployment("demo").expect("read").expect("there");
        let mut settings = Settings::of(&deployment).expect("whole");
        settings.shares.clear();
        let text = settings.to_json().expect("JSON");
        let removed = [NodeName(SHARE.to_owned())];
        let rescaled = database.rescale(self.id, &text, &[], &removed);
        rescaled.expect("kept");
    }

    fn has(&self, kind: &str, id: &str) -> bool {
        self.fakes.existing().contains(&format!("{kind} {id}"))
    }
}

#[test]
fn a_share_is_waited_for_and_its_data_outlives_machine_and_replacement() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.want_share(&["worker-1"]);
    let outcome = bench.launch(LONG).expect("joined");
    let own = outcome.nodes.iter().find(|n| n.name.0 == SHARE);
    assert!(own.expect("waited for").stuck.is_none());
    let exports = bench.fakes.given(SHARE, EXPORTS).expect("given");
    let line = exports.lines().find(|l| l.starts_with('/')).expect("one");
    assert!(
        line.starts_with("/srv/share 10.") && line.contains(".3(rw,"),
        "{line}"
    );
    assert_eq!(line.matches("all_squash").count(), 2, "{line}");
    let births = |kind, id| bench.fakes.births(kind, id);
    assert_eq!(births(DATA, SHARE), 1);
    // Nothing is left to do, and nothing is done.
    bench.launch(LONG).expect("as it is");
    assert_eq!(births("domain", "ipop-demo-lake-data"), 1);

    bench
        .database()
        .replace_node(bench.id, &NodeName(SHARE.to_owned()))
        .expect("kept");
    bench.launch(LONG).expect("another machine");
    assert_eq!(births("domain", "ipop-demo-lake-data"), 2);
    assert_eq!(births(DATA, SHARE), 1, "the same data");

    bench.unwant_share();
    bench.launch(LONG).expect("removed");
    assert!(!bench.has("domain", "ipop-demo-lake-data"));
    assert!(bench.has(DATA, SHARE));
    bench.want_share(&["all"]);
    bench.launch(LONG).expect("joined");
    assert_eq!(births("domain", "ipop-demo-lake-data"), 3);
    assert_eq!(births(DATA, SHARE), 1, "the same data");
}

#[test]
fn destroy_keeps_data_and_says_so_unless_it_is_told_to_delete_it() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.want_share(&["all"]);
    bench.launch(LONG).expect("joined");
    let removal = bench.destroy();
    let names = |all: &[Resource]| all.iter().map(|r| r.id.clone()).collect::<Vec<_>>();
    assert_eq!(names(&removal.kept), [SHARE]);
    assert!(!removal.removed.iter().any(|r| r.kind == DATA));
    assert!(bench.has(DATA, SHARE));

    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.want_share(&["all"]);
    bench.launch(LONG).expect("joined");
    // Also what a share left that was removed before.
    bench.unwant_share();
    bench.launch(LONG).expect("removed");
    let removal = bench.with(|engine| engine.destroy_with_data());
    let removal = removal.expect("carried out");
    assert_eq!(removal.kept, []);
    assert!(removal.removed.iter().any(|r| r.kind == DATA));
    assert!(!bench.has(DATA, SHARE));
}

#[test]
fn the_data_of_one_share_gets_more_room_and_no_other() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.want_share(&["all"]);
    let node = |name: &str| {
        let nodes = bench.database().nodes(bench.id).expect("read");
        let own = nodes.into_iter().find(|n| n.name.0 == name);
        own.expect("there")
    };
    let early = bench.with(|engine| engine.grow_data(&node(SHARE), 4 << 30));
    let error = early.expect_err("no volume yet");
    assert!(
        error.to_string().contains("provision resume demo"),
        "{error}"
    );
    bench.launch(LONG).expect("joined");
    for _ in 0..2 {
        let grown = bench.with(|engine| engine.grow_data(&node(SHARE), 4 << 30));
        grown.expect("larger");
        assert_eq!(bench.fakes.grown(DATA, SHARE), Some(4 << 30));
    }
    let none = bench.with(|engine| engine.grow_data(&node("worker-0"), 4 << 30));
    assert!(none.is_err(), "it has no data");
}

#[test]
fn data_goes_back_to_a_whole_snapshot_of_its_own_and_to_nothing_else() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.want_share(&["all"]);
    bench.launch(LONG).expect("joined");
    let nodes = bench.database().nodes(bench.id).expect("read");
    let node = nodes.iter().find(|n| n.name.0 == SHARE).expect("there");
    bench
        .with(|engine| engine.snapshot_data(node, "before"))
        .expect("copied");
    let none = bench.with(|engine| engine.restore_data(node, ("after", 4 << 30), || Ok(())));
    assert!(none.is_err(), "there is none of that name");
    // What cannot be recorded would be done again, over what is written meanwhile: nobody writes yet.
    let unrecorded = || Err(CliError::new(ExitCode::Missing, "the disk is full"));
    let failed = bench.with(|engine| engine.restore_data(node, ("before", 2 << 30), unrecorded));
    assert_eq!(failed.expect_err("not recorded").code, ExitCode::Missing);
    assert_eq!((bench.fakes.restored().len(), bench.fakes.served()), (1, 0));
    let recorded = || {
        assert_eq!(bench.fakes.served(), 0);
        Ok(())
    };
    let before = bench.with(|engine| engine.restore_data(node, ("before", 4 << 30), recorded));
    before.expect("as it was");
    assert_eq!(bench.fakes.served(), 1);
    let restored = bench.fakes.restored();
    let of = |size_bytes| (node.name.clone(), "before".to_owned(), size_bytes);
    assert_eq!(restored, [of(2 << 30), of(4 << 30)]);
    // A snapshot is data: it stays with it.
    let removal = bench.destroy();
    let kept: Vec<_> = removal.kept.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(kept, [SHARE, "lake-data@before"]);
}

#[test]
fn data_that_is_gone_is_told_before_an_empty_volume_takes_its_place() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.want_share(&["all"]);
    let warnings = |bench: &Bench| {
        let events = bench.events.lock().expect("whole");
        let text = |event: &Event| match event {
            Event::Warning { message } => Some(message.clone()),
            _ => None,
        };
        events.iter().filter_map(text).collect::<Vec<_>>()
    };
    bench.launch(LONG).expect("joined");
    bench.launch(LONG).expect("as it is");
    assert_eq!(warnings(&bench), [""; 0], "it is new, or there");
    bench.fakes.vanish(DATA, SHARE);
    bench.launch(LONG).expect("made anew");
    assert_eq!(bench.fakes.births(DATA, SHARE), 2);
    let told = warnings(&bench);
    let [warning] = &told[..] else {
        panic!("one: {told:?}");
    };
    let begin = "the data of `demo/lake-data` is lost: its volume `lake-data` is gone";
    assert!(warning.starts_with(begin), "{warning}");
}

#[test]
fn nothing_is_made_while_data_is_between_two_states() {
    let bench = Bench::new();
    bench.launch(LONG).expect("launched");
    bench.want_share(&["all"]);
    bench.launch(LONG).expect("joined");
    let restoring = |label: Option<&str>| {
        let database = bench.database();
        let deployment = database.deployment("demo").expect("read").expect("there");
        let mut settings = Settings::of(&deployment).expect("whole");
        settings.shares[0].restoring = label.map(str::to_owned);
        let text = settings.to_json().expect("JSON");
        database.set_settings(bench.id, &text).expect("kept");
    };
    restoring(Some("before"));
    bench.fakes.vanish(DATA, SHARE);
    let error = bench.launch(LONG).expect_err("half of it");
    assert!(
        error.to_string().contains("`provision resume demo`"),
        "{error}"
    );
    assert_eq!(bench.fakes.births(DATA, SHARE), 1);
    restoring(None);
    bench.launch(LONG).expect("made");
}

#[test]
fn a_quorum_is_of_workers_and_a_share_has_to_be_there() {
    let bench = Bench::new();
    bench.want_share(&["all"]);
    bench.fakes.silent("worker-1", "");
    bench.fakes.silent(SHARE, "");
    let options = |limit| Options {
        quorum: Some(1),
        ..Bench::options(limit)
    };
    let apply = |limit| bench.with(|engine| engine.apply(&options(limit)));
    let outcome = apply(SHORT).expect("launched");
    assert!(!outcome.enough, "the share has not joined: {outcome:?}");

    let bench = Bench::new();
    bench.want_share(&["all"]);
    bench.fakes.refuse("domain ipop-demo-lake-data");
    let error = bench.with(|engine| engine.apply(&options(LONG)));
    let error = error.expect_err("there is no room for it");
    assert_eq!(
        error.message,
        "lake-data: domain `ipop-demo-lake-data`: out of capacity"
    );
}
