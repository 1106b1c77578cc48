//! Fifty workers on the EC2 double, with light nodes in the place of guests: what does not grow,
//! and whom the unlucky delay. `cargo run -p ipop-tests --bin scale-bench` does it with 200.

use ipop_tests::scale::{measure, provision};

#[test]
fn fifty_workers_join_and_two_unlucky_ones_delay_no_other() {
    let few = measure(&provision(), 10, false);
    assert_eq!(few.code, Some(0), "{few:#?}");
    let many = measure(&provision(), 50, false);
    assert_eq!(many.code, Some(0), "{many:#?}");
    assert_eq!(many.joined_workers, 50);
    assert_eq!(many.leftovers, Vec::<String>::new());
    // Bounded, whatever the number: in flight, in memory, in open files.
    assert!(many.launches_at_once <= 32, "{many:#?}");
    assert!(many.open_files <= few.open_files + 40, "{few:#?} {many:#?}");
    assert!(many.peak_mib <= few.peak_mib + 40.0, "{few:#?} {many:#?}");
    let unlucky = measure(&provision(), 50, true);
    assert_eq!(unlucky.code, Some(0), "{unlucky:#?}");
    assert_eq!(unlucky.joined_workers, 48);
    assert_eq!(unlucky.leftovers, Vec::<String>::new());
    // A launch that hangs is given up after half a minute: had anybody waited for it, this were
    // the time it took.
    assert!(
        unlucky.joined < many.joined + 20.0,
        "{many:#?} {unlucky:#?}"
    );
}
