//! `provision audit`: who was invited, got a certificate, was refused and was taken out; and who linked.

mod nodes;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use clap::Args;
use ipop_node::audit::Trail;
use ipop_proto::audit::{Event, Record, Timestamp};

use super::Context;
use super::context::no_such_deployment;
use crate::audit::LIMIT;
use crate::error::{CliError, ExitCode};
use crate::name::check_deployment;
use crate::report::table::table;
use crate::size::duration;

const EXAMPLES: &str = "\
Examples:
  provision audit lake                             all that is recorded, oldest first
  provision audit lake --since 2h --event refused
  provision audit lake --node alice-laptop --json  one record a line, for other programs
  provision audit lake --nodes --since 1h          and what machines saw: who had links with them
  provision audit lake --from frontend-0 --event link-refused

Events: invited, certified, refused, revoked, not-revoked, list-in-force, account-closed, destroyed;
of nodes: link-up, link-down, link-refused, denied, certificate-renewed, list-in-force, left-out;
of shares: mounted, unmounted.
The owner's records stay when the deployment is destroyed; those of nodes go with their machines. A
key is the SHA-256 of the node's public key (SubjectPublicKeyInfo), shortened in the table. With a
machine that does not answer the exit code is 5, after all that the others have.";

/// Digits of a key that people are shown.
const KEY_DIGITS: usize = 12;

/// Show who was let into an overlay, who was refused and who was taken out
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AuditArgs {
    /// The deployment; it may be destroyed
    pub name: String,
    /// Only what is not older: 2h, or 2026-11-27T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,
    /// Only these events; may be repeated
    #[arg(long, value_parser = event)]
    pub event: Vec<Event>,
    /// Only what is about this node
    #[arg(long)]
    pub node: Option<String>,
    /// Also what the deployment's machines have recorded of links, merged by time
    #[arg(long)]
    pub nodes: bool,
    /// The same, only of this node's machine; may be repeated
    #[arg(long, value_name = "NODE")]
    pub from: Vec<String>,
}

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(Duration),
    /// That time.
    Time(SystemTime),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(Timestamp(time)) = text.parse() {
        return Ok(Since::Time(time));
    }
    duration(text).map(Since::Ago).map_err(|_| {
        format!("`{text}` is no time; write it like 90s, 15m, 2h or 2026-11-27T14:00:00Z")
    })
}

fn event(text: &str) -> Result<Event, String> {
    let Ok(event) = text.parse();
    match event {
        Event::Other(_) => {
            let names: Vec<_> = Event::names().collect();
            Err(format!(
                "`{text}` is no event; there are {}",
                names.join(", ")
            ))
        }
        event => Ok(event),
    }
}

/// Runs the command.
pub fn run(context: &Context, args: AuditArgs) -> Result<u8, CliError> {
    let name = &args.name;
    let database = context.database()?;
    // A name that no deployment can have is not looked for among files.
    let kept = match check_deployment(name) {
        Ok(()) => {
            let trail = Trail::new(context.layout.audit(name), LIMIT, true);
            let read = trail.read();
            read.map_err(|error| CliError::file("read", trail.path(), error))?
        }
        Err(_) => Default::default(),
    };
    if !kept.exists && database.deployment(name)?.is_none() {
        let names: BTreeSet<_> = database
            .deployments()?
            .into_iter()
            .map(|d| d.name)
            .collect();
        return Err(no_such_deployment(name, &names));
    }
    if kept.damaged > 0 {
        let (lines, path) = (kept.damaged, context.layout.audit(name));
        eprintln!(
            "warning: {lines} lines of {} are no records and are left out",
            path.display()
        );
    }
    let mut records = kept.records;
    let mut code = 0;
    if args.nodes || !args.from.is_empty() {
        let deployment = context.deployment(&database, name)?;
        let nodes = database.nodes(deployment.id)?;
        let asked = nodes::chosen(&deployment, &nodes, &args.from)?;
        let gathered = nodes::gather(context, &database, &deployment, &nodes, &asked);
        for warning in &gathered.warnings {
            eprintln!("warning: {}", harmless(warning));
        }
        records.extend(gathered.records);
        if gathered.is_partial {
            code = ExitCode::Unavailable as u8;
        }
    }
    let records = args.chosen(records, SystemTime::now());
    if context.global.json {
        print!("{}", lines(&records)?);
    } else {
        print!("{}", text(name, &records));
    }
    Ok(code)
}

impl AuditArgs {
    /// The records that are asked for, oldest first.
    fn chosen(&self, records: Vec<Record>, now: SystemTime) -> Vec<Record> {
        let begin = self.since.map(|since| match since {
            Since::Ago(ago) => now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
            Since::Time(time) => time,
        });
        let mut chosen: Vec<_> = records
            .into_iter()
            .filter(|r| begin.is_none_or(|begin| r.time.0 >= begin))
            .filter(|r| self.event.is_empty() || self.event.contains(&r.event))
            .filter(|r| self.node.is_none() || self.node == r.node)
            .collect();
        // Stable: what has the same time stays as it was written.
        chosen.sort_by_key(|record| record.time);
        chosen
    }
}

fn lines(records: &[Record]) -> Result<String, CliError> {
    let lines = records.iter().map(Record::to_line);
    lines
        .collect::<Result<String, _>>()
        .map_err(|e| CliError::new(ExitCode::Internal, "cannot write a record").caused_by(e))
}

fn text(name: &str, records: &[Record]) -> String {
    if records.is_empty() {
        return format!("nothing like that is recorded of `{name}`\n");
    }
    let row = |record: &Record| {
        let shown = |text: &Option<String>| {
            let text = text.as_deref().filter(|text| !text.is_empty());
            text.map_or("-".to_owned(), harmless)
        };
        let key = record
            .key
            .as_ref()
            .map(|key| key.chars().take(KEY_DIGITS).collect());
        vec![
            record.time.to_string(),
            harmless(&record.event.to_string()),
            shown(
                record
                    .node
                    .as_ref()
                    .map_or(&record.account, |_| &record.node),
            ),
            shown(&record.person),
            shown(&key),
            harmless(&record.by),
            details(record),
        ]
    };
    let rows: Vec<_> = records.iter().map(row).collect();
    let header = ["TIME", "EVENT", "NODE", "PERSON", "KEY", "BY", "DETAILS"];
    table(&header, &rows)
}

/// What a record says besides.
fn details(record: &Record) -> String {
    let mut out = Vec::new();
    if let Some(why) = &record.why {
        out.push(harmless(why));
    }
    if let Some(list) = record.list {
        out.push(format!("list {list}"));
    }
    if !record.addrs.is_empty() {
        let addrs: Vec<_> = record.addrs.iter().map(|addr| harmless(addr)).collect();
        out.push(addrs.join(" "));
    }
    let mut out = out.join("; ");
    if let Some(count) = record.count {
        let _ = write!(out, " ({count} times)");
    }
    out
}

/// Text of strangers, without what a terminal would obey.
fn harmless(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn records() -> Vec<Record> {
        let record = |event, seconds, node: &str| Record {
            node: Some(node.to_owned()),
            by: "owner".to_owned(),
            ..Record::new(event, at(seconds))
        };
        vec![
            Record {
                person: Some("alice".to_owned()),
                addrs: vec!["10.130.2.254".to_owned(), "fd5a:1:2:3::fe".to_owned()],
                why: Some("good until 1970-01-02T00:16:40.000Z".to_owned()),
                ..record(Event::Invited, 1000, "alice")
            },
            Record {
                key: Some("0123456789abcdef".repeat(4)),
                list: Some(3),
                ..record(Event::Revoked, 3000, "worker-0")
            },
            Record {
                node: None,
                account: Some("eve\u{1b}[31m@example.org".to_owned()),
                why: Some("it is no node's account".to_owned()),
                count: Some(41),
                ..record(Event::Refused, 2000, "")
            },
        ]
    }

    fn args(line: &str) -> Result<AuditArgs, clap::Error> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: AuditArgs,
        }
        use clap::Parser as _;
        let words = ["audit", "lake"].into_iter();
        Line::try_parse_from(words.chain(line.split_whitespace())).map(|line| line.args)
    }

    #[test]
    fn people_see_a_table_in_order_and_nothing_that_a_terminal_obeys() {
        let chosen = args("").expect("valid").chosen(records(), at(4000));
        insta::assert_snapshot!(text("lake", &chosen));
    }

    #[test]
    fn what_is_asked_for_is_shown_and_what_is_not_is_not() {
        let chosen = |line: &str| {
            let chosen = args(line).expect(line).chosen(records(), at(4000));
            let events = chosen.iter().map(|record| record.event.to_string());
            events.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(chosen("--since 2000s"), "refused revoked");
        assert_eq!(chosen("--since 1970-01-01T00:33:21Z"), "revoked");
        assert_eq!(
            chosen("--since 1970-01-01T01:00:00+00:30"),
            "refused revoked"
        );
        assert_eq!(chosen("--event refused --event invited"), "invited refused");
        assert_eq!(chosen("--node alice"), "invited");
        assert_eq!(chosen("--node alice --event revoked"), "");
        for wrong in ["--since soon", "--event refusd", "--since 0s"] {
            assert!(args(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn programs_get_each_record_as_it_was_kept() {
        let chosen = args("").expect("valid").chosen(records(), at(4000));
        let lines = lines(&chosen).expect("JSON");
        let read: Vec<_> = lines
            .lines()
            .map(|line| Record::from_line(line).expect("a record"))
            .collect();
        assert_eq!(read, chosen);
    }
}
