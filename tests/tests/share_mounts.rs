//! What a share's machine writes down of who has it mounted: the program of its image, beside a folder that
//! looks like what the kernel says of clients.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use ipop_node::audit::Trail;
use ipop_tests::wait_until;

const PROGRAM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../images/share/files/usr/lib/ipop/share-mounts"
);
const PATIENCE: Duration = Duration::from_secs(60);

struct Running(Child);

impl Running {
    fn start(clients: &Path, folder: &Path) -> Self {
        let mut command = Command::new("sh");
        command.arg(PROGRAM).args([clients, folder]).arg("0.1");
        Self(command.spawn().expect("`sh` runs"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What nfsd says of a client; `name` is what the client says of itself.
fn mount(clients: &Path, number: u8, address: &str, name: &str) {
    let dir = clients.join(number.to_string());
    fs::create_dir_all(&dir).expect("made");
    let info = format!(
        "clientid: 0x6d0596d0675df2b3\naddress: \"{address}\"\nstatus: confirmed\n\
         name: \"{name}\"\nminor version: 2\n"
    );
    fs::write(dir.join("info.new"), info).expect("written");
    fs::rename(dir.join("info.new"), dir.join("info")).expect("moved");
}

fn said(folder: &Path) -> Vec<String> {
    let kept = Trail::new(folder.join("audit.jsonl"), u64::MAX, false).read();
    let kept = kept.expect("readable");
    assert_eq!(kept.damaged, 0);
    let said = kept
        .records
        .iter()
        .map(|r| format!("{} {}", r.event, r.addrs.join(" ")));
    said.collect()
}

fn says(folder: &Path, expected: &[&str]) {
    wait_until(&format!("records {expected:?}"), PATIENCE, || {
        let said = said(folder);
        assert!(said.len() <= expected.len(), "{said:?}");
        (said == expected).then_some(())
    });
}

#[test]
fn who_mounts_a_share_is_recorded_once_and_so_is_the_end_also_over_a_restart() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (clients, folder) = (dir.path().join("clients"), dir.path().join("share"));
    fs::create_dir(&clients).expect("made");
    let running = Running::start(&clients, &folder);
    // A client cannot say that it is another one.
    mount(
        &clients,
        1,
        "10.130.2.1:712",
        "x\\\"\\naddress: \\\"10.130.2.9:1\\\"",
    );
    says(&folder, &["mounted 10.130.2.1"]);
    mount(&clients, 2, "10.130.2.1:713", "once more");
    mount(&clients, 3, "[fd5a:1:2:3::fe]:1000", "another");
    says(&folder, &["mounted 10.130.2.1", "mounted fd5a:1:2:3::fe"]);
    wait_until("what it goes on with", PATIENCE, || {
        let known = fs::read_to_string(folder.join("mounted")).ok()?;
        (known.lines().count() == 2).then_some(())
    });
    drop(running);
    fs::remove_dir_all(clients.join("1")).expect("removed");
    fs::remove_dir_all(clients.join("3")).expect("removed");
    let _running = Running::start(&clients, &folder);
    let expected = [
        "mounted 10.130.2.1",
        "mounted fd5a:1:2:3::fe",
        "unmounted fd5a:1:2:3::fe",
    ];
    says(&folder, &expected);
    fs::remove_dir_all(clients.join("2")).expect("removed");
    says(
        &folder,
        &[&expected[..], &["unmounted 10.130.2.1"]].concat(),
    );
}

#[test]
fn one_that_was_ended_in_between_leaves_no_end_without_its_beginning() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (clients, folder) = (dir.path().join("clients"), dir.path().join("share"));
    fs::create_dir(&clients).expect("made");
    fs::create_dir(&folder).expect("made");
    // It had seen one that is there no more, and one that still is; perhaps it had not written it down.
    mount(&clients, 1, "10.130.2.1:712", "still there");
    fs::write(folder.join("mounted"), "").expect("written");
    fs::write(folder.join("mounted.new"), "10.130.2.1\n10.130.2.2\n").expect("written");
    let _running = Running::start(&clients, &folder);
    let expected = [
        "mounted 10.130.2.1",
        "mounted 10.130.2.2",
        "unmounted 10.130.2.2",
    ];
    says(&folder, &expected);
}
