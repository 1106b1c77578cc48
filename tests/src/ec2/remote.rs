//! A double in a process of its own, which outlives the program under test when that is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Audit, Behaviour, Fault};

/// The process `ec2-double`; it ends with this value, or with the test.
#[derive(Debug)]
pub struct Ec2Process {
    child: Child,
    /// When this closes, the process ends.
    _input: Option<ChildStdin>,
    endpoint: String,
}

impl Ec2Process {
    /// Starts `binary` (`env!("CARGO_BIN_EXE_ec2-double")`).
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start(binary: &Path, behaviour: &Behaviour) -> Self {
        let behaviour = serde_json::to_string(behaviour).expect("behaviour is JSON");
        let mut child = Command::new(binary)
            .args(["--behaviour", &behaviour])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`ec2-double` runs");
        let mut endpoint = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output)
            .read_line(&mut endpoint)
            .expect("a line");
        let endpoint = endpoint.trim().to_owned();
        assert!(endpoint.starts_with("http://"), "no endpoint: {endpoint:?}");
        Self {
            _input: child.stdin.take(),
            child,
            endpoint,
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// See [`super::Ec2Double::leftovers`].
    pub fn leftovers(&self) -> Vec<String> {
        self.call("GET", "leftovers", &())
    }

    /// See [`super::Ec2Double::audit`].
    pub fn audit(&self) -> Audit {
        self.call("GET", "audit", &())
    }

    /// See [`super::Ec2Double::fault`].
    pub fn fault(&self, fault: &Fault) {
        self.call("POST", "faults", fault)
    }

    /// See [`super::Ec2Double::clear_faults`].
    pub fn clear_faults(&self) {
        self.call("DELETE", "faults", &())
    }

    /// See [`super::Ec2Double::change`].
    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.call("GET", "behaviour", &());
        change(&mut behaviour);
        self.call("POST", "behaviour", &behaviour)
    }

    fn call<T: DeserializeOwned>(&self, method: &str, name: &str, body: &impl Serialize) -> T {
        let body = serde_json::to_string(body).expect("JSON");
        let addr = self.endpoint.trim_start_matches("http://");
        let mut stream = TcpStream::connect(addr).expect("the double listens");
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).expect("a socket");
        write!(
            stream,
            "{method} /_double/{name} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.starts_with("HTTP/1.1 200"),
            "{method} {name}: {answer}"
        );
        serde_json::from_str(body).expect("JSON")
    }
}

impl Drop for Ec2Process {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
