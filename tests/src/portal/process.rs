//! The double in a process of its own, which outlives the program under test when that is killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::{Holding, Options};

/// The process `portal-double`; it ends with this value, or with the test.
#[derive(Debug)]
pub struct PortalProcess {
    child: Child,
    pipes: Mutex<Option<Pipes>>,
    place: Place,
}

/// Where it is, as its first line says.
#[derive(Debug, Deserialize)]
struct Place {
    url: String,
    ca_file: PathBuf,
    token_file: PathBuf,
}

/// When the input closes, the process ends.
#[derive(Debug)]
struct Pipes {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl PortalProcess {
    /// Starts `binary` (`env!("CARGO_BIN_EXE_portal-double")`).
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start(binary: &Path, options: &Options) -> Self {
        let options = serde_json::to_string(options).expect("options are JSON");
        let mut child = Command::new(binary)
            .arg(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`portal-double` runs");
        let mut pipes = Pipes {
            input: child.stdin.take().expect("piped"),
            output: BufReader::new(child.stdout.take().expect("piped")),
        };
        Self {
            place: pipes.line(),
            pipes: Mutex::new(Some(pipes)),
            child,
        }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.place.url
    }

    /// See [`super::Portal::ca_file`].
    pub fn ca_file(&self) -> &Path {
        &self.place.ca_file
    }

    /// See [`super::Portal::token_file`].
    pub fn token_file(&self) -> &Path {
        &self.place.token_file
    }

    /// See [`super::Portal::holdings`].
    pub fn holdings(&self) -> Vec<Holding> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let pipes = pipes.as_mut().expect("open until it is dropped");
        writeln!(pipes.input).expect("the double listens");
        pipes.line()
    }
}

impl Pipes {
    fn line<T: serde::de::DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a pipe");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("`portal-double` said {line:?}: {e}"))
    }
}

impl Drop for PortalProcess {
    fn drop(&mut self) {
        let pipes = self.pipes.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(pipes.take());
        let ended = self.child.wait();
        // It fails when its own answers were not what its document allows.
        if !std::thread::panicking() {
            assert!(
                ended.is_ok_and(|status| status.success()),
                "the double failed"
            );
        }
    }
}
