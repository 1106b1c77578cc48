//! The servers of a Rocks front end serve workers across the overlay as if they were plugged into
//! its switch: ISC dhcpd and tftpd-hpa, with the files that Rocks writes. Needs root, `macvlan` in
//! the kernel, `isc-dhcp-server`, `tftpd-hpa`, `dnsmasq-base`, `busybox` and `tcpdump`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use ipop_proto::status::{AlarmStatus, NodeStatus};
use ipop_tests::capture::Capture;
use ipop_tests::dhcp::{self, Lease};
use ipop_tests::dnsmasq::Dnsmasq;
use ipop_tests::netns::Netns;
use ipop_tests::rocks::{Frontend, Lab, PRIVATE};
use ipop_tests::sshd::{Machine, MachineOptions, Room};
use ipop_tests::wait_until;
use sha2::{Digest as _, Sha256};

const PATIENCE: Duration = Duration::from_secs(90);
/// The overlay's device on a worker.
const DEVICE: &str = "ipop0";
/// MAC address of the second worker, after its address.
const SECOND: &str = "02:49:0a:01:80:03";
/// Of a machine that nobody registered.
const NOT_ALLOWED: &str = "is not the DHCP server that is allowed";
const STRANGER: &str = "02:00:00:00:07:01";

fn double() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rocks-double"))
}

fn lab(label: &str) -> Lab {
    Lab::new(double(), label, MachineOptions::default(), "mtu = 1400\n")
}

/// What Rocks' DHCP server gives a compute node.
fn compute(name: &str, address: &str, mtu: &str) -> Lease {
    let text = str::to_owned;
    Lease {
        address: text(address),
        netmask: text("255.255.0.0"),
        router: text(PRIVATE),
        mtu: text(mtu),
        host_name: text(name),
        domain: text("local"),
        server: text(PRIVATE),
        next_server: text(PRIVATE),
        boot_file: text("pxelinux.0"),
    }
}

/// The lease that somebody gets in the end: links may be only coming up.
fn lease(netns: &Netns, interface: &str, words: &[&str]) -> Lease {
    wait_until("a lease", PATIENCE, || dhcp::ask(netns, interface, words))
}

/// A machine behind a worker's node: a second station on the overlay's device, as `eth0`.
fn behind(worker: &Machine, label: &str, mac: &str) -> Netns {
    let netns = Netns::new(label);
    let words = format!(
        "ip link add link {DEVICE} name eth0 netns {} address {mac} type macvlan mode bridge",
        netns.name()
    );
    worker.netns().run(&words.split(' ').collect::<Vec<_>>());
    netns.run(&["ip", "link", "set", "eth0", "up"]);
    netns
}

/// Fetches a file from the front end by TFTP (RFC 1350) in blocks of 1408 bytes (RFC 2348), as
/// pxelinux does, if it is there.
fn fetch(netns: &Netns, path: &str) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("file").display().to_string();
    let words = ["busybox", "tftp", "-g", "-b", "1408", "-r", path, "-l"];
    let output = netns.output(&[&words[..], &[&file, PRIVATE]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() || said.contains("File not found"),
        "{path}: {output:?}"
    );
    fs::read(file).ok().filter(|_| output.status.success())
}

/// What a node says of itself on its own machine.
fn status(machine: &Machine) -> NodeStatus {
    let text = machine.run("/opt/ipop-node/bin/ipop-node status --json");
    serde_json::from_str(&text).expect("status as JSON")
}

/// Waits until a node says this of somebody of `origin`.
fn wait_alarm(machine: &Machine, origin: &str, text: &str) -> AlarmStatus {
    wait_until(&format!("alarm: {origin} {text}"), PATIENCE, || {
        let alarms = status(machine).switch.expect("in mode switch").alarms;
        let is_it = |alarm: &AlarmStatus| alarm.origin == origin && alarm.trouble.contains(text);
        alarms.into_iter().find(is_it)
    })
}

#[test]
fn a_worker_is_given_what_rocks_registered_for_it_and_nobody_else_is_given_anything() {
    let lab = lab("dhcp");
    lab.cluster("2@lab").ok().expect("a cluster");
    let front = &lab.frontend;
    let [first, second] = [0, 1].map(|n: usize| lab.workers[n].netns());
    let served = compute("compute-90-0", "10.1.128.2", "1400");
    assert_eq!(lease(first, DEVICE, &[]), served);
    assert_eq!(
        lease(second, DEVICE, &[]),
        compute("compute-90-1", "10.1.128.3", "1400")
    );
    // One that is only plugged in, until somebody registers it.
    let stranger = behind(&lab.workers[0], "stranger", STRANGER);
    assert_eq!(dhcp::ask(&stranger, "eth0", &[]), None);
    for line in [
        "add host compute-80-0".to_owned(),
        format!(
            "add host interface compute-80-0 eth0 ip=10.1.80.2 subnet=private mac={STRANGER} \
             name=compute-80-0"
        ),
        "sync config".to_owned(),
    ] {
        front.rocks(&line);
    }
    assert_eq!(
        lease(&stranger, "eth0", &[]),
        compute("compute-80-0", "10.1.80.2", "1400")
    );
    front.rocks("remove host compute-80-0");
    assert_eq!(dhcp::ask(&stranger, "eth0", &[]), None);

    // One that is removed is not known anymore, not even right beside the front end.
    lab.ok(&["scale", &lab.name, "--workers=-1@lab"]);
    let visitor = Netns::new("visitor");
    front.plug(&visitor, SECOND);
    assert_eq!(dhcp::ask(&visitor, "eth0", &[]), None);
    assert_eq!(lease(first, DEVICE, &[]), served);
    lab.ok(&["destroy", &lab.name]);
    let mac = "02:49:0a:01:80:02";
    visitor.run(&["ip", "link", "set", "eth0", "address", mac]);
    assert_eq!(dhcp::ask(&visitor, "eth0", &[]), None);
    assert_eq!(
        lease(&front.compute, "eth0", &[]),
        compute("compute-0-0", "10.1.255.254", "1500")
    );
}

#[test]
fn a_worker_fetches_what_it_is_to_boot_and_large_files_come_whole() {
    let lab = lab("tftp");
    // What nobody can guess and nothing can compress.
    let image: Vec<u8> = (0..3 << 20).map(|_| rand::random()).collect();
    let path = "tftpboot/pxelinux/initrd.img-7.0-x86_64";
    fs::write(lab.frontend.machine.root().join(path), &image).expect("written");
    lab.cluster("1@lab").ok().expect("a cluster");
    let worker = lab.workers[0].netns();
    let Lease { address, .. } = lease(worker, DEVICE, &[]);
    let address: Ipv4Addr = address.parse().expect("an address");
    let config = format!("pxelinux.cfg/{:08X}", u32::from(address));
    let text = || String::from_utf8(fetch(worker, &config).expect("a file")).expect("text");
    assert!(text().contains("\tlocalboot 0\n"), "{}", text());
    lab.frontend
        .rocks("set host boot compute-90-0 action=install");
    assert!(
        text().contains("\tkernel vmlinuz-7.0-x86_64\n"),
        "{}",
        text()
    );
    let digest = |bytes: &[u8]| Sha256::digest(bytes);
    let fetched = fetch(worker, "initrd.img-7.0-x86_64").expect("a file");
    assert_eq!(digest(&fetched), digest(&image), "{} bytes", fetched.len());
    lab.frontend.rocks("remove host boot compute-90-0");
    assert_eq!(fetch(worker, &config), None);
}

#[test]
fn a_machine_says_which_firmware_it_has_and_is_given_that_ones_boot_files() {
    let lab = lab("uefi");
    let front = &lab.frontend;
    lab.cluster("1@lab").ok().expect("a cluster");
    let worker = &lab.workers[0];
    lease(worker.netns(), DEVICE, &[]);
    let machine = behind(worker, "blank", STRANGER);
    front.machine.run("mkdir /tftpboot/pxelinux/ipop");
    for (file, text) in [
        (
            "boot.ipxe",
            "kernel ${from}vmlinuz initrd=initrd initrd=own panic=10 || reboot\n",
        ),
        ("vmlinuz", "the kernel"),
    ] {
        front
            .machine
            .write(&format!("/tftpboot/pxelinux/ipop/{file}"), 0o644, text);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pxe/rocks-worker");
    let script = fs::read_to_string(script).expect("a script");
    front.machine.write("/root/rocks-worker", 0o755, &script);
    front.machine.run(&format!(
        "PATH=/opt/rocks/bin:$PATH /root/rocks-worker add compute-80-0 {STRANGER} 10.1.80.2"
    ));
    // Option 93 (RFC 4578 section 2.1): 7 is UEFI on x86-64, 0 a BIOS. Who says nothing has a BIOS.
    for (words, file) in [
        (&["-x", "0x5d:0007"][..], "uefi.cfg/shim.efi"),
        (&["-x", "0x5d:0000"], "pxelinux.0"),
        (&[], "pxelinux.0"),
    ] {
        let given = Lease {
            boot_file: file.to_owned(),
            ..compute("compute-80-0", "10.1.80.2", "1400")
        };
        assert_eq!(lease(&machine, "eth0", words), given, "{words:?}");
    }
    // A worker of the deployment, and Rocks' own machine beside the front end, as well.
    let worker = lease(worker.netns(), DEVICE, &["-x", "0x5d:0007"]);
    assert_eq!(worker.boot_file, "uefi.cfg/shim.efi");
    let own = lease(&front.compute, "eth0", &["-x", "0x5d:0007"]);
    assert_eq!(own.boot_file, "uefi.cfg/shim.efi");

    // A worker brings no LAN: a machine behind it is let ask for an address, and not use it.
    machine.address("eth0", "10.1.80.2/16");
    let pings = machine.output(&["ping", "-c", "1", "-W", "2", PRIVATE]);
    assert!(!pings.status.success(), "{pings:?}");
    let text = "comes from 10.1.80.2, which is not an address of its node";
    wait_alarm(&front.machine, "worker-0", text);

    // Each boot loader is told of the same kernel in its own words, and gets it under that name.
    let text = |path: &str| {
        let file = fetch(lab.workers[0].netns(), path).unwrap_or_else(|| panic!("no {path}"));
        String::from_utf8(file).expect("text")
    };
    let grub = text("uefi.cfg/grub.cfg-0A015002");
    assert!(
        grub.contains("     linuxefi vmlinuz-ipop panic=10 "),
        "{grub}"
    );
    assert!(grub.contains("     initrdefi ipop/initrd \n"), "{grub}");
    let pxelinux = text("pxelinux.cfg/0A015002");
    assert!(pxelinux.contains("\tkernel vmlinuz-ipop\n"), "{pxelinux}");
    assert!(pxelinux.contains(" initrd=ipop/initrd\n"), "{pxelinux}");
    assert_eq!(text("vmlinuz-ipop"), "the kernel");
    // Rocks' own machines boot from their disks, as before.
    assert!(text("uefi.cfg/grub.cfg-0A01FFFE").contains("     exit "));
    assert!(text("uefi.cfg/grub.cfg-0A018002").contains("     exit "));
    lab.ok(&["destroy", &lab.name]);
    assert_eq!(
        front.file("tftpboot/pxelinux/uefi.cfg/grub.cfg-0A018002"),
        ""
    );
}

#[test]
fn a_dhcp_server_on_a_worker_is_not_heard_beside_the_front_end_and_named_there() {
    let lab = lab("rogue");
    lab.cluster("1@lab").ok().expect("a cluster");
    let [front, worker] = [&lab.frontend.machine, &lab.workers[0]];
    lease(worker.netns(), DEVICE, &[]);
    // Its own node keeps it in.
    let rogue = Rogue::start(worker);
    rogue.serves();
    wait_alarm(worker, "the LAN", NOT_ALLOWED);
    drop(rogue);

    // One who is root on the worker lets it out.
    let device = || {
        let path = format!("/sys/class/net/{DEVICE}/ifindex");
        worker.netns().output(&["cat", &path]).stdout
    };
    let old = device();
    worker.run(
        "sed -i '/^.switch.dhcp.$/,/^$/ s/frontend-0/worker-0/' /etc/ipop-node/*/ipop.config \
         && kill $(pidof ipop-node)",
    );
    wait_until("the worker's node to be another one", PATIENCE, || {
        (device() != old && worker.netns().reaches(PRIVATE)).then_some(())
    });
    let rogue = Rogue::start(worker);
    let compute = &lab.frontend.compute;
    let capture = Capture::start(compute, "eth0");
    rogue.serves();
    let alarm = wait_alarm(front, "worker-0", NOT_ALLOWED);
    assert!(alarm.trouble.starts_with(ROGUE), "{alarm:?}");
    // Nor has it an address there. The worker's own frames do come.
    assert!(!rogue.server.reaches("10.1.255.254"));
    wait_until("the worker's ping", PATIENCE, || {
        worker.netns().reaches("10.1.255.254").then_some(())
    });
    let frames = capture.finish();
    let of = |mac: [u8; 6]| frames.iter().filter(move |frame| frame[6..12] == mac);
    assert!(of([2, 0x49, 0x0a, 1, 0x80, 2]).count() > 0);
    // It may ask, by IPv6, whether an address is free.
    let mut rogues = of([2, 0, 0, 0, 7, 2]).filter(|frame| frame[12..14] != [0x86, 0xdd]);
    assert_eq!(rogues.next(), None);

    // Nor is it asked when the front end's own does not answer.
    front.run("kill -9 $(cat /run/dhcpd.pid)");
    assert_eq!(dhcp::ask(compute, "eth0", &["-B"]), None);
    rogue.serves();
}

/// A DHCP server that nobody asked for and who believes it, both behind a worker's node.
struct Rogue {
    client: Netns,
    // Before the machine that it runs on.
    _program: Dnsmasq,
    server: Netns,
}

/// MAC address of the machine that the server runs on.
const ROGUE: &str = "02:00:00:00:07:02";
/// What the server does.
const SERVES: &str = "port=0\ninterface=eth0\nbind-interfaces\nno-ping\ndhcp-authoritative\n\
                      dhcp-range=10.1.77.100,10.1.77.109,1h\n";

impl Rogue {
    fn start(worker: &Machine) -> Self {
        let server = behind(worker, "rogue", ROGUE);
        server.address("eth0", "10.1.77.1/16");
        Self {
            client: behind(worker, "local", STRANGER),
            _program: Dnsmasq::start(&server, SERVES),
            server,
        }
    }

    /// It answers who is near it, so that everybody hears.
    fn serves(&self) {
        let Lease { server, .. } = lease(&self.client, "eth0", &["-B"]);
        assert_eq!(server, "10.1.77.1");
    }
}

#[test]
fn a_configuration_that_dhcpd_refuses_fails_the_command_and_the_server_goes_on_until_all_ends() {
    let room = Room::new("refuse");
    let front = Frontend::new(&room, double(), MachineOptions::default());
    let served = compute("compute-0-0", "10.1.255.254", "1500");
    assert_eq!(lease(&front.compute, "eth0", &[]), served);
    let mut tables = front.tables();
    tables.networks[0].zone = "no\"good".to_owned();
    front.database().write(&tables).expect("written");
    let output = front.machine.output("/opt/rocks/bin/rocks sync config");
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("error - dhcpd is not started again")
            && said.contains("/etc/dhcp/dhcpd.conf line"),
        "{said}"
    );
    assert_eq!(lease(&front.compute, "eth0", &[]), served);

    let netns = front.machine.netns().name().to_owned();
    let pids = front.machine.netns().run(&["ip", "netns", "pids", &netns]);
    let is_server = |pid: &&str| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        ["dhcpd\n", "in.tftpd\n"].contains(&name.as_str())
    };
    let servers: Vec<_> = pids.lines().filter(is_server).collect();
    assert_eq!(servers.len(), 2, "{pids}");
    drop(front);
    wait_until("the servers to end", PATIENCE, || {
        (!servers.iter().any(is_server)).then_some(())
    });
}
