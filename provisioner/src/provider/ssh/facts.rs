//! What a host is like, and whether it serves. Pure.

use std::collections::BTreeMap;

use super::marker::Marker;

/// Oldest kernel for which `ipop-node` is tried (RHEL 7).
const KERNEL: (u32, u32) = (3, 10);
/// Free space for the program, twice over while it is replaced.
const FREE_KIB: u64 = 64 * 1024;
/// Clocks that differ by more make certificates invalid.
const SKEW_SECONDS: i64 = 60;

/// What the verdict on free space is called.
pub const DISK: &str = "disk";

/// What a script printed as `KEY=VALUE` lines; of a key that comes twice both count.
#[derive(Debug, Clone, Default)]
pub struct Facts(BTreeMap<String, Vec<String>>);

/// One thing about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What was looked at.
    pub what: &'static str,
    /// What is wrong and what to do, or what was found.
    pub found: Result<String, (String, String)>,
}

impl Facts {
    /// Reads a script's output.
    pub fn parse(text: &str) -> Self {
        let mut facts = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            facts
                .0
                .entry(key.to_owned())
                .or_default()
                .push(value.to_owned());
        }
        facts
    }

    /// The first value of a key that is not empty.
    pub fn one(&self, key: &str) -> Option<&str> {
        self.all(key).find(|value| !value.is_empty())
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.one(key).is_some()
    }

    /// All values of a key.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// The marker, if there is a legible one.
    pub fn marker(&self) -> Option<Marker> {
        Marker::parse(self.one("marker")?)
    }

    /// Judges a machine; `now` is this machine's time in seconds, `share` whether workers mount the
    /// front end's folder, `packages` whether what is missing may be installed.
    pub fn judge(&self, now: i64, share: bool, packages: bool) -> Vec<Verdict> {
        let mut verdicts = vec![
            self.architecture(),
            self.kernel(),
            self.system(),
            self.tools(),
            self.tun(),
            self.disk(),
            self.clock(now),
            self.manager(),
        ];
        if share {
            verdicts.push(self.share(packages));
        }
        verdicts.push(self.free());
        verdicts
    }

    fn architecture(&self) -> Verdict {
        let arch = self.one("arch").unwrap_or("unknown");
        let what = "architecture";
        match arch {
            "x86_64" => good(what, arch),
            _ => bad(
                what,
                format!("{arch}, and ipop-node is built for x86_64 only"),
                "take this host out of `hosts` of the site",
            ),
        }
    }

    fn kernel(&self) -> Verdict {
        let kernel = self.one("kernel").unwrap_or("unknown");
        let mut numbers = kernel
            .split(['.', '-'])
            .map_while(|n| n.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version >= KERNEL {
            good("kernel", kernel)
        } else {
            let (major, minor) = KERNEL;
            bad(
                "kernel",
                format!("{kernel} is older than {major}.{minor}"),
                "upgrade the host's system",
            )
        }
    }

    fn system(&self) -> Verdict {
        let name = self.one("name").unwrap_or("unknown");
        let words = [self.one("os"), self.one("like")].map(Option::unwrap_or_default);
        let known = words
            .iter()
            .flat_map(|w| w.trim_matches('"').split(' '))
            .any(|w| ["debian", "ubuntu", "rhel", "centos", "fedora"].contains(&w));
        // Others may well serve: nothing but the package manager depends on it.
        if known {
            good("system", name)
        } else {
            good("system", format!("{name}, which is not tried"))
        }
    }

    fn tools(&self) -> Verdict {
        let missing: Vec<_> = self.all("missing").collect();
        if missing.is_empty() {
            good("tools", "there")
        } else {
            bad(
                "tools",
                format!("missing: {}", missing.join(", ")),
                "install coreutils and util-linux there",
            )
        }
    }

    fn tun(&self) -> Verdict {
        if self.has("tun") {
            good("/dev/net/tun", "there")
        } else {
            bad(
                "/dev/net/tun",
                "cannot be opened".to_owned(),
                "`modprobe tun` there; in a container, its host must hand the device in",
            )
        }
    }

    /// The file system with the least room of those that a node is put on.
    fn disk(&self) -> Verdict {
        let free = self.all("free").filter_map(|text| {
            let (free, mount) = text.split_once(' ').unwrap_or((text, "its disk"));
            Some((free.parse::<u64>().ok()?, mount))
        });
        match free.min() {
            Some((free, mount)) if free < FREE_KIB => bad(
                DISK,
                format!(
                    "{mount} has {} MiB free, {} are needed",
                    free / 1024,
                    FREE_KIB / 1024
                ),
                &format!("free some space on {mount} there: `df -h {mount}` shows what is left"),
            ),
            Some((free, _)) => good(DISK, format!("{} MiB free", free / 1024)),
            None => good(DISK, "of unknown size"),
        }
    }

    fn clock(&self, now: i64) -> Verdict {
        match self.one("now").and_then(|n| n.parse::<i64>().ok()) {
            Some(there) if (there - now).abs() > SKEW_SECONDS => bad(
                "clock",
                format!("{} s off", there - now),
                "set the clocks of both machines: `apt-get install chrony` or `dnf install chrony`",
            ),
            Some(_) => good("clock", "right"),
            None => good("clock", "unknown"),
        }
    }

    fn manager(&self) -> Verdict {
        match self.one("systemd") {
            Some(version) => good("services", format!("systemd {version}")),
            None => good(
                "services",
                "no systemd runs: the node is started by a script and not again after a restart",
            ),
        }
    }

    fn share(&self, packages: bool) -> Verdict {
        match (self.has("nfs"), packages) {
            (true, _) => good("NFS client", "there"),
            (false, true) => good("NFS client", "will be installed"),
            (false, false) => bad(
                "NFS client",
                "not installed".to_owned(),
                "install nfs-common (Debian) or nfs-utils (RHEL) there, or set `install_packages = \
                 true` or `share = false` in the site",
            ),
        }
    }

    fn free(&self) -> Verdict {
        let what = "free";
        match (self.one("marker"), self.marker()) {
            (None, _) if self.has("foreign") => bad(
                what,
                "another ipop-node runs there".to_owned(),
                "stop it: a host has one node",
            ),
            (None, _) => good(what, "yes"),
            (_, Some(marker)) => good(
                what,
                format!("no: it is {} of `{}`", marker.node, marker.tags.deployment),
            ),
            (Some(_), None) => bad(
                what,
                "/var/lib/ipop-node/member.json is not legible".to_owned(),
                "look at it, and remove it if no deployment of yours is on this host",
            ),
        }
    }
}

/// What serves.
pub fn good(what: &'static str, found: impl Into<String>) -> Verdict {
    Verdict {
        what,
        found: Ok(found.into()),
    }
}

/// What does not, and what to do.
pub fn bad(what: &'static str, found: String, hint: &str) -> Verdict {
    Verdict {
        what,
        found: Err((found, hint.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, packages: bool) -> String {
        let verdicts = Facts::parse(text).judge(1_000_000, true, packages);
        let line = |v: &Verdict| match &v.found {
            Ok(found) => format!("ok   {}: {found}\n", v.what),
            Err((found, hint)) => format!("BAD  {}: {found}; {hint}\n", v.what),
        };
        verdicts.iter().map(line).collect()
    }

    #[test]
    fn hosts_are_judged_as_reviewed() {
        let debian = "arch=x86_64\nkernel=6.1.0-18-amd64\nos=debian\nlike=\nname=Debian 12\n\
            systemd=252\ntun=yes\nfree=900000 /opt\nfree=800000 /\nnow=1000003\nnfs=yes\n";
        let centos = "arch=x86_64\nkernel=3.10.0-1160.el7.x86_64\nos=centos\nlike=rhel fedora\n\
            name=CentOS Linux 7\nsystemd=219\ntun=yes\nfree=90000 /\nnow=1000000\n\
            marker={\"owner\":\"a\",\"deployment\":\"lake\",\"uid\":\"b\",\"node\":\"worker-3\"}\n";
        let wrong = "arch=aarch64\nkernel=2.6.32\nos=alpine\nname=Alpine\nmissing=flock\n\
            missing=setsid\nfree=900000 /opt\nfree=1024 /\nnow=1000500\nmarker=half\n";
        insta::assert_snapshot!(format!(
            "{}\n{}\n{}",
            shown(debian, false),
            shown(centos, true),
            shown(wrong, false)
        ));
    }
}
