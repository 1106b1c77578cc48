//! Points where a test kills the process: before and after every action of the engine, and those that have a name.
//!
//! Of a build without debug assertions nothing of this is left. `IPOP_FAULT_LOG=FILE` appends the
//! line `WHEN KEY` at each point that is passed; another try of the same action passes none.
//! `IPOP_FAULT="WHEN VERB KIND N"` ends the process by SIGKILL at the N-th such point, from 1: the
//! order of points of different kinds differs from run to run, their number does not. A point with a name
//! is `at NAME`.

use super::planner::Action;

/// A point: `when` is `before` or `after`.
#[cfg(debug_assertions)]
pub fn point(when: &str, action: &Action) {
    points::pass(when, action);
}

/// A point: nothing in a build for users.
#[cfg(not(debug_assertions))]
pub fn point(_when: &str, _action: &Action) {}

/// A point with a name, in what is no action.
#[cfg(debug_assertions)]
pub fn at(name: &str) {
    points::named(name);
}

/// A point with a name: nothing in a build for users.
#[cfg(not(debug_assertions))]
pub fn at(_name: &str) {}

#[cfg(debug_assertions)]
mod points {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::sync::{Mutex, PoisonError};

    use super::Action;

    /// `WHEN KEY` and `WHEN VERB KIND` of each, in the order they were passed.
    static PASSED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

    /// Logged and counted under one lock, so that the log's order is the count's.
    pub fn pass(when: &str, action: &Action) {
        let (verb, key) = (action.verb, &action.key);
        let point = format!("{when} {verb} {key}");
        one(point, format!("{when} {verb} {}", key.resource.kind));
    }

    pub fn named(name: &str) {
        let point = format!("at {name}");
        one(point.clone(), point);
    }

    fn one(point: String, sort: String) {
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.iter().any(|(other, _)| *other == point) {
            return;
        }
        if let Some(path) = std::env::var_os("IPOP_FAULT_LOG") {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            // A test that cannot read its log fails by that.
            if let Ok(mut file) = file {
                let _ = file.write_all(format!("{point}\n").as_bytes());
            }
        }
        let alike = passed.iter().filter(|(_, other)| *other == sort).count();
        passed.push((point, sort.clone()));
        let wanted = std::env::var("IPOP_FAULT").unwrap_or_default();
        if wanted == format!("{sort} {}", alike + 1) {
            let own = rustix::process::getpid();
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            // The signal may take a moment; nothing may happen in it.
            loop {
                std::thread::park();
            }
        }
    }
}
