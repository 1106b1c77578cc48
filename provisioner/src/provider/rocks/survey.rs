//! What Rocks has of deployments.

use std::time::Duration;

use super::RocksProvider;
use super::plan::{BOOT, CONFIGURATION, INTERFACE, REGISTRATION, Registered, mtu_of};
use super::table::{self, Row};
use crate::error::CliError;
use crate::plan::lan;
use crate::provider::ssh::facts::Facts;
use crate::provider::ssh::marker::Marker;
use crate::provider::{Found, Health, Provider as _, Tags};
use crate::ssh::target::Target;
use crate::ssh::transport::{Limits, Script};

const SURVEY: &str = include_str!("files/survey");
/// How long the front end may take to answer: `rocks` needs a second for each of its lists.
const PATIENCE: Duration = Duration::from_secs(60);

impl RocksProvider {
    /// The parts of the front end's node and of the workers that are registered.
    pub(super) fn found(&self, tags: Option<&Tags>) -> Result<Vec<Found>, CliError> {
        let mut found = self.ssh.find(tags)?;
        found.extend(self.registered(tags, &Limits::within(PATIENCE))?);
        Ok(found)
    }

    /// What Rocks has of one deployment, or of all.
    pub(super) fn registered(
        &self,
        tags: Option<&Tags>,
        limits: &Limits<'_>,
    ) -> Result<Vec<Found>, CliError> {
        let script = Script::new("looking what Rocks has", SURVEY);
        let answer = self.ssh.transport(&self.host)?.run(&script, limits)?;
        let mut found = parts(&self.host, &Facts::parse(&answer.text()));
        found.retain(|f| tags.is_none() || f.tags.as_ref() == tags);
        Ok(found)
    }
}

/// What is there whole. What is there by half is as if it were not: making it makes it whole.
fn parts(host: &Target, facts: &Facts) -> Vec<Found> {
    let rows = |key: &str| table::parse(&facts.all(key).collect::<Vec<_>>().join("\n"));
    let (hosts, interfaces, boots) = (rows("host"), rows("interface"), rows("boot"));
    let mut found = Vec::new();
    for line in facts.all("noted") {
        let Some((registered, marker)) = noted(host, line) else {
            continue;
        };
        let mac = lan::mac(registered.ip).to_string();
        let ip = registered.ip.to_string();
        let named = |row: &&Row| row.get("host") == Some(&registered.name);
        let is_whole = |row: &Row| row.get("ip") == Some(&ip) && row.get("mac") == Some(&mac);
        let served = facts.all("served").any(|m| m.eq_ignore_ascii_case(&mac));
        let there = [
            (REGISTRATION, hosts.iter().any(|row| named(&row))),
            (INTERFACE, interfaces.iter().filter(named).any(is_whole)),
            (
                BOOT,
                boots.iter().filter(named).any(|r| r.contains_key("action")),
            ),
            (CONFIGURATION, served && !facts.has("dirty")),
        ];
        let part = |(kind, there): (&str, bool)| {
            there.then(|| Found {
                resource: registered.resource(kind),
                handle: Some(registered.resource(kind).id),
                tags: Some(marker.tags.clone()),
                node: Some(marker.node.clone()),
                health: Health::Present,
            })
        };
        found.extend(there.into_iter().filter_map(part));
    }
    found.extend(mtu(host, facts));
    found
}

/// `NAME IP {…}` as a worker and whose it is.
fn noted(host: &Target, line: &str) -> Option<(Registered, Marker)> {
    let mut words = line.splitn(3, ' ');
    let (name, ip, marker) = (words.next()?, words.next()?, words.next()?);
    let marker = Marker::parse(marker)?;
    let registered = Registered {
        host: host.clone(),
        deployment: marker.tags.deployment.clone(),
        name: name.to_owned(),
        ip: ip.parse().ok()?,
    };
    Some((registered, marker))
}

/// The network's MTU, if a deployment has set it and it still is what that set.
fn mtu(host: &Target, facts: &Facts) -> Option<Found> {
    let words: Vec<_> = facts.one("mtu")?.split(' ').collect();
    let [uid, network, _, mtu] = words[..] else {
        return None;
    };
    let marker = facts.marker().filter(|m| m.tags.uid == uid)?;
    let networks = table::parse(&facts.all("network").collect::<Vec<_>>().join("\n"));
    let own = |row: &&Row| row.get("network").is_some_and(|name| name == network);
    let now = networks.iter().find(own)?.get("mtu")?;
    let resource = mtu_of(host, &marker.tags.deployment);
    (now == mtu).then(|| Found {
        handle: Some(resource.id.clone()),
        resource,
        tags: Some(marker.tags),
        node: None,
        health: Health::Present,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"marker={"owner":"a","deployment":"lake","uid":"b","node":"frontend-0"}
noted=compute-90-0 10.1.128.2 {"owner":"a","deployment":"lake","uid":"b","node":"worker-0"}
mtu=b private 1500 1400
host=HOST          MEMBERSHIP RACK RANK
host=cluster:      Frontend   0    0
host=compute-90-0: Compute    90   0
interface=HOST          SUBNET  IFACE MAC               IP
interface=cluster:      private br0   00:16:3e:00:00:01 10.1.1.1
interface=compute-90-0: private eth0  02:49:0a:01:80:02 10.1.128.2
boot=HOST          ACTION
boot=cluster:      os
boot=compute-90-0: os
network=NETWORK  SUBNET    NETMASK     MTU
network=private: 10.1.0.0  255.255.0.0 1400
network=public:  192.0.2.0 255.255.0.0 1500
served=02:49:0A:01:80:02
"#;

    fn kinds(text: &str) -> Vec<String> {
        let host = "root@ucsd.example".parse().expect("a host");
        let found = parts(&host, &Facts::parse(text));
        for part in &found {
            assert_eq!(part.tags.as_ref().expect("tags").uid, "b");
        }
        found.into_iter().map(|f| f.resource.kind).collect()
    }

    #[test]
    fn only_what_is_there_whole_is_found() {
        let all = ["registration", "interface", "boot", "configuration", "mtu"];
        assert_eq!(kinds(WHOLE), all);
        for (replaced, by, missing) in [
            ("host=compute-90-0: Compute    90   0\n", "", "registration"),
            (
                "eth0  02:49:0a:01:80:02 10.1.128.2",
                "eth0  ----------------- ----------",
                "interface",
            ),
            ("boot=compute-90-0: os", "boot=compute-90-0: --", "boot"),
            ("served=02:49:0A:01:80:02\n", "", "configuration"),
            ("served=", "dirty=yes\nserved=", "configuration"),
            ("255.255.0.0 1400", "255.255.0.0 9000", "mtu"),
            (
                "\"uid\":\"b\",\"node\":\"frontend-0\"",
                "\"uid\":\"c\",\"node\":\"frontend-0\"",
                "mtu",
            ),
        ] {
            let text = WHOLE.replace(replaced, by);
            assert_ne!(text, WHOLE, "{replaced}");
            let left: Vec<_> = all.into_iter().filter(|kind| *kind != missing).collect();
            assert_eq!(kinds(&text), left, "without {replaced}");
        }
        let foreign = WHOLE.replace("noted=compute-90-0 10.1.128.2 {", "noted=compute-90-0 {");
        assert_eq!(kinds(&foreign), ["mtu"]);
    }
}
