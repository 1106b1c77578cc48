//! Two TAP devices and a bridge between them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use ipop_datapath::vnet::VnetHdr;

/// For a packet to come through; then it is taken for lost.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Bridge {
    /// Takes super-packets.
    input: File,
    /// Gives packets.
    output: File,
}

impl Bridge {
    /// Runs `test` in a network namespace with a bridge.
    pub fn with(test: impl FnOnce(&Self) + Send) {
        std::thread::scope(|scope| {
            let in_namespace = || {
                // SAFETY: no memory is involved; only this thread, made for that, goes elsewhere.
                let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
                assert_eq!(unshared, 0, "needs root, for a network namespace");
                test(&Self::new());
            };
            if let Err(panic) = scope.spawn(in_namespace).join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn new() -> Self {
        let input = tap("in0", libc::IFF_VNET_HDR);
        let output = tap("out0", 0);
        ip("link add br0 type bridge mcast_snooping 0 forward_delay 0 ageing_time 0");
        for device in ["in0", "out0"] {
            ip(&format!("link set {device} master br0"));
        }
        for device in ["in0", "out0", "br0"] {
            std::fs::write(
                format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"),
                "1",
            )
            .unwrap();
            ip(&format!("link set {device} up"));
        }
        Self { input, output }
    }

    /// Writes a packet to the one device and reads `count` from the other.
    pub fn pass(&self, vnet: &VnetHdr, packet: &[u8], count: usize) -> Vec<Vec<u8>> {
        (&self.input)
            .write_all(&[&vnet.to_bytes(), packet].concat())
            .unwrap();
        let mut buffer = vec![0; 70_000];
        let mut packets = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while packets.len() < count && Instant::now() < deadline {
            match (&self.output).read(&mut buffer) {
                // What is not from the other device is the bridge's own.
                Ok(len) if buffer[..len].get(6..12) == packet.get(6..12) => {
                    packets.push(buffer[..len].to_vec());
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("cannot read from the device: {error}"),
            }
        }
        packets
    }
}

fn tap(name: &str, flags: i32) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .unwrap();
    // `struct ifreq`: the name, then the flags, padded.
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | flags) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: `TUNSETIFF` reads and writes one `struct ifreq`, for which the buffer is large enough.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(
        set,
        0,
        "cannot make a TAP device: {}",
        std::io::Error::last_os_error()
    );
    file
}

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
