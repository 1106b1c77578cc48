//! What the portal refuses, in our words.

use super::api::Refusal;
use super::token::TokenSource;
use crate::error::{CliError, ExitCode, Retry};

/// Why a call had no answer that serves.
#[derive(Debug)]
pub enum ApiError {
    /// The portal answered with a refusal.
    Refused {
        /// HTTP status code.
        status: u16,
        /// What it said.
        refusal: Refusal,
    },
    /// No answer: it may have been carried out or not.
    NoAnswer(Box<dyn std::error::Error + Send + Sync>),
    /// The certificate is not one to trust.
    Certificate(String),
    /// An answer of another form than the API's.
    Strange(String),
    /// The token cannot be had.
    Token(CliError),
}

/// What a refusal is about: the same words and hints wherever it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The token is not taken.
    Auth,
    /// The token is taken, but not for this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The name is taken.
    InUse,
    /// The project or a reservation does not allow it.
    Quota,
    /// There are no free machines of the kind.
    Capacity,
    /// The portal is too busy, or asks to slow down.
    Load,
    /// The portal itself failed.
    Portal,
    /// Anything else: the request is defective, or the profile.
    Request,
}

impl Kind {
    /// Judges by the status code, and where that says little by the words.
    pub fn of(status: u16, refusal: &Refusal) -> Self {
        let words = words(refusal).to_ascii_lowercase();
        let says = |list: &[&str]| list.iter().any(|word| words.contains(word));
        match status {
            401 => Self::Auth,
            404 => Self::NotFound,
            429 => Self::Load,
            _ if says(&["token is expired", "expired token", "invalid token"]) => Self::Auth,
            _ if says(&["quota", "reservation", "reserved"]) => Self::Quota,
            _ if says(&[
                "no resources available",
                "not enough free",
                "not enough nodes",
                "insufficient",
                "could not map",
                "no free",
            ]) =>
            {
                Self::Capacity
            }
            409 => Self::InUse,
            _ if says(&["already in use", "already exists", "not unique"]) => Self::InUse,
            403 => Self::Forbidden,
            500.. => Self::Portal,
            _ => Self::Request,
        }
    }
}

/// All that a refusal says, in one line.
pub fn words(refusal: &Refusal) -> String {
    let details = refusal.errors.iter().map(|e| match e {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let mut all: Vec<String> = Vec::new();
    for text in std::iter::once(refusal.error.clone()).chain(details) {
        let text = text.trim().to_owned();
        if !text.is_empty() && !all.contains(&text) {
            all.push(text);
        }
    }
    all.join("; ")
}

impl ApiError {
    /// Whether the portal says that there is no such thing.
    pub fn is_absent(&self) -> bool {
        self.kind() == Some(Kind::NotFound)
    }

    /// What a refusal is about.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Refused { status, refusal } => Some(Kind::of(*status, refusal)),
            _ => None,
        }
    }

    /// As a person sees it. `what` names the object: `cannot create experiment "x"`.
    pub fn explain(self, what: &str, portal: &str, source: &TokenSource) -> CliError {
        let unavailable = |retry| CliError::new(ExitCode::Unavailable, what).retry(retry);
        match self {
            Self::Token(error) => error,
            Self::Certificate(cause) => unavailable(Retry::Never).caused_by(cause).hint(format!(
                "set `ca_file` of the site to the CA that signed the certificate of {portal}, or \
                 install the system's CAs: apt-get install ca-certificates"
            )),
            Self::NoAnswer(cause) => unavailable(Retry::Soon)
                .caused_by(cause)
                .hint(format!("check that {portal} can be reached from here")),
            Self::Strange(cause) => unavailable(Retry::Soon).caused_by(cause).hint(format!(
                "check that `api` of the site is the Portal API's address; it is {portal} now"
            )),
            Self::Refused { status, refusal } => {
                let kind = Kind::of(status, &refusal);
                refused(what, status, &words(&refusal), kind, source)
            }
        }
    }
}

fn refused(what: &str, status: u16, said: &str, kind: Kind, source: &TokenSource) -> CliError {
    let cause = if said.is_empty() {
        format!("the portal answered {status}")
    } else {
        format!("the portal answered {status}: {said}")
    };
    let (code, retry) = match kind {
        Kind::InUse | Kind::NotFound => (ExitCode::Name, Retry::Never),
        Kind::Request => (ExitCode::Config, Retry::Never),
        Kind::Load => (ExitCode::Unavailable, Retry::Throttled),
        Kind::Portal => (ExitCode::Unavailable, Retry::Soon),
        Kind::Auth | Kind::Forbidden | Kind::Quota | Kind::Capacity => {
            (ExitCode::Unavailable, Retry::Never)
        }
    };
    let hint = match kind {
        Kind::Auth => source.renewal(),
        Kind::Forbidden => {
            "ask the project's leader for the right to start experiments in it, and check \
             `project` and `profile_project` of the site; a token of another account is refused \
             like this, too"
                .to_owned()
        }
        Kind::NotFound => {
            "check `project`, `profile` and `profile_project` of the site; `provision site check` \
             tries them"
                .to_owned()
        }
        Kind::InUse => {
            "`provision gc` lists what earlier deployments left; the portal's web page shows and \
             terminates every experiment"
                .to_owned()
        }
        Kind::Quota => {
            "reserve machines on the portal's web page (Experiments, Reserve Nodes), ask for fewer \
             workers, or shorten `hours` of the site"
                .to_owned()
        }
        Kind::Capacity => {
            "choose another `hardware` for the site, ask for fewer machines, or try later: the \
             portal's Resource Availability page shows what is free"
                .to_owned()
        }
        Kind::Load => "it is tried again by itself, slower".to_owned(),
        Kind::Portal => {
            "it is tried again by itself; if it goes on, see the portal's news".to_owned()
        }
        Kind::Request => "check the site's settings against the parameters of its profile: \
             `provision site check` tries them"
            .to_owned(),
    };
    CliError::new(code, what)
        .retry(retry)
        .caused_by(cause)
        .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: u16, error: &str, errors: &[&str]) -> String {
        let refusal = Refusal {
            error: error.to_owned(),
            errors: errors.iter().map(|e| (*e).into()).collect(),
        };
        let error = ApiError::Refused { status, refusal }.explain(
            "cannot create experiment `ip-0123456789`",
            "https://portal.example:43794",
            &TokenSource::File("/etc/ipop/cloudlab.jwt".into()),
        );
        format!("{error}\n[{:?}, {:?}]", error.code, error.retry)
    }

    #[test]
    fn every_refusal_says_what_happened_and_what_to_do() {
        let all = [
            shown(401, "Invalid token", &[]),
            shown(403, "Token is expired", &[]),
            shown(403, "Not enough permission in project lake", &[]),
            shown(403, "You do not have permission", &[]),
            shown(404, "No such profile", &[]),
            shown(409, "", &[]),
            shown(400, "Experiment name already in use", &[]),
            shown(
                400,
                "Not allowed",
                &["No reservation for 4 nodes of type m510"],
            ),
            shown(400, "Over quota", &[]),
            shown(503, "", &["Not enough free nodes of type m510"]),
            shown(429, "Load average too high", &[]),
            shown(500, "Internal error", &[]),
            shown(502, "", &[]),
            shown(
                422,
                "Bad bindings",
                &["no parameter `cuont`", "Bad bindings"],
            ),
        ];
        insta::assert_snapshot!(all.join("\n\n"));
    }

    #[test]
    fn no_answer_and_a_strange_one_are_told_apart() {
        let explain = |error: ApiError| {
            let error = error.explain(
                "cannot list experiments",
                "https://portal.example:43794",
                &TokenSource::Env("CLOUDLAB_TOKEN".into()),
            );
            format!("{error}\n[{:?}, {:?}]", error.code, error.retry)
        };
        let all = [
            explain(ApiError::NoAnswer("connection refused".into())),
            explain(ApiError::Strange("the answer is not JSON".into())),
            explain(ApiError::Certificate("unknown issuer".into())),
        ];
        insta::assert_snapshot!(all.join("\n\n"));
    }
}
