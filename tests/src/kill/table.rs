//! The table of what was killed when, and how it came out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Cure, Phase};

/// A kill that was cured.
#[derive(Debug, Clone)]
pub struct Kill {
    /// What was killed.
    pub phase: Phase,
    /// At which point: `WHEN VERB OWNER: KIND NAME`.
    pub point: String,
    /// What was done then.
    pub cure: Cure,
}

/// Phase, action.
type Row = (Phase, String);

/// One kind of host as a section of a Markdown file.
pub fn render(
    kind: &str,
    points: &[(Phase, Vec<String>)],
    kills: &[Kill],
    failed: usize,
    seconds: u64,
) -> String {
    let mut rows: BTreeMap<Row, BTreeMap<(String, Cure), usize>> = BTreeMap::new();
    let mut order: Vec<Row> = Vec::new();
    let all = points
        .iter()
        .flat_map(|(phase, points)| points.iter().map(move |point| (*phase, point)));
    for (phase, point) in all.chain(kills.iter().map(|kill| (kill.phase, &kill.point))) {
        let row = (phase, action(point).1);
        if !order.contains(&row) {
            order.push(row.clone());
        }
        rows.entry(row).or_default();
    }
    order.sort_by_key(|(phase, _)| *phase);
    for kill in kills {
        let (when, action) = action(&kill.point);
        let row = rows.entry((kill.phase, action)).or_default();
        *row.entry((when, kill.cure)).or_default() += 1;
    }
    let mut out = format!(
        "## {kind}\n\n{}: {} kills, {} points, {failed} failures, {seconds} s.\n\n\
         | command | action | killed before | killed after |\n|---|---|---|---|\n",
        today(),
        kills.len() + failed,
        points.iter().map(|(_, p)| p.len()).sum::<usize>(),
    );
    for row in order {
        let cures = &rows[&row];
        let cell = |when: &str| {
            let of = |cure| cures.get(&(when.to_owned(), cure));
            let words = [
                (Cure::Resume, "resumed"),
                (Cure::Destroy, "destroyed"),
                (Cure::Gc, "found by gc"),
            ];
            let said: Vec<_> = words
                .into_iter()
                .filter_map(|(cure, word)| of(cure).map(|count| format!("{word} {count}×")))
                .collect();
            if said.is_empty() {
                "—".to_owned()
            } else {
                format!("clean: {}", said.join(", "))
            }
        };
        let (phase, action) = &row;
        let _ = writeln!(
            out,
            "| {} | {action} | {} | {} |",
            phase.words(),
            cell("before"),
            cell("after")
        );
    }
    out
}

/// The date in UTC.
fn today() -> String {
    let output = Command::new("date").args(["-u", "+%F"]).output();
    let output = output.expect("`date` runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// `before make site local: domain ipop-x-worker-0` is `before` and `make domain`.
pub fn action(point: &str) -> (String, String) {
    let (when, rest) = point.split_once(' ').unwrap_or((point, ""));
    let words: Vec<_> = rest.split(' ').collect();
    let owner = words.iter().position(|word| word.ends_with(':'));
    let kind = owner.and_then(|at| words.get(at + 1)).copied();
    let verb = words.first().copied().unwrap_or_default();
    let action = kind.map_or(rest.to_owned(), |kind| format!("{verb} {kind}"));
    (when.to_owned(), action)
}

/// The actions of the clean run that no kill hit before and after them, as `WHEN ACTION`.
pub fn missed(points: &[(Phase, Vec<String>)], kills: &[Kill]) -> BTreeSet<String> {
    let words = |phase: Phase, point: &str| {
        let (when, action) = action(point);
        format!("{} {when} {action}", phase.words())
    };
    let hit: BTreeSet<_> = kills.iter().map(|k| words(k.phase, &k.point)).collect();
    let all = points
        .iter()
        .flat_map(|(phase, points)| points.iter().map(|point| words(*phase, point)));
    all.filter(|point| !hit.contains(point)).collect()
}

/// Replaces the section of this kind of host in the file that `IPOP_KILL_TABLE` names.
pub fn write(kind: &str, section: &str) {
    let Some(path) = std::env::var_os("IPOP_KILL_TABLE").map(PathBuf::from) else {
        return;
    };
    // The tests of one program run side by side, those of others do not.
    static FILE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = FILE.lock().expect("no panic");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, replaced(&text, kind, section)).unwrap_or_else(|e| {
        panic!("{}: {e}", Path::new(&path).display());
    });
}

fn replaced(text: &str, kind: &str, section: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("## ") || parts.is_empty() {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    let head = format!("## {kind}\n");
    let section = format!("{}\n", section.trim_end());
    match parts.iter_mut().find(|part| part.starts_with(&head)) {
        Some(part) => *part = section,
        None => parts.push(section),
    }
    let trimmed = parts.iter().map(|part| part.trim_end());
    trimmed.collect::<Vec<_>>().join("\n\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_replaces_the_one_of_its_kind_and_no_other() {
        let text = "# Title\n\nWords.\n\n## one\n\nold\n\n## two\n\nstays\n";
        let new = replaced(text, "one", "## one\n\nnew\n");
        assert_eq!(
            new,
            "# Title\n\nWords.\n\n## one\n\nnew\n\n## two\n\nstays\n"
        );
        let added = replaced(text, "three", "## three\n\nnew\n");
        assert!(
            added.ends_with("## two\n\nstays\n\n## three\n\nnew\n"),
            "{added}"
        );
    }

    #[test]
    fn an_action_that_no_kill_hit_is_missed() {
        let point = |when: &str| format!("{when} make site local: domain ipop-x-worker-0");
        let points = [(Phase::Create, vec![point("before"), point("after")])];
        let kill = Kill {
            phase: Phase::Create,
            point: point("before"),
            cure: Cure::Resume,
        };
        let missed = missed(&points, &[kill]);
        assert_eq!(missed, ["create after make domain".to_owned()].into());
    }
}
