//! Who reads a queue of the device. While there is little to read, the thread that receives does it
//! beside its sockets: an answer to what it has just delivered is then sent without waking anybody,
//! and on the processor that has everything at hand. Once there is much to do, for either of them, a
//! thread of its own does it, until there is little again.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd, poll};

use super::outbound::Outbound;

/// What `epoll` gives for the queue.
pub const DEVICE: u64 = u64::MAX - 1;

/// Most packets of one round that are little.
const FEW: usize = 16;
/// Most bytes of them: less than a super-packet of a stream under way.
const FEW_BYTES: usize = 16 * 1024;
/// For how long there must be little to do until the thread is off duty.
const QUIET: Duration = Duration::from_millis(10);

/// One queue and its two threads.
pub struct Duty {
    outbound: Mutex<Outbound>,
    /// Whether the thread of its own reads the queue. Only the receiving one says that it is to,
    /// only the other that it no longer does, and while it holds `outbound`.
    on_duty: AtomicBool,
    /// Tells that thread to begin.
    begin: OwnedFd,
    /// Where the receiving thread waits.
    epoll: Arc<OwnedFd>,
}

impl Duty {
    /// The receiving thread, which waits at `epoll`, reads the queue first.
    pub fn new(outbound: Outbound, epoll: Arc<OwnedFd>) -> io::Result<Self> {
        let duty = Self {
            outbound: Mutex::new(outbound),
            on_duty: AtomicBool::new(false),
            begin: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            epoll,
        };
        duty.attend(&duty.lock())?;
        Ok(duty)
    }

    /// For the receiving thread: the queue can be read.
    pub fn readable(&self) -> io::Result<()> {
        if self.on_duty.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut outbound = self.lock();
        outbound.refresh();
        let round = outbound.round(FEW, FEW_BYTES)?;
        if !round.is_dry || outbound.is_kept_waiting() {
            self.hand_over(&outbound)?;
        }
        Ok(())
    }

    /// For the receiving thread: it has much to do itself.
    pub fn is_late(&self) -> io::Result<()> {
        if self.on_duty.load(Ordering::Acquire) {
            return Ok(());
        }
        self.hand_over(&self.lock())
    }

    /// The thread of its own; runs until `stop` can be read, or the device is gone: then why.
    pub fn run(&self, stop: &OwnedFd) -> io::Result<()> {
        loop {
            let mut fds = [
                PollFd::new(stop, PollFlags::IN),
                PollFd::new(&self.begin, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            rustix::io::read(&self.begin, &mut [0; 8])?;
            let mut outbound = self.lock();
            if outbound.work(stop)? {
                return Ok(());
            }
            self.attend(&outbound)?;
            self.on_duty.store(false, Ordering::Release);
        }
    }

    /// The receiving thread sees from now on when the queue can be read.
    fn attend(&self, outbound: &MutexGuard<'_, Outbound>) -> io::Result<()> {
        let event = epoll::EventData::new_u64(DEVICE);
        let queue = outbound.queue().as_fd();
        Ok(epoll::add(
            &self.epoll,
            queue,
            event,
            epoll::EventFlags::IN,
        )?)
    }

    fn hand_over(&self, outbound: &MutexGuard<'_, Outbound>) -> io::Result<()> {
        // Removed and not only silenced: a device that is gone makes itself heard in any case.
        epoll::delete(&self.epoll, outbound.queue().as_fd())?;
        self.on_duty.store(true, Ordering::Release);
        rustix::io::write(&self.begin, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much there is to do, by stretches of [`QUIET`].
pub struct Load {
    since: Instant,
    packets: usize,
    bytes: usize,
}

impl Load {
    /// From now on.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            packets: 0,
            bytes: 0,
        }
    }

    /// So much was done.
    pub fn add(&mut self, packets: usize, bytes: usize) {
        self.packets += packets;
        self.bytes += bytes;
    }

    /// Whether there was little to do in a whole stretch of time until `now`.
    pub fn is_little(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) < QUIET {
            return false;
        }
        let Self { packets, bytes, .. } = std::mem::replace(self, Self::new(now));
        packets <= FEW && bytes <= FEW_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_stretch_with_little_to_do_is_waited_for() {
        let start = Instant::now();
        let mut load = Load::new(start);
        load.add(FEW, FEW_BYTES);
        assert!(!load.is_little(start + QUIET / 2));
        assert!(load.is_little(start + QUIET));
        for (packets, bytes) in [(FEW + 1, 0), (1, FEW_BYTES + 1)] {
            let mut load = Load::new(start);
            load.add(packets, bytes);
            assert!(!load.is_little(start + QUIET), "{packets} {bytes}");
            assert!(!load.is_little(start + QUIET * 3 / 2), "it counts anew");
            assert!(load.is_little(start + QUIET * 2), "{packets} {bytes}");
        }
    }
}
