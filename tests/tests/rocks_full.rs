//! A file system of a Rocks front end is full: its TFTP folder, that of dhcpd's configuration, that of a
//! node's credentials. The command says which, on which host and for which file; nothing is left by half;
//! what Rocks serves its own machines stays whole; and after space was made the same goes on.

use std::path::Path;

use ipop_tests::kill::bench::Ended;
use ipop_tests::rocks::Lab;
use ipop_tests::rocks::database::Mode;
use ipop_tests::sshd::MachineOptions;

const BOOT_FILES: &str = "/tftpboot/pxelinux/pxelinux.cfg";
/// The documented exit code of a disk that is full.
const FULL: Option<i32> = Some(6);

fn lab(label: &str) -> Lab {
    let double = Path::new(env!("CARGO_BIN_EXE_rocks-double"));
    Lab::new(double, label, MachineOptions::default(), "")
}

/// Puts a file system of this size, in KiB, on a folder of the front end, with what is in it.
fn small(lab: &Lab, folder: &str, kib: u32) {
    lab.frontend.machine.run(&format!(
        "mkdir -p {folder} /mnt/small && mount -t tmpfs -o size={kib}k,mode=755 small /mnt/small && \
         cp -a {folder}/. /mnt/small/ && mount --move /mnt/small {folder} && rmdir /mnt/small"
    ));
}

/// Takes all room on a folder's file system.
fn fill(lab: &Lab, folder: &str) {
    let machine = &lab.frontend.machine;
    let filled = machine.output(&format!("cat /dev/zero >{folder}/crowd"));
    let said = String::from_utf8_lossy(&filled.stderr).into_owned();
    assert!(said.contains("No space left"), "{said}");
}

fn make_room(lab: &Lab, folder: &str) {
    lab.frontend.machine.run(&format!("rm {folder}/crowd"));
}

/// The command failed for a full disk, and says host, file system, file and what to do.
fn says_full(lab: &Lab, ended: &Ended, folder: &str, file: &str) {
    let Ended { code, output, .. } = ended;
    assert_eq!(*code, FULL, "{output}");
    let host = lab.frontend.machine.target();
    for text in [
        &host,
        &format!("{folder} has "),
        " KiB free, and ",
        file,
        "hint: free at least ",
    ] {
        assert!(output.contains(text), "{text:?} is not in: {output}");
    }
}

#[test]
fn a_full_tftp_folder_is_named_before_anything_is_changed_and_when_it_fills_up_later() {
    let lab = lab("tftpfull");
    let (before, tables) = (lab.changes(), lab.frontend.tables());
    small(&lab, BOOT_FILES, 256);
    fill(&lab, BOOT_FILES);
    let listing = || lab.frontend.machine.run(&format!("ls -A {BOOT_FILES}"));
    let boot_files = listing();

    let checked = lab.provision(&["site", "check", "ucsd"]);
    assert_ne!(checked.code, Some(0), "{}", checked.output);
    let text = format!("{BOOT_FILES} has 0 KiB free");
    assert!(checked.output.contains(&text), "{}", checked.output);
    says_full(&lab, &lab.cluster("1@lab"), BOOT_FILES, BOOT_FILES);
    assert_eq!(lab.frontend.tables(), tables);
    assert_eq!(listing(), boot_files);
    assert_eq!(
        lab.frontend
            .machine
            .run("ls -d /opt/ipop-node /etc/ipop-node || :"),
        ""
    );

    make_room(&lab, BOOT_FILES);
    lab.ok(&["resume", &lab.name]);
    // Full before the next worker's file is begun: Rocks is not told of that worker.
    fill(&lab, BOOT_FILES);
    let (tables_of_one, boot_files) = (lab.frontend.tables(), listing());
    let more = || lab.provision(&["scale", &lab.name, "--workers", "+1@lab"]);
    says_full(&lab, &more(), BOOT_FILES, "/0A018003");
    assert_eq!(lab.frontend.tables(), tables_of_one);
    assert_eq!(listing(), boot_files);
    make_room(&lab, BOOT_FILES);

    // Full while its file is written: no half of it is left to be booted.
    lab.frontend.misbehave(&Mode {
        crowd: vec![("set host boot".to_owned(), BOOT_FILES.to_owned())],
        ..Mode::default()
    });
    let ended = lab.provision(&["resume", &lab.name]);
    says_full(&lab, &ended, BOOT_FILES, "/0A018003");
    assert_eq!(listing(), boot_files);
    let boot = |name: &str| lab.frontend.tables().host(name).map(|h| h.boot.clone());
    assert_eq!(boot("compute-90-1"), Some(None));
    lab.frontend.misbehave(&Mode::default());
    make_room(&lab, BOOT_FILES);
    lab.ok(&["resume", &lab.name]);
    assert_eq!(boot("compute-90-1"), Some(Some("os".to_owned())));
    assert!(listing().contains("0A018003"));

    // A full disk keeps nobody from leaving.
    fill(&lab, BOOT_FILES);
    lab.ok(&["destroy", &lab.name]);
    assert_eq!(lab.frontend.tables(), tables);
    lab.frontend.machine.run(&format!("umount {BOOT_FILES}"));
    assert_eq!(lab.changes(), before);
}

#[test]
fn a_full_file_system_leaves_dhcpds_configuration_and_credentials_whole() {
    let lab = lab("etcfull");
    let (before, tables) = (lab.changes(), lab.frontend.tables());
    let dhcp = "/etc/dhcp";
    small(&lab, dhcp, 2048);
    let conf = || lab.frontend.file("etc/dhcp/dhcpd.conf");
    let served = conf();
    assert!(served.contains("compute-0-0"), "{served}");
    // Full while Rocks writes it.
    lab.frontend.misbehave(&Mode {
        crowd: vec![("sync config".to_owned(), dhcp.to_owned())],
        ..Mode::default()
    });
    says_full(&lab, &lab.cluster("1@lab"), dhcp, "/etc/dhcp/dhcpd.conf");
    assert_eq!(conf(), served);
    lab.frontend.misbehave(&Mode::default());
    // Nor can the worker be taken out of it while there is no room to write it anew.
    let removal = lab.provision(&["destroy", &lab.name]);
    assert_ne!(removal.code, Some(0), "{}", removal.output);
    assert!(
        removal.output.contains("/etc/dhcp has 0 KiB free"),
        "{}",
        removal.output
    );
    assert_eq!(conf(), served);
    make_room(&lab, dhcp);
    lab.ok(&["destroy", &lab.name]);
    assert_eq!((conf(), lab.frontend.tables()), (served, tables));
    let listing = lab.frontend.machine.run("ls -A /etc/dhcp | grep ipop || :");
    assert_eq!(listing, "");

    // Its own secrets: none is there by half.
    let secrets = "/etc/ipop-node";
    small(&lab, secrets, 16);
    fill(&lab, secrets);
    says_full(&lab, &lab.cluster("1@lab"), secrets, "/etc/ipop-node/");
    let files = "find /etc/ipop-node -type f ! -name crowd";
    assert_eq!(lab.frontend.machine.run(files), "");
    make_room(&lab, secrets);
    lab.frontend
        .machine
        .run("mount -o remount,size=1m /etc/ipop-node");
    lab.ok(&["resume", &lab.name]);
    assert_ne!(lab.frontend.machine.run(files), "");
    lab.ok(&["destroy", &lab.name]);
    lab.frontend
        .machine
        .run("umount /etc/ipop-node && rmdir /etc/ipop-node && umount /etc/dhcp");
    assert_eq!(lab.changes(), before);
}
