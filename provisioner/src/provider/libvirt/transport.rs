//! The way to a host's libvirt: the URI that libvirt is really given.
//!
//! For `qemu+ssh` libvirt runs the system's `ssh`, so that what is in `~/.ssh/config` holds. It
//! cannot be told of a file of host keys, nor of a time to wait, so it is given a small program
//! that runs `ssh` with them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::config::LibvirtSite;
use crate::error::CliError;

/// The URI and, where there has to be one, the program it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// URI for libvirt.
    pub uri: String,
    program: Option<(PathBuf, String)>,
}

impl Transport {
    /// For a site. Makes nothing.
    pub fn of(site: &LibvirtSite, cache: &Path) -> Self {
        let plain = Self {
            uri: site.uri.clone(),
            program: None,
        };
        let scheme = site.uri.split("://").next().unwrap_or_default();
        // Whoever names a command of his own knows what it does.
        if !scheme.ends_with("+ssh") || parameters(&site.uri).any(|(k, _)| k == "command") {
            return plain;
        }
        let text = program(site);
        let digest: String = Sha256::digest(&text)[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let path = cache.join(format!("libvirt-ssh-{digest}"));
        let separator = if site.uri.contains('?') { '&' } else { '?' };
        let command = escaped(&path.to_string_lossy());
        Self {
            uri: format!("{}{separator}command={command}&no_tty=1", site.uri),
            program: Some((path, text)),
        }
    }

    /// Writes the program unless it is there.
    pub fn prepare(&self) -> Result<(), CliError> {
        let Some((path, text)) = &self.program else {
            return Ok(());
        };
        if fs::read_to_string(path).is_ok_and(|there| there == *text) {
            return Ok(());
        }
        let write = || {
            let dir = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(dir)?;
            // Others may be about to run it, so it appears whole or not at all.
            let unfinished = path.with_extension(format!("{}", std::process::id()));
            let mut file = fs::File::create(&unfinished)?;
            file.set_permissions(fs::Permissions::from_mode(0o700))?;
            file.write_all(text.as_bytes())?;
            drop(file);
            fs::rename(unfinished, path)
        };
        write().map_err(|e| CliError::file("write", path, e))
    }
}

fn parameters(uri: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter_map(|p| p.split_once('='))
}

fn program(site: &LibvirtSite) -> String {
    let mut options: Vec<String> = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ConnectTimeout=15",
        // A host that went away is noticed even in the middle of a transfer.
        "ServerAliveInterval=5",
        "ServerAliveCountMax=4",
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(file) = &site.known_hosts {
        options.push(format!("UserKnownHostsFile={}", in_option(file)));
        options.push("GlobalKnownHostsFile=/dev/null".into());
    }
    if let Some(file) = &site.identity {
        options.push(format!("IdentityFile={}", in_option(file)));
        options.push("IdentitiesOnly=yes".into());
    }
    let options: String = options
        .iter()
        .map(|o| format!(" -o {}", quoted(o)))
        .collect();
    format!("#!/bin/sh\nexec ssh{options} \"$@\"\n")
}

/// A path as a value in ssh_config(5): between quotation marks, `%` being its own escape.
fn in_option(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('%', "%%"))
}

/// One word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A value in a URI's query (RFC 3986).
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(uri: &str) -> LibvirtSite {
        LibvirtSite {
            uri: uri.into(),
            identity: Some("/home/o'brien/key 100%".into()),
            known_hosts: Some("/srv/known_hosts".into()),
            ..LibvirtSite::default()
        }
    }

    #[test]
    fn ssh_is_run_with_the_sites_keys_and_never_asks() {
        let dir = tempfile::tempdir().unwrap();
        let transport = Transport::of(&site("qemu+ssh://me@lab/system"), dir.path());
        transport.prepare().unwrap();
        transport.prepare().unwrap();
        let (path, text) = transport.program.as_ref().unwrap();
        assert_eq!(
            transport.uri,
            format!(
                "qemu+ssh://me@lab/system?command={}&no_tty=1",
                path.display()
            )
        );
        assert_eq!(fs::read_to_string(path).unwrap(), *text);
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn other_transports_and_commands_of_the_users_own_are_left_alone() {
        for uri in [
            "qemu:///system",
            "qemu+tls://lab/system",
            "qemu+ssh://lab/system?command=/opt/ssh",
        ] {
            let transport = Transport::of(&site(uri), Path::new("/nonexistent"));
            assert_eq!(transport.uri, uri);
            transport.prepare().unwrap();
        }
        let more = Transport::of(&site("qemu+ssh://lab/system?socket=/x"), Path::new("/c d"));
        assert!(
            more.uri
                .starts_with("qemu+ssh://lab/system?socket=/x&command=/c%20d/")
        );
    }
}
