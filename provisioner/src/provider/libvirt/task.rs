//! A call that returns in time, whatever the host does.
//!
//! libvirt's functions block, some as long as their host takes, and cannot be called off. So they
//! run on a thread of their own; if that does not come back in time, it is given up together with
//! the connection it hangs on, and does nothing more should it ever wake.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::connection::Connection;
use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode, Retry};
use crate::event::{Event, Sink};

/// For what only looks.
pub const ASK: Duration = Duration::from_secs(60);
/// For trying a whole site: one boot and what is around it.
pub const TRY: Duration = Duration::from_secs(240);
/// After its deadline a task may still end by itself, with an error that says more.
const GRACE: Duration = Duration::from_secs(2);

/// What work is told from outside while it runs.
#[derive(Debug, Clone)]
pub struct Task {
    /// When it must have come to its end.
    pub deadline: Instant,
    interrupt: Interrupt,
    given_up: Interrupt,
    events: Sender<Event>,
}

impl Task {
    /// For long waits and uploads: an error when to stop.
    pub fn check(&self, waits_for: &dyn Fn() -> String) -> Result<(), CliError> {
        self.interrupt.check()?;
        self.go_on()?;
        if Instant::now() >= self.deadline {
            return Err(late(&waits_for()));
        }
        Ok(())
    }

    /// Before each change: an error when nobody waits for it any more.
    pub fn go_on(&self) -> Result<(), CliError> {
        self.given_up.check()
    }
}

impl Sink for Task {
    fn emit(&self, event: Event) {
        // Nobody listens to a task that was given up.
        let _ = self.events.send(event);
    }
}

/// An error that says what was waited for.
fn late(what: &str) -> CliError {
    CliError::new(ExitCode::Unavailable, format!("{what}: not done in time"))
        .hint("the libvirt host or the way to it is slow or hangs: `provision site check` tries it")
        .retry(Retry::Soon)
}

/// Runs `work` and passes its events on, until it returns or its deadline is over.
pub fn run<T: Send + 'static>(
    connection: &Connection,
    what: String,
    deadline: Instant,
    interrupt: &Interrupt,
    events: &dyn Sink,
    work: impl FnOnce(&Task) -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let (sender, shown) = channel();
    let task = Task {
        deadline,
        interrupt: interrupt.clone(),
        given_up: Interrupt::default(),
        events: sender,
    };
    let given_up = task.given_up.clone();
    // The thread drops its end of `shown` after it has sent its result.
    let (result, done) = channel();
    std::thread::spawn(move || {
        // Nobody waits for the result of a task that was given up.
        let _ = result.send(work(&task));
    });
    loop {
        let left = (deadline + GRACE).saturating_duration_since(Instant::now());
        match shown.recv_timeout(left) {
            Ok(event) => events.emit(event),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                given_up.set();
                connection.forget();
                return Err(late(&what));
            }
        }
    }
    done.recv().unwrap_or_else(|_| {
        Err(CliError::new(
            ExitCode::Internal,
            format!("{what}: the thread that did it panicked"),
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn work_that_hangs_is_given_up_and_does_nothing_more() {
        let connection = Connection::new("test:///default");
        let (wake, asleep) = channel::<()>();
        let (late, after) = channel();
        let started = Instant::now();
        let error = run(
            &connection,
            "looking".into(),
            started + Duration::from_millis(50),
            &Interrupt::default(),
            &|_| {},
            move |task| {
                asleep.recv().expect("woken");
                late.send(task.go_on().is_err()).expect("heard");
                Ok(())
            },
        )
        .unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(error.message, "looking: not done in time");
        assert_eq!(error.retry, Retry::Soon);
        wake.send(()).expect("asleep");
        assert!(after.recv().expect("woken"), "it would have gone on");
    }

    #[test]
    fn events_arrive_before_the_result() {
        let connection = Connection::new("test:///default");
        let seen = Mutex::new(Vec::new());
        let step = |message: &str| Event::Step {
            message: message.into(),
        };
        let done = run(
            &connection,
            "work".into(),
            Instant::now() + Duration::from_secs(30),
            &Interrupt::default(),
            &|e| seen.lock().expect("alive").push(e),
            move |task| {
                task.emit(step("one"));
                Ok(7)
            },
        );
        assert_eq!(done.expect("done"), 7);
        assert_eq!(*seen.lock().expect("alive"), [step("one")]);
    }
}
