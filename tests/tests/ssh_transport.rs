//! Commands and files on real machines by the system's `ssh`, and every way in which that fails.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipop_tests::sshd::{Login, Machine, MachineOptions, Room, Sudo};
use ipop_tests::wait_until;
use provisioner::error::{CliError, ExitCode, Retry};
use provisioner::ssh::transport::{Access, Limits, Script, Transport};
use provisioner::ssh::upload::{Content, Put};

fn access(room: &Room, machines: &[&Machine]) -> Access {
    Access {
        identity: Some(room.identity()),
        known_hosts: Some(room.known_hosts(machines)),
        connect_timeout: Duration::from_secs(3),
        ..Access::default()
    }
}

fn transport(room: &Room, machine: &Machine) -> Transport {
    let target = machine.target().parse().expect("a target");
    Transport::new(target, &access(room, &[machine])).expect("prepared")
}

fn soon() -> Limits<'static> {
    Limits::within(Duration::from_secs(30))
}

/// The message, with the machine's address replaced.
fn shown(error: &CliError, machine: &Machine) -> String {
    // Which of the two it is depends on what the kernel remembers of the neighbour.
    let text = error
        .to_string()
        .replace("No route to host", "Connection timed out");
    text.replace(&machine.address, "HOST")
}

#[test]
fn scripts_run_as_root_also_by_sudo_and_share_a_connection() {
    let room = Room::new("run");
    let options = MachineOptions {
        login: Login::User(Sudo::Free),
        ..MachineOptions::default()
    };
    for machine in [room.machine("root"), room.machine_with("user", options)] {
        let transport = transport(&room, &machine);
        let script = Script::new("looking", "id -u; echo \"$1\"").args(&["a 'b'"]);
        for _ in 0..3 {
            let answer = transport.run(&script, &soon()).expect("it runs");
            assert_eq!(answer.text(), "0\na 'b'\n");
        }
        let log = machine.log();
        assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
    }
}

#[test]
fn a_machine_that_does_not_let_us_in_says_why_and_what_to_do() {
    let room = Room::new("in");
    let mut machine = room.machine("host");
    let stranger = room.machine("other");
    let target = || machine_target(&machine);
    fn machine_target(machine: &Machine) -> provisioner::ssh::target::Target {
        machine.target().parse().expect("a target")
    }
    let hello = Script::new("saying hello", "true");
    let mut text = String::new();
    let mut failed = |name: &str, error: CliError, machine: &Machine| {
        text += &format!("--- {name}\n{}\n", shown(&error, machine));
    };

    let unknown = access(&room, &[&stranger]);
    let error = Transport::new(target(), &unknown).and_then(|t| t.run(&hello, &soon()));
    failed("unknown host key", error.expect_err("unknown"), &machine);

    let other_room = Room::new("key");
    let mut wrong_key = access(&room, &[&machine]);
    wrong_key.identity = Some(other_room.identity());
    let error = Transport::new(target(), &wrong_key).and_then(|t| t.run(&hello, &soon()));
    failed("key refused", error.expect_err("refused"), &machine);

    let known = access(&room, &[&machine]);
    machine.kill_sshd(false);
    let error = Transport::new(machine_target(&machine), &known)
        .and_then(|t| t.run(&hello, &soon()))
        .expect_err("refused");
    assert_eq!(error.retry, Retry::Soon);
    failed("no sshd", error, &machine);
    machine.run("rm /run/no-sshd");

    machine.cable(false);
    let began = Instant::now();
    let error = Transport::new(machine_target(&machine), &known)
        .and_then(|t| t.run(&hello, &soon()))
        .expect_err("down");
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(error.retry, Retry::Soon);
    failed("host down", error, &machine);
    machine.cable(true);

    machine.change_host_key();
    let error = Transport::new(machine_target(&machine), &known)
        .and_then(|t| t.run(&hello, &soon()))
        .expect_err("changed");
    assert_eq!(error.retry, Retry::Never);
    failed("changed host key", error, &machine);
    // Times and file names differ from run to run.
    let text = text.replace(&room.known_hosts(&[]).display().to_string(), "KNOWN_HOSTS");
    insta::assert_snapshot!(text);
}

#[test]
fn a_user_who_cannot_become_root_is_told_what_to_do() {
    let room = Room::new("sudo");
    let mut text = String::new();
    for sudo in [Sudo::Password, Sudo::Refused] {
        let options = MachineOptions {
            login: Login::User(sudo),
            ..MachineOptions::default()
        };
        let machine = room.machine_with("host", options);
        let error = transport(&room, &machine)
            .run(&Script::new("saying hello", "true"), &soon())
            .expect_err("not root");
        text += &format!("--- {sudo:?}\n{}\n", shown(&error, &machine));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn commands_that_fail_or_take_too_long_are_errors_and_the_connection_serves_on() {
    let room = Room::new("fail");
    let machine = room.machine("host");
    let transport = transport(&room, &machine);
    let script = Script::new("trying", "echo one >&2; echo two >&2; exit 3");
    let error = transport.run(&script, &soon()).expect_err("status 3");
    insta::assert_snapshot!(shown(&error, &machine));
    assert_eq!(
        transport
            .run(&script.answers(&[3]), &soon())
            .expect("an answer")
            .status,
        3
    );
    let began = Instant::now();
    let slow = Limits::within(Duration::from_secs(1));
    let error = transport
        .run(&Script::new("sleeping", "sleep 30"), &slow)
        .expect_err("too slow");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(error.retry, Retry::Soon);
    assert!(
        error.message.contains("did not finish in time: sleeping"),
        "{error}"
    );
    transport
        .run(&Script::new("going on", "true"), &soon())
        .expect("it goes on");
}

#[test]
fn a_file_arrives_whole_once_and_a_secret_on_no_command_line() {
    let room = Room::new("put");
    let machine = room.machine("host");
    let transport = transport(&room, &machine);
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    fs::write(file.path(), &content).expect("written");
    let put = |content: Content<'_>, path: &str, mode| {
        transport
            .put(path, mode, content, &soon(), &|_, _| {})
            .expect("put")
    };
    let from = Content::File(file.path());
    assert_eq!(put(from, "/opt/new dir/file", 0o755), Put::Sent);
    assert_eq!(put(from, "/opt/new dir/file", 0o755), Put::AlreadyThere);
    machine.run("echo >> '/opt/new dir/file'");
    assert_eq!(put(from, "/opt/new dir/file", 0o755), Put::Sent);
    put(Content::Bytes(b"sesame"), "/opt/secret", 0o600);
    let listing = machine.run("cd /opt; stat -c '%n %a %U %s' 'new dir'/* secret; ls -A 'new dir'");
    assert_eq!(
        listing,
        "new dir/file 755 root 3000000\nsecret 600 root 6\nfile\n"
    );
}

/// Gives a little, then nothing for long.
struct Stalls(usize);

impl Read for Stalls {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0 += 1;
        if self.0 > 4 {
            std::thread::sleep(Duration::from_secs(2));
        }
        buffer.fill(b'x');
        Ok(buffer.len())
    }
}

#[test]
fn an_upload_that_is_cut_leaves_nothing_and_is_repeated() {
    let room = Room::new("cut");
    let machine = room.machine("host");
    let transport = transport(&room, &machine);
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    // Sparse, and larger than what fits into any buffer.
    file.as_file().set_len(64 << 20).expect("sized");
    let put = |limits: &Limits<'_>| {
        transport.put(
            "/opt/big",
            0o644,
            Content::File(file.path()),
            limits,
            &|_, _| {},
        )
    };
    // The far side dies in the middle: every session of sshd is killed.
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            wait_until("a part of the upload", Duration::from_secs(20), || {
                machine
                    .output("[ -s /opt/big.part.* ]")
                    .status
                    .success()
                    .then_some(())
            });
            machine.kill_sshd(true);
        });
        let error = put(&soon()).expect_err("cut");
        assert_eq!(error.retry, Retry::Soon, "{error}");
        killer.join().expect("killed in time");
    });
    assert!(!machine.output("test -e /opt/big").status.success());
    wait_until("the part is gone", Duration::from_secs(10), || {
        (!machine.run("ls /opt").contains("big.part")).then_some(())
    });
    // This side dies in the middle: `ssh` is killed by the deadline.
    let script = Script::new("feeding", "cat >/dev/null");
    let error = transport
        .feed(
            &script,
            &mut Stalls(0),
            &Limits::within(Duration::from_secs(1)),
            &|_| {},
        )
        .expect_err("stalled");
    assert!(error.message.contains("did not finish in time"), "{error}");
    assert_eq!(put(&soon()).expect("repeated"), Put::Sent);
    assert_eq!(
        machine.run("stat -c %s /opt/big; ls /opt | grep -c big"),
        "67108864\n1\n"
    );
}

#[test]
fn a_full_disk_on_the_far_side_is_called_that() {
    let room = Room::new("full");
    let options = MachineOptions {
        disk_mib: 8,
        ..MachineOptions::default()
    };
    let machine = room.machine_with("host", options);
    let file: PathBuf = std::env::current_exe().expect("own path");
    assert!(fs::metadata(&file).expect("there").len() > 8 << 20);
    let error = transport(&room, &machine)
        .put("/opt/big", 0o644, Content::File(&file), &soon(), &|_, _| {})
        .expect_err("full");
    assert_eq!(error.code, ExitCode::Missing);
    assert_eq!(machine.run("ls /opt | grep -c big || true"), "0\n");
    let needed = fs::metadata(&file).expect("there").len().div_ceil(1024) + 4;
    let shown = shown(&error, &machine);
    for text in [
        "error: the disk of root@HOST is full: putting `/opt/big` there\ncaused by: / has ",
        &format!(" KiB free, and /opt/big may need {needed}\nhint: free at least "),
    ] {
        assert!(shown.contains(text), "{shown}");
    }
}
