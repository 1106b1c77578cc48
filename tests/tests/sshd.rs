//! The machines that other tests install on.

use std::process::Command;

use ipop_tests::sshd::{Machine, Room};

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
