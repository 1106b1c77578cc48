//! Which Debian mirror to install from: the one this machine itself uses.

use std::path::Path;

/// Archives to install from: base addresses, without the suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The main archive.
    pub main: String,
    /// The security archive, when there is one.
    pub security: Option<String>,
}

impl Mirror {
    /// Lines for `sources.list` that give a suite with its updates.
    pub fn lines(&self, suite: &str) -> Vec<String> {
        let main = &self.main;
        let mut lines = vec![
            format!("deb {main} {suite} main"),
            format!("deb {main} {suite}-updates main"),
        ];
        if let Some(security) = &self.security {
            lines.push(format!("deb {security} {suite}-security main"));
        }
        lines
    }

    /// Reads this machine's APT configuration below `etc_apt` (`/etc/apt`).
    pub fn of_host(etc_apt: &Path) -> Option<Self> {
        let mut files = vec![etc_apt.join("sources.list")];
        if let Ok(dir) = std::fs::read_dir(etc_apt.join("sources.list.d")) {
            files.extend(dir.flatten().map(|entry| entry.path()));
        }
        files.sort();
        let mut entries = Vec::new();
        for file in files {
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            match file.extension().and_then(|e| e.to_str()) {
                Some("sources") => entries.extend(deb822(&text)),
                Some("list") => entries.extend(one_line(&text)),
                _ => {}
            }
        }
        Self::choose(&entries)
    }

    /// Picks out Debian's own archives of `(address, suite)` entries: by the suite's and the
    /// path's names, since a mirror can be on any host.
    fn choose(entries: &[(String, String)]) -> Option<Self> {
        let path_ends = |uri: &str, name: &str| uri.rsplit('/').next() == Some(name);
        let main = entries
            .iter()
            .find(|(uri, suite)| path_ends(uri, "debian") && !suite.contains('/'))?;
        let security = entries.iter().find(|(uri, suite)| {
            path_ends(uri, "debian-security")
                && (suite.ends_with("-security") || suite.contains("/updates"))
        });
        Some(Self {
            main: main.0.clone(),
            security: security.map(|(uri, _)| uri.clone()),
        })
    }
}

/// `deb [options] address suite component…` lines.
fn one_line(text: &str) -> Vec<(String, String)> {
    let entry = |line: &str| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        Some((address(words.next()?), words.next()?.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

/// Stanzas of `*.sources` files (sources.list(5), deb822 style).
fn deb822(text: &str) -> Vec<(String, String)> {
    let text: String = text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| format!("{}\n", l.trim_end()))
        .collect();
    let mut entries = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let line = stanza.lines().find_map(|l| {
                let (key, value) = l.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then_some(value)
            })?;
            Some(
                line.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>(),
            )
        };
        let disabled = field("Enabled").is_some_and(|v| v.iter().any(|v| v == "no"));
        let deb = field("Types").is_some_and(|v| v.iter().any(|v| v == "deb"));
        if let (Some(uris), Some(suites), true, false) =
            (field("URIs"), field("Suites"), deb, disabled)
        {
            for uri in &uris {
                entries.extend(suites.iter().map(|suite| (address(uri), suite.clone())));
            }
        }
    }
    entries
}

fn address(uri: &str) -> String {
    uri.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deb822_sources_with_comments_give_main_and_security() {
        let text = "Types: deb\n# http://old.example/x\nURIs: http://mirror.example/debian/\nSuites: bookworm bookworm-updates\n\
                    \nTypes: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n";
        let mirror = Mirror::choose(&deb822(text)).expect("a mirror");
        assert_eq!(mirror.main, "http://mirror.example/debian");
        assert_eq!(
            mirror.security.as_deref(),
            Some("http://mirror.example/debian-security")
        );
    }

    #[test]
    fn one_line_sources_with_options_are_read_and_others_passed_over() {
        let text = "deb https://packages.other.example/apt tool main\n# deb http://no.example/debian x main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n";
        let mirror = Mirror::choose(&one_line(text)).expect("a mirror");
        assert_eq!(
            mirror,
            Mirror {
                main: "http://mirror.example/debian".into(),
                security: None
            }
        );
    }

    #[test]
    fn a_disabled_stanza_is_no_mirror() {
        let text =
            "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        assert_eq!(Mirror::choose(&deb822(text)), None);
    }

    #[test]
    fn a_suite_comes_with_its_updates() {
        let mirror = Mirror {
            main: "http://m.example/debian".into(),
            security: Some("http://m.example/s".into()),
        };
        assert_eq!(
            mirror.lines("trixie"),
            [
                "deb http://m.example/debian trixie main",
                "deb http://m.example/debian trixie-updates main",
                "deb http://m.example/s trixie-security main"
            ]
        );
    }
}
