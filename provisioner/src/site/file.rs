//! The form of `sites.toml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Site, SiteKind};
use crate::backend::libvirt::LibvirtSite;
use crate::error::{CliError, ExitCode};
use crate::plan::group::Group;
use crate::rendezvous::config::RendezvousConfig;
use crate::size::Mebibytes;

/// What a file says.
pub struct Parsed {
    pub sites: Vec<Site>,
    pub rendezvous: Option<RendezvousConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    #[serde(default)]
    site: BTreeMap<String, SiteTable>,
    rendezvous: Option<RendezvousConfig>,
}

/// Flat, and not an enum by kind, so that the parser can point at the line of a wrong key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteTable {
    kind: KindName,
    uri: Option<String>,
    pool: Option<String>,
    pool_path: Option<PathBuf>,
    memory: Option<Mebibytes>,
    cpus: Option<u32>,
    max: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindName {
    Libvirt,
}

/// Reads the text of a file called `name`.
pub fn parse(text: &str, name: &str) -> Result<Parsed, CliError> {
    let defective = |message: &str| CliError::new(ExitCode::Config, format!("`{name}`{message}"));
    let table: FileTable = toml::from_str(text).map_err(|e| {
        let place = e.span().map(|span| line(text, span.start, e.message()));
        let place = place
            .map(|line| format!(" line {line}"))
            .unwrap_or_default();
        // The parser's own form draws the line; its message alone names the key.
        defective(&format!("{place}: {}", e.message()))
            .hint("`provision site --help` shows a file with every key")
    })?;
    let mut sites = Vec::new();
    for (site, table) in table.site {
        if format!("1@{site}").parse::<Group>().is_err() {
            return Err(
                defective(&format!(": `{site}` cannot be the name of a site"))
                    .hint("use lower-case letters, digits and inner hyphens"),
            );
        }
        for (key, value) in [("cpus", table.cpus), ("max", table.max)] {
            if value == Some(0) {
                return Err(defective(&format!(
                    ": site.{site}.{key} must be at least 1"
                )));
            }
        }
        let KindName::Libvirt = table.kind;
        let libvirt = LibvirtSite {
            uri: table.uri.unwrap_or_else(|| LibvirtSite::default().uri),
            pool: table.pool,
            pool_path: table.pool_path,
        };
        sites.push(Site {
            name: site,
            kind: SiteKind::Libvirt(libvirt),
            memory_mib: table.memory.map(|m| m.0),
            cpus: table.cpus,
            max: table.max,
        });
    }
    Ok(Parsed {
        sites,
        rendezvous: table.rendezvous,
    })
}

/// The line of a defect. For a wrong key of a table with `kind` the parser knows only where the
/// table begins, so the key is looked for from there.
fn line(text: &str, start: usize, message: &str) -> usize {
    let first = text[..start.min(text.len())].matches('\n').count();
    let key = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split('`').next());
    let is_key = |line: &str| {
        key.is_some_and(|key| {
            line.trim_start()
                .strip_prefix(key)
                .is_some_and(|r| r.trim_start().starts_with('='))
        })
    };
    text.lines()
        .skip(first)
        .position(is_key)
        .map_or(first, |offset| first + offset)
        + 1
}
