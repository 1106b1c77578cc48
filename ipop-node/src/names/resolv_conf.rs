//! A `nameserver` line of ours in resolv.conf(5).

use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;

/// The comment before our line: the C library takes no other text on a line of its own.
const MARK: &str = "# ipop-node: ";

/// `text` with one line that has the resolver ask `server` first for the names in `domain`.
///
/// Of servers for all names the C library knows three. If there are three, the last one is asked no more.
pub(super) fn with(text: &str, domain: &str, server: IpAddr) -> String {
    let rest = without(text, domain);
    format!("{MARK}{domain}\nnameserver {server}\n{rest}")
}

/// `text` without our line for `domain`; everything else is as it was.
pub(super) fn without(text: &str, domain: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        if line.strip_prefix(MARK).map(str::trim_end) == Some(domain) {
            lines.next_if(|next| next.starts_with("nameserver "));
            continue;
        }
        kept.push_str(line);
    }
    kept
}

/// Writes the file where it is: containers mount it, which cannot be renamed, and elsewhere it is a link.
/// It is at no moment empty, also if this is killed.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const FILE: &str = "# by hand\nsearch example.org\nnameserver 192.0.2.1\noptions timeout:1";

    #[test]
    fn our_server_is_asked_first_and_all_else_stays() {
        let ours = Ipv4Addr::new(127, 0, 73, 1).into();
        let with_ours = with(FILE, "demo.ipop", ours);
        assert_eq!(
            with_ours,
            format!("# ipop-node: demo.ipop\nnameserver 127.0.73.1\n{FILE}")
        );
        assert_eq!(with(&with_ours, "demo.ipop", ours), with_ours);
        assert_eq!(without(&with_ours, "demo.ipop"), FILE);
    }

    #[test]
    fn another_address_takes_the_place_of_the_first_and_another_overlay_has_its_own() {
        let first = with(FILE, "demo.ipop", Ipv4Addr::new(127, 0, 73, 1).into());
        let moved = with(&first, "demo.ipop", Ipv4Addr::new(127, 0, 73, 2).into());
        assert_eq!(moved.matches("nameserver 127").count(), 1);
        let two = with(&moved, "lake.ipop", Ipv4Addr::new(127, 0, 73, 1).into());
        assert_eq!(
            without(&two, "demo.ipop").matches("nameserver 127").count(),
            1
        );
        assert_eq!(without(&without(&two, "demo.ipop"), "lake.ipop"), FILE);
    }

    #[test]
    fn a_mark_whose_line_somebody_took_away_takes_nothing_with_it() {
        let text = "# ipop-node: demo.ipop\nsearch example.org\nnameserver 192.0.2.1\n";
        assert_eq!(
            without(text, "demo.ipop"),
            "search example.org\nnameserver 192.0.2.1\n"
        );
    }
}
