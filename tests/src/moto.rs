//! A moto server of the test's own: a public imitation of Amazon's APIs, lax but not written by
//! us. It is a Python program; the first test that needs it installs it by pip into an environment
//! below `target/test-cache`, where later runs find it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::wait_until;

/// What pip is asked for. Another version is another folder of the cache.
const REQUIREMENT: &str = "moto[server]==5.2.*";
const ENVIRONMENT: &str = "moto-5.2";
/// A busy machine takes its time to load Python's modules.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running server. It dies with this value, and with the thread that started it.
pub struct Moto {
    child: Child,
    dir: TempDir,
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
}

impl Moto {
    /// Starts one on a free port of the loopback.
    ///
    /// # Panics
    ///
    /// When it cannot be installed or does not start; its log is shown.
    pub fn start() -> Self {
        let server = installed().join("bin/moto_server");
        let dir = TempDir::new().expect("a temporary directory");
        let log = File::create(dir.path().join("log")).expect("a log file");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(server)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("moto starts (setpriv is in Debian's util-linux)");
        let mut moto = Self {
            child,
            dir,
            endpoint: String::new(),
        };
        moto.endpoint = wait_until("moto says where it listens", PATIENCE, || {
            let log = moto.log();
            assert!(
                moto.child.try_wait().expect("its status").is_none(),
                "moto ended: {log}"
            );
            let (_, rest) = log.split_once("Running on http://")?;
            let (address, _) = rest.split_once('\n')?;
            Some(format!("http://{}", address.trim()))
        });
        moto
    }

    /// What it said, a line for each request.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// How many requests had this in their line (`PUT /snapshots/`).
    pub fn requests(&self, what: &str) -> usize {
        let log = self.log();
        log.lines().filter(|line| line.contains(what)).count()
    }

    /// Calls an API from outside of the product, by curl: the path and query of the request, and
    /// for `ec2` the form. Gives the body of the answer.
    ///
    /// # Panics
    ///
    /// When the server does not answer with success.
    pub fn call(&self, service: &str, path: &str, form: Option<&str>) -> Vec<u8> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*"])
            .args(["--aws-sigv4", &format!("aws:amz:{REGION}:{service}")])
            .args(["--user", "outside:outside"]);
        if let Some(form) = form {
            curl.args(["--data", form]);
        }
        output(curl.arg(format!("{}{path}", self.endpoint))).stdout
    }
}

/// The region tests use.
pub const REGION: &str = "us-west-2";

impl Drop for Moto {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The environment with moto, made by the first who asks; others wait for it.
fn installed() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(target, PathBuf::from);
    let cache = target.join("test-cache");
    fs::create_dir_all(&cache).expect("target/test-cache can be made");
    let environment = cache.join(ENVIRONMENT);
    let lock = File::create(cache.join(format!("{ENVIRONMENT}.lock"))).expect("a lock file");
    lock.lock().expect("the lock");
    let marker = environment.join("installed");
    if !marker.exists() {
        // What an interrupted installation left.
        let _ = fs::remove_dir_all(&environment);
        output(
            Command::new("python3")
                .args(["-m", "venv"])
                .arg(&environment),
        );
        let pip = environment.join("bin/pip");
        output(Command::new(pip).args(["install", "--quiet", REQUIREMENT]));
        fs::write(&marker, "").expect("the marker can be written");
    }
    environment
}

fn output(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
