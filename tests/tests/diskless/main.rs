//! A machine with nothing but a network card, at a site that has nothing but a gateway, becomes a
//! worker of a front end somewhere else and runs its jobs. Needs root, and what the modules name, and
//! `tcpdump`; three machines are emulated, which takes minutes.

mod frontend;
mod guest;
mod node;
mod rocks;

use std::net::Ipv4Addr;
use std::time::Duration;

use ipop_proto::status::DropReason;
use ipop_tests::capture::Capture;
use ipop_tests::dhcp;
use ipop_tests::netns::Netns;
use ipop_tests::wait_until;
use provisioner::error::ExitCode;

use frontend::{Bridge, FrontEnd};
use guest::{BOOT, Card, Guest, print_split};
use node::{BRIDGE, Gateway, Identity, Node};
use rocks::Rocks;

/// The machine.
const MAC: &str = "02:00:00:00:03:01";
/// The address that it has from a Rocks front end.
const ROCKS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 80, 2);
/// Bytes of a frame with 1500 bytes inside.
const FULL: usize = 1514;

#[test]
fn a_blank_machine_at_another_site_becomes_a_worker_and_runs_a_job() {
    let [own, lab] = ["lake", "lab"].map(Bridge::new);
    // Nothing is made where something is not there.
    let nowhere = FrontEnd::new(&frontend::sites(own.name(), "ipop-no-bridge"));
    let refused = nowhere.launch();
    refused.expect_code(ExitCode::Missing as i32);
    assert!(
        refused.stderr.contains("no bridge `ipop-no-bridge`"),
        "{}",
        refused.stderr
    );
    let front_end = FrontEnd::new(&frontend::sites(own.name(), lab.name()));
    front_end.launch().expect_code(0);
    // The gateway's LAN, which blank machines are on.
    let site = Netns::new("lab");
    site.run(&["ip", "link", "add", BRIDGE, "type", "bridge"]);
    site.run(&["ip", "link", "set", BRIDGE, "up"]);
    lab.plug(&site, "lan");
    site.run(&["ip", "link", "set", "lan", "master", BRIDGE]);

    // One who stands on the LAN and was not added: neither is anything told to it, nor exported.
    let stranger = Netns::new("stranger");
    stranger.cable("eth0", &site, "stranger");
    site.run(&["ip", "link", "set", "stranger", "master", BRIDGE]);
    stranger.address("eth0", "10.1.0.77/24");

    front_end.give_boot_files();
    front_end.until("test -s /etc/munge/munge.key");
    front_end.run("useradd ann");
    let added = front_end.run(&format!("ipop-machine add {MAC}"));
    assert_eq!(added, format!("compute-0-0 {MAC} 10.1.0.97\n"));

    let card = [Card {
        mac: MAC,
        bridge: BRIDGE,
    }];
    let mut machine = Guest::start("blank", &site, &card, 1024);
    let capture = Capture::start_where(
        &site,
        &machine.tap(0),
        // Of full frames one in 256: they are tens of thousands.
        &["udp port 67 or (greater 1514 and ip[5] = 0)"],
    );
    let mut split = machine.stages(&[
        ("firmware", "Configuring (net0"),
        ("DHCP", "boot.ipxe"),
        ("files", "Probing EDD"),
        ("kernel, root unpacked", "Welcome to"),
        ("services", "ipop: network"),
        ("Slurm has it", "ipop: ready"),
    ]);
    let job = "su - ann -c 'srun sh -c \"hostname; id -un; pwd\"'";
    assert_eq!(front_end.run(job), "compute-0-0\nann\n/home/ann\n");
    split.push(("job", machine.age()));
    print_split(&split);

    let frames = capture.finish();
    assert!(
        frames.iter().any(|frame| frame.len() == FULL),
        "no full frame"
    );
    assert!(frames.iter().any(|frame| is_dhcp(frame)), "no DHCP");
    let status = front_end.gateway();
    for reason in [DropReason::TooBig, DropReason::SendFailed] {
        let [own, of_peer] = [&status.drops, &status.peers[0].drops]
            .map(|drops| drops.get(&reason).copied().unwrap_or_default());
        assert_eq!((own, of_peer), (0, 0), "{reason:?}");
    }

    nobody_else_is_given_anything(&front_end, &stranger);
    // Nor to one with an address that workers with a node have.
    stranger.address("eth0", "10.1.0.140/24");
    let ping = [
        "ping",
        "-c",
        "1",
        "-W",
        "3",
        "-I",
        "10.1.0.140",
        frontend::ADDRESS,
    ];
    assert!(!stranger.output(&ping).status.success(), "it is a worker");

    // Removed is forgotten, once what ran there has ended.
    assert_eq!(
        front_end.run(REMOVAL),
        "allocated\ndraining\n/home/ann/done\n"
    );
    let refused = front_end.run("cat /run/refused");
    assert!(
        refused.contains("jobs still run on compute-0-0: 2;"),
        "{refused}"
    );
    assert_eq!(
        front_end.run("ipop-machine list; ls /srv/boot/machines"),
        ""
    );
    assert_eq!(front_end.run("sinfo --noheader --Node --format %N"), "");
    let exported = front_end.run("exportfs");
    assert!(!exported.contains("10.1.0.97"), "{exported}");
    front_end.destroy();
}

/// The same machine, by what Rocks has: ISC dhcpd, tftpd-hpa, pxelinux, `/export`, Slurm as a roll.
#[test]
fn a_blank_machine_at_another_site_becomes_a_worker_of_a_rocks_front_end_and_runs_a_job() {
    let [front, gate] =
        [("frontend", 1), ("gateway", 2)].map(|(name, end)| Identity::new(name, end));
    let rocks = Rocks::new(ROCKS_ADDRESS);
    let site = rocks.frontend.machine.netns();
    let netns = Netns::new("gateway");
    netns.cable("eth0", site, "wan");
    let _node = Node::start(site, "wan", &front, &gate);
    let gateway = Gateway::start(netns, &gate, &front);
    wait_until("the link", BOOT, || gateway.node.is_linked().then_some(()));

    rocks.run("rocks-worker publish");
    rocks.run(&format!(
        "rocks-worker add compute-80-0 {MAC} {ROCKS_ADDRESS}"
    ));
    let card = [Card {
        mac: MAC,
        bridge: BRIDGE,
    }];
    let mut machine = Guest::start("blank", &gateway.netns, &card, 1024);
    let capture = Capture::start_where(&gateway.netns, &machine.tap(0), &["udp dst port 69"]);
    let mut split = machine.stages(&[
        ("firmware", "Configuring (net0"),
        ("DHCP", "PXELINUX"),
        ("files", "Probing EDD"),
        ("kernel, root unpacked", "Welcome to"),
        ("services", "ipop: network"),
        ("Slurm has it", "ipop: ready"),
    ]);
    let job = rocks.as_ann(r#"srun sh -c "hostname; id -un; pwd; hostname >from-job""#);
    assert_eq!(job, "compute-80-0\nann\n/home/ann\n");
    split.push(("job", machine.age()));
    print_split(&split);
    // What it wrote is where Rocks keeps homes, and its user's.
    let written = "stat --format %U /export/home/ann/from-job";
    assert_eq!(rocks.run(written), "ann\n");
    // It asked for these by TFTP.
    let asked: Vec<String> = capture
        .finish()
        .iter()
        .map(|frame| asked_for(frame))
        .collect();
    for file in [
        "pxelinux.0",
        "pxelinux.cfg/0A015002",
        "vmlinuz-ipop",
        "ipop/initrd",
    ] {
        assert!(asked.iter().any(|asked| asked == file), "{file}: {asked:?}");
    }
}

/// The file that a read request of TFTP is for (RFC 1350 section 5), in a frame.
fn asked_for(frame: &[u8]) -> String {
    const OPCODE: usize = 14 + 20 + 8;
    let name = frame.get(OPCODE + 2..).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// The scheduler's key is told to nobody by the shared folders, and what a machine boots to nobody who
/// does not know its token.
fn nobody_else_is_given_anything(front_end: &FrontEnd, stranger: &Netns) {
    let address = frontend::ADDRESS;
    assert_eq!(dhcp::ask(stranger, "eth0", &[]), None);
    let ask = |path: &str| {
        let url = format!("http://{address}{path}");
        let words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", &url];
        String::from_utf8_lossy(&stranger.output(&words).stdout).into_owned()
    };
    assert_eq!(ask("/worker/boot.ipxe"), "200");
    for path in ["/machines/", "/machines/compute-0-0/own"] {
        assert_eq!(ask(path), "404", "{path}");
    }
    let timeout = Duration::from_secs(3);
    for port in [2049, 6817] {
        let at = std::net::SocketAddr::new(address.parse().expect("an address"), port);
        let connected = stranger.inside(|| std::net::TcpStream::connect_timeout(&at, timeout));
        assert!(connected.is_err(), "{port} is open");
    }
    let on_machine =
        "ssh compute-0-0 'test -s /etc/munge/munge.key && ! cat /srv/cluster/munge.key'";
    front_end.run(on_machine);
}

/// A job runs: the machine stays where that may not end, and otherwise goes after it. Prints what Slurm
/// says of it meanwhile, and what the job leaves.
const REMOVAL: &str = r#"
set -eu
# Without the mark of one that is slow to answer.
state() { sinfo --noheader --nodes=compute-0-0 --format=%T | tr -d '*'; }
su - ann -c "sbatch --quiet --output=/dev/null --wrap 'until [ -e go ]; do sleep 0.5; done; touch done'"
until [ "$(squeue --noheader --nodelist=compute-0-0 --states=running | wc -l)" = 1 ]; do sleep 0.5; done
! ipop-machine remove --drain-timeout 0 compute-0-0 2>/run/refused
state
ipop-machine remove compute-0-0 2>/run/removal &
until grep -q 'waits for jobs to end: 2$' /run/removal; do sleep 0.5; done
state
touch /home/ann/go
wait $!
ls /home/ann/done
"#;

/// What a DHCP server sends.
fn is_dhcp(frame: &[u8]) -> bool {
    frame.len() > 36 && frame[12..14] == [8, 0] && frame[23] == 17 && frame[34..36] == [0, 67]
}
