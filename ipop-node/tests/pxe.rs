//! A machine that has nothing to boot from, on a LAN that a node is the gateway of, boots from a front
//! end that is somewhere else. Needs root, and the packages that the modules name.

#[expect(dead_code, reason = "shared with other tests")]
mod lans;
mod netboot;

use std::iter;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ipop_proto::status::DropReason;
use ipop_testbed::wait_until;

use lans::{Lans, Node};
use netboot::frontend::FrontEnd;
use netboot::machine::{Firmware, Machine};
use netboot::web::Request;
use netboot::{Worker, ballast, cache};

/// How long a machine may take from when it is switched on until it is done, emulated on a machine
/// that is busy.
const BOOT_PATIENCE: Duration = Duration::from_secs(600);
/// Which of the LANs has the front end,
const FRONT_END: usize = 0;
/// and which has nothing but a gateway.
const GATEWAY: usize = 1;
/// What the front end knows: a machine,
const WORKER: Worker = Worker {
    mac: "02:00:00:00:03:01",
    address: "10.1.0.101",
    name: "compute-0-0",
};
/// and two that are at a site with a cache.
const CACHED: [Worker; 2] = [
    Worker {
        mac: "02:00:00:00:03:02",
        address: "10.1.0.102",
        name: "compute-1-0",
    },
    Worker {
        mac: "02:00:00:00:03:03",
        address: "10.1.0.103",
        name: "compute-1-1",
    },
];
/// Bytes of a frame with 1500 bytes inside.
const FULL: usize = 1514;

#[test]
fn a_blank_machine_with_bios_boots_from_a_front_end_elsewhere() {
    boots(Firmware::Bios, &["boot.ipxe"]);
}

#[test]
fn a_blank_machine_with_uefi_boots_from_a_front_end_elsewhere() {
    let by_tftp = [
        "grubnetx64.efi",
        "grub/grub.cfg",
        "grub/x86_64-efi/http.mod",
    ];
    let heard = boots(Firmware::Uefi, &by_tftp);
    assert!(heard.iter().any(|frame| is_full_tftp_block(frame)));
}

#[test]
fn what_machines_boot_crosses_the_overlay_once_when_their_gateway_has_a_cache() {
    let lans = linked();
    let [front_end, gateway] = [FRONT_END, GATEWAY].map(|at| &lans.nodes[at]);
    let services = FrontEnd::start(&front_end.netns);
    let _cache = cache::Cache::start(&gateway.netns);
    let files = ["vmlinuz", "initrd"].map(|name| services.size(name));
    let sent = CACHED.map(|worker| {
        let before = front_end.peer().tx_bytes;
        let _machine = boot(gateway, Firmware::Bios, worker);
        has_joined(&services, worker);
        front_end.peer().tx_bytes - before
    });
    let cache: IpAddr = cache::ADDRESS.parse().expect("an address");
    let requests = services.web.requests();
    for name in ["/vmlinuz", "/initrd"] {
        let asked = requests.iter().filter(|request| request.target == name);
        let asked: Vec<_> = asked.map(|request| request.client).collect();
        assert_eq!(asked, [cache], "{name}");
    }
    let [first, second] = sent;
    let all = files.iter().sum::<u64>();
    assert!(
        first > all && second < all / 10,
        "{first} and {second} of {all}"
    );
}

/// The two LANs, and who may serve DHCP.
fn linked() -> Lans {
    let guards = "[switch.dhcp]\nnode = \"node-0\"\n[switch.router]\nnode = \"node-0\"\n";
    Lans::linked(&[guards; 2])
}

/// Has a machine run on a node's LAN until it is done. While it is kept, it tells on a failure how far
/// it came.
fn boot(node: &Node, firmware: Firmware, worker: Worker) -> Machine {
    let mut machine = Machine::start(&node.netns, firmware, worker.mac);
    wait_until("a machine that is done", BOOT_PATIENCE, || {
        machine.is_off().then_some(())
    });
    machine
}

/// Boots a machine, which gets these files by TFTP. What its LAN heard from the overlay.
fn boots(firmware: Firmware, by_tftp: &[&str]) -> Vec<Vec<u8>> {
    let lans = linked();
    let wires = [FRONT_END, GATEWAY].map(|at| lans.wire(at));
    let services = FrontEnd::start(&lans.nodes[FRONT_END].netns);
    let _machine = boot(&lans.nodes[GATEWAY], firmware, WORKER);

    for name in by_tftp {
        assert!(services.has_sent(name, WORKER.address), "{name} by TFTP");
    }
    let requests = services.web.requests();
    for name in ["vmlinuz", "initrd"] {
        let target = format!("/{name}");
        let request = requests.iter().find(|request| request.target == target);
        assert_eq!(
            request.and_then(|request| request.served),
            Some(services.size(name))
        );
    }
    has_joined(&services, WORKER);

    let heard = wires.map(|wire| iter::from_fn(|| wire.heard()).collect::<Vec<_>>());
    for (at, dhcp_port) in [(FRONT_END, 67), (GATEWAY, 68)] {
        let is_dhcp = |frame: &Vec<u8>| udp_port(frame) == Some(dhcp_port);
        assert!(heard[at].iter().any(is_dhcp), "no DHCP at {at}");
        let is_full = |frame: &Vec<u8>| frame.len() >= FULL;
        assert!(heard[at].iter().any(is_full), "no full frames at {at}");
        let for_size = [DropReason::TooBig, DropReason::SendFailed];
        for reason in for_size {
            for from in [None, Some(1 - at)] {
                let dropped = lans.dropped(at, from, reason);
                assert_eq!(dropped, 0, "{reason:?} at {at}, from {from:?}");
            }
        }
    }
    let [_, heard] = heard;
    heard
}

/// A machine had its address and name, and what it sent and read once it ran was whole.
fn has_joined(services: &FrontEnd, worker: Worker) {
    let Worker { mac, address, name } = worker;
    let leased = format!("DHCPACK(br0) {address} {mac} {name}");
    assert!(services.dnsmasq.log().contains(&leased), "no {leased}");
    let client: IpAddr = address.parse().expect("an address");
    let requests = services.web.requests();
    let posted = |target: &str| {
        let is_it = |request: &&Request| {
            (request.client, &*request.method, &*request.target) == (client, "POST", target)
        };
        requests.iter().find(is_it).map(|request| &request.body[..])
    };
    let sent = posted("/ballast");
    assert!(
        sent == Some(ballast().as_bytes()),
        "{:?} bytes",
        sent.map(<[u8]>::len)
    );
    let joined = String::from_utf8_lossy(posted("/joined").expect("a worker"));
    let kernel = sha256(&services.file("vmlinuz"));
    assert_eq!(joined, format!("{name} {mac} {kernel}"));
}

/// Where a frame's UDP datagram goes to, over IPv4 without options.
fn udp_port(frame: &[u8]) -> Option<u16> {
    let is_udp = frame.len() >= 42 && frame[12..15] == [8, 0, 0x45] && frame[23] == 17;
    is_udp.then(|| u16::from_be_bytes([frame[36], frame[37]]))
}

/// DATA of TFTP (RFC 1350), with 1468 bytes of a file.
fn is_full_tftp_block(frame: &[u8]) -> bool {
    udp_port(frame).is_some() && frame.len() == FULL && frame[42..44] == [0, 3]
}

fn sha256(path: &Path) -> String {
    let sum = Command::new("sha256sum").arg(path).output();
    let said = String::from_utf8(sum.expect("it runs").stdout).expect("text");
    said.split_whitespace().next().expect("a sum").to_owned()
}
