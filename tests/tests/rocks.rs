//! The stand-in of a Rocks front end refuses what the real one refuses, and leaves behind what it
//! would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ipop_tests::rocks::database::{Database, Mode, Tables};
use tempfile::TempDir;

/// A front end's files, without a machine.
struct Root {
    dir: TempDir,
    program: PathBuf,
}

impl Root {
    fn new() -> Self {
        let dir = TempDir::with_prefix("ipop-rocks-").expect("temporary directory");
        let bin = dir.path().join("opt/rocks/bin");
        fs::create_dir_all(&bin).expect("made");
        fs::create_dir_all(dir.path().join("var/log")).expect("made");
        let program = bin.join("rocks");
        fs::copy(env!("CARGO_BIN_EXE_rocks-double"), &program).expect("copied");
        let root = Self { dir, program };
        root.database()
            .write(&Tables::fresh("br0"))
            .expect("written");
        root
    }

    fn database(&self) -> Database {
        Database::at(self.dir.path())
    }

    fn output(&self, line: &str) -> Output {
        let words = line.split(' ');
        Command::new(&self.program)
            .args(words)
            .output()
            .expect("it runs")
    }

    /// Runs a command that must succeed.
    fn rocks(&self, line: &str) -> String {
        let output = self.output(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command that must fail, and gives what it says.
    fn refused(&self, line: &str) -> String {
        let output = self.output(line);
        assert_eq!(output.status.code(), Some(255), "{line}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn file(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join(path)).unwrap_or_default()
    }

    fn register(&self, rank: u32) {
        let name = format!("compute-90-{rank}");
        self.rocks(&format!(
            "add host {name} membership=Compute rack=90 rank={rank}"
        ));
        self.rocks(&format!(
            "add host interface {name} eth0 ip=10.1.128.{rank} subnet=private mac=02:49:0a:01:80:0{rank} name={name}"
        ));
        self.rocks(&format!("set host boot {name} action=install"));
    }
}

#[test]
fn what_is_registered_is_listed_and_served_and_goes_without_a_trace() {
    let root = Root::new();
    root.rocks("sync config");
    let (before, dhcpd) = (
        root.database().tables().expect("tables"),
        root.file("etc/dhcp/dhcpd.conf"),
    );
    root.register(2);
    assert!(
        !root.file("etc/dhcp/dhcpd.conf").contains("compute-90-2"),
        "before a sync"
    );
    root.rocks("sync config");
    assert!(
        root.file("etc/hosts")
            .contains("10.1.128.2\tcompute-90-2.local")
    );
    assert!(
        root.file("tftpboot/pxelinux/pxelinux.cfg/0A018002")
            .contains("vmlinuz")
    );
    root.rocks("set network mtu private 1400");
    root.rocks("sync config");
    let all = [
        root.rocks("list host"),
        root.rocks("list host interface"),
        root.rocks("list host interface compute-90-2"),
        root.rocks("list network"),
        root.rocks("list membership"),
        root.file("etc/dhcp/dhcpd.conf"),
    ];
    insta::assert_snapshot!(all.join("---\n"));
    root.rocks("set network mtu private 1500");
    root.rocks("remove host compute-90-2");
    assert_eq!(root.database().tables().expect("tables"), before);
    assert_eq!(root.file("etc/dhcp/dhcpd.conf"), dhcpd);
    assert!(
        !root
            .dir
            .path()
            .join("tftpboot/pxelinux/pxelinux.cfg/0A018002")
            .exists()
    );
}

#[test]
fn what_the_real_one_refuses_is_refused() {
    let root = Root::new();
    let lines = [
        "add host",
        "add host compute-0-0",
        "add host compute",
        "add host rack3",
        "add host a.b membership=Compute rack=0 rank=1",
        "add host node membership=Toaster rack=0 rank=1",
        "add host node membership=Compute rack=0",
        "add host compute-0-1 rank=x",
        "add host interface compute-0-0",
        "add host interface compute-0-0 eth0 ip=10.1.1.2",
        "add host interface compute-0-7 eth0",
        "add host interface compute-0-0 eth1 ip=10.1.1",
        "add host interface compute-0-0 eth2 subnet=moon",
        "set host boot compute-0-0 action=fly",
        "set host boot",
        "set network mtu private",
        "remove host compute-0-7",
        "remove host interface compute-0-0",
        "frobnicate host",
    ];
    let said: Vec<_> = lines
        .iter()
        .map(|line| format!("{line}\n{}", root.refused(line)))
        .collect();
    insta::assert_snapshot!(said.join("\n"));
    // What it silently passes over, it passes over.
    root.rocks("set network mtu moon 1400");
}

#[test]
fn a_host_boots_what_its_run_action_says() {
    let root = Root::new();
    let served = || root.file("tftpboot/pxelinux/pxelinux.cfg/0A01FFFE");
    root.rocks("set host boot compute-0-0 action=os");
    assert_eq!(
        served(),
        "default rocks\nprompt 0\nlabel rocks\n\tlocalboot 0\n"
    );
    root.rocks("add bootaction action=disks kernel=vmlinuz-9 ramdisk=one,two args=quiet=1");
    root.rocks("set host runaction compute-0-0 disks");
    let text = "default rocks\nprompt 0\nlabel rocks\n\tkernel vmlinuz-9\n\tappend quiet=1 initrd=one,two\n";
    assert_eq!(served(), text);
    // What it is changed to is served at once.
    root.rocks("add bootaction action=disks kernel=chain.c32");
    assert_eq!(served(), text.replace("kernel vmlinuz-9", "chain.c32"));
    let listed = [root.rocks("list bootaction"), root.rocks("list host")];
    assert!(
        listed.iter().all(|text| text.contains("disks")),
        "{listed:?}"
    );
    for (line, said) in [
        ("add bootaction kernel=x", "must supply an action"),
        ("set host runaction", "must supply host"),
        (
            "set host runaction compute-0-0 fly",
            "action \"fly\" does not exist",
        ),
        (
            "remove bootaction action=fly",
            "no action found with name fly",
        ),
        (
            "remove bootaction action=disks",
            "bootaction \"disks\" for host \"compute-0-0\" is invalid",
        ),
    ] {
        let refused = root.refused(line);
        assert!(refused.contains(said), "{line}: {refused}");
    }
}

#[test]
fn a_command_that_breaks_off_leaves_half_of_what_it_does() {
    let root = Root::new();
    let mode = |mode: Mode| root.database().set_mode(&mode).expect("written");
    mode(Mode {
        refuse: vec!["add host".to_owned()],
        halfway: vec!["add host interface".to_owned(), "remove host".to_owned()],
        ..Mode::default()
    });
    root.refused("add host compute-90-2");
    assert!(
        root.database()
            .tables()
            .expect("tables")
            .host("compute-90-2")
            .is_none()
    );
    root.refused("add host interface compute-0-0 eth1 ip=10.1.1.9 subnet=private");
    let tables = root.database().tables().expect("tables");
    let half = &tables.host("compute-0-0").expect("there").interfaces[1];
    assert_eq!((half.device.as_str(), &half.ip), ("eth1", &None));
    root.refused("remove host compute-0-0");
    let tables = root.database().tables().expect("tables");
    let half = tables.host("compute-0-0").expect("still there");
    assert!(half.interfaces.is_empty());
}

#[test]
fn it_runs_nowhere_but_on_a_front_end_of_a_test() {
    let output = Command::new(Path::new(env!("CARGO_BIN_EXE_rocks-double")))
        .args(["list", "host"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
