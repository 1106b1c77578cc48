//! Rules as people read them.

use ipop_proto::policy::{Member, Policy, sentences, summary};

use super::View;

/// The rules, and what they mean for the node.
pub(super) fn list(view: &View) -> String {
    let Some(policy) = Policy::new(&view.rules) else {
        return "no rules: everybody reaches everybody\n".to_owned();
    };
    let mut out = sentences(&view.rules);
    let head = [
        "NODE",
        "GROUPS",
        "MAY REACH THIS NODE",
        "THIS NODE MAY REACH",
    ]
    .map(str::to_owned);
    let me = &view.me;
    let own = [
        format!("{} (this node)", me.name),
        groups(me),
        "-".to_owned(),
        "-".to_owned(),
    ];
    let peers = view.peers.iter().map(|peer| {
        [
            // What a peer is called by somebody else stays out of the terminal.
            peer.name.chars().filter(|c| !c.is_control()).collect(),
            groups(peer),
            summary(&policy.allowed(peer, me)),
            summary(&policy.allowed(me, peer)),
        ]
    });
    let rows: Vec<_> = [head, own].into_iter().chain(peers).collect();
    let widths = [0, 1, 2].map(|at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.max().unwrap_or_default()
    });
    out.push('\n');
    for [name, groups, may, is] in &rows {
        let [a, b, c] = widths;
        out += &format!("{name:a$}  {groups:b$}  {may:c$}  {is}\n");
    }
    if !view.unknown.is_empty() {
        out += &format!(
            "\nno link, so that nothing is known of: {}\n",
            view.unknown.join(", ")
        );
    }
    out.retain(|c| c == '\n' || !c.is_control());
    out
}

fn groups(member: &Member) -> String {
    let groups: Vec<_> = member.groups.iter().map(String::as_str).collect();
    match groups[..] {
        [] => "-".to_owned(),
        _ => groups.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use ipop_proto::policy::{What, reason};

    use super::*;

    fn member(name: &str, groups: &[&str]) -> Member {
        Member {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            role: None,
        }
    }

    fn view() -> View {
        let rule = |text: &str| toml::from_str(text).expect("a rule");
        View {
            me: member("lake-data", &["storage"]),
            rules: vec![
                rule(
                    "from = \"group:lake\"\nto = \"node:lake-data\"\nprotocol = \"tcp\"\nport = 2049",
                ),
                rule("from = \"any\"\nto = \"any\"\nprotocol = \"icmp\""),
            ],
            peers: vec![
                member("alice-laptop\u{1b}[2J", &["crew", "lake"]),
                member("backup", &["storage"]),
                member("guest", &[]),
            ],
            unknown: vec!["worker-1".to_owned()],
        }
    }

    #[test]
    fn the_rules_are_shown_as_reviewed() {
        insta::assert_snapshot!(list(&view()));
        assert_eq!(
            list(&View::default()),
            "no rules: everybody reaches everybody\n"
        );
    }

    #[test]
    fn an_answer_has_its_reason() {
        let view = view();
        let policy = Policy::new(&view.rules).expect("rules");
        let ask = |from: &str, to: &str, what: What| {
            let member = |name: &str| view.member(name).expect("known");
            let (from, to) = (member(from), member(to));
            reason(Some(policy.ask(&from, &to, what)))
        };
        assert_eq!(
            ask("group:lake", "lake-data", What::Tcp(2049)),
            "by rule 1, members of group lake may reach lake-data on TCP port 2049"
        );
        assert_eq!(
            ask("node:guest", "lake-data", What::Icmp),
            "by rule 2, everybody may reach everybody with ICMP (ping)"
        );
        assert_eq!(
            ask("backup", "group:storage", What::Udp(53)),
            "both are in group storage"
        );
        assert_eq!(
            ask("guest", "lake-data", What::Tcp(2049)),
            "no rule allows it, and they have no group in common"
        );
        let why = |name| view.member(name).expect_err("not known").to_string();
        assert!(why("worker-1").contains("`worker-1` has no link"));
        assert!(why("nobody").contains("no `nobody` is known here"));
    }
}
