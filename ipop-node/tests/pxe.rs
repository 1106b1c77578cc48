//! A machine that has nothing to boot from, on a LAN that a node is the gateway of, boots from a front
//! end that is somewhere else. Needs root, and the packages that the modules name.

#[expect(dead_code, reason = "shared with other tests")]
mod lans;
mod netboot;

use std::iter;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use ipop_proto::status::DropReason;
use ipop_testbed::wait_until;

use lans::Lans;
use netboot::frontend::FrontEnd;
use netboot::machine::{Firmware, Machine};
use netboot::web::Request;
use netboot::{WORKER, WORKER_MAC, WORKER_NAME, ballast};

/// How long a machine may take from when it is switched on until it is done, emulated on a machine
/// that is busy.
const BOOT_PATIENCE: Duration = Duration::from_secs(600);
/// Which of the LANs has the front end,
const FRONT_END: usize = 0;
/// and which has nothing but a gateway.
const GATEWAY: usize = 1;
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

/// Boots a machine, which gets these files by TFTP. What its LAN heard from the overlay.
fn boots(firmware: Firmware, by_tftp: &[&str]) -> Vec<Vec<u8>> {
    let guards = "[switch.dhcp]\nnode = \"node-0\"\n";
    let lans = Lans::linked(&[guards; 2]);
    let places = [FRONT_END, GATEWAY].map(|at| &lans.nodes[at].netns);
    let wires = [FRONT_END, GATEWAY].map(|at| lans.wire(at));
    let front_end = FrontEnd::start(places[FRONT_END]);
    let mut machine = Machine::start(places[GATEWAY], firmware, WORKER_MAC);
    wait_until("a machine that is done", BOOT_PATIENCE, || {
        machine.is_off().then_some(())
    });

    is_served(&front_end, by_tftp);
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

/// The machine had its address and name, all files came whole, and so did what it sent once it ran.
fn is_served(front_end: &FrontEnd, by_tftp: &[&str]) {
    let leased = format!("DHCPACK(br0) {WORKER} {WORKER_MAC} {WORKER_NAME}");
    assert!(front_end.dnsmasq.log().contains(&leased), "no {leased}");
    for name in by_tftp {
        assert!(front_end.has_sent(name, WORKER), "{name} by TFTP");
    }
    let requests = front_end.web.requests();
    let worker: IpAddr = WORKER.parse().expect("an address");
    assert!(requests.iter().all(|request| request.client == worker));
    let asked = |method: &str, target: &str| {
        let is_it = |request: &&Request| request.method == method && request.target == target;
        requests.iter().find(is_it)
    };
    for name in ["vmlinuz", "initrd"] {
        let size = front_end.file(name).metadata().expect("a file").len();
        let served = asked("GET", &format!("/{name}")).and_then(|request| request.served);
        assert_eq!(served, Some(size), "{name}");
    }
    let sent = asked("POST", "/ballast").map(|request| &request.body[..]);
    assert!(
        sent == Some(ballast().as_bytes()),
        "{:?} bytes",
        sent.map(<[u8]>::len)
    );
    let joined = asked("POST", "/joined").map(|request| &request.body[..]);
    let joined = String::from_utf8_lossy(joined.expect("a worker"));
    let kernel = sha256(front_end, "vmlinuz");
    assert_eq!(joined, format!("{WORKER_NAME} {WORKER_MAC} {kernel}"));
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

fn sha256(front_end: &FrontEnd, name: &str) -> String {
    let sum = Command::new("sha256sum").arg(front_end.file(name)).output();
    let said = String::from_utf8(sum.expect("it runs").stdout).expect("text");
    said.split_whitespace().next().expect("a sum").to_owned()
}
