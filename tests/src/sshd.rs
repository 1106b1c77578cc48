//! Machines that exist already and are reached by SSH: each is a network, mount and process
//! namespace with a disk of its own over this machine's system, and a real sshd.
//!
//! What a test does on a machine (installing, breaking, filling its disk) stays on its disk, a
//! small tmpfs, and goes with it. What libvirt and `ipop-node` keep on this machine is not there.
//! Needs root, `overlay` in the kernel, `openssh-server`, `openssh-client`, `iproute2` and
//! `util-linux`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::netns::Netns;
use crate::wait_until;

/// How long a machine may take to come up on a computer that is busy.
const PATIENCE: Duration = Duration::from_secs(90);
/// The user of [`Login::User`].
pub const USER: &str = "person";

/// A segment with machines on it, which the test reaches at their addresses and which reach the
/// test at [`Room::host_address`]. Machines may not outlive it.
#[derive(Debug)]
pub struct Room {
    switch: Netns,
    /// First three numbers of the segment's addresses.
    net: String,
    /// Name of the cable's end on the test's side.
    port: String,
    next: AtomicU8,
    dir: TempDir,
}

/// Who signs in to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Root.
    Root,
    /// [`USER`], with these rights.
    User(Sudo),
}

/// What [`USER`] may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sudo {
    /// Everything, without a password.
    Free,
    /// Everything, with a password that nobody knows.
    Password,
    /// Nothing.
    Refused,
}

/// A machine to make.
#[derive(Debug, Clone, Copy)]
pub struct MachineOptions {
    /// Who signs in.
    pub login: Login,
    /// Size of its disk in MiB.
    pub disk_mib: u32,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            login: Login::Root,
            disk_mib: 256,
        }
    }
}

/// A machine that runs; stopped and removed when dropped.
#[derive(Debug)]
pub struct Machine {
    /// Address on the segment.
    pub address: String,
    login: Login,
    host_key: String,
    holder: Child,
    /// Its end is the machine's end, so that it dies with the test, however that ends.
    _lifeline: Option<ChildStdin>,
    init: u32,
    netns: Netns,
    stage: TempDir,
}

impl Room {
    /// Makes one, with a key that signs in to its machines.
    ///
    /// # Panics
    ///
    /// When not root.
    pub fn new(label: &str) -> Self {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let switch = Netns::new(&format!("{label}-switch"));
        switch.run(&["ip", "link", "add", "br0", "type", "bridge"]);
        switch.run(&["ip", "link", "set", "br0", "up"]);
        let port = format!("ipr{:x}-{call}", std::process::id());
        // The block for benchmarks (RFC 2544): no real network of the computer is there.
        let net = (0..512)
            .map(|try_| (std::process::id().wrapping_mul(7) + call + try_) % 512)
            .map(|n| format!("198.{}.{}", 18 + n / 256, n % 256))
            .find(|net| checked("ip", &["route", "show", &format!("{net}.0/24")]).is_empty())
            .expect("a free network");
        let words = format!(
            "link add {port} type veth peer name host netns {}",
            switch.name()
        );
        checked("ip", &words.split(' ').collect::<Vec<_>>());
        checked(
            "ip",
            &["address", "add", &format!("{net}.1/24"), "dev", &port],
        );
        checked("ip", &["link", "set", &port, "up"]);
        switch.run(&["ip", "link", "set", "host", "master", "br0", "up"]);
        let dir = TempDir::with_prefix("ipop-room-").expect("temporary directory");
        keygen(&dir.path().join("id_ed25519"));
        Self {
            switch,
            net,
            port,
            next: AtomicU8::new(10),
            dir,
        }
    }

    /// The test's own address on the segment.
    pub fn host_address(&self) -> String {
        format!("{}.1", self.net)
    }

    /// An address of the segment that nobody has, and never will: nothing that is sent there leaves
    /// the test. `number` is below 50.
    pub fn nobody(&self, number: u8) -> String {
        format!("{}.{}", self.net, 200 + number)
    }

    /// Private key that signs in.
    pub fn identity(&self) -> PathBuf {
        self.dir.path().join("id_ed25519")
    }

    /// Plugs `eth0` of a namespace into the segment and gives the address it got.
    pub fn plug(&self, netns: &Netns) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(number < 200, "the segment is full");
        let port = format!("port{number}");
        netns.cable("eth0", &self.switch, &port);
        self.switch
            .run(&["ip", "link", "set", &port, "master", "br0"]);
        let address = format!("{}.{number}", self.net);
        netns.address("eth0", &format!("{address}/24"));
        address
    }

    /// Starts a machine where root signs in.
    pub fn machine(&self, label: &str) -> Machine {
        self.machine_with(label, MachineOptions::default())
    }

    /// Starts a machine.
    pub fn machine_with(&self, label: &str, options: MachineOptions) -> Machine {
        let netns = Netns::new(label);
        let address = self.plug(&netns);
        let stage = TempDir::with_prefix("ipop-machine-").expect("temporary directory");
        let public = keygen(&stage.path().join("host_key"));
        let authorized = self.dir.path().join("id_ed25519.pub");
        fs::copy(authorized, stage.path().join("authorized_keys")).expect("copied");
        fs::write(stage.path().join("sshd_config"), SSHD_CONFIG).expect("written");
        let log = fs::File::create(stage.path().join("log")).expect("log file");
        let sudoers = match options.login {
            Login::User(Sudo::Free) => format!("{USER} ALL=(ALL) NOPASSWD: ALL\n"),
            Login::User(Sudo::Password) => format!("{USER} ALL=(ALL) ALL\n"),
            Login::Root | Login::User(Sudo::Refused) => String::new(),
        };
        fs::write(stage.path().join("sudoers"), sudoers).expect("written");
        let mut holder = netns
            .command("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-c", SET_UP, "machine"])
            .arg(stage.path())
            .args([
                options.disk_mib.to_string(),
                label.to_owned(),
                USER.to_owned(),
            ])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("`ip` runs");
        let lifeline = holder.stdin.take();
        let mut machine = Machine {
            address,
            login: options.login,
            host_key: public,
            holder,
            _lifeline: lifeline,
            init: 0,
            netns,
            stage,
        };
        machine.wait_for_sshd();
        machine
    }

    /// Writes the host keys of these machines as a `known_hosts` file and gives its path.
    pub fn known_hosts(&self, machines: &[&Machine]) -> PathBuf {
        let lines: String = machines.iter().map(|m| m.known_host()).collect();
        let path = self.dir.path().join("known_hosts");
        fs::write(&path, lines).expect("written");
        path
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Deleting one end of a cable deletes the other. An error means that it is gone already.
        let _ = Command::new("ip")
            .args(["link", "del", &self.port])
            .status();
    }
}

impl Machine {
    /// `[user@]address` for `ssh`.
    pub fn target(&self) -> String {
        match self.login {
            Login::Root => format!("root@{}", self.address),
            Login::User(_) => format!("{USER}@{}", self.address),
        }
    }

    /// Its line in `known_hosts`.
    pub fn known_host(&self) -> String {
        format!("{} {}\n", self.address, self.host_key)
    }

    /// Its network.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A command that root will run on the machine, without SSH.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string()]);
        command.args([
            "--mount", "--pid", "--net", "--root", "--wd=/", "--", program,
        ]);
        command
    }

    /// Runs a line of shell as root on the machine, without SSH, and gives what came out.
    pub fn output(&self, script: &str) -> Output {
        let mut command = self.command("sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .output()
            .expect("`nsenter` runs; is the package `util-linux` installed?")
    }

    /// Runs a line of shell as root that must succeed, and gives its standard output.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn run(&self, script: &str) -> String {
        let output = self.output(script);
        assert!(
            output.status.success(),
            "`{script}`: {output:?}\n{}",
            self.log()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes a file on the machine, with the directories above it.
    pub fn write(&self, path: &str, mode: u32, content: &str) {
        let script = r#"mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1""#;
        let mut child = self
            .command("sh")
            .args(["-c", script, "write", path, &format!("{mode:o}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("`nsenter` runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(content.as_bytes()).expect("written");
        drop(stdin);
        assert!(child.wait().expect("our child").success(), "{path}");
    }

    /// Its root directory, as this process reaches it.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init))
    }

    /// Every file on its disk that the system below it has not, or has otherwise: type, mode,
    /// owner, size and path. Logs that are not `ipop-node`'s are left out.
    pub fn changes(&self) -> String {
        let dir = format!("/proc/{}/root/.machine/upper", self.init);
        let form = "%y %m %u %s %P\\n";
        let words = [dir.as_str(), "-mindepth", "1", "-printf", form];
        let mut lines: Vec<String> = checked("find", &words)
            .lines()
            .filter(|line| !line.contains(" var/log/") || line.contains("ipop"))
            .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
                // A directory is copied up as soon as anything in it changes; its size says nothing.
                ["d", mode, user, _, ref path @ ..] => {
                    let path = path.join(" ");
                    let is_new = !Path::new("/").join(&path).is_dir();
                    is_new.then(|| format!("d {mode} {user} {path}"))
                }
                _ => Some(line.to_owned()),
            })
            .collect();
        lines.sort();
        lines.join("\n")
    }

    /// Command lines of all its processes, one a line, arguments separated by spaces.
    pub fn command_lines(&self) -> String {
        let script = "for file in /proc/[0-9]*/cmdline; do tr '\\0\\n' '  ' <$file; echo; done";
        let output = self.output(script);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Pulls the network cable, or puts it back.
    pub fn cable(&self, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.netns.run(&["ip", "link", "set", "eth0", state]);
    }

    /// Kills sshd and all its sessions; with `again` a new one listens when this returns.
    pub fn kill_sshd(&self, again: bool) {
        if !again {
            self.run("touch /run/no-sshd");
        }
        self.run("kill -9 $(pidof sshd)");
        if again {
            wait_until("sshd listens again", PATIENCE, || {
                self.listens().then_some(())
            });
        }
    }

    /// Starts sshd again after it was killed for good; it listens when this returns.
    pub fn start_sshd(&self) {
        self.run("rm -f /run/no-sshd");
        wait_until("sshd listens again", PATIENCE, || {
            self.listens().then_some(())
        });
    }

    /// Makes sshd show another host key from now on.
    pub fn change_host_key(&mut self) {
        self.run(
            "rm /etc/ssh/machine_key* && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/machine_key \
             && kill -9 $(pidof sshd)",
        );
        self.wait_for_sshd();
    }

    /// What sshd said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.stage.path().join("log")).unwrap_or_default()
    }

    fn wait_for_sshd(&mut self) {
        let holder = self.holder.id();
        let children = format!("/proc/{holder}/task/{holder}/children");
        wait_until("sshd of a machine listens", PATIENCE, || {
            let ended = self.holder.try_wait().expect("our child");
            assert!(ended.is_none(), "machine ended: {ended:?}\n{}", self.log());
            let ready = self.stage.path().join("ready").exists();
            let children = fs::read_to_string(&children).ok()?;
            self.init = children.trim().parse().ok().filter(|_| ready)?;
            self.listens().then_some(())
        });
    }

    fn listens(&self) -> bool {
        let output = self.netns.output(&["ss", "-Hltn", "sport", "=", "22"]);
        String::from_utf8_lossy(&output.stdout).contains("LISTEN")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- sshd of {} ---\n{}", self.address, self.log());
        }
        // Its first process goes with it, and with that one all others.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

const SSHD_CONFIG: &str = "\
Port 22
HostKey /etc/ssh/machine_key
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
AuthorizedKeysFile .ssh/authorized_keys
PidFile none
MaxStartups 100
LogLevel VERBOSE
";

/// From within new namespaces: puts the disk together and becomes the machine's first process.
/// Arguments: directory with the files, disk size in MiB, host name, user.
const SET_UP: &str = r#"
set -eu
umask 022
stage=$1 mib=$2 name=$3 user=$4
mkdir "$stage/disk"
mount -t tmpfs -o "size=${mib}m,mode=755" machine "$stage/disk"
mkdir "$stage/disk/upper" "$stage/disk/work" "$stage/disk/root" "$stage/disk/hidden"
root=$stage/disk/root
# What deployments left on this computer, or make while the machine runs, is not on the machine: a
# layer in between hides it (device 0:0 is how overlayfs says that there is nothing).
libvirt="etc/libvirt var/lib/libvirt var/log/libvirt"
for path in $libvirt etc/ipop-node opt/ipop-node var/lib/ipop-node var/log/ipop-node \
    var/log/ipop-node.log; do
    mkdir -p "$stage/disk/hidden/${path%/*}"
    mknod "$stage/disk/hidden/$path" c 0 0
done
mount -t overlay \
    -o "lowerdir=$stage/disk/hidden:/,upperdir=$stage/disk/upper,workdir=$stage/disk/work" \
    machine "$root"
# libvirt's directories as its packages have them, with its settings and without definitions.
for path in $libvirt; do
    [ -d "/$path" ] || continue
    find "/$path" -maxdepth 1 -type d | while read -r dir; do
        mkdir "$root$dir"
        chown --reference="$dir" "$root$dir"
        chmod --reference="$dir" "$root$dir"
    done
done
for file in /etc/libvirt/*.conf; do
    if [ -f "$file" ]; then cp -p "$file" "$root$file"; fi
done
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mkdir -p "$root/.machine"
mount --bind "$stage/disk" "$root/.machine"
for dir in tmp run root home etc/ssh; do
    mount -t tmpfs -o size=16m,mode=755 machine "$root/$dir"
done
chmod 1777 "$root/tmp"
chmod 700 "$root/root"
rm -f "$root"/etc/systemd/system/ipop-*
echo "$name" >"$root/etc/hostname"
cp "$stage/sshd_config" "$root/etc/ssh/sshd_config"
cp "$stage/host_key" "$root/etc/ssh/machine_key"
chmod 600 "$root/etc/ssh/machine_key"
mkdir -m 700 "$root/root/.ssh" "$root/home/$user" "$root/home/$user/.ssh"
cp "$stage/authorized_keys" "$root/root/.ssh/authorized_keys"
cp "$stage/authorized_keys" "$root/home/$user/.ssh/authorized_keys"
chmod 600 "$root/root/.ssh/authorized_keys" "$root/home/$user/.ssh/authorized_keys"
grep -v "^$user:" /etc/passwd >"$root/etc/passwd"
echo "$user:x:4242:4242::/home/$user:/bin/sh" >>"$root/etc/passwd"
grep -v "^$user:" /etc/shadow >"$root/etc/shadow"
echo "$user:*:19000::::::" >>"$root/etc/shadow"
chown -R 4242:4242 "$root/home/$user"
mkdir -p "$root/etc/sudoers.d"
cp "$stage/sudoers" "$root/etc/sudoers.d/machine"
chmod 440 "$root/etc/sudoers.d/machine"
mkdir "$root/run/sshd"
exec 3<&0
: >"$stage/ready"
exec chroot "$root" /bin/sh -c '
    trap "exit 0" TERM
    (read -r _ <&3; kill -TERM 1) &
    while :; do
        if [ -e /run/no-sshd ]; then sleep 0.1; continue; fi
        /usr/sbin/sshd -D -e 3<&- &
        # Waiting also reaps what others left.
        wait "$!"
        sleep 0.1
    done'
"#;

/// Makes a key pair and gives the public half without its comment.
fn keygen(path: &Path) -> String {
    let file = path.display().to_string();
    checked(
        "ssh-keygen",
        &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", &file],
    );
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our file");
    let public = fs::read_to_string(format!("{file}.pub")).expect("a public key");
    let words: Vec<&str> = public.split_whitespace().take(2).collect();
    words.join(" ")
}

fn checked(program: &str, words: &[&str]) -> String {
    let output = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("`{program}` (is its package installed?): {e}"));
    assert!(output.status.success(), "`{program} {words:?}`: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
