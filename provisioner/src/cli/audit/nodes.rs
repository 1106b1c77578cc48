//! What nodes keep themselves, fetched from their machines.

use ipop_node::audit::Kept;
use ipop_proto::audit::Record;

use crate::cli::everywhere::all;
use crate::cli::{Context, ssh};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::plan::personal::AUDIT;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

/// Where a share's machine keeps who had it mounted.
const MOUNTS: &str = "/var/lib/ipop-share/audit.jsonl";
/// Most bytes of one machine's records, the newest: it has two files of 4 MiB, a share's machine twice
/// as many.
const MOST: usize = 18 << 20;

/// What came of asking machines.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// What they have.
    pub records: Vec<Record>,
    /// What is to be said of it.
    pub warnings: Vec<String>,
    /// Whether some machine could not be asked.
    pub is_partial: bool,
}

/// The nodes whose machines are asked: those that are named, or all that are not a person's own.
pub(super) fn chosen<'a>(
    deployment: &Deployment,
    nodes: &'a [NodeRecord],
    names: &[String],
) -> Result<Vec<&'a NodeRecord>, CliError> {
    if names.is_empty() {
        return Ok(nodes.iter().filter(|node| node.person.is_none()).collect());
    }
    let mut chosen: Vec<&NodeRecord> = Vec::new();
    for name in names {
        let node = ssh::node(deployment, nodes, name)?;
        if let Some(person) = &node.person {
            let message = format!("`{name}` is {person}'s own machine: its records are not yours");
            return Err(CliError::new(ExitCode::Name, message)
                .hint("without --from, --nodes asks all machines that `provision` made"));
        }
        if chosen.iter().all(|other| other.name != node.name) {
            chosen.push(node);
        }
    }
    Ok(chosen)
}

/// Asks the machines of `asked`, some at a time. One that does not answer is a warning.
pub(super) fn gather(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    nodes: &[NodeRecord],
    asked: &[&NodeRecord],
) -> Gathered {
    let words = [script(&[AUDIT, MOUNTS])];
    let commands = asked.iter().map(|node| {
        let command = ssh::command(context, database, deployment, nodes, node, &words);
        (&node.name, command)
    });
    let said = all(commands.collect(), MOST);
    let mut gathered = Gathered::default();
    for (name, said) in said {
        gathered.take(deployment, nodes, name, said);
    }
    gathered
}

/// Prints both files of each name, the older one first. The machine may make the one to the other
/// meanwhile: then both names are of the same file, and nothing of what it had is lost.
fn script(files: &[&str]) -> String {
    let print = |file: &&str| {
        format!(
            "if [ -e {file} ]; then exec 3<{file}; if [ -e {file}.1 ]; then exec 4<{file}.1; \
             [ /proc/self/fd/3 -ef /proc/self/fd/4 ] || cat <&4; fi; cat <&3; fi; "
        )
    };
    let all: String = files.iter().map(print).collect();
    format!("{{ {all}}} | tail -c {MOST}")
}

impl Gathered {
    fn take(
        &mut self,
        deployment: &Deployment,
        nodes: &[NodeRecord],
        name: &NodeName,
        said: Result<String, CliError>,
    ) {
        let said = match said {
            Ok(said) => said,
            Err(error) => {
                self.is_partial = true;
                let why = error.one_line();
                self.warnings
                    .push(format!("records of `{name}` are missing: {why}"));
                return;
            }
        };
        if said.is_empty() {
            let warning = format!(
                "`{name}` has no records: it had no link yet, or an older version made `{}`",
                deployment.name
            );
            self.warnings.push(warning);
            return;
        }
        let mut kept = Kept::default();
        // What is longer begins in the middle of a line.
        let cut = (said.len() >= MOST).then(|| said.find('\n')).flatten();
        kept.take(&said.as_bytes()[cut.unwrap_or_default()..]);
        if kept.damaged > 0 {
            let lines = kept.damaged;
            let warning = format!("{lines} lines of `{name}` are no records and are left out");
            self.warnings.push(warning);
        }
        let about = |record: &Record| match (&record.node, record.addrs.as_slice()) {
            (Some(name), _) => nodes.iter().find(|node| node.name.0 == *name),
            // A share knows who mounts it by the address.
            (None, [addr]) => nodes.iter().find(|n| n.ipv4 == *addr || n.ipv6 == *addr),
            (None, _) => None,
        };
        // Nobody writes in another's name, whoever has the machine.
        self.records.extend(kept.records.into_iter().map(|record| {
            let about = about(&record);
            Record {
                by: name.0.clone(),
                person: about.and_then(|node| node.person.clone()),
                node: record
                    .node
                    .or_else(|| about.map(|node| node.name.0.clone())),
                ..record
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::time::{Duration, SystemTime};

    use ipop_proto::audit::Event;

    use super::*;
    use crate::plan::tests::demo;
    use crate::ssh::transport::Limits;
    use crate::state::record::Phase;

    fn deployment() -> Deployment {
        Deployment {
            id: 1,
            name: "demo".to_owned(),
            uid: "00112233445566ff".to_owned(),
            owner: "11223344".to_owned(),
            expires: None,
            quorum: None,
            created: SystemTime::UNIX_EPOCH,
            phase: Phase::Joined,
            domain: "demo.ipop".to_owned(),
            net4: String::new(),
            net6: String::new(),
            settings: "{}".to_owned(),
        }
    }

    fn record(number: u64) -> Record {
        Record {
            node: Some("frontend-0".to_owned()),
            list: Some(number),
            by: "owner".to_owned(),
            ..Record::new(Event::LinkUp, SystemTime::UNIX_EPOCH)
        }
    }

    fn lines(numbers: std::ops::Range<u64>) -> String {
        let lines = numbers.map(|number| record(number).to_line().expect("JSON"));
        lines.collect()
    }

    fn printed(file: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", &script(&["/nonexistent/records", file])]);
        crate::ssh::output_up_to(MOST, command, &Limits::within(Duration::from_secs(60)))
            .expect("it runs")
    }

    #[test]
    fn both_files_are_printed_and_none_is_printed_twice() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("audit.jsonl");
        let older = dir.path().join("audit.jsonl.1");
        let file = path.to_str().expect("UTF-8");
        assert_eq!(printed(file), "");
        fs::write(&path, lines(5..7)).expect("written");
        assert_eq!(printed(file), lines(5..7));
        fs::write(&older, lines(0..5)).expect("written");
        assert_eq!(printed(file), lines(0..7));
        // As while the node makes it the older one.
        fs::remove_file(&older).expect("removed");
        fs::hard_link(&path, &older).expect("linked");
        assert_eq!(printed(file), lines(5..7));
        // Of more than there may be, the newest.
        let many = lines(0..(MOST as u64 / 80));
        fs::write(&older, &many).expect("written");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, lines(5..7)).expect("written");
        let printed = printed(file);
        assert!(printed.len() == MOST && many.len() > MOST);
        assert!(printed.ends_with(&lines(5..7)));
    }

    #[test]
    fn machines_are_asked_side_by_side_and_one_that_fails_costs_no_other_its_records() {
        let names = ["a", "b", "c", "d", "e", "f"].map(|name| NodeName(name.to_owned()));
        let commands = names.iter().map(|name| {
            let mut command = Command::new("sh");
            let word =
                format!("[ {name} != c ] || {{ echo no route >&2; exit 255; }}; echo {name}");
            command.args(["-c", &word]);
            (name, Ok(command))
        });
        let said = all(commands.collect(), MOST);
        let order: Vec<_> = said.iter().map(|(name, _)| name.0.as_str()).collect();
        assert_eq!(order, ["a", "b", "c", "d", "e", "f"]);
        let nodes: Vec<_> = demo().nodes.iter().map(|node| node.record()).collect();
        let mut gathered = Gathered::default();
        for (name, said) in said {
            let said = said.map(|_| lines(0..1));
            gathered.take(&deployment(), &nodes, name, said);
        }
        assert!(gathered.is_partial);
        assert_eq!(gathered.records.len(), 5);
        let [warning] = gathered.warnings.as_slice() else {
            panic!("{:?}", gathered.warnings);
        };
        assert!(
            warning.contains("`c`") && warning.contains("no route"),
            "{warning}"
        );
    }

    #[test]
    fn a_machine_says_nothing_in_anothers_name_and_rubbish_is_told() {
        let node = NodeRecord {
            person: Some("alice".to_owned()),
            ..demo().nodes[0].record()
        };
        let said = format!("{}rubbish\n{}", lines(0..1), lines(1..2));
        let mut gathered = Gathered::default();
        let name = NodeName("worker-0".to_owned());
        gathered.take(&deployment(), &[node], &name, Ok(said));
        assert!(!gathered.is_partial);
        for (number, record) in gathered.records.iter().enumerate() {
            assert_eq!(record.list, Some(number as u64));
            assert_eq!(record.by, "worker-0");
            assert_eq!(record.person.as_deref(), Some("alice"));
        }
        assert_eq!(gathered.records.len(), 2);
        assert_eq!(
            gathered.warnings,
            ["1 lines of `worker-0` are no records and are left out"]
        );
    }

    #[test]
    fn who_mounted_a_share_is_named_where_the_address_is_a_nodes() {
        let node = demo().nodes[1].record();
        let mounted = |addr: &str| Record {
            addrs: vec![addr.to_owned()],
            ..Record::new(Event::Mounted, SystemTime::UNIX_EPOCH)
        };
        let of = [
            mounted(&node.ipv4),
            mounted(&node.ipv6),
            mounted("192.0.2.1"),
        ];
        let said = of.iter().map(|record| record.to_line().expect("JSON"));
        let mut gathered = Gathered::default();
        let name = NodeName("lake-data".to_owned());
        let nodes = [node.clone()];
        gathered.take(&deployment(), &nodes, &name, Ok(said.collect()));
        let names = gathered.records.iter().map(|record| record.node.clone());
        let known = Some(node.name.0);
        assert_eq!(names.collect::<Vec<_>>(), [known.clone(), known, None]);
        assert_eq!(gathered.records[2].addrs, ["192.0.2.1"]);
    }

    #[test]
    fn people_own_machines_are_left_alone() {
        let mut nodes: Vec<_> = demo().nodes.iter().map(|node| node.record()).collect();
        let last = nodes.last_mut().expect("some");
        last.person = Some("alice".to_owned());
        let person = last.name.0.clone();
        let first = nodes[0].name.0.clone();
        let all = chosen(&deployment(), &nodes, &[]).expect("some");
        assert_eq!(all.len(), nodes.len() - 1);
        let twice = chosen(&deployment(), &nodes, &[first.clone(), first]).expect("one");
        assert_eq!(twice.len(), 1);
        for wrong in [person, "nobody".to_owned()] {
            let error = chosen(&deployment(), &nodes, &[wrong]).expect_err("not asked");
            assert_eq!(error.code, ExitCode::Name);
        }
    }
}
