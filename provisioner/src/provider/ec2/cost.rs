//! What machines cost, from a table.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::config::Ec2Site;
use crate::error::{CliError, ExitCode};
use crate::provider::{Cost, SitePlan};

/// The table that is shipped.
const SHIPPED: &str = include_str!("../../../data/ec2-prices.toml");
/// The average month of the price lists.
const HOURS_A_MONTH: f64 = 730.0;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// When it was written down.
    #[serde(rename = "date")]
    _date: Option<String>,
    #[serde(default)]
    region: BTreeMap<String, Region>,
}

/// US dollars.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Region {
    /// Per GiB and month.
    volume: Option<f64>,
    /// Per GiB and month.
    snapshot: Option<f64>,
    /// Per hour and address.
    public_ipv4: Option<f64>,
    /// Per hour, by instance type.
    #[serde(default)]
    hour: BTreeMap<String, f64>,
}

/// What the plan costs; none when the table does not know the region or the type. Spot prices
/// move, so for spot instances this is the on-demand price: the most that is paid, as no highest
/// price is given when they are asked for. Stored is what keeping the images costs at most.
pub fn estimate(site: &Ec2Site, plan: &SitePlan<'_>) -> Result<Option<Cost>, CliError> {
    let mut region = parse(SHIPPED, "the shipped price table")?
        .remove(&site.region)
        .unwrap_or_default();
    if let Some(path) = &site.prices {
        replace(
            &mut region,
            read(path)?.remove(&site.region).unwrap_or_default(),
        );
    }
    let Some(hour) = region.hour.get(&site.instance_type) else {
        return Ok(None);
    };
    let machines = plan.machines.len() as f64;
    let gib: f64 = plan.machines.iter().map(|m| f64::from(m.disk_gib)).sum();
    let volumes = gib * region.volume.unwrap_or(0.0) / HOURS_A_MONTH;
    let addresses = machines * region.public_ipv4.unwrap_or(0.0);
    Ok(Some(Cost {
        usd_per_hour: machines * hour + volumes + addresses,
        usd_per_month_stored: stored_gib(plan) * region.snapshot.unwrap_or(0.0),
    }))
}

/// Snapshots have no zeroes, as files have holes.
fn stored_gib(plan: &SitePlan<'_>) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let used = plan
        .images
        .iter()
        .filter(|(role, _)| plan.machines.iter().any(|machine| machine.image == **role));
    let bytes = used.filter_map(|(_, image)| {
        let file = std::fs::metadata(image.whole.as_ref()?).ok()?;
        Some(file.blocks() * 512)
    });
    bytes.sum::<u64>() as f64 / f64::from(1 << 30)
}

fn read(path: &Path) -> Result<BTreeMap<String, Region>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        CliError::new(
            ExitCode::Config,
            format!("cannot read the price table `{}`", path.display()),
        )
        .caused_by(e)
        .hint("`prices` of the site in sites.toml names it")
    })?;
    parse(&text, &format!("`{}`", path.display()))
}

fn parse(text: &str, name: &str) -> Result<BTreeMap<String, Region>, CliError> {
    let table: Table = toml::from_str(text).map_err(|e| {
        let line = e
            .span()
            .map(|span| text[..span.start].matches('\n').count() + 1);
        let place = line.map(|line| format!(" line {line}")).unwrap_or_default();
        CliError::new(ExitCode::Config, format!("{name}{place}: {}", e.message())).hint(
            "a price table has [region.NAME] with volume, snapshot, public-ipv4, and \
             [region.NAME.hour] with \"INSTANCE TYPE\" = DOLLARS",
        )
    })?;
    Ok(table.region)
}

fn replace(shipped: &mut Region, own: Region) {
    shipped.volume = own.volume.or(shipped.volume);
    shipped.snapshot = own.snapshot.or(shipped.snapshot);
    shipped.public_ipv4 = own.public_ipv4.or(shipped.public_ipv4);
    shipped.hour.extend(own.hour);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NodeName;
    use crate::provider::{Tags, WantedMachine};

    fn estimated(site: &Ec2Site, machines: u32) -> Result<Option<Cost>, CliError> {
        let tags = Tags {
            owner: "0011223344556677".into(),
            deployment: "demo".into(),
            uid: "8899aabbccddeeff".into(),
        };
        let machines: Vec<_> = (0..machines)
            .map(|slot| WantedMachine {
                node: NodeName(format!("worker-{slot}")),
                role: "worker".into(),
                image: "worker".into(),
                memory_mib: 1024,
                cpus: 1,
                disk_gib: 73,
                data_gib: None,
                slot,
            })
            .collect();
        let plan = SitePlan {
            tags: &tags,
            machines: &machines,
            members: &[],
            images: &BTreeMap::new(),
        };
        estimate(site, &plan)
    }

    fn site(text: &str) -> Ec2Site {
        toml::from_str(text).expect("a site")
    }

    #[test]
    fn machines_disks_and_addresses_are_counted() {
        let cost = estimated(&site("region = \"us-west-2\""), 10)
            .unwrap()
            .unwrap();
        // 10 × 0.0104, 10 × 73 GiB × 0.08 / 730, 10 × 0.005.
        assert!(
            (cost.usd_per_hour - (0.104 + 0.08 + 0.05)).abs() < 1e-9,
            "{cost:?}"
        );
        assert_eq!(cost.usd_per_month_stored, 0.0);
    }

    #[test]
    fn unknown_types_have_no_estimate_and_a_table_of_ones_own_replaces_entries() {
        let unknown = site("region = \"us-west-2\"\ninstance_type = \"x9.huge\"");
        assert_eq!(estimated(&unknown, 1).unwrap(), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[region.us-west-2.hour]\n\"x9.huge\" = 3.0\n").unwrap();
        let own = Ec2Site {
            prices: Some(file.path().to_owned()),
            ..unknown
        };
        let cost = estimated(&own, 1).unwrap().unwrap();
        assert!((cost.usd_per_hour - 3.013).abs() < 1e-9, "{cost:?}");
        std::fs::write(file.path(), "[region.us-west-2]\nvolumes = 1\n").unwrap();
        let error = estimated(&own, 1).unwrap_err();
        assert_eq!(error.code, ExitCode::Config);
        assert!(
            error.message.contains("line 2: unknown field `volumes`"),
            "{error}"
        );
    }
}
