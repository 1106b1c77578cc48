//! The machines that other tests install on.

use std::process::Command;
use std::time::Duration;

use ipop_tests::outside::virsh;
use ipop_tests::sshd::{Machine, Room};
use ipop_tests::wait_until;

fn ssh(room: &Room, known_hosts: &std::path::Path, machine: &Machine, script: &str) -> String {
    let output = Command::new("ssh")
        .args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
        ])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
        .arg("-i")
        .arg(room.identity())
        .args([&machine.target(), script])
        .output()
        .expect("ssh runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn two_machines_have_disks_and_processes_of_their_own_and_no_trace_is_left_here() {
    let room = Room::new("pair");
    let (a, b) = (room.machine("left"), room.machine("right"));
    let known = room.known_hosts(&[&a, &b]);
    let mark = format!("/etc/ipop-fixture-{}", std::process::id());
    ssh(
        &room,
        &known,
        &a,
        &format!("echo left > {mark}; cat /etc/hostname"),
    );
    assert_eq!(a.run(&format!("cat {mark}")), "left\n");
    assert!(a.changes().contains(mark.trim_start_matches('/')));
    assert!(!b.output(&format!("cat {mark}")).status.success());
    assert!(!std::path::Path::new(&mark).exists());
    assert!(a.command_lines().contains("sshd"));
    assert!(!a.command_lines().contains("ipop_tests"));
    a.kill_sshd(true);
    a.run(&format!("rm {mark}; until pidof sshd; do sleep 0.05; done"));
    assert!(!a.changes().contains(&mark[1..]));
    assert_eq!(ssh(&room, &known, &b, "cat /etc/hostname"), "right\n");
}

/// A network of this computer's libvirt, defined and not started; undefined when dropped.
struct Definition(String);

impl Definition {
    fn new(label: &str) -> Self {
        let name = format!("ipop-fixture-{}-{label}", std::process::id());
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let xml = format!("<network><name>{name}</name></network>");
        std::fs::write(file.path(), xml).expect("written");
        virsh(&["net-define", &file.path().display().to_string()]);
        Self(name)
    }
}

impl Drop for Definition {
    fn drop(&mut self) {
        let words = ["-q", "-c", "qemu:///system", "net-undefine", &self.0];
        if !Command::new("virsh")
            .args(words)
            .status()
            .is_ok_and(|s| s.success())
        {
            eprintln!("network {} is left behind", self.0);
        }
    }
}

#[test]
fn a_machine_has_nothing_that_libvirt_keeps_on_this_computer() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let start = root.with_file_name("scripts/start-libvirt");
    assert!(Command::new(start).status().expect("runs").success());
    let _before = Definition::new("before");
    let room = Room::new("bare");
    let machine = room.machine("bare");
    let _later = Definition::new("later");
    let kept = machine.run("find /etc/libvirt /var/lib/libvirt -type f ! -name '*.conf'");
    assert_eq!(kept, "");
    // What its packages brought is as it is here.
    let modes = "cd /; stat -c '%a %U %n' etc/libvirt var/lib/libvirt var/lib/libvirt/*/";
    let here = Command::new("sh").args(["-c", modes]).output();
    let here = here.expect("`stat` runs").stdout;
    assert_eq!(machine.run(modes), String::from_utf8_lossy(&here));
    assert!(
        machine
            .run("cat /etc/libvirt/qemu.conf")
            .contains("security_driver")
    );

    machine.run("PATH=$PATH:/usr/sbin; libvirtd -d >/dev/null 2>&1 </dev/null");
    let virsh = "virsh -q -c qemu:///system";
    wait_until("its libvirt answers", Duration::from_secs(60), || {
        let output = machine.output(&format!("{virsh} version"));
        output.status.success().then_some(())
    });
    for what in ["net-list --all", "list --all", "pool-list --all"] {
        assert_eq!(machine.run(&format!("{virsh} {what} --name")).trim(), "");
    }
}
