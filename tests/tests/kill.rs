//! The kill tests: see [`ipop_tests::kill`]. They need root, libvirt, ejabberd and `qemu-img`, and
//! the debug build of `provision`.
//!
//! `IPOP_KILL=full` makes every point meet every cure; `IPOP_KILL_TABLE=FILE` writes the tables.

use std::sync::{Arc, Mutex, Weak};

use ipop_tests::ejabberd::Ejabberd;
use ipop_tests::kill::{Bench, Peer, libvirt, matrix};

/// Runs at a time of one kind of host.
const THREADS: usize = 4;

/// One server for all tests that run at the moment.
fn ejabberd() -> Arc<Ejabberd> {
    static SHARED: Mutex<Weak<Ejabberd>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().expect("no panic");
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Ejabberd::start());
        *shared = Arc::downgrade(&server);
        server
    })
}

fn bench(kind: &'static str, peer: impl Peer + 'static) -> Bench {
    Bench::new(kind, Box::new(peer), ejabberd())
}

#[test]
fn libvirt_is_whole_again_after_a_kill_before_and_after_every_action() {
    matrix(&bench("libvirt", libvirt::Libvirt::start()), THREADS);
}
