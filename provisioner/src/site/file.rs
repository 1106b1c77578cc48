//! The form of `sites.toml`.

use std::collections::BTreeMap;
use std::ops::Range;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{Site, SiteKind};
use crate::error::{CliError, ExitCode};
use crate::plan::group::Group;
use crate::rendezvous::config::RendezvousConfig;
use crate::size::Mebibytes;

/// What a file says.
#[derive(Debug)]
pub struct Parsed {
    pub sites: Vec<Site>,
    pub rendezvous: Option<RendezvousConfig>,
}

/// What every kind of site has.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CommonTable {
    /// Memory of each machine.
    memory: Option<Mebibytes>,
    /// Virtual CPUs of each machine.
    #[schemars(range(min = 1))]
    cpus: Option<u32>,
    /// Most machines of one deployment.
    #[schemars(range(min = 1))]
    max: Option<u32>,
    /// Most things made or removed at once.
    #[schemars(range(min = 1))]
    parallel: Option<u32>,
}

/// Its keys.
const COMMON: [&str; 4] = ["memory", "cpus", "max", "parallel"];

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindName {
    Libvirt,
    Ssh,
    Rocks,
    Cloudlab,
    Ec2,
}

/// A defect and the part of the text that has it.
struct Defect {
    span: Option<Range<usize>>,
    message: String,
}

/// Reads the text of a file called `name`.
pub fn parse(text: &str, name: &str) -> Result<Parsed, CliError> {
    read(text).map_err(|defect| {
        let line = |span: Range<usize>| line(text, span.start, &defect.message);
        let place = defect.span.clone().map(line);
        let place = place.map(|line| format!(" line {line}"));
        CliError::new(
            ExitCode::Config,
            format!("`{name}`{}: {}", place.unwrap_or_default(), defect.message),
        )
        .hint("`provision site --help` shows a file with every key")
    })
}

fn read(text: &str) -> Result<Parsed, Defect> {
    let mut parsed = Parsed {
        sites: Vec::new(),
        rendezvous: None,
    };
    for (key, value) in DeTable::parse(text)?.into_inner() {
        match key.get_ref().as_ref() {
            "site" => {
                let sites = BTreeMap::from_iter(table(value, "site")?.1);
                for (name, value) in sites {
                    parsed.sites.push(site(&name, value)?);
                }
            }
            "rendezvous" => parsed.rendezvous = Some(value_of(value)?),
            other => {
                return Err(Defect {
                    span: Some(key.span()),
                    message: format!("unknown field `{other}`, expected `site` or `rendezvous`"),
                });
            }
        }
    }
    Ok(parsed)
}

fn site(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: Spanned<DeValue<'_>>,
) -> Result<Site, Defect> {
    let name = key.get_ref().as_ref();
    let at = |message: String| Defect {
        span: Some(key.span()),
        message,
    };
    if format!("1@{name}").parse::<Group>().is_err() {
        return Err(at(format!(
            "`{name}` cannot be the name of a site; use lower-case letters, digits and inner hyphens"
        )));
    }
    let (span, table) = table(value, name)?;
    let (mut kind, mut common, mut own) = (None, DeTable::new(), DeTable::new());
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "kind" => kind = Some(value),
            key_name if COMMON.contains(&key_name) => drop(common.insert(key, value)),
            _ => drop(own.insert(key, value)),
        }
    }
    let kind = kind.ok_or_else(|| {
        at(format!(
            "site.{name} has no `kind`; it is one of \"libvirt\", \"ssh\", \"rocks\", \"cloudlab\", \"ec2\""
        ))
    })?;
    let own = Spanned::new(span.clone(), DeValue::Table(own));
    let kind = match value_of(kind)? {
        KindName::Libvirt => value_of(own).map(SiteKind::Libvirt),
        KindName::Ssh => value_of(own).map(SiteKind::Ssh),
        KindName::Rocks => value_of(own).map(SiteKind::Rocks),
        KindName::Cloudlab => value_of(own).map(SiteKind::Cloudlab),
        KindName::Ec2 => value_of(own).map(SiteKind::Ec2),
    }
    .map_err(|mut defect: Defect| {
        if defect.message.starts_with("unknown field") {
            defect.message += &format!(", and {} of every site", COMMON.map(quoted).join(", "));
        }
        defect
    })?;
    let common: CommonTable = value_of(Spanned::new(span, DeValue::Table(common)))?;
    let numbers = [
        ("cpus", common.cpus),
        ("max", common.max),
        ("parallel", common.parallel),
    ];
    if let Some((key, _)) = numbers.iter().find(|(_, n)| *n == Some(0)) {
        return Err(at(format!("site.{name}.{key} must be at least 1")));
    }
    if let SiteKind::Ssh(ssh) = &kind
        && ssh.hosts.is_empty()
    {
        return Err(at(format!("site.{name}.hosts names no machine")));
    }
    if let SiteKind::Libvirt(libvirt) = &kind
        && let Some(lan) = &libvirt.lan
    {
        lan.check()
            .map_err(|defect| at(format!("site.{name}.lan.{defect}")))?;
    }
    if let SiteKind::Rocks(rocks) = &kind {
        rocks
            .lan()
            .map_err(|defect| at(format!("site.{name}.{defect}")))?;
    }
    if let SiteKind::Cloudlab(c) = &kind {
        let given = [
            c.token_env.is_some(),
            c.token_file.is_some(),
            c.token_command.is_some(),
        ];
        if given.iter().filter(|g| **g).count() != 1 {
            return Err(at(format!(
                "site.{name} needs exactly one of token_env, token_file and token_command"
            )));
        }
    }
    Ok(Site {
        name: name.to_owned(),
        kind,
        memory_mib: common.memory.map(|m| m.0),
        cpus: common.cpus,
        max: common.max,
        parallel: common.parallel,
    })
}

fn quoted(key: &str) -> String {
    format!("`{key}`")
}

fn table<'i>(
    value: Spanned<DeValue<'i>>,
    name: &str,
) -> Result<(Range<usize>, DeTable<'i>), Defect> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Table(table) => Ok((span, table)),
        _ => Err(Defect {
            span: Some(span),
            message: format!("`{name}` must be a table, like [site.lab]"),
        }),
    }
}

fn value_of<T: DeserializeOwned>(value: Spanned<DeValue<'_>>) -> Result<T, Defect> {
    let span = value.span();
    T::deserialize(ValueDeserializer::from(value)).map_err(|e| Defect {
        span: e.span().or(Some(span)),
        message: e.message().to_owned(),
    })
}

impl From<toml::de::Error> for Defect {
    fn from(error: toml::de::Error) -> Self {
        Self {
            span: error.span(),
            message: error.message().to_owned(),
        }
    }
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
