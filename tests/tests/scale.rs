//! Two dozen workers on the EC2 double, with light nodes in the place of guests: what must not grow
//! with their number. `cargo run -p ipop-tests --bin scale-bench` does it with 200, and with two
//! unlucky ones.

use ipop_tests::scale::{measure, provision};

#[test]
fn two_dozen_workers_join_with_no_more_memory_files_and_calls_than_six() {
    let few = measure(&provision(), 6, false);
    assert_eq!(few.code, Some(0), "{few:#?}");
    let many = measure(&provision(), 24, false);
    assert_eq!(many.code, Some(0), "{many:#?}");
    assert_eq!(many.joined_workers, 24);
    assert_eq!(many.leftovers, Vec::<String>::new());
    assert!(many.launches_at_once <= 32, "{many:#?}");
    assert!(many.open_files <= few.open_files + 24, "{few:#?} {many:#?}");
    assert!(many.peak_mib <= few.peak_mib + 24.0, "{few:#?} {many:#?}");
}
