//! `provision gc`: finds and removes what deployments left behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::Context;
use super::confirm::Confirm;
use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::gc::late::remove_with_late;
use crate::gc::look::Looked;
use crate::gc::plan::{Allowed, Group, Known, Verdict, leftovers};
use crate::gc::remove::{Hands, Removal};
use crate::gc::{Place, Sighting};
use crate::layout::Layout;
use crate::provider::{Provider, Tags};
use crate::rendezvous::config::{ExternalConfig, RendezvousConfig};
use crate::report::Report;
use crate::site::{Site, Sites};

const EXAMPLES: &str = "\
Examples:
  provision gc --dry-run            show what is left over
  provision gc                      show it, ask, and remove it
  provision gc --site cloud --yes   remove what is left over on one site, without asking

What `provision` makes carries the name of the installation (this user's state directory on this
machine) and of the deployment. What belongs to no recorded deployment is left over; that also works
when the state database is lost. Things of other installations stay unless --any-owner is given, and
things without such tags unless each is named by --also. Data that shares kept is listed and always
stays. A site that does not answer does not keep the others; the exit code is then 10.";

/// Find and remove what deployments left behind
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GcArgs {
    /// Look at this site only; may be repeated [default: all sites, the rendezvous, this machine]
    #[arg(long, value_name = "SITE")]
    pub site: Vec<String>,
    /// Show what is left over and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Remove also what other installations left: make sure that they are not in use
    #[arg(long)]
    pub any_owner: bool,
    /// Remove also this thing, which does not say whose it is; may be repeated
    #[arg(long, value_name = "KIND/ID")]
    pub also: Vec<String>,
}

/// What the command found and did, for `--json`.
#[derive(Debug, Serialize)]
struct Outcome {
    dry_run: bool,
    groups: Vec<Group>,
    unreachable: Vec<Unreachable>,
    #[serde(flatten)]
    removal: Option<Removal>,
}

#[derive(Debug, Serialize)]
struct Unreachable {
    place: Place,
    why: String,
}

/// Runs the command.
pub fn run(context: &Context, args: GcArgs) -> Result<u8, CliError> {
    let interrupt = Interrupt::listen()?;
    let configured = context.sites()?;
    let everywhere = args.site.is_empty();
    let sites = open(context, &configured, &args.site)?;
    let owner = context.owner();
    let rendezvous = match &configured.rendezvous {
        RendezvousConfig::External(config) if everywhere => Some(config),
        _ => None,
    };
    let report = Report::new(context.mode(), &[]);
    let places = Places {
        sites: &sites,
        rendezvous,
        machine: everywhere.then_some((&context.layout, owner.as_str())),
        events: &report,
    };
    let looked = look(&places, &[])?;
    // Read last: whatever was seen was recorded before it was made.
    let known = known(context)?;
    let allowed = Allowed {
        any_owner: args.any_owner,
        named: args.also.iter().cloned().collect(),
    };
    let unreachable: Vec<_> = looked
        .unseen
        .iter()
        .map(|(place, error)| Unreachable {
            place: place.clone(),
            why: error.one_line(),
        })
        .collect();
    check_named(&allowed, &looked.seen, &unreachable)?;
    let groups = leftovers(looked.seen, &known, &owner, &allowed);
    let count = going(&groups);
    let go = !args.dry_run && count > 0;
    if go && !args.yes {
        eprint!("{}", listing(&groups, SystemTime::now()));
        confirm(count)?;
    }
    let mut outcome = Outcome {
        dry_run: args.dry_run,
        groups,
        unreachable,
        removal: None,
    };
    if go {
        let hands = Hands {
            layout: &context.layout,
            sites: &sites,
            rendezvous,
            lives: &|tags| lives(context, tags),
            interrupt: &interrupt,
            events: &report,
        };
        let look = |removed: &[Sighting]| {
            let looked = look(&places, removed)?;
            Ok(leftovers(
                looked.seen,
                &self::known(context)?,
                &owner,
                &allowed,
            ))
        };
        let removal = remove_with_late(outcome.groups.clone(), |g| hands.remove(g), look)?;
        outcome.removal = Some(removal);
    }
    report.finish(&outcome, text);
    finished(&outcome)
}

/// A site's name and its provider.
type Opened = (String, Arc<dyn Provider>);

/// The providers of the sites that were asked for, each host once.
fn open(context: &Context, sites: &Sites, names: &[String]) -> Result<Vec<Opened>, CliError> {
    let chosen: Vec<&Site> = if names.is_empty() {
        sites.iter().collect()
    } else {
        let found = names.iter().map(|name| sites.find(name));
        found.collect::<Result<_, _>>()?
    };
    let mut once: Vec<&Site> = Vec::new();
    for site in chosen {
        if !once.iter().any(|known| known.kind == site.kind) {
            once.push(site);
        }
    }
    let open = |site: &Site| Ok((site.name.clone(), context.provider(site)?));
    once.into_iter().map(open).collect()
}

/// Where it is looked.
struct Places<'a> {
    sites: &'a [Opened],
    rendezvous: Option<&'a ExternalConfig>,
    /// Directories and the installation's name, unless only sites are asked.
    machine: Option<(&'a Layout, &'a str)>,
    events: &'a dyn Sink,
}

/// Looks once; `removed` is what looking before this has led to.
fn look(places: &Places<'_>, removed: &[Sighting]) -> Result<Looked, CliError> {
    let mut looked = Looked::default();
    looked.at_sites(places.sites);
    if let Some(config) = places.rendezvous {
        looked.at_rendezvous(config, removed);
    }
    if let Some((layout, owner)) = places.machine {
        looked.at_machine(layout, owner)?;
    }
    for (place, error) in &looked.unseen {
        let message = format!("{place} cannot be looked at: {}", error.one_line());
        places.events.emit(Event::Warning { message });
    }
    Ok(looked)
}

/// What the database records; nothing when there is none, which is not made for this.
fn known(context: &Context) -> Result<Known, CliError> {
    if !context.layout.database().exists() {
        return Ok(Known::default());
    }
    context.database()?.known()
}

fn lives(context: &Context, tags: &Tags) -> Result<bool, CliError> {
    let known = known(context)?;
    Ok(known.uids.contains(&tags.uid)
        || (tags.uid.is_empty() && known.names.contains(&tags.deployment)))
}

/// Something named that was not seen is a mistake, unless it may be where nobody could look.
fn check_named(
    allowed: &Allowed,
    seen: &[Sighting],
    unreachable: &[Unreachable],
) -> Result<(), CliError> {
    let name = |s: &Sighting| format!("{}/{}", s.found.resource.kind, s.found.resource.id);
    let names: BTreeSet<_> = seen.iter().map(name).collect();
    match allowed.named.iter().find(|named| !names.contains(*named)) {
        Some(missing) if unreachable.is_empty() => {
            let message = format!("there is no `{missing}`");
            let error = CliError::new(ExitCode::Name, message);
            Err(error.hint("`provision gc --dry-run` shows what there is, as KIND `ID`"))
        }
        _ => Ok(()),
    }
}

fn going(groups: &[Group]) -> usize {
    let going = groups.iter().filter(|g| g.verdict == Verdict::Remove);
    going.map(|g| g.things.len()).sum()
}

fn confirm(count: usize) -> Result<(), CliError> {
    Confirm {
        question: format!("remove {count} things?"),
        stakes: format!("{count} things are left over"),
        hint: "add --yes to remove them",
        declined: "nothing was removed: it was not confirmed",
    }
    .ask()
}

/// What is left over, for a person.
fn listing(groups: &[Group], now: SystemTime) -> String {
    let mut out = String::new();
    for group in groups {
        // Uploaded images are meant to stay; a list of them would hide what is left over.
        let kept = |thing: &&Sighting| is_kept(group, thing);
        let images = group.things.iter().filter(kept).count();
        if images > 0 {
            out += &format!(
                "{images} parts of images are kept for later launches; `provision site prune` \
                 removes those that nothing uses\n"
            );
        }
        if images == group.things.len() {
            continue;
        }
        if let (Some(tags), Verdict::Kept) = (&group.tags, group.verdict) {
            out += &kept_data(group, tags);
            continue;
        }
        let whose = match (&group.tags, group.verdict) {
            (None, Verdict::Remove) => "of an unknown owner, named".to_owned(),
            (None, _) => "of an unknown owner: stays unless named by --also".to_owned(),
            (Some(tags), Verdict::Remove) => format!("of `{}`", tags.deployment),
            (Some(tags), _) => format!(
                "of `{}`, made by another installation ({}): stays without --any-owner",
                tags.deployment, tags.owner
            ),
        };
        out += &format!("left over {whose}\n");
        for thing in group.things.iter().filter(|thing| !is_kept(group, thing)) {
            let age = thing.made.and_then(|made| now.duration_since(made).ok());
            let age = age.map(|age| format!(", {} old", super::status::age(age.as_secs())));
            out += &format!("  {thing}{}\n", age.unwrap_or_default());
        }
    }
    out
}

/// Data is no leftover: how it is used again, or deleted.
fn kept_data(group: &Group, tags: &Tags) -> String {
    let line = |thing: &Sighting| {
        let node = thing.found.node.as_ref();
        let share = node.map_or("?", |node| node.0.as_str());
        let target = format!("{}/{share}", tags.deployment);
        format!(
            "data of `{target}` is kept for a share of that name: {thing}\n  \
             `provision share destroy {target} --delete-data` deletes it\n"
        )
    };
    group.things.iter().map(line).collect()
}

fn is_kept(group: &Group, thing: &Sighting) -> bool {
    let image = matches!(thing.found.resource.kind.as_str(), "image" | "snapshot");
    image && group.tags.is_none() && group.verdict != Verdict::Remove
}

fn text(outcome: &Outcome) -> String {
    let Some(removal) = &outcome.removal else {
        if outcome.groups.is_empty() {
            return "nothing is left over\n".to_owned();
        }
        return listing(&outcome.groups, SystemTime::now());
    };
    let mut out = format!("removed {} things\n", removal.removed.len());
    for left in &removal.left {
        out += &format!("still there: {}: {}\n", left.thing, left.why);
    }
    let stays = outcome.groups.iter();
    let stays: Vec<_> = stays
        .filter(|g| g.verdict != Verdict::Remove)
        .cloned()
        .collect();
    out + &listing(&stays, SystemTime::now())
}

fn finished(outcome: &Outcome) -> Result<u8, CliError> {
    let left = outcome.removal.iter().flat_map(|r| &r.left);
    let mut why: Vec<_> = left.map(|l| format!("{} is left", l.thing)).collect();
    let unreachable = outcome.unreachable.iter();
    why.extend(unreachable.map(|u| format!("{} was not looked at", u.place)));
    if why.is_empty() {
        return Ok(0);
    }
    Err(CliError::new(ExitCode::Leftover, why.join(", "))
        .hint("repair the cause and run `provision gc` again"))
}
