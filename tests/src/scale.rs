//! How the time, memory and open files of `provision` grow with the number of workers: the real
//! program and the ejabberd that it embeds, against the EC2 double with light nodes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::ec2::{Behaviour, Ec2Double, Fault, FaultKind};
use crate::light_node::LightNodes;

/// The deployment; every run has a state directory of its own.
const NAME: &str = "scale";
/// The worker whose launch hangs, and the one that dies, where there are such.
const UNLUCKY: [&str; 2] = ["worker-1", "worker-2"];

/// What one run showed.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Workers asked for.
    pub workers: u32,
    /// Whether one launch hung and one instance died.
    pub with_faults: bool,
    /// Exit code.
    pub code: Option<i32>,
    /// Seconds to the last launched machine of a worker that was to live.
    pub launched: f64,
    /// Seconds to the last joined worker of them.
    pub joined: f64,
    /// How many workers joined.
    pub joined_workers: usize,
    /// Seconds of the whole command.
    pub seconds: f64,
    /// Peak resident memory of `provision`.
    pub peak_mib: f64,
    /// Most files it had open.
    pub open_files: usize,
    /// Most calls it made at once.
    pub calls_at_once: usize,
    /// Most launches it made at once.
    pub launches_at_once: usize,
    /// What was left after `provision destroy`.
    pub leftovers: Vec<String>,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Measured {
    /// Headings for [`Self::row`].
    pub const HEADINGS: &str = "| workers | faults | launched s | joined s | s per worker | \
                                command s | peak MiB | open files | calls at once | joined |\n\
                                |---:|---|---:|---:|---:|---:|---:|---:|---:|---:|";

    /// A line of a table.
    pub fn row(&self) -> String {
        format!(
            "| {} | {} | {:.1} | {:.1} | {:.3} | {:.1} | {:.0} | {} | {} | {} |",
            self.workers,
            if self.with_faults {
                "one hangs, one dies"
            } else {
                "none"
            },
            self.launched,
            self.joined,
            self.joined / f64::from(self.workers),
            self.seconds,
            self.peak_mib,
            self.open_files,
            self.calls_at_once,
            self.joined_workers,
        )
    }
}

/// `provision` as it was built beside this program.
pub fn provision() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in a workspace")
        .join("target/debug/provision")
}

/// Launches a front end and `workers` workers, waits until they have joined, and destroys them.
///
/// # Panics
///
/// When `provision` cannot be started; how it ended is in the result.
pub fn measure(provision: &Path, workers: u32, with_faults: bool) -> Measured {
    let behaviour = Behaviour {
        page: 100,
        latency: Duration::from_millis(100),
        ..Behaviour::default()
    };
    let keys = (behaviour.access_key.clone(), behaviour.secret_key.clone());
    let double = Ec2Double::start_with(behaviour, Some(Box::<LightNodes>::default()));
    let mut quorum = workers;
    if with_faults {
        let dies = FaultKind::Dies {
            code: "Server.InternalError".into(),
            message: "Internal error on launch".into(),
        };
        let hangs = Fault::next("RunInstances", FaultKind::Hang).mentioning(UNLUCKY[0]);
        let dies = Fault::next("RunInstances", dies).mentioning(UNLUCKY[1]);
        double.fault(hangs.always());
        double.fault(dies.always());
        quorum -= 2;
    }
    // Below a directory that ejabberd's user may pass.
    let dir = tempfile::Builder::new()
        .prefix("ipop-scale-")
        .tempdir_in("/var/tmp")
        .expect("a temporary directory");
    prepare(&dir, double.endpoint());
    let command = |arguments: &[&str]| {
        let mut command = Command::new(provision);
        command
            .args(arguments)
            .arg("--sites")
            .arg(dir.path().join("sites.toml"))
            .env("IPOP_STATE_DIR", dir.path().join("state"))
            .env("IPOP_CACHE_DIR", dir.path().join("cache"))
            .env("IPOP_IMAGES", dir.path().join("images"))
            .env("AWS_ACCESS_KEY_ID", &keys.0)
            .env("AWS_SECRET_ACCESS_KEY", &keys.1)
            // Nothing of this machine's own configuration.
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
        command
    };
    let (group, quorum) = (format!("{workers}@cloud"), quorum.to_string());
    let mut create = command(&[
        "cluster",
        "--name",
        NAME,
        "--frontend",
        "1@cloud",
        "--workers",
        &group,
        "--quorum",
        &quorum,
        "--timeout",
        "2m",
        "--json",
    ]);
    let stderr = dir.path().join("stderr");
    let log = std::fs::File::create(&stderr).expect("a log file");
    let mut child = create
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("`provision` is built");
    let output = child.stdout.take().expect("a pipe");
    let (events, usage, code) = watch(&mut child, output);
    let audit = double.audit();
    let destroyed = command(&["destroy", NAME])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(destroyed.is_ok(), "`provision` ran before");
    let lucky = |event: &&Value| {
        let node = event["node"].as_str().unwrap_or_default();
        node.starts_with("worker-") && !(with_faults && UNLUCKY.contains(&node))
    };
    let reached = |stage: &str| -> Vec<f64> {
        let all = events.iter().filter(lucky);
        let reached = all.filter(|event| event["stage"] == stage);
        reached
            .filter_map(|event| event["seconds"].as_f64())
            .collect()
    };
    let last = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    let (launched, joined) = (reached("created"), reached("ready"));
    let result = events.iter().find(|event| event["event"] == "result");
    Measured {
        workers,
        with_faults,
        code,
        launched: last(&launched),
        joined: last(&joined),
        joined_workers: joined.len(),
        seconds: result.and_then(|r| r["seconds"].as_f64()).unwrap_or(0.0),
        peak_mib: usage.peak_kib as f64 / 1024.0,
        open_files: usage.open_files,
        calls_at_once: audit.most_calls_at_once(),
        launches_at_once: audit.most_at_once("RunInstances"),
        leftovers: double.leftovers(),
        stderr: std::fs::read_to_string(&stderr).unwrap_or_default(),
    }
}

/// Writes images that hold next to nothing, and the sites.
fn prepare(dir: &TempDir, endpoint: &str) {
    for role in ["frontend", "worker"] {
        let image = dir.path().join("images").join(role);
        std::fs::create_dir_all(&image).expect("a directory");
        let mut disk = vec![0; 1 << 20];
        disk[..role.len()].copy_from_slice(role.as_bytes());
        std::fs::write(image.join("disk.raw"), disk).expect("an image");
    }
    let sites = format!(
        "[site.cloud]\nkind = \"ec2\"\nregion = \"us-west-2\"\nendpoint = \"{endpoint}\"\n\
         [rendezvous]\nkind = \"embedded\"\nlisten = [\"127.0.0.1\"]\n"
    );
    std::fs::write(dir.path().join("sites.toml"), sites).expect("sites.toml is written");
}

/// The most that a process used.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    peak_kib: u64,
    open_files: usize,
}

/// Reads a process's events to its end, and looks at it meanwhile.
fn watch(child: &mut Child, output: ChildStdout) -> (Vec<Value>, Usage, Option<i32>) {
    let done = Arc::new(AtomicBool::new(false));
    let (seen, pid) = (done.clone(), child.id());
    let looking = std::thread::spawn(move || {
        let mut usage = Usage::default();
        while !seen.load(Ordering::Relaxed) {
            usage.look(pid);
            std::thread::sleep(Duration::from_millis(50));
        }
        usage
    });
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    let events = lines
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect();
    let status = child.wait().expect("our child");
    done.store(true, Ordering::Relaxed);
    let usage = looking.join().expect("it only reads");
    (events, usage, status.code())
}

impl Usage {
    fn look(&mut self, pid: u32) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        self.peak_kib = self.peak_kib.max(peak.unwrap_or(0));
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.open_files = self.open_files.max(open);
    }
}
