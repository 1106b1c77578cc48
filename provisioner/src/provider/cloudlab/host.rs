//! The machines of an experiment, by SSH: signing in for the first time, and becoming a host of
//! virtual machines.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::config::CloudlabSite;
use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode, Retry};
use crate::provider::Tags;
use crate::rendezvous::files;
use crate::ssh::command::quote;
use crate::ssh::target::Target;
use crate::ssh::transport::{Access, Limits, Script, Transport};

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Pause between attempts to sign in to a machine that has just come up.
const PAUSE: Duration = Duration::from_secs(2);

/// Exit status of [`BECOME_HOST`] on a system without apt-get.
const NO_APT: i32 = 64;

/// Installs and starts libvirt with QEMU, and says whether there is KVM. `$1` is the user who signs
/// in. Systems without systemd as their first process are containers, and tests.
const BECOME_HOST: &str = r#"set -e
user=$1
if ! command -v libvirtd >/dev/null || ! command -v virsh >/dev/null ||
   ! command -v qemu-system-x86_64 >/dev/null || ! command -v dnsmasq >/dev/null; then
    command -v apt-get >/dev/null || exit 64
    DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND
    lock='-o DPkg::Lock::Timeout=300'
    apt-get -q $lock update >&2
    apt-get -q $lock install -y --no-install-recommends libvirt-daemon-system libvirt-clients \
        qemu-system-x86 qemu-utils dnsmasq-base netcat-openbsd >&2
fi
[ "$user" = root ] || usermod -aG libvirt "$user"
if [ -d /run/systemd/system ]; then
    systemctl enable --now libvirtd >&2
elif ! virsh -c qemu:///system version >/dev/null 2>&1; then
    # Daemons must not hold the connection's pipes.
    virtlogd -d >/dev/null 2>&1 </dev/null
    libvirtd -d >/dev/null 2>&1 </dev/null
fi
tries=60
until virsh -c qemu:///system version >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { virsh -c qemu:///system version >&2; exit 1; }
    sleep 0.5
done
if [ -w /dev/kvm ]; then echo kvm; else echo emulation; fi
"#;

/// How the machines of one deployment's experiment are reached.
///
/// The portal says nothing of host keys. A machine's key is taken when it is first signed in to,
/// moments after the portal has said that it is up, is kept below the deployment's directory, and
/// must be the same ever after. Whoever stands in between at that first moment is not noticed.
#[derive(Debug, Clone)]
pub struct Door {
    dir: PathBuf,
    user: Option<String>,
    identity: Option<PathBuf>,
}

impl Door {
    /// `deployment` is the deployment's directory.
    pub fn new(site: &CloudlabSite, deployment: &Path, tags: &Tags) -> Self {
        Self {
            dir: deployment.join("cloudlab").join(&tags.uid),
            user: site.user.clone(),
            identity: site.identity.clone(),
        }
    }

    /// Forgets the keys of machines that are no more.
    pub fn forget(&self) -> Result<(), CliError> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(CliError::file("remove", &self.dir, e))
            }
            _ => Ok(()),
        }
    }

    /// The file with a machine's key.
    pub fn known_hosts(&self, host: &str) -> PathBuf {
        self.dir.join(format!("{host}.known_hosts"))
    }

    /// Private key that signs in.
    pub fn identity(&self) -> Option<&Path> {
        self.identity.as_deref()
    }

    /// `user@address`.
    pub fn target(&self, address: &str) -> Result<Target, CliError> {
        let text = match &self.user {
            Some(user) => format!("{user}@{address}"),
            None => address.to_owned(),
        };
        text.parse().map_err(|e| {
            CliError::new(ExitCode::Unavailable, "the portal gave no usable address").caused_by(e)
        })
    }

    fn transport(&self, host: &str, address: &str, first: bool) -> Result<Transport, CliError> {
        let access = Access {
            identity: self.identity.clone(),
            known_hosts: Some(self.known_hosts(host)),
            trust_first: first,
            connect_timeout: CONNECT,
        };
        Transport::new(self.target(address)?, &access)
    }

    /// Signs in for the first time, as soon as the machine lets us.
    pub fn enter(
        &self,
        host: &str,
        address: &str,
        deadline: Instant,
        interrupt: &Interrupt,
    ) -> Result<(), CliError> {
        files::private_dir(&self.dir).map_err(|e| CliError::file("create", &self.dir, e))?;
        let transport = self.transport(host, address, true)?;
        let limits = Limits {
            deadline,
            interrupt: Some(interrupt),
        };
        loop {
            interrupt.check()?;
            let error = match transport.run(&Script::new("signing in", "true"), &limits) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let hopeless = error.retry == Retry::Never;
            if hopeless || Instant::now() + PAUSE >= deadline {
                return Err(error.hint(
                    "the key must be one that the portal's user has registered: see `identity` \
                     and `user` of the site",
                ));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Makes the machine a host of virtual machines; says whether it has KVM.
    pub fn become_host(
        &self,
        host: &str,
        address: &str,
        deadline: Instant,
        interrupt: &Interrupt,
    ) -> Result<bool, CliError> {
        let transport = self.transport(host, address, false)?;
        let user = match &self.user {
            Some(user) => user.clone(),
            None => std::env::var("USER").unwrap_or_else(|_| "root".to_owned()),
        };
        let args = [user.as_str()];
        let script = Script::new("installing libvirt", BECOME_HOST)
            .args(&args)
            .answers(&[NO_APT]);
        let limits = Limits {
            deadline,
            interrupt: Some(interrupt),
        };
        let answer = transport.run(&script, &limits)?;
        if answer.status == NO_APT {
            let what = format!("{host} ({address}) has no libvirt, and no apt-get to install it");
            return Err(CliError::new(ExitCode::Config, what)
                .hint("use a disk image of Debian or Ubuntu in the site's profile"));
        }
        Ok(answer.text().trim() == "kvm")
    }

    /// The libvirt URI of a machine. libvirt's own `ssh` takes neither key file nor `known_hosts`
    /// from a URI with checking on, but another program in its place.
    pub fn libvirt_uri(&self, host: &str, address: &str) -> Result<String, CliError> {
        let target = self.target(address)?;
        files::private_dir(&self.dir).map_err(|e| CliError::file("create", &self.dir, e))?;
        let path = self.dir.join(format!("{host}.ssh"));
        let script = self.wrapper(host);
        if std::fs::read(&path).ok().as_deref() != Some(script.as_bytes()) {
            files::write(&path, script.as_bytes(), 0o700)
                .map_err(|e| CliError::file("write", &path, e))?;
        }
        let user = target.user.map(|u| format!("{u}@")).unwrap_or_default();
        let port = target.port.map(|p| format!(":{p}")).unwrap_or_default();
        let address = match target.host.contains(':') {
            true => format!("[{}]", target.host),
            false => target.host,
        };
        let command = super::portal::escape(&path.display().to_string());
        Ok(format!(
            "qemu+ssh://{user}{address}{port}/system?no_tty=1&command={command}"
        ))
    }

    fn wrapper(&self, host: &str) -> String {
        let mut words = vec!["exec".to_owned(), "ssh".to_owned()];
        let mut option = |text: String| words.extend(["-o".to_owned(), quote(&text)]);
        option("BatchMode=yes".to_owned());
        option("StrictHostKeyChecking=yes".to_owned());
        let known_hosts = self.known_hosts(host);
        option(format!("UserKnownHostsFile=\"{}\"", known_hosts.display()));
        option("GlobalKnownHostsFile=/dev/null".to_owned());
        option("UpdateHostKeys=no".to_owned());
        option(format!("ConnectTimeout={}", CONNECT.as_secs()));
        option("ServerAliveInterval=5".to_owned());
        option("ServerAliveCountMax=3".to_owned());
        if let Some(identity) = &self.identity {
            option("IdentitiesOnly=yes".to_owned());
            option(format!("IdentityFile=\"{}\"", identity.display()));
        }
        format!("#!/bin/sh\n{} \"$@\"\n", words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libvirt_reaches_a_machine_with_the_sites_key_and_the_machines_own() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let door = Door {
            dir: dir.path().join("a dir"),
            user: Some("ann".into()),
            identity: Some("/keys/it's".into()),
        };
        let uri = door.libvirt_uri("node0", "198.51.100.7").expect("written");
        assert!(uri.starts_with("qemu+ssh://ann@198.51.100.7/system?no_tty=1&command=%2F"));
        assert!(uri.ends_with("a%20dir%2Fnode0.ssh"), "{uri}");
        let wrapper = door.wrapper("node0");
        assert!(wrapper.contains("StrictHostKeyChecking=yes"));
        let dir = dir.path().display().to_string();
        insta::assert_snapshot!(wrapper.replace(&dir, "DIR"));
    }
}
