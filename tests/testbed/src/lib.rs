//! Network namespaces, an XMPP server, DHCP, Open vSwitch, a metadata service and guests' kernel of a test's own, for
//! the tests (`ipop-tests`, `ipop-node`) and the benchmark (`ipop-bench`).
//!
//! Apart from `ipop-tests`, because whoever needs only these should not have to build the
//! provisioner and what it needs for EC2.

pub mod dhcp;
pub mod dnsmasq;
pub mod ejabberd;
mod http;
pub mod imds;
pub mod kernel;
pub mod netns;
pub mod open_vswitch;

use std::time::{Duration, Instant};

/// Looks again and again until `look` gives something, and gives that.
///
/// # Panics
///
/// When `limit` has passed; `what` says what was waited for.
pub fn wait_until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
