//! Points where a test kills the process: before and after every action of the engine.
//!
//! Of a build without debug assertions nothing of this is left. `IPOP_FAULT_LOG=FILE` appends the
//! line `N WHEN KEY` at each point that is passed; `IPOP_FAULT=N` ends the process by SIGKILL at
//! the N-th, from 1. Points of several threads are counted in the order they are passed.

/// A point: `when` is `before` or `after`, `key` names the action.
#[cfg(debug_assertions)]
pub fn point(when: &str, key: &str) {
    points::pass(when, key);
}

/// A point: nothing in a build for users.
#[cfg(not(debug_assertions))]
pub fn point(_when: &str, _key: &str) {}

#[cfg(debug_assertions)]
mod points {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::sync::{Mutex, PoisonError};

    static PASSED: Mutex<u64> = Mutex::new(0);

    /// Logged and counted under one lock, so that the log's order is the count's.
    pub fn pass(when: &str, key: &str) {
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        *passed += 1;
        if let Some(path) = std::env::var_os("IPOP_FAULT_LOG") {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let line = format!("{passed} {when} {key}\n");
            // A test that cannot read its log fails by that.
            if let Ok(mut file) = file {
                let _ = file.write_all(line.as_bytes());
            }
        }
        let at = std::env::var("IPOP_FAULT").ok();
        if at.and_then(|n| n.parse().ok()) == Some(*passed) {
            let own = rustix::process::getpid();
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            // The signal may take a moment; nothing may happen in it.
            loop {
                std::thread::park();
            }
        }
    }
}
