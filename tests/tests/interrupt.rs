//! Ctrl-C: once ends after the action in hand and says how to go on, twice ends at once. Needs
//! what the kill tests need.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipop_tests::ejabberd::Ejabberd;
use ipop_tests::kill::bench::finish;
use ipop_tests::kill::{Bench, Cell, Phase, libvirt::Libvirt};
use ipop_tests::wait_until;

/// Commands that wait for nothing are through in seconds.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(cell: &Cell<'_>) -> Child {
    let mut command = cell.command(Phase::Create);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("target/debug/provision")
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    let sent = finish({
        let mut command = Command::new("kill");
        command.args(["-INT", &pid]);
        command
    });
    assert_eq!(sent.code, Some(0), "{sent:?}");
}

#[test]
fn one_interrupt_ends_after_the_action_in_hand_and_resume_goes_on() {
    let bench = Bench::new(
        "libvirt",
        Box::new(Libvirt::start()),
        Arc::new(Ejabberd::start()),
    );
    let whole = bench.cell();
    whole.run(Phase::Create, None).ok().expect("a clean create");
    let (all, wanted) = (whole.points(), whole.look());

    let cell = bench.cell();
    let child = start(&cell);
    wait_until("the first action", PATIENCE, || {
        (!cell.points().is_empty()).then_some(())
    });
    interrupt(&child);
    let output = child.wait_with_output().expect("our child");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{errors}");
    let advice = format!("provision resume {}", cell.name());
    assert!(errors.contains(&advice), "{errors}");
    let points = cell.points();
    assert!(points.len() < all.len(), "it was not stopped: {points:?}");
    let count = |when: &str| points.iter().filter(|p| p.starts_with(when)).count();
    assert_eq!(count("before "), count("after "), "{points:?}");

    cell.resume().ok().expect("resumed");
    assert_eq!(cell.look(), wanted);
    for cell in [cell, whole] {
        cell.run(Phase::Destroy, None).ok().expect("destroyed");
        assert!(cell.look().is_empty());
    }
}

#[test]
fn two_interrupts_end_at_once() {
    let ejabberd = Arc::new(Ejabberd::start());
    let bench = Bench::new("libvirt", Box::new(Libvirt::start()), Arc::clone(&ejabberd));
    let cell = bench.cell();
    ejabberd.hang();
    let mut child = start(&cell);
    let in_hand = |point: &String| point.contains("roster-group") || point.contains("rendezvous");
    wait_until("an action that hangs", PATIENCE, || {
        cell.points().iter().any(in_hand).then_some(())
    });
    interrupt(&child);
    std::thread::sleep(Duration::from_secs(1));
    let ended = child.try_wait().expect("our child");
    assert_eq!(ended, None, "it did not wait for the action in hand");
    let began = Instant::now();
    interrupt(&child);
    let output = child.wait_with_output().expect("our child");
    assert_eq!(output.status.code(), Some(130));
    // The action in hand would go on for 20 s.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    ejabberd.wake();
    cell.run(Phase::Destroy, None).ok().expect("destroyed");
    assert!(cell.look().is_empty());
}
