//! Small UDP packets: how many a second arrive. iperf3 sends one packet a system call and would
//! measure itself.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::failure::{During, Result};
use crate::stage::Stage;
use crate::tunnel::Ends;

/// Payload bytes of a packet.
pub const PAYLOAD: usize = 64;
/// What is offered, packets a second, one after the other; the last is without limit. A tunnel that
/// is offered far more than it can carry spends its time on dropping, so the best of them counts.
pub const OFFERED: [u64; 6] = [50_000, 100_000, 200_000, 400_000, 800_000, u64::MAX];

const PORT: u16 = 7007;
/// Packets of one system call.
const BATCH: usize = 64;
/// Bytes of the receiver's buffer, as the kernel counts them.
static BUFFER: libc::c_int = 16 << 20;
/// How often a paced sender wakes up.
const TICK: Duration = Duration::from_micros(500);

/// What one offered rate came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// Packets a second that were sent.
    pub sent: f64,
    /// Packets a second that arrived.
    pub received: f64,
}

/// Offers every rate for a share of `length`.
pub fn measure(stage: &Stage, ends: &Ends, length: Duration) -> Result<Vec<Step>> {
    let receiver = stage.sides[1].inside(|| {
        let socket = UdpSocket::bind(SocketAddrV4::new(ends.addresses[1], PORT))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        widen(&socket)?;
        Ok::<_, io::Error>(socket)
    });
    let receiver = receiver.during("UDP receiver")?;
    let sender = stage.sides[0].inside(|| {
        let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(SocketAddrV4::new(ends.addresses[1], PORT))?;
        Ok::<_, io::Error>(socket)
    });
    let sender = sender.during("UDP sender")?;
    let received = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| receive(&receiver, &received, &done));
        let share = length / OFFERED.len() as u32;
        let steps = OFFERED.map(|rate| {
            let before = received.load(Ordering::Relaxed);
            let began = Instant::now();
            let sent = send(&sender, rate, share);
            let seconds = began.elapsed().as_secs_f64();
            let arrived = received.load(Ordering::Relaxed) - before;
            // What is still in the tunnel's queues belongs to no step.
            std::thread::sleep(Duration::from_millis(100));
            Step {
                sent: sent as f64 / seconds,
                received: arrived as f64 / seconds,
            }
        });
        done.store(true, Ordering::Relaxed);
        Ok(steps.to_vec())
    })
}

/// Gives the receiver a buffer that no pause of a scheduler's length fills: what is measured is the
/// tunnel.
fn widen(socket: &UdpSocket) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of a live integer.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const BUFFER).cast(),
            size_of_val(&BUFFER) as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends for `length` and gives how many packets the kernel took.
fn send(socket: &UdpSocket, rate: u64, length: Duration) -> u64 {
    let payload = [0x5au8; PAYLOAD];
    let mut vector = libc::iovec {
        iov_base: payload.as_ptr().cast_mut().cast(),
        iov_len: PAYLOAD,
    };
    let mut messages: [libc::mmsghdr; BATCH] = std::array::from_fn(|_| empty(&raw mut vector));
    let began = Instant::now();
    let mut sent = 0u64;
    while began.elapsed() < length {
        let due = match rate {
            u64::MAX => u64::MAX,
            rate => (rate as f64 * began.elapsed().as_secs_f64()) as u64,
        };
        let now = due.saturating_sub(sent).min(BATCH as u64);
        if now == 0 {
            std::thread::sleep(TICK);
            continue;
        }
        // SAFETY: `messages`, their vector and its payload live through the call, which only reads
        // the payload.
        let taken = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                now as libc::c_uint,
                0,
            )
        };
        // A full queue is an error here; trying again at once is what a flood does.
        sent += u64::try_from(taken).unwrap_or_default();
    }
    sent
}

fn receive(socket: &UdpSocket, received: &AtomicU64, done: &AtomicBool) {
    let mut payload = [0u8; PAYLOAD];
    let mut vector = libc::iovec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: PAYLOAD,
    };
    // All into the same place: nobody looks at them.
    let mut messages: [libc::mmsghdr; BATCH] = std::array::from_fn(|_| empty(&raw mut vector));
    while !done.load(Ordering::Relaxed) {
        // SAFETY: `messages`, their vector and its payload live through the call; the payload is
        // written by nobody else meanwhile.
        let came = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        received.fetch_add(u64::try_from(came).unwrap_or_default(), Ordering::Relaxed);
    }
}

fn empty(vector: *mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: all zeros is a valid message header: no name, no control data, no vector yet.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = vector;
    message.msg_hdr.msg_iovlen = 1;
    message
}
