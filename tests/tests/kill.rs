//! The kill tests: see [`ipop_tests::kill`]. They need root, libvirt, ejabberd and `qemu-img`, and
//! the debug build of `provision`.
//!
//! `IPOP_KILL` asks for more or fewer runs than are made by themselves: `actions` (each once),
//! `points` (before and after each action, with two cures), `full` (with all three).
//! `IPOP_KILL_TABLE=FILE` writes the tables.

use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use ipop_tests::ejabberd::Ejabberd;
use ipop_tests::kill::{Bench, Extent, Peer, cloudlab, ec2, libvirt, matrix, rocks, share, ssh};

/// Runs at a time of one kind of host.
const THREADS: usize = 3;

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

fn run(bench: &Bench, extent: Extent) {
    matrix(bench, Extent::asked().unwrap_or(extent), THREADS);
}

#[test]
fn ec2_is_whole_again_after_a_kill_before_or_after_every_action() {
    let double = Path::new(env!("CARGO_BIN_EXE_ec2-double"));
    run(&bench("ec2", ec2::Ec2::new(double)), Extent::EveryAction);
}

#[test]
fn cloudlab_is_whole_again_after_a_kill_before_or_after_every_action_on_an_experiment() {
    let double = Path::new(env!("CARGO_BIN_EXE_portal-double"));
    let peer = cloudlab::Cloudlab::start(double);
    // What is done on the machines themselves is what is done on those of SSH sites.
    let own = Extent::Only(&["place", "experiment", "machine"]);
    run(&bench("cloudlab", peer), own);
}

#[test]
fn libvirt_is_whole_again_after_a_kill_before_or_after_every_action() {
    let peer = libvirt::Libvirt::start();
    run(&bench("libvirt", peer), Extent::EveryAction);
}

#[test]
fn a_share_is_whole_again_after_a_kill_while_it_grows_or_goes_back_to_a_snapshot() {
    let peer = libvirt::Libvirt::start();
    let pool = peer.path().to_owned();
    share::grows_and_goes_back(&bench("libvirt", peer), &pool);
}

#[test]
fn rocks_is_whole_again_after_a_kill_before_or_after_every_action_on_the_front_end() {
    let double = Path::new(env!("CARGO_BIN_EXE_rocks-double"));
    // The workers' own parts are those of SSH sites.
    let own = Extent::Only(&["mtu", "registration", "interface", "boot", "configuration"]);
    run(&bench("rocks", rocks::Rocks::new(double)), own);
}

#[test]
fn ssh_is_whole_again_after_a_kill_before_or_after_every_action() {
    run(&bench("ssh", ssh::Ssh::start()), Extent::EveryAction);
}
