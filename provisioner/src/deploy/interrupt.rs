//! Ctrl-C: the first stops after the action in hand, the second at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{CliError, ExitCode};

/// Whether the user wants to stop.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    set: AtomicBool,
    advice: Mutex<Option<String>>,
}

impl Interrupt {
    /// Listens to SIGINT and SIGTERM from now on.
    pub fn listen() -> Result<Self, CliError> {
        let interrupt = Self::default();
        let flag = interrupt.clone();
        let failed = |e| CliError::new(ExitCode::Internal, "cannot listen to Ctrl-C").caused_by(e);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let signals = {
            let _context = runtime.enter();
            use tokio::signal::unix::{SignalKind, signal};
            signal(SignalKind::interrupt()).and_then(|i| Ok((i, signal(SignalKind::terminate())?)))
        };
        let (mut interrupted, mut terminated) = signals.map_err(failed)?;
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupted.recv() => {}
                        _ = terminated.recv() => {}
                    }
                    if flag.0.set.swap(true, Ordering::SeqCst) {
                        std::process::exit(i32::from(ExitCode::Interrupted as u8));
                    }
                    eprintln!("{}", flag.text());
                }
            });
        });
        Ok(interrupt)
    }

    /// From now on the user is told that this command goes on with what is stopped.
    pub fn advise(&self, command: impl Into<String>) {
        *self.advice() = Some(command.into());
    }

    /// What the user is told at the first Ctrl-C.
    fn text(&self) -> String {
        let mut text = "stopping after the actions in hand; Ctrl-C again stops at once".to_owned();
        if let Some(command) = &*self.advice() {
            text += &format!("; `{command}` goes on");
        }
        text
    }

    fn advice(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.advice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks to stop.
    pub fn set(&self) {
        self.0.set.store(true, Ordering::SeqCst);
    }

    /// Whether to stop.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// An error when to stop.
    pub fn check(&self) -> Result<(), CliError> {
        if self.is_set() {
            Err(CliError::interrupted())
        } else {
            Ok(())
        }
    }
}
