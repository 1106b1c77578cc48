//! Makes and removes the parts of a node on its host.

use std::fmt::Write as _;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::super::{Made, Making, Removing, Step};
use super::SshProvider;
use super::check::seconds_now;
use super::facts::DISK;
use super::marker::Marker;
use super::plan::{BINARY, CREDENTIALS, HOST, MEMBER, host_of};
use crate::bundle;
use crate::error::{CliError, ExitCode, Retry};
use crate::event::Event;
use crate::plan::WORKER;
use crate::provider::MachineSpec;
use crate::ssh::room::{FULL, ROOM, full};
use crate::ssh::target::Target;
use crate::ssh::transport::{Limits, Script, Transport};
use crate::ssh::upload::Content;

const CLAIM: &str = include_str!("files/claim");
const PACKAGES: &str = include_str!("files/packages");
const START: &str = include_str!("files/start");
const REMOVE: &str = include_str!("files/remove");
const NODE_UNIT: &str = include_str!("files/ipop-member.service");
const HEALTH_UNIT: &str = include_str!("files/ipop-member-health.service");
/// Programs beside `ipop-node`. The one that reports is that of the images.
const PROGRAMS: [(&str, &str); 3] = [
    ("health", include_str!("files/health")),
    ("supervise", include_str!("files/supervise")),
    (
        "role-check",
        include_str!("../../../../images/base/files/usr/lib/ipop/role-check"),
    ),
];
const BIN: &str = "/opt/ipop-node/bin";
/// How long a role's check may fail before that is reported, as in the worker's image.
const HEALTH_SECONDS: u32 = 300;
/// What of a bundle a machine with a system of its own needs: it keeps its name and its own SSH.
const NEEDED: [&str; 4] = [
    bundle::NODE_CONFIG,
    bundle::XMPP_PASSWORD,
    bundle::CA,
    bundle::ROLE_ENV,
];
/// The same in an overlay with an authority.
const MEMBERSHIP: [&str; 2] = [bundle::AUTHORITY, bundle::IDENTITY];
/// Least time between two reports of an upload's progress.
const REPORT: Duration = Duration::from_millis(200);

impl SshProvider {
    pub(super) fn install(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        let host = host_of(&step.resource)?;
        let machine = making.machine.ok_or_else(|| {
            let message = format!("no machine is given for `{}`", step.resource.id);
            CliError::new(ExitCode::Internal, message)
        })?;
        let limits = Limits {
            deadline: making.deadline,
            interrupt: Some(making.interrupt),
        };
        let mut made = Made {
            handle: Some(host.to_string()),
            reached_at: None,
        };
        match step.resource.kind.as_str() {
            HOST => made.reached_at = self.claim(&host, machine, making, &limits)?,
            BINARY => self.programs(&host, making, &limits)?,
            CREDENTIALS => self.credentials(&host, machine, &limits)?,
            MEMBER => self.services(&host, machine, &limits)?,
            _ => return Err(unknown(&step.resource.kind)),
        }
        Ok(made)
    }

    /// Looks whether the host serves and makes it ours.
    fn claim(
        &self,
        host: &Target,
        machine: &MachineSpec,
        making: &Making<'_>,
        limits: &Limits<'_>,
    ) -> Result<Option<IpAddr>, CliError> {
        let facts = self.probe(host, limits)?;
        let share = self.settings.share && role_of(machine) == WORKER;
        for verdict in facts.judge(seconds_now(), share, self.settings.install_packages) {
            if let Err((found, hint)) = verdict.found {
                let message = format!("{host} cannot be a member: {}: {found}", verdict.what);
                let code = match verdict.what {
                    DISK => ExitCode::Missing,
                    _ => ExitCode::Unavailable,
                };
                return Err(CliError::new(code, message).hint(hint));
            }
        }
        let wanted = Marker {
            tags: making.tags.clone(),
            node: machine.node.clone(),
        };
        let line = serde_json::to_string(&wanted)
            .map_err(|e| CliError::new(ExitCode::Internal, "cannot write a marker").caused_by(e))?;
        let what = "claiming it";
        let text = format!("{ROOM}{CLAIM}");
        let script = Script::new(what, &text).answers(&[CUT, FULL]);
        let input = format!("{line}\nend\n");
        let transport = self.transport(host)?;
        let answer = transport.feed(&script, &mut input.as_bytes(), limits, &|_| {})?;
        if answer.status == FULL {
            return Err(full(host, what, &answer.text()));
        }
        if answer.status == CUT {
            let message = format!("the connection to {host} was lost: {what}");
            return Err(CliError::new(ExitCode::Unavailable, message).retry(Retry::Soon));
        }
        match Marker::parse(&answer.text()) {
            Some(there) if there == wanted => {}
            Some(there) => return Err(taken(host, &there)),
            None => {
                let message = format!("the marker on {host} is not legible");
                return Err(CliError::new(ExitCode::Unavailable, message)
                    .hint("look at /var/lib/ipop-node/member.json there"));
            }
        }
        let client = facts.one("client").and_then(|ip| ip.parse().ok());
        Ok(client.filter(|ip| is_own(*ip)))
    }

    fn programs(
        &self,
        host: &Target,
        making: &Making<'_>,
        limits: &Limits<'_>,
    ) -> Result<(), CliError> {
        let transport = self.transport(host)?;
        for (name, text) in PROGRAMS {
            let content = Content::Bytes(text.as_bytes());
            transport.put(&format!("{BIN}/{name}"), 0o755, content, limits, &|_, _| {})?;
        }
        let node = self.build.static_node()?;
        let reported = std::cell::Cell::new(Instant::now());
        let progress = |done: u64, total: u64| {
            if done == total || reported.get().elapsed() > REPORT {
                reported.set(Instant::now());
                making.events.emit(Event::Progress {
                    what: format!("{host}: ipop-node"),
                    done,
                    total,
                });
            }
        };
        let path = format!("{BIN}/ipop-node");
        transport.put(&path, 0o755, Content::File(&node), limits, &progress)?;
        // Tells of a file system without the right to execute, or of a machine that is not ours.
        let args = [path.as_str()];
        let script = Script::new("running ipop-node", "exec \"$1\" --version").args(&args);
        transport.run(&script, limits).map(drop)
    }

    fn credentials(
        &self,
        host: &Target,
        machine: &MachineSpec,
        limits: &Limits<'_>,
    ) -> Result<(), CliError> {
        let transport = self.transport(host)?;
        let dir = format!("/etc/ipop-node/{}", machine.deployment);
        let args = [dir.as_str()];
        let script = Script::new(
            "making a directory for root alone",
            "set -eu; mkdir -p \"$1\"; chmod 700 \"$1\"",
        );
        transport.run(&script.args(&args), limits)?;
        let put = |name: &str, bytes: &[u8]| {
            let path = format!("{dir}/{name}");
            transport.put(&path, 0o600, Content::Bytes(bytes), limits, &|_, _| {})
        };
        for name in NEEDED {
            let credential = machine.bundle.credentials.get(name).ok_or_else(|| {
                let message = format!("`{}` has no credential `{name}`", machine.node);
                CliError::new(ExitCode::Internal, message)
            })?;
            put(name, credential.expose())?;
        }
        for name in MEMBERSHIP {
            if let Some(credential) = machine.bundle.credentials.get(name) {
                put(name, credential.expose())?;
            }
        }
        put("member.env", self.environment().as_bytes())?;
        Ok(())
    }

    /// What the scripts on the host must know of the site.
    fn environment(&self) -> String {
        let share = if self.settings.share { "yes" } else { "no" };
        let mut text = format!("IPOP_SHARE={share}\nIPOP_HEALTH_COMMAND={BIN}/health\n");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "IPOP_HEALTH_SECONDS={HEALTH_SECONDS}");
        text
    }

    fn services(
        &self,
        host: &Target,
        machine: &MachineSpec,
        limits: &Limits<'_>,
    ) -> Result<(), CliError> {
        let transport = self.transport(host)?;
        if role_of(machine) == WORKER && self.settings.share && self.settings.install_packages {
            let script = Script::new("installing the NFS client", PACKAGES);
            transport.run(&script, limits).map_err(|e| {
                e.hint(
                    "install nfs-common (Debian) or nfs-utils (RHEL) there by hand, or set `share \
                     = false` in the site",
                )
            })?;
        }
        let systemd = Script::new("looking for systemd", "[ -d /run/systemd/system ]");
        if transport.run(&systemd.answers(&[1]), limits)?.status == 0 {
            units(&transport, &machine.deployment, limits)?;
        } else {
            let path = "/var/lib/ipop-node/started";
            transport.put(path, 0o644, Content::Bytes(b""), limits, &|_, _| {})?;
        }
        let args = [machine.deployment.as_str()];
        let script = Script::new("starting ipop-node", START).args(&args);
        transport.run(&script, limits).map(drop)
    }

    pub(super) fn uninstall(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        let kind = removing.resource.kind.as_str();
        if ![HOST, BINARY, CREDENTIALS, MEMBER].contains(&kind) {
            return Err(unknown(kind));
        }
        let host = host_of(removing.resource)?;
        let limits = Limits {
            deadline: removing.deadline,
            interrupt: Some(removing.interrupt),
        };
        let what = format!("removing {kind}");
        let args = [kind, &removing.tags.deployment, &removing.tags.uid];
        let script = Script::new(&what, REMOVE).args(&args);
        self.transport(&host)?.run(&script, &limits).map(drop)
    }
}

/// Status of [`CLAIM`] when its input was cut short.
const CUT: i32 = 74;

fn units(transport: &Transport, deployment: &str, limits: &Limits<'_>) -> Result<(), CliError> {
    for (name, text) in [
        ("ipop-member-health.service", HEALTH_UNIT),
        ("ipop-member.service", NODE_UNIT),
    ] {
        let text = text.replace("@DEPLOYMENT@", deployment);
        let path = format!("/etc/systemd/system/{name}");
        transport.put(
            &path,
            0o644,
            Content::Bytes(text.as_bytes()),
            limits,
            &|_, _| {},
        )?;
    }
    Ok(())
}

fn taken(host: &Target, there: &Marker) -> CliError {
    let deployment = &there.tags.deployment;
    CliError::new(
        ExitCode::Name,
        format!("{host} is already {} of the deployment `{deployment}`", there.node),
    )
    .hint(format!(
        "a host is in one deployment at a time: `provision destroy {deployment}` frees it (if it is \
         somebody else's, ask who has the installation {}), or name another host in the site",
        there.tags.owner
    ))
}

/// The role, from what the machine itself is told: an image it has not.
fn role_of(machine: &MachineSpec) -> String {
    let lines = machine.bundle.credentials.get(bundle::ROLE_ENV);
    let lines = lines.map(|l| String::from_utf8_lossy(l.expose()));
    let role = lines.as_deref().unwrap_or_default().lines();
    let mut role = role.filter_map(|line| line.strip_prefix("IPOP_ROLE="));
    role.next_back().unwrap_or_default().to_owned()
}

fn unknown(kind: &str) -> CliError {
    CliError::new(ExitCode::Internal, format!("an SSH site has no `{kind}`"))
}

/// Whether an address is this machine's, and not that of a NAT in between.
fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_another_deployment_is_refused_with_its_name() {
        let marker =
            Marker::parse(r#"{"owner":"00aa","deployment":"lake","uid":"11bb","node":"worker-3"}"#)
                .expect("a marker");
        let host = "root@a.example".parse().expect("a host");
        insta::assert_snapshot!(taken(&host, &marker).to_string());
    }

    #[test]
    fn systemd_takes_the_units_for_right() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (name, text) in [
            ("ipop-member.service", NODE_UNIT),
            ("ipop-member-health.service", HEALTH_UNIT),
        ] {
            // The programs must exist for `verify`.
            let text = text.replace("@DEPLOYMENT@", "demo");
            let text = text.replace("/opt/ipop-node/bin/ipop-node run", "/bin/true");
            let text = text.replace(
                "ExecStart=/opt/ipop-node/bin/role-check",
                "ExecStart=/bin/true",
            );
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            let output = std::process::Command::new("systemd-analyze")
                .args(["verify", "--man=no"])
                .arg(&path)
                .output()
                .expect("systemd-analyze runs");
            let said = String::from_utf8_lossy(&output.stderr);
            let about_it: Vec<_> = said.lines().filter(|l| l.contains("ipop-member")).collect();
            assert_eq!(about_it, Vec::<&str>::new(), "{said}");
        }
    }
}
