//! The systemd units that keep a deployment. Pure.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::plan::INTERVAL;

/// What the units are about.
#[derive(Debug, Clone, Copy)]
pub struct Units<'a> {
    /// This program.
    pub program: &'a Path,
    /// State directory.
    pub state: &'a Path,
    /// Cache directory.
    pub cache: &'a Path,
    /// Sites file that was asked for.
    pub sites: Option<&'a Path>,
    /// The deployment.
    pub deployment: &'a str,
    /// When it is to be destroyed.
    pub expires: Option<SystemTime>,
}

/// Name of the units, without suffix: another state directory's deployment of this name has
/// another owner.
pub fn name(owner: &str, deployment: &str) -> String {
    let owner = owner.get(..8).unwrap_or(owner);
    format!("ipop-keep-{owner}-{deployment}")
}

impl Units<'_> {
    /// The service.
    pub fn service(&self) -> String {
        let variable = |name: &str, value: &Path| {
            format!(
                "Environment={}\n",
                quoted(&format!("{name}={}", value.display()))
            )
        };
        let sites = self.sites.map_or(String::new(), |sites| {
            format!(" --sites {}", word(sites))
        });
        format!(
            "[Unit]\n\
             Description=Keeps the virtual cluster {name}: extends its leases, destroys it in time\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             {state}{cache}\
             ExecStart={program} keep {name}{sites}\n",
            name = self.deployment,
            state = variable("IPOP_STATE_DIR", self.state),
            cache = variable("IPOP_CACHE_DIR", self.cache),
            program = word(self.program),
        )
    }

    /// The timer. It runs on after the deployment's time is over, should a destroy fail.
    pub fn timer(&self) -> String {
        let expires = self.expires.map_or(String::new(), |expires| {
            let since = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
            format!("OnCalendar=@{}\n", since.as_secs())
        });
        format!(
            "[Unit]\n\
             Description=Keeps the virtual cluster {name}\n\
             \n\
             [Timer]\n\
             {expires}\
             OnCalendar=*:0/{minutes}\n\
             AccuracySec=5s\n\
             Persistent=true\n\
             \n\
             [Install]\n\
             WantedBy=timers.target\n",
            name = self.deployment,
            minutes = INTERVAL.as_secs() / 60,
        )
    }
}

/// A word of `ExecStart=`, where variables are replaced (systemd.service(5)).
fn word(path: &Path) -> String {
    quoted(&path.display().to_string().replace('$', "$$"))
}

/// As systemd reads it in `Environment=` (systemd.unit(5)).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '%' => out.push_str("%%"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_units_name_the_deployment_its_directories_and_its_end() {
        let units = Units {
            program: Path::new("/opt/50% off/$x/provision"),
            state: Path::new("/var/lib/ipop-provision"),
            cache: Path::new("/var/cache/ipop-provision"),
            sites: Some(Path::new("/etc/my sites.toml")),
            deployment: "demo",
            expires: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        };
        assert_eq!(name("0123456789abcdef", "demo"), "ipop-keep-01234567-demo");
        insta::assert_snapshot!(format!("{}\n# timer\n\n{}", units.service(), units.timer()));
    }
}
