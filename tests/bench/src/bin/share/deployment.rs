//! The two machines: a front end that is the client, and a share. They are a deployment of their own with
//! a state directory of its own, and are destroyed when this is dropped.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipop_bench::failure::{During, Failure, Result, run};
use ipop_bench::interrupt;

use crate::options::Options;
use crate::shell::Shell;

/// Where the state directories are. Not below the checkout, which may be in a home that ejabberd's user
/// cannot pass, and nowhere where others than root may write: what is there is destroyed by its name.
const STATES: &str = "/var/lib/ipop-bench-share";

/// What names of deployments begin with.
const LABEL: &str = "bench-share-";

/// The client: the front end of the deployment, so that two machines are enough.
pub const CLIENT: &str = "frontend-0";

/// The server.
pub const SERVER: &str = "data";

/// The role of the client.
const ROLE: &str = "share-client";

/// What it has beyond a front end.
const RECIPE: &str =
    "extends = \"frontend\"\npackages = [\"fio\", \"python3\", \"wireguard-tools\"]\n";

/// This machine's libvirt.
const SITES: &str = "[site.local]\nkind = \"libvirt\"\n";

/// How long a command of `provision` may take: it makes an image where there is none yet.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// How long one that was told to stop may take for that.
const STOPPING: Duration = Duration::from_secs(120);

/// How often a command is looked after.
const LOOK: Duration = Duration::from_millis(100);

/// Two machines, joined to one overlay.
pub struct Deployment {
    name: String,
    folder: PathBuf,
    provision: PathBuf,
    sites: Option<PathBuf>,
    launched: bool,
}

impl Deployment {
    /// Launches both, after it removed what runs that were killed have left.
    pub fn launch(options: &Options) -> Result<Self> {
        let named = std::env::var_os("IPOP_PROVISION").map(PathBuf::from);
        let provision = options.provision.clone().or(named).ok_or_else(|| {
            Failure(
                "IPOP_PROVISION is not set: scripts/bench-share builds a `provision` and sets it"
                    .to_owned(),
            )
        })?;
        let at = |name: String, launched| Self {
            folder: Path::new(STATES).join(&name),
            name,
            provision: provision.clone(),
            sites: options.sites.clone(),
            launched,
        };
        for name in of_the_dead() {
            eprintln!("removing what is left of {name}");
            drop(at(name, true));
        }
        let mut deployment = at(format!("{LABEL}{}", std::process::id()), false);
        deployment.write("roles/share-client/recipe.toml", RECIPE)?;
        deployment.write("sites.toml", SITES)?;
        deployment.launched = true;
        let name = deployment.name.as_str();
        let cpus = options.cpus.to_string();
        let machine = ["--memory", &options.memory, "--cpus", &cpus];
        let frontend = format!("{ROLE}@{}", options.site);
        let cluster = ["cluster", "--name", name, "--frontend", &frontend];
        deployment.provision(&[&cluster[..], &machine].concat())?;
        let share = format!("{name}/{SERVER}");
        let create = ["share", "create", &share, "--on", &options.site];
        let of = ["--size", "1G", "--members", CLIENT];
        deployment.provision(&[&create[..], &of, &machine].concat())?;
        Ok(deployment)
    }

    /// A shell of root on one of the machines.
    pub fn shell(&self, node: &str) -> Result<Shell> {
        let place = format!("{}/{node}", self.name);
        Shell::start(node, self.command(&["ssh", &place, "--", "exec sh"]))
    }

    /// CPU seconds of QEMU for both machines, where they are on this machine.
    pub fn cpu_seconds(&self) -> f64 {
        let mark = format!("guest=ipop-{}-", self.name);
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let seconds = processes.filter_map(|process| {
            let command = std::fs::read(process.path().join("cmdline")).ok()?;
            if !String::from_utf8_lossy(&command).contains(&mark) {
                return None;
            }
            let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
            crate::load::process_ticks(&stat)
        });
        // SAFETY: sysconf takes a number and touches no memory.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        seconds.sum::<f64>() / per_second
    }

    /// Runs `provision` to its end, or stops it when somebody asks for that. It shows its own progress.
    fn provision(&self, arguments: &[&str]) -> Result<()> {
        let what = format!("provision {}", arguments.join(" "));
        eprintln!("$ {what}");
        let mut command = self.command(arguments);
        // Ctrl-C is for the benchmark, which tells it.
        let mut child = command.process_group(0).spawn().during(&what)?;
        let status = match finish(&mut child, LIMIT, true).during(&what)? {
            Some(status) => status,
            None => {
                signal(&child, libc::SIGINT);
                if finish(&mut child, STOPPING, false).during(&what)?.is_none() {
                    child.kill().during(&what)?;
                    child.wait().during(&what)?;
                }
                let why = if interrupt::asked() {
                    "interrupted"
                } else {
                    "took too long"
                };
                return Err(Failure(format!("{what}: {why}")));
            }
        };
        if status.success() {
            Ok(())
        } else {
            Err(Failure(format!("{what} ended with {status}")))
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.provision);
        let own = self.folder.join("sites.toml");
        command
            .arg("--sites")
            .arg(self.sites.as_ref().unwrap_or(&own))
            .args(arguments)
            .env("IPOP_STATE_DIR", self.folder.join("state"))
            .env("IPOP_ROLES", self.folder.join("roles"))
            .stdin(Stdio::null())
            // Standard output is the benchmark's.
            .stdout(Stdio::null());
        command
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        let shown = path.display().to_string();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).during(&shown)?;
        }
        std::fs::write(&path, text).during(&shown)
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let there = self.launched
            && self
                .folder
                .join("state/deployments")
                .join(&self.name)
                .exists();
        if there {
            eprintln!("$ provision destroy {} --delete-data", self.name);
            let mut command = self.command(&["destroy", &self.name, "--delete-data"]);
            // Not stopped by Ctrl-C: it is what Ctrl-C asks for.
            if let Err(failure) = run(command.process_group(0)) {
                eprintln!("error: {failure}");
                eprintln!("hint: run scripts/bench-share again, which tries it first");
                return;
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("warning: {}: {error}", self.folder.display());
        }
        // Stays while another run has something in it.
        let _ = std::fs::remove_dir(STATES);
    }
}

/// Waits for the end; nothing if the time is over, or somebody asked to stop and that counts.
fn finish(
    child: &mut Child,
    limit: Duration,
    asked_counts: bool,
) -> std::io::Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline || (asked_counts && interrupt::asked()) {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: kill takes two numbers and touches no memory. The child was not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}

/// Deployments of runs that are no more.
fn of_the_dead() -> Vec<String> {
    let entries = std::fs::read_dir(STATES).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| {
            let pid = name
                .strip_prefix(LABEL)
                .and_then(|pid| pid.parse::<u32>().ok());
            pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
        })
        .collect()
}
