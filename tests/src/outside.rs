//! Looks at a deployment from outside the product: the command line as a user runs it, and
//! `virsh`, `/proc`, sockets and files for what is really there.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

/// Where the state directories are.
const STATES: &str = "/var/tmp/ipop-test";

/// What is asked of a front end when a test fails: nodes, jobs, and what slurmctld logged of them.
const SLURM_SAYS: &str = "! command -v scontrol >/dev/null || \
     { scontrol show nodes; squeue; journalctl --no-pager --unit slurmctld --lines 100; }";

/// Two sites on this machine's libvirt, `local` and `annex`.
const SITES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/two-sites.toml");

/// What a run of a command gave.
#[derive(Debug)]
pub struct Run {
    /// The arguments, for messages.
    pub what: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    fn new(what: String, output: &Output) -> Self {
        Self {
            what,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics with everything the command said unless it ended with `code`.
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(
            self.code,
            Some(code),
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.what,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as one JSON value a line.
    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("not JSON ({e}): {l}")))
            .collect()
    }
}

/// The volumes of a storage pool. One that another test has just removed has none.
fn volumes_of(pool: &str) -> String {
    let run = try_virsh(&["vol-list", pool]);
    let pools = || virsh(&["pool-list", "--name"]);
    if run.code != Some(0) && pools().split_whitespace().all(|p| p != pool) {
        return String::new();
    }
    run.expect_code(0).stdout.clone()
}

/// Runs `virsh` on the system's libvirt and gives its standard output.
pub fn virsh(args: &[&str]) -> String {
    try_virsh(args).expect_code(0).stdout.clone()
}

fn try_virsh(args: &[&str]) -> Run {
    let output = Command::new("virsh")
        .args(["--connect", "qemu:///system", "--quiet"])
        .args(args)
        .output()
        .expect("virsh runs");
    Run::new(format!("virsh {}", args.join(" ")), &output)
}

/// One deployment under test, with a name and a state directory of its own; destroyed when dropped.
pub struct Outside {
    /// Its name.
    pub name: String,
    state: PathBuf,
    cache: PathBuf,
    provision: PathBuf,
    sites: PathBuf,
}

impl Outside {
    /// A deployment whose name begins with `label`. Others may be under test at the same time; of
    /// those whose test was killed the machines go first.
    pub fn new(label: &str) -> Self {
        for name in of_the_dead(label) {
            drop(Self::named(&name));
        }
        Self::named(&format!("{label}-{}", std::process::id()))
    }

    fn named(name: &str) -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the package is in a workspace")
            .join("target");
        // Not below the checkout, which may be in a home that ejabberd's user cannot pass.
        Self {
            name: name.to_owned(),
            state: Path::new(STATES).join(name),
            cache: target.join("test-cache"),
            provision: target.join("debug/provision"),
            sites: SITES.into(),
        }
    }

    /// The same with sites of the test's own.
    #[must_use]
    pub fn with_sites(mut self, file: &Path) -> Self {
        file.clone_into(&mut self.sites);
        self
    }

    /// `provision` with this deployment's directories.
    pub fn provision_command(&self, args: &[&str]) -> Command {
        // A mount that hangs must not hang the test.
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after", "10", "1800"])
            .arg(&self.provision)
            .arg("--sites")
            .arg(&self.sites)
            .args(args)
            .env("IPOP_STATE_DIR", &self.state)
            .env("IPOP_CACHE_DIR", &self.cache)
            .env(
                "IPOP_ROLES",
                concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/roles"),
            )
            .stdin(std::process::Stdio::null());
        command
    }

    /// Runs `provision` to its end.
    pub fn provision(&self, args: &[&str]) -> Run {
        let output = self
            .provision_command(args)
            .output()
            .expect("provision runs");
        Run::new(format!("provision {}", args.join(" ")), &output)
    }

    /// Runs a shell command on a node and gives its standard output.
    pub fn on(&self, node: &str, command: &str) -> String {
        let run = self.try_on(node, command);
        run.expect_code(0).stdout.clone()
    }

    /// The same with whatever it ended with.
    pub fn try_on(&self, node: &str, command: &str) -> Run {
        let command = format!("timeout 120 sh -c '{}'", command.replace('\'', "'\\''"));
        self.provision(&["ssh", &format!("{}/{node}", self.name), "--", &command])
    }

    /// Writes a file on a node, readable for root alone, by a way that shows nothing of it.
    pub fn write_on(&self, node: &str, path: &str, content: impl AsRef<[u8]>) {
        let place = format!("{}/{node}", self.name);
        let command = format!("umask 077 && cat >{path}");
        let mut child = self
            .provision_command(&["ssh", &place, "--", &command])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("provision runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(content.as_ref()).expect("taken");
        drop(stdin);
        assert!(child.wait().expect("an end").success(), "{path} on {node}");
    }

    /// What `ipop-node status --json` says on a node.
    pub fn node_status(&self, node: &str) -> Value {
        serde_json::from_str(&self.on(node, "ipop-node status --json")).expect("status is JSON")
    }

    /// The same, or nothing while the node cannot be reached.
    pub fn node_status_if_reachable(&self, node: &str) -> Option<Value> {
        let run = self.try_on(node, "ipop-node status --json");
        (run.code == Some(0)).then(|| serde_json::from_str(&run.stdout).ok())?
    }

    /// One peer out of a status.
    pub fn peer_of(&self, status: &Value, name: &str) -> Value {
        status["peers"]
            .as_array()
            .and_then(|peers| peers.iter().find(|p| p["name"] == name))
            .cloned()
            .unwrap_or_else(|| panic!("no peer {name} in {status:#}"))
    }

    /// The address libvirt's DHCP gave to a node.
    pub fn underlay_address(&self, node: &str) -> IpAddr {
        let leases = virsh(&["domifaddr", &format!("ipop-{}-{node}", self.name)]);
        leases
            .split_whitespace()
            .find_map(|word| word.split('/').next()?.parse::<IpAddr>().ok())
            .unwrap_or_else(|| panic!("no lease for {node}: {leases}"))
    }

    /// Whether a TCP connection is accepted.
    pub fn tcp_open(&self, addr: &IpAddr, port: u16) -> bool {
        TcpStream::connect_timeout(&SocketAddr::new(*addr, port), Duration::from_secs(3)).is_ok()
    }

    /// Fails if the command line of any process holds a secret of this deployment.
    pub fn assert_no_secret_on_command_lines(&self) {
        let mut searched = 0;
        let secrets = self.secrets();
        assert!(
            !secrets.is_empty(),
            "no secret found below {}",
            self.state.display()
        );
        for (pid, cmdline) in command_lines() {
            searched += 1;
            for secret in &secrets {
                assert!(
                    !cmdline.contains(secret.as_str()),
                    "process {pid} shows a secret"
                );
            }
            assert!(
                !cmdline.contains("io.systemd.credential"),
                "process {pid} carries credentials on its command line"
            );
        }
        assert!(searched > 1, "no process was looked at");
    }

    /// Passwords and private keys kept for the deployment, by content; none may be readable by all.
    fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::new();
        let mut keys = 0;
        let mut folders = vec![self.folder()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let key = text.contains("PRIVATE KEY");
                if key || name.contains("password") {
                    keys += u32::from(key);
                    let mode = meta.permissions().mode() & 0o7777;
                    assert_eq!(mode & 0o007, 0, "{} has mode {mode:o}", path.display());
                    secrets.extend(
                        text.lines()
                            .filter(|l| l.len() >= 32 && !l.starts_with("-----"))
                            .map(str::to_owned),
                    );
                }
            }
        }
        assert!(
            keys >= 4,
            "only {keys} private keys found, every node has one"
        );
        secrets
    }

    /// The Erlang machine that runs this deployment's ejabberd.
    pub fn rendezvous_server_pid_if_any(&self) -> Option<u32> {
        let mark = self.folder();
        command_lines()
            .into_iter()
            .find(|(pid, line)| {
                line.contains("beam")
                    && (line.contains(&*mark.to_string_lossy()) || environment_holds(*pid, &mark))
            })
            .map(|(pid, _)| pid)
    }

    /// The same, when it must be there.
    pub fn rendezvous_server_pid(&self) -> u32 {
        self.rendezvous_server_pid_if_any()
            .expect("ejabberd of the deployment runs")
    }

    /// Kills a process of this deployment.
    pub fn kill(&self, pid: u32) {
        let status = Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Whether a process still runs.
    pub fn alive(&self, pid: u32) -> bool {
        Path::new("/proc").join(pid.to_string()).exists()
    }

    /// Fails if a domain, volume, network, process or file of the deployment is left.
    pub fn assert_nothing_left(&self) {
        let mark = format!("ipop-{}", self.name);
        for what in [
            virsh(&["list", "--all", "--name"]),
            virsh(&["net-list", "--all", "--name"]),
            virsh(&["pool-list", "--name"])
                .split_whitespace()
                .map(volumes_of)
                .collect(),
        ] {
            assert!(!what.contains(&mark), "left in libvirt: {what}");
        }
        let folder = self.folder();
        assert!(!folder.exists(), "{} is left", folder.display());
        let supervisor = format!("rendezvous run {}", self.name);
        for (pid, line) in command_lines() {
            assert!(
                !line.contains(&*folder.to_string_lossy()) && !line.contains(&supervisor),
                "process {pid} is left: {line}"
            );
        }
    }

    /// Asks the deployment's ejabberd, by its API's socket and not through the product.
    pub fn rendezvous_api(&self, command: &str, arguments: &str) -> Value {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--fail",
                "--max-time",
                "20",
                "--unix-socket",
            ])
            .arg(self.folder().join("rendezvous/spool/api.sock"))
            .args([
                "--data",
                arguments,
                &format!("http://localhost/api/{command}"),
            ])
            .output()
            .expect("curl runs");
        let run = Run::new(format!("ejabberd API {command}"), &output);
        serde_json::from_str(&run.expect_code(0).stdout).expect("the API answers JSON")
    }

    fn folder(&self) -> PathBuf {
        self.state.join("deployments").join(&self.name)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = self.provision(&["status", &self.name]);
            eprintln!("{}\n{}{}", status.what, status.stdout, status.stderr);
            let slurm = self.try_on("frontend-0", SLURM_SAYS);
            eprintln!("{}{}", slurm.stdout, slurm.stderr);
        }
        // Machines that run on take the processors from the tests that follow.
        if !self.folder().exists()
            || self
                .provision(&["destroy", &self.name, "--delete-data"])
                .code
                == Some(0)
        {
            let _ = std::fs::remove_dir_all(&self.state);
        }
    }
}

/// Names of the deployments that begin with `label` and whose test does not run any more.
fn of_the_dead(label: &str) -> Vec<String> {
    let entries = std::fs::read_dir(STATES).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let dead = |name: &String| {
        let pid = name.strip_prefix(label).and_then(|n| n.strip_prefix('-'));
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| {
            pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists()
        })
    };
    names.filter(dead).collect()
}

/// Every process's command line, arguments joined by blanks.
fn command_lines() -> Vec<(u32, String)> {
    std::fs::read_dir("/proc")
        .expect("/proc is there")
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let raw = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&raw).replace('\0', " ")))
        })
        .collect()
}

fn environment_holds(pid: u32, mark: &Path) -> bool {
    std::fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|raw| String::from_utf8_lossy(&raw).contains(&*mark.to_string_lossy()))
}
