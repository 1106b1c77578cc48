//! Who this installation is: the mark on everything it makes.

use std::path::Path;

use sha2::{Digest, Sha256};

/// 16 hex digits, the same for one user and state directory of one machine, whatever the state
/// directory contains.
pub fn mark(state_dir: &Path) -> String {
    let machine = ["/etc/machine-id", "/proc/sys/kernel/hostname"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .find(|text| !text.is_empty())
        .unwrap_or_default();
    let user = rustix::process::getuid().as_raw();
    let dir = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    hex(
        &[&machine, &user.to_string(), &dir.display().to_string()],
        8,
    )
}

/// The first `bytes` bytes of a hash of all parts, in hex digits.
pub(super) fn hex(parts: &[&str], bytes: usize) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        // With its length, so that no two lists of parts are the same bytes.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digest = digest.finalize();
    digest[..bytes].iter().map(|b| format!("{b:02x}")).collect()
}
