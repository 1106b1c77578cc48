//! Names, tags and states of experiments. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::api;
use super::testbed::{Experiment, Host, Order, Phase};
use crate::provider::Tags;

/// Parameters of the profile, as `data/cloudlab-profile.py` defines them.
pub const COUNT: &str = "count";
/// Hardware type; empty is any.
pub const HARDWARE: &str = "hardware";
/// [`Tags::owner`].
pub const OWNER: &str = "ipop_owner";
/// [`Tags::deployment`].
pub const DEPLOYMENT: &str = "ipop_deployment";
/// [`Tags::uid`].
pub const UID: &str = "ipop_uid";
/// Every parameter that a profile must have.
pub const PARAMETERS: [&str; 5] = [COUNT, HARDWARE, OWNER, DEPLOYMENT, UID];

/// The portal's limit is 16 characters.
const NAME_DIGITS: usize = 10;

/// The name of a deployment's experiment: `ip-0123456789`.
pub fn name(tags: &Tags) -> String {
    let digits = tags.uid.get(..NAME_DIGITS).unwrap_or(&tags.uid);
    format!("ip-{digits}")
}

/// The profile's name of the machine of this number.
pub fn host_name(machine: u32) -> String {
    format!("node{machine}")
}

/// The values of the profile's parameters.
pub fn bindings(order: &Order, hardware: Option<&str>) -> BTreeMap<String, String> {
    let Tags {
        owner,
        deployment,
        uid,
    } = &order.tags;
    [
        (COUNT, order.count.to_string()),
        (HARDWARE, hardware.unwrap_or_default().to_owned()),
        (OWNER, owner.clone()),
        (DEPLOYMENT, deployment.clone()),
        (UID, uid.clone()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Reads an experiment of the portal.
pub fn read(from: api::Experiment) -> Experiment {
    let bindings = from.bindings.unwrap_or_default();
    let text = |name: &str| Some(bindings.get(name)?.as_str()?.to_owned());
    let tags = || {
        Some(Tags {
            owner: text(OWNER)?,
            deployment: text(DEPLOYMENT)?,
            uid: text(UID)?,
        })
    };
    let count = bindings.get(COUNT).and_then(|value| match value {
        serde_json::Value::String(text) => text.parse().ok(),
        other => u32::try_from(other.as_u64()?).ok(),
    });
    let mut hosts = Vec::new();
    for (urn, aggregate) in from.aggregates {
        let cluster = aggregate.name.unwrap_or_else(|| cluster_of(&urn));
        for node in aggregate.nodes {
            hosts.push(host(node, &cluster));
        }
    }
    Experiment {
        tags: tags(),
        count: count.unwrap_or(0),
        phase: whole(&from.status),
        ends: from.expires_at.as_deref().and_then(time),
        id: from.id,
        name: from.name,
        hosts,
    }
}

/// `urn:publicid:IDN+utah.cloudlab.us+authority+cm` as `utah.cloudlab.us`.
fn cluster_of(urn: &str) -> String {
    urn.split('+').nth(1).unwrap_or(urn).to_owned()
}

fn host(node: api::Node, cluster: &str) -> Host {
    let startup = startup(node.startup_status.as_ref());
    let raw = node.rawstate.as_str();
    let phase = match (node.status.as_str(), startup) {
        ("failed", _) => Phase::Failed(format!("status failed, state {}", or_unknown(raw))),
        (_, Phase::Failed(why)) => Phase::Failed(why),
        ("ready", Phase::Ready) if raw == "ISUP" => Phase::Ready,
        ("ready", Phase::Pending(why)) if raw == "ISUP" => Phase::Pending(why),
        (status, _) => Phase::Pending(format!(
            "status {}, state {}",
            or_unknown(status),
            or_unknown(raw)
        )),
    };
    let given = |text: Option<String>| text.filter(|t| !t.is_empty());
    let hostname = given(node.hostname);
    Host {
        name: node.client_id,
        cluster: cluster.to_owned(),
        address: given(node.ipv4).or_else(|| hostname.clone()),
        hostname,
        phase,
    }
}

fn or_unknown(word: &str) -> &str {
    if word.is_empty() { "unknown" } else { word }
}

fn whole(status: &str) -> Phase {
    match status {
        "ready" => Phase::Ready,
        "failed" => Phase::Failed("status failed".into()),
        "terminating" | "terminated" | "canceled" => Phase::Going,
        other => Phase::Pending(or_unknown(other).to_owned()),
    }
}

/// How the profile's execute service ended. Null is a profile without one; the portal gives an
/// exit status as a number, or in a few words.
fn startup(status: Option<&serde_json::Value>) -> Phase {
    let text = match status {
        None | Some(serde_json::Value::Null) => return Phase::Ready,
        Some(serde_json::Value::String(text)) => text.trim().to_ascii_lowercase(),
        Some(other) => other.to_string(),
    };
    let number = text
        .split(|c: char| !c.is_ascii_digit())
        .find_map(|digits| digits.parse::<u32>().ok());
    let failed = || Phase::Failed(format!("startup_status {text}"));
    match text.as_str() {
        "" | "none" | "success" | "succeeded" | "finished" | "exited" | "done" => Phase::Ready,
        _ if text.starts_with("fail") => failed(),
        _ => match number {
            Some(0) => Phase::Ready,
            Some(_) => failed(),
            None => Phase::Pending(format!("startup_status {text}")),
        },
    }
}

/// Reads `2025-02-20T06:00:00+00:00` (RFC 3339, whole seconds are enough).
pub fn time(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, zone) = rest.get(1..)?.split_at_checked(8)?;
    let parts = |text: &str, mark: char| -> Option<[i64; 3]> {
        let mut numbers = text.split(mark).map(|n| n.parse::<i64>().ok());
        let read = [numbers.next()??, numbers.next()??, numbers.next()??];
        numbers.next().is_none().then_some(read)
    };
    let [year, month, day] = parts(date, '-')?;
    let [hour, minute, second] = parts(clock, ':')?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let zone = zone.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone {
        "" | "Z" | "z" => 0,
        _ => {
            let (sign, rest) = zone.split_at_checked(1)?;
            let (hours, minutes) = rest.split_once(':')?;
            let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            match sign {
                "+" => seconds,
                "-" => -seconds,
                _ => return None,
            }
        }
    };
    // Days since 1970 in the Gregorian calendar, years counted from March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Whole hours that an end must move to reach `wanted`; none when it does already.
pub fn hours_missing(ends: SystemTime, wanted: SystemTime) -> Option<u32> {
    let missing = wanted.duration_since(ends).ok()?.as_secs().div_ceil(3600);
    u32::try_from(missing).ok().filter(|hours| *hours > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags() -> Tags {
        Tags {
            owner: "aaaaaaaaaaaaaaaa".into(),
            deployment: "a-name-of-24-characters1".into(),
            uid: "0123456789abcdef".into(),
        }
    }

    fn phase(node: &serde_json::Value) -> Phase {
        let node: api::Node = serde_json::from_value(node.clone()).expect("a node");
        host(node, "utah").phase
    }

    #[test]
    fn a_name_has_at_most_sixteen_characters_and_is_the_deployments_own() {
        assert_eq!(name(&tags()), "ip-0123456789");
        assert!(name(&tags()).len() <= 16);
    }

    #[test]
    fn tags_and_count_come_back_from_the_bindings() {
        let order = Order {
            name: name(&tags()),
            tags: tags(),
            count: 4,
            public_key: None,
        };
        let bindings = bindings(&order, Some("m510"))
            .into_iter()
            .map(|(k, v)| (k, v.into()))
            .collect();
        let read = read(api::Experiment {
            id: "u".into(),
            bindings: Some(bindings),
            ..api::Experiment::default()
        });
        assert_eq!((read.tags, read.count), (Some(tags()), 4));
        let foreign = super::read(api::Experiment::default());
        assert_eq!(foreign.tags, None);
    }

    #[test]
    fn a_node_is_ready_when_it_is_up_and_its_startup_succeeded() {
        let node = |status: &str, raw: &str, startup: serde_json::Value| {
            phase(
                &serde_json::json!({"client_id": "node0", "status": status, "state": "started",
                "rawstate": raw, "startup_status": startup}),
            )
        };
        for good in [
            serde_json::Value::Null,
            "".into(),
            0.into(),
            "0".into(),
            "exited (0)".into(),
        ] {
            assert_eq!(node("ready", "ISUP", good), Phase::Ready);
        }
        for bad in [
            1.into(),
            serde_json::Value::from("failed"),
            "exited (7)".into(),
        ] {
            assert!(matches!(node("ready", "ISUP", bad), Phase::Failed(_)));
        }
        for (status, raw, startup) in [
            ("ready", "BOOTING", "0"),
            ("ready", "ISUP", "running"),
            ("changing", "ISUP", "0"),
            ("", "", "0"),
            ("resting", "TBSETUP", "0"),
        ] {
            let found = node(status, raw, startup.into());
            assert!(
                matches!(found, Phase::Pending(_)),
                "{status} {raw} {startup}: {found:?}"
            );
        }
        assert!(matches!(
            node("failed", "TBFAILED", "0".into()),
            Phase::Failed(_)
        ));
    }

    #[test]
    fn an_unknown_state_is_pending() {
        for status in ["created", "provisioning", "provisioned", "dreaming", ""] {
            assert!(matches!(whole(status), Phase::Pending(_)), "{status}");
        }
        assert_eq!(whole("ready"), Phase::Ready);
        assert!(matches!(whole("failed"), Phase::Failed(_)));
    }

    #[test]
    fn times_are_read_in_every_zone() {
        let unix = |text| {
            let time = time(text)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(time.as_secs())
        };
        assert_eq!(unix("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix("2025-02-20T06:00:00+00:00"), Some(1_740_031_200));
        assert_eq!(unix("2025-02-19T23:00:00.123-07:00"), Some(1_740_031_200));
        assert_eq!(unix("2024-02-29T12:00:00Z"), Some(1_709_208_000));
        for bad in [
            "",
            "soon",
            "2025-02-20",
            "2025-13-20T06:00:00Z",
            "2025-02-20T06:00:00?1",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_extension_is_asked_in_whole_hours_and_only_when_needed() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(hours_missing(at(0), at(3601)), Some(2));
        assert_eq!(hours_missing(at(0), at(3600)), Some(1));
        assert_eq!(hours_missing(at(5), at(5)), None);
        assert_eq!(hours_missing(at(9), at(5)), None);
    }
}
