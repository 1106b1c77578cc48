//! Whom to sign in to: `[user@]host[:port]`.

use std::fmt;
use std::str::FromStr;

/// A machine as `ssh` names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// User; without one what `ssh` takes by itself.
    pub user: Option<String>,
    /// Host name or address, an IPv6 address without brackets.
    pub host: String,
    /// Port; without one 22.
    pub port: Option<u16>,
}

/// Text that names no machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not [user@]host[:port]")]
pub struct BadTarget(String);

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget(text.to_owned());
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(bad)?;
                let port = match after {
                    "" => None,
                    _ => Some(after.strip_prefix(':').ok_or_else(bad)?),
                };
                (host, port)
            }
            // More than one colon is an IPv6 address without brackets, hence without a port.
            None if rest.matches(':').count() == 1 => {
                let (host, port) = rest.split_once(':').ok_or_else(bad)?;
                (host, Some(port))
            }
            None => (rest, None),
        };
        let port = match port {
            Some(port) => Some(port.parse().ok().filter(|p| *p != 0).ok_or_else(bad)?),
            None => None,
        };
        // A leading hyphen would be an option of `ssh`.
        let word = |w: &str| {
            let odd = |c: char| c.is_whitespace() || c.is_control() || "'\"\\$`%".contains(c);
            !w.is_empty() && !w.starts_with('-') && !w.contains(odd)
        };
        if !word(host) || host.contains('/') || !user.is_none_or(word) {
            return Err(bad());
        }
        Ok(Self {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            None => f.write_str(&self.host),
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for text in [
            "a.example",
            "me@a.example",
            "me@10.0.0.1:2222",
            "fd00::1",
            "[fd00::1]:22",
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.to_string(), text);
        }
        let target: Target = "me@[fd00::1]:2222".parse().expect("a target");
        assert_eq!((target.host.as_str(), target.port), ("fd00::1", Some(2222)));
    }

    #[test]
    fn what_ssh_would_take_for_something_else_is_refused() {
        for text in [
            "",
            "@a",
            "a:",
            "a:0",
            "a:x",
            "-oProxyCommand=x",
            "a b",
            "[fd00::1",
            "me@-x",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
