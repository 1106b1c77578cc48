//! Kills `provision share grow` and `provision share snapshot --restore` at their points, on libvirt.
//! `provision resume` gives what was wanted: the size, the data of the snapshot, and a machine that runs.
//!
//! Machines have nothing in them, so what a share's machine is told over `ssh` goes to a double that writes it down.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use provisioner::deploy::settings::Settings;
use provisioner::name::NodeName;
use provisioner::plan::share::Share;
use provisioner::state::Database;

use super::bench::{Bench, Cell, Ended, finish};
use crate::outside::virsh;
use crate::wait_until;

/// How long a copy may take to begin, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of data, enough for a copy to take a moment.
const BYTES: u64 = 256 << 20;
/// Where something is written after the data went back.
const LATER: u64 = BYTES;
const NAME: &str = "photos";

/// A share of a deployment whose machines run and hold nothing.
struct Lab<'a> {
    cell: Cell<'a>,
    pool: &'a Path,
    /// With the double of `ssh`, and what it was called with.
    dir: tempfile::TempDir,
}

/// Both commands, killed at each of their points.
///
/// # Panics
///
/// When something does not come out as it should.
pub fn grows_and_goes_back(bench: &Bench, pool: &Path) {
    let lab = Lab::new(bench, pool);
    let target = lab.target();
    for (point, size_gib) in [("grow-recorded", 2), ("volume-grown", 3), ("guest-told", 4)] {
        let size = format!("{size_gib}G");
        lab.killed(point, &["share", "grow", &target, "--size", &size]);
        let share = lab.share();
        assert_eq!((share.size_gib, share.growing), (size_gib, true), "{point}");
        let grown = u64::from(size_gib) - u64::from(point == "grow-recorded");
        assert_eq!(lab.capacity(), grown << 30, "{point}");
        lab.resume();
        assert!(!lab.share().growing, "{point}");
        assert_eq!(lab.capacity(), u64::from(size_gib) << 30, "{point}");
        let told = format!("bytes={}\n", u64::from(size_gib) << 30);
        assert!(lab.told().contains(&told), "{point}: {}", lab.told());
    }

    lab.write(1, 0, BYTES);
    lab.ok(&["share", "snapshot", &target, "before"]);
    let back = ["share", "snapshot", &target, "--restore", "before", "--yes"];
    for point in [
        "restore-recorded",
        "data-removed",
        "data-copied",
        "restore-done",
    ] {
        lab.write(2, 0, BYTES);
        lab.killed(point, &back);
        assert_eq!(
            lab.share().restoring.is_some(),
            point != "restore-done",
            "{point}"
        );
        if point == "data-removed" {
            assert_eq!(lab.data(), None, "between the two");
            // What makes other machines does not make this one with nothing in it.
            lab.ok(&[
                "scale",
                lab.cell.name(),
                "--workers",
                "+1@local",
                "--no-wait",
            ]);
            lab.is_back("another worker");
        } else if point == "restore-done" {
            // It is done: nobody takes away what is written from now on.
            lab.write(3, LATER, 1 << 20);
        }
        lab.resume();
        lab.is_back(point);
        assert_eq!(
            lab.has(3, LATER, 1 << 20),
            point == "restore-done",
            "{point}"
        );
    }

    // While libvirt copies, which it goes on with.
    lab.write(2, 0, BYTES);
    lab.stop();
    let mut command = lab.provision(&back);
    command.env("IPOP_FAULT_LOG", lab.dir.path().join("points"));
    let mut child = command.spawn().expect("it runs");
    wait_until("the copy", LIMIT, || {
        let points = fs::read_to_string(lab.dir.path().join("points")).ok()?;
        (points.contains("at data-removed") && lab.data().is_some()).then_some(())
    });
    child.kill().expect("our child");
    child.wait().expect("our child");
    lab.resume();
    lab.is_back("a copy under way");

    // The volume vanishes: an empty one takes its place, and that is said.
    lab.stop();
    let data = lab.data().expect("there");
    let file = data
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let of_pool = pool.file_name().expect("a name").to_string_lossy();
    virsh(&["vol-delete", "--pool", &of_pool, &file]);
    assert_eq!(lab.data(), None);
    let resumed = lab.run(&["resume", lab.cell.name(), "--no-wait"]);
    resumed.ok().expect("made anew");
    let says = format!("the data of `{target}` is lost: its volume `");
    assert!(
        resumed.output.contains(&says) && resumed.output.contains(&file),
        "{}",
        resumed.output
    );
    assert!(lab.data().is_some());
    lab.ok(&["destroy", lab.cell.name(), "--delete-data"]);
    assert!(lab.cell.look().is_empty(), "{:?}", lab.cell.look());
}

impl<'a> Lab<'a> {
    fn new(bench: &'a Bench, pool: &'a Path) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let said = dir.path().join("said").display().to_string();
        let double =
            format!("#!/bin/sh\nfor word; do :; done\nprintf '%s\\n' \"$word\" >>'{said}'\n");
        let program = dir.path().join("ssh");
        fs::write(&program, double).expect("written");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("set");
        let lab = Self {
            cell: bench.cell(),
            pool,
            dir,
        };
        let name = lab.cell.name().to_owned();
        lab.ok(&[
            "cluster",
            "--name",
            &name,
            "--frontend",
            "1@local",
            "--workers",
            "1@local",
            "--no-wait",
        ]);
        let create = [
            "share",
            "create",
            &lab.target(),
            "--on",
            "local",
            "--size",
            "1G",
            "--no-wait",
        ];
        lab.ok(&create);
        // The front end has no address, for nothing in it asks for one.
        let (database, id) = lab.database();
        let front = NodeName("frontend-0".to_owned());
        database
            .set_underlay(id, &front, "192.0.2.1")
            .expect("recorded");
        lab
    }

    fn target(&self) -> String {
        format!("{}/{NAME}", self.cell.name())
    }

    fn domain(&self) -> String {
        format!("ipop-{}-{NAME}", self.cell.name())
    }

    fn provision(&self, words: &[&str]) -> Command {
        let path = std::env::var("PATH").expect("set");
        let mut command = self.cell.provision(words);
        command.env("PATH", format!("{}:{path}", self.dir.path().display()));
        command
    }

    fn run(&self, words: &[&str]) -> Ended {
        finish(self.provision(words))
    }

    fn ok(&self, words: &[&str]) {
        self.run(words).ok().expect("it succeeds");
    }

    fn resume(&self) {
        self.ok(&["resume", self.cell.name(), "--no-wait"]);
    }

    /// Runs a command that is killed at a point.
    fn killed(&self, point: &str, words: &[&str]) {
        let mut command = self.provision(words);
        command.env("IPOP_FAULT", format!("at {point} 1"));
        let ended = finish(command);
        assert_eq!(ended.signal, Some(9), "{point}: {}", ended.output);
    }

    fn database(&self) -> (Database, i64) {
        let database = Database::open(&self.cell.state().join("state.db")).expect("opens");
        let deployment = database.deployment(self.cell.name()).expect("read");
        let id = deployment.expect("there").id;
        (database, id)
    }

    /// As it is recorded.
    fn share(&self) -> Share {
        let (database, _) = self.database();
        let deployment = database.deployment(self.cell.name()).expect("read");
        let settings = Settings::of(&deployment.expect("there")).expect("whole");
        settings.shares.into_iter().next().expect("one")
    }

    /// All that was said over ssh.
    fn told(&self) -> String {
        fs::read_to_string(self.dir.path().join("said")).unwrap_or_default()
    }

    /// The file of its volume, if that is there.
    fn data(&self) -> Option<PathBuf> {
        let begin = format!("ipop-{}.{NAME}.", self.cell.name());
        let files = fs::read_dir(self.pool).expect("the pool").flatten();
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        // A snapshot's has a label before the end.
        let is_data = |name: &String| {
            let rest = name
                .strip_prefix(&begin)
                .and_then(|rest| rest.strip_suffix(".data"));
            rest.is_some_and(|owner| !owner.contains('.'))
        };
        names
            .into_iter()
            .find(is_data)
            .map(|name| self.pool.join(name))
    }

    /// Bytes of room that the volume has.
    fn capacity(&self) -> u64 {
        let data = self.data().expect("there");
        let info = qemu("qemu-img", &["info", "-U", "--output=json"], &data);
        let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
        info["virtual-size"].as_u64().expect("a number")
    }

    /// Its machine does not run for a while: QEMU has the file of one that does.
    fn stop(&self) {
        let running = virsh(&["list", "--name"]);
        if running.lines().any(|name| name.trim() == self.domain()) {
            virsh(&["destroy", &self.domain()]);
        }
    }

    /// Writes so many bytes of this value while nobody uses the volume.
    fn write(&self, byte: u8, at: u64, count: u64) {
        self.stop();
        let write = format!("write -P {byte} {at} {count}");
        let data = self.data().expect("there");
        qemu("qemu-io", &["-f", "qcow2", "-c", &write], &data);
    }

    /// Whether the volume has this value there, as QEMU may be writing.
    fn has(&self, byte: u8, at: u64, count: u64) -> bool {
        let read = format!("read -P {byte} {at} {count}");
        let args = ["-U", "-r", "-f", "qcow2", "-c", &read];
        let said = qemu("qemu-io", &args, &self.data().expect("there"));
        assert!(
            said.contains(&format!("read {count}/{count} bytes")),
            "{said}"
        );
        !said.contains("verification failed")
    }

    /// It has the data of the snapshot with the room that it had, and its machine runs.
    fn is_back(&self, point: &str) {
        assert_eq!(self.share().restoring, None, "{point}");
        assert!(self.has(1, 0, BYTES), "{point}");
        assert_eq!(self.capacity(), 4 << 30, "{point}");
        let state = virsh(&["domstate", &self.domain()]);
        assert_eq!(state.trim(), "running", "{point}");
    }
}

/// Runs one of QEMU's programs on a volume; `qemu-io` fails when a value is not what was asked for.
fn qemu(program: &str, args: &[&str], data: &Path) -> String {
    let output = Command::new(program).args(args).arg(data).output();
    let output = output.expect("the package `qemu-utils` is installed");
    assert!(
        output.status.success() || program == "qemu-io",
        "{output:?}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
