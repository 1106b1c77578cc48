//! A Rocks front end loses its power and comes back while workers are registered, and while they boot:
//! boot ROMs ask until somebody answers, `provision` tries again by itself or names who is away, and no
//! registration is lost. Needs what `rocks_dhcp` needs.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use ipop_tests::dhcp::{self, Lease};
use ipop_tests::netns::Netns;
use ipop_tests::rocks::database::Mode;
use ipop_tests::rocks::{Lab, PRIVATE};
use ipop_tests::sshd::MachineOptions;
use ipop_tests::wait_until;

const PATIENCE: Duration = Duration::from_secs(120);
/// How long it is away: longer than an SSH connection lives that nobody answers on.
const AWAY: Duration = Duration::from_secs(20);
/// The overlay's device on a worker.
const DEVICE: &str = "ipop0";

fn lab(label: &str) -> Lab {
    let double = Path::new(env!("CARGO_BIN_EXE_rocks-double"));
    Lab::new(double, label, MachineOptions::default(), "")
}

/// The address that somebody gets in the end, asking again as a boot ROM does.
fn lease(netns: &Netns) -> String {
    let lease = wait_until("a lease", PATIENCE, || dhcp::ask(netns, DEVICE, &[]));
    let Lease { address, .. } = lease;
    address
}

#[test]
fn workers_are_registered_whole_although_the_front_end_goes_away_meanwhile() {
    let lab = lab("away");
    let (before, tables) = (lab.changes(), lab.frontend.tables());
    // So that there is a middle to lose the power in.
    lab.frontend.misbehave(&Mode {
        slow_ms: 300,
        ..Mode::default()
    });
    let ended = std::thread::scope(|scope| {
        let cluster = scope.spawn(|| lab.cluster("2@lab"));
        wait_until("the first worker in Rocks", PATIENCE, || {
            assert!(!cluster.is_finished(), "it ended before");
            lab.frontend.tables().host("compute-90-0").map(drop)
        });
        lab.frontend.power_off();
        std::thread::sleep(AWAY);
        assert!(!cluster.is_finished(), "it did not wait");
        lab.frontend.power_on();
        cluster.join().expect("it ends")
    });
    ended.ok().expect("a cluster");
    lab.frontend.misbehave(&Mode::default());
    let now = lab.frontend.tables();
    let conf = lab.frontend.file("etc/dhcp/dhcpd.conf");
    for (name, ip) in [
        ("compute-90-0", "10.1.128.2"),
        ("compute-90-1", "10.1.128.3"),
    ] {
        let host = now.host(name).expect("registered");
        let [interface] = &host.interfaces[..] else {
            panic!("{host:?}");
        };
        assert_eq!(interface.ip.as_deref(), Some(ip));
        assert_eq!(host.boot.as_deref(), Some("os"));
        assert!(conf.contains(&format!("fixed-address {ip};")), "{conf}");
    }
    assert_eq!(lease(lab.workers[0].netns()), "10.1.128.2");
    assert_eq!(lease(lab.workers[1].netns()), "10.1.128.3");
    lab.ok(&["destroy", &lab.name]);
    assert_eq!(lab.frontend.tables(), tables);
    assert_eq!(lab.changes(), before);
}

#[test]
fn who_boots_while_the_front_end_is_away_is_served_when_it_is_back() {
    let lab = lab("reboot");
    let mut image = vec![0; 16 << 20];
    let mut random = fs::File::open("/dev/urandom").expect("a device");
    random.read_exact(&mut image).expect("read");
    let path = "tftpboot/pxelinux/initrd.img-7.0-x86_64";
    fs::write(lab.frontend.machine.root().join(path), &image).expect("written");
    lab.cluster("1@lab").ok().expect("a cluster");
    let worker = lab.workers[0].netns();
    assert_eq!(lease(worker), "10.1.128.2");

    // In the middle of a file.
    let dir = tempfile::tempdir().expect("temporary directory");
    let part = dir.path().join("cut");
    let mut cut = Fetch::start(worker, &part);
    wait_until("a part of the file", PATIENCE, || {
        assert_eq!(cut.ended(), None);
        (cut.arrived() > 100_000).then_some(())
    });
    lab.frontend.power_off();
    let registered = lab.frontend.tables();
    let status = wait_until("the fetch to give up", PATIENCE, || cut.ended());
    assert!(
        !status && cut.arrived() < image.len() as u64,
        "{}",
        cut.arrived()
    );
    assert_eq!(dhcp::ask(worker, DEVICE, &[]), None);

    // Nothing is made meanwhile, and who is away is named.
    let host = lab.frontend.machine.target();
    let resumed = lab.provision(&["resume", &lab.name]);
    assert_eq!(resumed.code, Some(5), "{}", resumed.output);
    assert!(resumed.output.contains(&host), "{}", resumed.output);
    assert_eq!(lab.frontend.tables(), registered);

    std::thread::scope(|scope| {
        // It asks on, as a boot ROM does, from before the front end is back.
        let booting = scope.spawn(|| lease(worker));
        lab.frontend.power_on();
        assert_eq!(booting.join().expect("a lease"), "10.1.128.2");
    });
    let whole = dir.path().join("whole");
    let mut fetch = Fetch::start(worker, &whole);
    let status = wait_until("the file", PATIENCE, || fetch.ended());
    assert!(status && fs::read(&whole).expect("there") == image);
    lab.ok(&["resume", &lab.name]);
    assert_eq!(lab.frontend.tables(), registered);
    lab.ok(&["destroy", &lab.name]);
}

/// A file of the front end that somebody fetches by TFTP.
struct Fetch<'a> {
    child: Child,
    file: &'a Path,
}

impl<'a> Fetch<'a> {
    fn start(netns: &Netns, file: &'a Path) -> Self {
        let mut command = netns.command("busybox");
        command.args(["tftp", "-g", "-b", "1408", "-r", "initrd.img-7.0-x86_64"]);
        command.arg("-l").arg(file).arg(PRIVATE);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        Self {
            child: command.spawn().expect("`ip` runs"),
            file,
        }
    }

    /// Bytes that it has so far.
    fn arrived(&self) -> u64 {
        fs::metadata(self.file).map_or(0, |file| file.len())
    }

    /// Whether it has the file, once it has ended.
    fn ended(&mut self) -> Option<bool> {
        let status = self.child.try_wait().expect("our child");
        status.map(|status| status.success())
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
