//! `provision share mount` on a member's machine, beside a control socket that says what a node says and a
//! `mount` that writes down how it is called. `share` mounts a real share.
//!
//! Needs root, without which nobody may mount.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use ipop_node::control::Answer;
use ipop_tests::scale;
use serde_json::json;
use tempfile::TempDir;

/// Of the share's server in the overlay, which is this machine.
const SERVER: &str = "127.0.73.200";

struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new() -> Self {
        let dir = TempDir::with_prefix("ipop-mount-").expect("temporary directory");
        let machine = Self { dir };
        machine.answer();
        machine.program("mount.nfs4", "exit 1");
        machine.program("mount", r#"echo "$@" >>"${0%/*}/called""#);
        machine
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permitted");
    }

    /// Answers like the node of a member of `lake`, to which `lake-data` is linked.
    fn answer(&self) {
        let peer = json!({
            "name": "lake-data", "jid": "", "role": "share", "link": { "state": "up" },
            "addrs": { "ipv4": format!("{SERVER}/24"), "ipv6": "fd5a:1:2:3::4/64" },
            "tx_bytes": 0, "tx_packets": 0, "rx_bytes": 0, "rx_packets": 0, "drops": {},
        });
        let status = json!({
            "name": "alice-laptop", "overlay": "lake", "jid": "", "version": "0.1.0",
            "addrs": { "ipv4": "127.0.73.254/24", "ipv6": "fd5a:1:2:3::fe/64" },
            "interface": "ipop0", "mtu": 1400, "uptime_ms": 1,
            "sign_in": { "state": "online" }, "role": { "state": "pending" },
            "candidates": [], "drops": {}, "peers": [peer],
        });
        let status = serde_json::from_value(status).expect("a status");
        let answer = serde_json::to_string(&Answer::Status(Box::new(status))).expect("JSON");
        let listener = UnixListener::bind(self.path("control.sock")).expect("bound");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut asked = String::new();
                let read = BufReader::new(&stream).read_line(&mut asked);
                assert!(read.is_ok() && asked.contains("status"), "{asked}");
                writeln!(&stream, "{answer}").expect("answered");
            }
        });
    }

    fn provision(&self, words: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new(scale::provision())
            .args(["share"])
            .args(words)
            .env("PATH", format!("{}:{path}", self.path("")))
            .env("IPOP_STATE_DIR", self.path("state"))
            .output()
            .expect("it runs")
    }

    fn mount(&self, share: &str, folder: &str) -> Output {
        let (control, folder) = (self.path("control.sock"), self.path(folder));
        self.provision(&["mount", share, &folder, "--control", &control])
    }
}

/// Fails unless it ended so and said all of these.
fn says(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[test]
fn a_members_machine_mounts_a_share_that_its_node_knows_and_says_what_is_in_the_way() {
    let machine = Machine::new();
    says(
        &machine.mount("pond/lake-data", "a"),
        5,
        &["node is in `lake`, and none is in `pond`", "ipop-node join"],
    );
    says(
        &machine.mount("lake/lake-dta", "a"),
        4,
        &["did you mean `lake-data`?"],
    );
    says(
        &machine.mount("lake/lake-data", "a"),
        5,
        &["`lake-data` does not serve at 127.0.73.200:2049"],
    );
    let called = machine.path("called");
    assert!(!Path::new(&called).exists(), "nobody is there to wait for");

    let _server = TcpListener::bind((SERVER, 2049)).expect("bound");
    says(
        &machine.mount("lake/lake-data", "a"),
        0,
        &["`lake/lake-data` is mounted on", "127.0.73.200:/srv/share"],
    );
    let words = fs::read_to_string(&called).expect("it was called");
    let place = machine.path("a");
    assert_eq!(
        words,
        format!("-t nfs4 -o vers=4.2,nosuid,nodev,retry=0 {SERVER}:/srv/share {place}\n")
    );
    assert!(Path::new(&place).is_dir());

    // What is in a folder is not hidden.
    fs::create_dir(machine.path("b")).expect("made");
    fs::write(machine.path("b/thesis"), "the only copy").expect("written");
    says(
        &machine.mount("lake/lake-data", "b"),
        2,
        &["is not empty", "choose another"],
    );

    machine.program(
        "mount",
        "echo 'mount.nfs4: access denied by server' >&2; exit 32",
    );
    says(
        &machine.mount("lake/lake-data", "a"),
        5,
        &[
            "access denied by server",
            "provision share members lake/lake-data",
        ],
    );
    // Nothing is mounted, and another's folder is left alone.
    let unmount = machine.provision(&["unmount", "lake/lake-data", &place]);
    says(&unmount, 4, &["is not mounted on"]);
    assert!(Path::new(&place).is_dir());
    assert!(
        !Path::new(&machine.path("state")).exists(),
        "no state of deployments is needed"
    );
}
