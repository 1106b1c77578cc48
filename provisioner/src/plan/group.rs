//! `COUNT@SITE`, `COUNT:ROLE@SITE`.

use std::fmt;
use std::str::FromStr;

/// Most nodes of one group: a number above is a slip of the finger.
const MAX: u32 = 10_000;

/// Some nodes of one role on one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub count: u32,
    /// Role whose image they start from, if it is another than that of their part in the cluster.
    pub role: Option<String>,
    /// Site name.
    pub site: String,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            None => write!(f, "{}@{}", self.count, self.site),
            Some(role) => write!(f, "{}:{role}@{}", self.count, self.site),
        }
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((count, site)) = text.split_once('@') else {
            return Err(format!("write it as COUNT@SITE, like 2@{}", site_of(text)));
        };
        if site.is_empty() {
            return Err(format!(
                "the site is missing; write it as COUNT@SITE, like {count}@local"
            ));
        }
        if !ipop_proto::config::is_dns_label(site) {
            return Err(format!("`{site}` cannot be the name of a site"));
        }
        let (count, role) = match count.split_once(':') {
            None => (count, None),
            Some((count, role)) if ipop_proto::config::is_dns_label(role) => (count, Some(role)),
            Some((_, role)) => return Err(format!("`{role}` cannot be the name of a role")),
        };
        let count = count
            .parse()
            .ok()
            .filter(|n| (1..=MAX).contains(n))
            .ok_or_else(|| format!("`{count}` is not a count between 1 and {MAX}"))?;
        Ok(Self {
            count,
            role: role.map(str::to_owned),
            site: site.to_owned(),
        })
    }
}

/// Reads the front end's group, where `SITE` alone means one, and so does `ROLE@SITE`.
pub fn frontend(text: &str) -> Result<Group, String> {
    let group = match text.split_once('@') {
        Some((role, site)) if role.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            format!("1:{role}@{site}").parse()?
        }
        None if text.parse::<u32>().is_err() => format!("1@{text}").parse()?,
        _ => text.parse::<Group>()?,
    };
    match group.count {
        1 => Ok(group),
        n => Err(format!(
            "a cluster has exactly one front end, not {n}; write 1@{}",
            group.site
        )),
    }
}

/// Reads a group of gateways, of which `SITE` alone means one.
pub fn gateways(text: &str) -> Result<Group, String> {
    match text.contains('@') || text.parse::<u32>().is_ok() {
        true => text.parse(),
        false => format!("1@{text}").parse(),
    }
}

fn site_of(text: &str) -> &str {
    if text.parse::<u32>().is_ok() || text.is_empty() {
        "local"
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_alone_is_one_gateway() {
        let shown = |text: &str| gateways(text).map(|g| g.to_string());
        assert_eq!(shown("lab").as_deref(), Ok("1@lab"));
        assert_eq!(shown("2:own@lab").as_deref(), Ok("2:own@lab"));
        for text in ["", "2", "l b", "0@lab"] {
            gateways(text).expect_err(text);
        }
    }

    #[test]
    fn each_defect_of_a_group_is_named() {
        for (text, message) in [
            ("2", "write it as COUNT@SITE, like 2@local"),
            ("lab", "write it as COUNT@SITE, like 2@lab"),
            (
                "2@",
                "the site is missing; write it as COUNT@SITE, like 2@local",
            ),
            ("0@lab", "`0` is not a count between 1 and 10000"),
            ("x@lab", "`x` is not a count between 1 and 10000"),
            ("2@La b", "`La b` cannot be the name of a site"),
            ("2:@lab", "`` cannot be the name of a role"),
            ("2:../x@lab", "`../x` cannot be the name of a role"),
            ("0:gpu@lab", "`0` is not a count between 1 and 10000"),
        ] {
            assert_eq!(text.parse::<Group>().expect_err(text), message);
        }
        assert_eq!(
            "20@lab".parse(),
            Ok(Group {
                count: 20,
                role: None,
                site: "lab".to_owned()
            })
        );
        let special: Group = "2:gpu@lab".parse().expect("a role");
        assert_eq!((special.count, special.role.as_deref()), (2, Some("gpu")));
        assert_eq!(special.to_string(), "2:gpu@lab");
    }

    #[test]
    fn the_front_end_is_one_and_may_leave_out_the_count() {
        let one = Ok(Group {
            count: 1,
            role: None,
            site: "lab".to_owned(),
        });
        assert_eq!(frontend("lab"), one);
        assert_eq!(frontend("1@lab"), one);
        let special = frontend("head@lab").expect("a role");
        assert_eq!(Ok(special), "1:head@lab".parse());
        let error = frontend("2@lab").expect_err("two");
        assert_eq!(
            error,
            "a cluster has exactly one front end, not 2; write 1@lab"
        );
    }
}
