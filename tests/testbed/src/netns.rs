//! Network namespaces of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A network namespace with its loopback up; deleted when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one whose name ends with `label`.
    ///
    /// # Panics
    ///
    /// When not root.
    pub fn new(label: &str) -> Self {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let name = format!("ipop-{}-{call}-{label}", std::process::id());
        // One of that name is of a process that was killed, whose number we have now.
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
        run("ip", &["netns", "add", &name]);
        let netns = Self { name };
        netns.run(&["ip", "link", "set", "lo", "up"]);
        // What runs inside may change this one.
        netns.etc("resolv.conf", "");
        netns
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command inside and gives what came out, whatever its status.
    pub fn output(&self, words: &[&str]) -> Output {
        let (program, arguments) = words.split_first().expect("a program");
        let mut command = self.command(program);
        command
            .args(arguments)
            .output()
            .expect("`ip` runs; is the package `iproute2` installed?")
    }

    /// Runs a command inside that must succeed, and gives its standard output.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn run(&self, words: &[&str]) -> String {
        checked(words, &self.output(words))
    }

    /// Joins the two namespaces by a cable: `here` in this one, `there` in `other`, both up.
    pub fn cable(&self, here: &str, other: &Netns, there: &str) {
        let ends = [
            "netns",
            &self.name,
            "type",
            "veth",
            "peer",
            "name",
            there,
            "netns",
            &other.name,
        ];
        run("ip", &[&["link", "add", here], &ends[..]].concat());
        self.run(&["ip", "link", "set", here, "up"]);
        other.run(&["ip", "link", "set", there, "up"]);
    }

    /// Gives an interface an address with its prefix length.
    pub fn address(&self, interface: &str, address: &str) {
        let mut words = vec!["ip", "address", "add", address, "dev", interface];
        if address.contains(':') {
            // Usable at once: nobody else is there to have it.
            words.push("nodad");
        }
        self.run(&words);
    }

    /// Loads rules into nftables.
    ///
    /// # Panics
    ///
    /// When nftables refuses them.
    pub fn nft(&self, rules: &str) {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        fs::write(file.path(), rules).expect("written");
        self.run(&["nft", "-f", &file.path().display().to_string()]);
    }

    /// Does something of the test's own process inside: sockets and threads that are made there
    /// stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        let file = fs::File::open(path).expect("our namespace");
        // On a thread of its own, because it is the thread that enters.
        std::thread::scope(|scope| {
            let done = scope.spawn(move || {
                use std::os::fd::AsRawFd;
                // SAFETY: setns takes a descriptor, which is open, and a flag; no memory.
                let entered = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "setns: {}", std::io::Error::last_os_error());
                work()
            });
            match done.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Gives commands that run inside a file of their own in the place of `/etc/NAME`, which is there
    /// (ip-netns(8)). The value is where it is outside.
    pub fn etc(&self, name: &str, text: &str) -> PathBuf {
        let dir = self.etc_dir();
        fs::create_dir_all(&dir).expect("needs root");
        let path = dir.join(name);
        fs::write(&path, text).expect("written");
        path
    }

    fn etc_dir(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
    }

    /// Whether a host answers pings from here.
    pub fn reaches(&self, address: &str) -> bool {
        self.output(&["ping", "-n", "-c", "1", "-W", "1", address])
            .status
            .success()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // An error here means that nothing is there.
        let _ = fs::remove_dir_all(self.etc_dir());
        let deleted = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("network namespace {} is left behind", self.name);
        }
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("program runs");
    checked(&[&[program], arguments].concat(), &output);
}

fn checked(words: &[&str], output: &Output) -> String {
    assert!(
        output.status.success(),
        "`{}` (needs root) ended with {}\n{}{}",
        words.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
