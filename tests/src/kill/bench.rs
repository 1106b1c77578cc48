//! `provision` against one kind of host: a state directory for each run, real accounts on one
//! ejabberd, and a look from outside.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Phase, images};
use crate::ejabberd::{DOMAIN, Ejabberd};

/// Longest run of one command.
const LIMIT: Duration = Duration::from_secs(300);

/// What is seen of a deployment from outside: sorted, and alike things as often as they are there.
pub type View = Vec<String>;

/// A kind of host.
pub trait Peer: Sync {
    /// A host for one run, its own or shared with others.
    fn host(&self) -> Box<dyn Host + '_>;

    /// Fails unless a view shows a front end and that many workers.
    fn check(&self, view: &[String], workers: u32);
}

/// The host of one run, looked at without the product.
pub trait Host {
    /// The keys of `[site.local]`, where workers are made, and other sites behind them.
    fn site(&self) -> String;

    /// The site of the front end.
    fn front(&self) -> &'static str {
        "local"
    }

    /// Variables that `provision` needs to use it.
    fn env(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Everything of a deployment that is there. Kept images do not count; what stays until a
    /// destroy by design begins with [`super::KEPT`].
    fn look(&self, deployment: &str) -> Vec<String>;
}

/// One kind of host and what all runs on it share.
pub struct Bench {
    /// In the table.
    pub kind: &'static str,
    /// The host.
    pub peer: Box<dyn Peer>,
    /// None: each deployment has a server of its own.
    ejabberd: Option<Arc<Ejabberd>>,
    dir: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// The command.
    pub what: String,
    /// Exit code.
    pub code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// Both outputs.
    pub output: String,
}

impl Ended {
    /// Whether it succeeded.
    pub fn ok(&self) -> Result<(), String> {
        if self.code == Some(0) {
            return Ok(());
        }
        let Self { what, code, .. } = self;
        Err(format!("`{what}` ended with {code:?}: {}", self.output))
    }
}

impl Bench {
    /// Shares an ejabberd with others.
    pub fn new(kind: &'static str, peer: Box<dyn Peer>, ejabberd: Arc<Ejabberd>) -> Self {
        let bench = Self::embedded(kind, peer);
        std::fs::write(bench.ca(), ejabberd.ca_pem()).expect("the CA is written");
        Self {
            ejabberd: Some(ejabberd),
            ..bench
        }
    }

    /// Each deployment runs an ejabberd of its own.
    pub fn embedded(kind: &'static str, peer: Box<dyn Peer>) -> Self {
        // Below a directory that ejabberd's and QEMU's users may pass.
        let dir = tempfile::Builder::new()
            .prefix("ipop-kill-")
            .tempdir_in("/var/tmp")
            .expect("a temporary directory");
        let bench = Self {
            kind,
            peer,
            ejabberd: None,
            dir,
        };
        // ejabberd's user must reach what is below.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(bench.dir.path(), open).expect("our directory");
        images::write(&bench.images());
        bench
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    fn sites_toml(&self, host: &dyn Host) -> String {
        let site = host.site();
        let Some(ejabberd) = &self.ejabberd else {
            return format!("[site.local]\n{site}");
        };
        let servers = ejabberd.servers();
        format!(
            "[site.local]\n{site}\n[rendezvous]\nkind = \"external\"\napi = \"unix:{}\"\n\
             domain = \"{DOMAIN}\"\nservers = {servers:?}\nca_file = \"{}\"\n",
            ejabberd.socket().display(),
            self.ca().display(),
        )
    }

    /// Command lines of processes that carry a directory of this bench's runs in their arguments or
    /// their environment.
    pub fn processes(&self) -> Vec<String> {
        processes(self.dir.path())
    }

    /// A state directory and a deployment's name that no other run has.
    pub fn cell(&self) -> Cell<'_> {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let name = format!("k{:x}x{call:x}", std::process::id());
        let state = self.dir.path().join(&name);
        let host = self.peer.host();
        let cell = Cell {
            bench: self,
            name,
            state,
            host,
        };
        std::fs::write(cell.sites(), self.sites_toml(&*cell.host)).expect("sites.toml is written");
        cell
    }
}

/// One run: removed with what it left, however it ends.
pub struct Cell<'a> {
    bench: &'a Bench,
    name: String,
    state: PathBuf,
    host: Box<dyn Host + 'a>,
}

impl Cell<'_> {
    /// The deployment.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Command lines of processes that carry the state directory in their arguments or their
    /// environment.
    pub fn processes(&self) -> Vec<String> {
        processes(&self.state)
    }

    /// Runs a phase's command, which is killed at a point, such as `before make domain 1`. Its
    /// points are in [`Self::points`] afterwards.
    pub fn run(&self, phase: Phase, kill_at: Option<&str>) -> Ended {
        let mut command = self.command(phase);
        if let Some(point) = kill_at {
            command.env("IPOP_FAULT", point);
        }
        finish(command)
    }

    /// A phase's command, which logs its points.
    pub fn command(&self, phase: Phase) -> Command {
        let _ = std::fs::remove_file(self.log());
        let mut command = self.provision(&self.arguments(phase));
        command.env("IPOP_FAULT_LOG", self.log());
        command
    }

    fn arguments(&self, phase: Phase) -> Vec<String> {
        let name = self.name.as_str();
        let front = format!("1@{}", self.host.front());
        let words = match phase {
            Phase::Create => vec![
                "cluster",
                "--name",
                name,
                "--frontend",
                &front,
                "--workers",
                "1@local",
                "--no-wait",
            ],
            Phase::Grow => vec!["scale", name, "--workers", "+1@local", "--no-wait"],
            Phase::Shrink => vec!["scale", name, "--workers=-1@local", "--no-wait"],
            Phase::Destroy => vec!["destroy", name],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// The points that the last [`Self::run`] passed, as `WHEN KEY`.
    pub fn points(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// `provision resume`.
    pub fn resume(&self) -> Ended {
        finish(self.provision(&["resume", &self.name, "--no-wait"]))
    }

    /// `provision gc --yes`.
    pub fn gc(&self) -> Ended {
        finish(self.provision(&["gc", "--yes"]))
    }

    /// What is there of the deployment, with its own name and numbers replaced.
    pub fn look(&self) -> View {
        let mut view = self.host.look(&self.name);
        let prefix = format!("{}-", self.name);
        let servers = self.bench.ejabberd.iter();
        let lists = [("account", "registered_users"), ("group", "srg_list")];
        for (server, (what, command)) in servers.flat_map(|s| lists.map(|list| (s, list))) {
            let text = server.api(command, &json!({ "host": DOMAIN }));
            let all: Vec<String> = serde_json::from_str(&text).expect("a list of names");
            let own = all.into_iter().filter(|name| name.starts_with(&prefix));
            view.extend(own.map(|name| format!("{what} {name}")));
        }
        let mut plain: View = view.iter().map(|thing| self.plain(thing)).collect();
        plain.sort();
        plain
    }

    /// Without what differs between two deployments that are alike: its name, and identifiers of
    /// eight hexadecimal digits and more.
    fn plain(&self, thing: &str) -> String {
        let named = thing.replace(&self.name, "NAME");
        let words = named.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
        let plain = words.map(|word| {
            let digits = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let random = digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if random {
                word.replace(digits, "ID")
            } else {
                word.to_owned()
            }
        });
        plain.collect()
    }

    /// Deletes the state database.
    pub fn delete_database(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(self.state.join(format!("state.db{suffix}")));
        }
    }

    /// Fails if the deployment's directory is there.
    pub fn nothing_local(&self) -> Result<(), String> {
        let dir = self.state.join("deployments").join(&self.name);
        if dir.exists() {
            return Err(format!("{} is left", dir.display()));
        }
        Ok(())
    }

    /// `provision` with this run's directories.
    pub fn provision(&self, args: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let target = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the package is in a workspace")
            .join("target");
        let mut command = Command::new(target.join("debug/provision"));
        command
            .args(args)
            .arg("--sites")
            .arg(self.sites())
            .env("IPOP_STATE_DIR", &self.state)
            // What one run remembers of a double's identifiers is not another's.
            .env("IPOP_CACHE_DIR", self.state.with_extension("cache"))
            .env("IPOP_IMAGES", self.bench.images())
            .envs(self.host.env())
            .stdin(Stdio::null());
        command
    }

    fn sites(&self) -> PathBuf {
        self.state.with_extension("sites.toml")
    }

    fn log(&self) -> PathBuf {
        self.state.with_extension("points")
    }
}

impl Drop for Cell<'_> {
    fn drop(&mut self) {
        // A run that failed must leave nothing to the next one.
        if self.state.join("deployments").join(&self.name).exists() || !self.look().is_empty() {
            let run = finish(self.provision(&["destroy", &self.name]));
            if run.code != Some(0) {
                finish(self.provision(&["gc", "--yes"]));
            }
        }
    }
}

fn processes(mark: &Path) -> Vec<String> {
    let mark = mark.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let text = |file| String::from_utf8_lossy(&read(file)).replace('\0', " ");
        let (words, environment) = (text("cmdline"), text("environ"));
        if words.contains(&mark) || environment.contains(&mark) {
            found.push(words);
        }
    }
    found
}

/// Runs a command to its end; one that hangs is killed, and seen to be by its output.
pub fn finish(mut command: Command) -> Ended {
    let words = command.get_args().map(|a| a.to_string_lossy().into_owned());
    let what = words.collect::<Vec<_>>().join(" ");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("target/debug/provision; is it built?");
    let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // A pipe that breaks ends the text.
            let _ = pipe.expect("piped").read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = read(child.stdout.take().map(|p| Box::new(p) as _));
    let stderr = read(child.stderr.take().map(|p| Box::new(p) as _));
    let began = Instant::now();
    let mut hung = "";
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        if began.elapsed() > LIMIT && hung.is_empty() {
            hung = "(killed: it hung)\n";
            child.kill().expect("our child");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut output = hung.to_owned();
    for thread in [stdout, stderr] {
        output += &thread.join().expect("read");
    }
    Ended {
        what,
        code: status.code(),
        signal: status.signal().filter(|_| hung.is_empty()),
        output,
    }
}
