//! CloudLab by its Portal REST API.

use std::time::{Instant, SystemTime};

use ureq::http::Method;

use super::api;
use super::client::Client;
use super::config::CloudlabSite;
use super::error::{ApiError, Kind, words};
use super::experiment::{self, PARAMETERS};
use super::testbed::{Experiment, Extension, Order, Testbed};
use crate::error::CliError;
use crate::provider::CheckLine;

/// Most that the portal's clock and this machine's may differ before leases are misjudged.
const CLOCK_SECONDS: u64 = 120;

/// A portal and the project in it.
#[derive(Debug)]
pub struct Portal {
    site: CloudlabSite,
    client: Client,
}

impl Portal {
    /// The site's; nothing is connected before the first call.
    pub fn new(site: CloudlabSite) -> Self {
        let client = Client::new(&site);
        Self { site, client }
    }

    fn profile_project(&self) -> &str {
        let own = self.site.profile_project.as_deref();
        own.unwrap_or(&self.site.project)
    }

    fn explain(&self, error: ApiError, what: &str) -> CliError {
        error.explain(what, self.client.base(), self.client.source())
    }

    /// An experiment by UUID, or by `project,name`.
    fn one(&self, id: &str, by: Instant) -> Result<Option<Experiment>, CliError> {
        let path = format!("/experiments/{}", escape(id));
        let read = self.client.call(Method::GET, &path, by);
        match read.and_then(|answer| answer.json::<api::Experiment>()) {
            Ok(found) => Ok(Some(experiment::read(found))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(self.explain(error, &format!("cannot look at experiment `{id}`"))),
        }
    }

    fn check_token(&self, by: Instant) -> CheckLine {
        let what = "token".to_owned();
        let asked = self.client.call(Method::GET, "/tokens/this", by);
        match asked.and_then(|answer| answer.json::<api::Token>()) {
            Ok(token) => {
                let ends = token.expires_at.as_deref();
                let expired = ends
                    .and_then(experiment::time)
                    .is_some_and(|ends| ends < SystemTime::now());
                let found = match ends {
                    Some(ends) if expired => {
                        format!("expired at {ends}; {}", self.client.source().renewal())
                    }
                    Some(ends) => format!("valid until {ends}"),
                    None => "valid".to_owned(),
                };
                line(what, !expired, found)
            }
            Err(error) => self.failed(what, error, "the token is not taken"),
        }
    }

    fn check_version(&self, by: Instant) -> Vec<CheckLine> {
        let what = "portal".to_owned();
        let answer = match self.client.call(Method::GET, "/version", by) {
            Ok(answer) => answer,
            Err(error) => return vec![self.failed(what, error, "the portal does not answer")],
        };
        let version = match answer.json::<api::Version>() {
            Ok(api::Version { version: Some(v) }) => v.to_string(),
            _ => "of unknown version".to_owned(),
        };
        let mut lines = vec![line(
            what,
            true,
            format!("{} {version}", self.client.base()),
        )];
        if let Some(there) = answer.date {
            let here = SystemTime::now();
            let apart = here
                .duration_since(there)
                .or_else(|_| there.duration_since(here))
                .unwrap_or_default();
            let ok = apart.as_secs() <= CLOCK_SECONDS;
            let found = format!("{} s apart from the portal's", apart.as_secs());
            let advice = "; leases would be misjudged: set this machine's clock, by NTP";
            let found = if ok { found } else { found + advice };
            lines.push(line("clock".to_owned(), ok, found));
        }
        lines
    }

    fn check_project(&self, by: Instant) -> CheckLine {
        let what = format!("project {}", self.site.project);
        let path = format!("/experiments?project={}", escape(&self.site.project));
        let asked = self.client.call(Method::GET, &path, by);
        match asked.and_then(|answer| answer.json::<api::Experiments>()) {
            Ok(list) => line(
                what,
                true,
                format!("{} experiments", list.experiments.len()),
            ),
            Err(error) => self.failed(what, error, "its experiments cannot be listed"),
        }
    }

    fn check_profile(&self, by: Instant) -> CheckLine {
        let what = format!("profile {}/{}", self.profile_project(), self.site.profile);
        let asked = self.client.call(Method::GET, "/profiles", by);
        let list = match asked.and_then(|answer| answer.json::<api::Profiles>()) {
            Ok(list) => list.profiles,
            Err(error) => return self.failed(what, error, "profiles cannot be listed"),
        };
        let ours =
            |p: &api::Profile| p.name == self.site.profile && p.project == self.profile_project();
        let Some(found) = list.into_iter().find(ours) else {
            let found = "there is none; docs/cloudlab.md says how to create it, once".to_owned();
            return line(what, false, found);
        };
        let script = match found.current_version.and_then(|v| v.script) {
            Some(script) => Some(script),
            None => self.script(&found.id, by),
        };
        let Some(script) = script else {
            return line(
                what,
                true,
                "there; its parameters cannot be seen".to_owned(),
            );
        };
        let missing: Vec<_> = PARAMETERS
            .into_iter()
            .filter(|name| {
                !script.contains(&format!("\"{name}\"")) && !script.contains(&format!("'{name}'"))
            })
            .collect();
        if missing.is_empty() {
            return line(what, true, "there, with all parameters".to_owned());
        }
        let found = format!(
            "lacks the parameters {}; use the script of docs/cloudlab.md",
            missing.join(", ")
        );
        line(what, false, found)
    }

    fn script(&self, profile: &str, by: Instant) -> Option<String> {
        let path = format!("/profiles/{}", escape(profile));
        let answer = self.client.call(Method::GET, &path, by).ok()?;
        answer.json::<api::Profile>().ok()?.current_version?.script
    }

    fn failed(&self, what: String, error: ApiError, short: &str) -> CheckLine {
        let error = self.explain(error, short);
        let cause = error.source.as_ref().map(|c| format!(": {c}"));
        let mut found = error.message + &cause.unwrap_or_default();
        for hint in error.hints {
            found = format!("{found}; {hint}");
        }
        line(what, false, found)
    }
}

impl Testbed for Portal {
    fn create(&self, order: &Order, deadline: Instant) -> Result<Experiment, CliError> {
        let request = api::CreateExperiment {
            name: order.name.clone(),
            project: self.site.project.clone(),
            profile_name: self.site.profile.clone(),
            profile_project: self.profile_project().to_owned(),
            duration: self.site.hours,
            bindings: experiment::bindings(order, self.site.hardware.as_deref()),
            sshpubkey: order.public_key.clone(),
        };
        self.client
            .call_with(Method::POST, "/experiments", &request, deadline)
            .and_then(|answer| answer.json())
            .map(experiment::read)
            .map_err(|error| {
                let what = format!(
                    "cannot create experiment `{}` in project `{}` (machines: {})",
                    order.name, self.site.project, order.count
                );
                self.explain(error, &what)
            })
    }

    fn named(&self, name: &str, deadline: Instant) -> Result<Option<Experiment>, CliError> {
        self.one(&format!("{},{name}", self.site.project), deadline)
    }

    fn status(&self, id: &str, deadline: Instant) -> Result<Option<Experiment>, CliError> {
        self.one(id, deadline)
    }

    fn list(&self, deadline: Instant) -> Result<Vec<Experiment>, CliError> {
        let path = format!("/experiments?project={}", escape(&self.site.project));
        let list: api::Experiments = self
            .client
            .call(Method::GET, &path, deadline)
            .and_then(|answer| answer.json())
            .map_err(|error| {
                let what = format!("cannot list the experiments of `{}`", self.site.project);
                self.explain(error, &what)
            })?;
        let all = list.experiments.into_iter().map(experiment::read);
        Ok(all.filter(|e| e.tags.is_some()).collect())
    }

    fn resize(&self, id: &str, order: &Order, deadline: Instant) -> Result<(), CliError> {
        let bindings = experiment::bindings(order, self.site.hardware.as_deref());
        let request = api::ModifyExperiment { bindings };
        let path = format!("/experiments/{}", escape(id));
        self.client
            .call_with(Method::PATCH, &path, &request, deadline)
            .map(drop)
            .map_err(|error| {
                let what = format!(
                    "cannot change experiment `{}` to {} machines",
                    order.name, order.count
                );
                self.explain(error, &what)
            })
    }

    fn extend(
        &self,
        id: &str,
        hours: u32,
        reason: &str,
        deadline: Instant,
    ) -> Result<Extension, CliError> {
        let request = api::ExtendExperiment {
            extend_by: hours,
            reason: reason.to_owned(),
        };
        let path = format!("/experiments/{}", escape(id));
        let asked = self
            .client
            .call_with(Method::PUT, &path, &request, deadline)
            .and_then(|answer| answer.json::<api::Experiment>());
        match asked {
            Ok(now) => Ok(Extension::Granted(experiment::read(now).ends)),
            Err(ApiError::Refused { status, refusal }) => match Kind::of(status, &refusal) {
                Kind::Quota | Kind::Capacity | Kind::Forbidden | Kind::Request => {
                    Ok(Extension::Refused(words(&refusal)))
                }
                _ => Err(self.explain(
                    ApiError::Refused { status, refusal },
                    &format!("cannot extend experiment `{id}`"),
                )),
            },
            Err(error) => Err(self.explain(error, &format!("cannot extend experiment `{id}`"))),
        }
    }

    fn delete(&self, id: &str, deadline: Instant) -> Result<(), CliError> {
        let path = format!("/experiments/{}", escape(id));
        match self.client.call(Method::DELETE, &path, deadline) {
            Ok(_) => Ok(()),
            Err(error) if error.is_absent() => Ok(()),
            Err(error) => Err(self.explain(error, &format!("cannot terminate experiment `{id}`"))),
        }
    }

    fn check(&self, deadline: Instant) -> Vec<CheckLine> {
        let mut lines = self.check_version(deadline);
        if lines.iter().any(|line| line.what == "portal" && !line.ok) {
            return lines;
        }
        lines.push(self.check_token(deadline));
        if lines.iter().any(|line| line.what == "token" && !line.ok) {
            return lines;
        }
        lines.push(self.check_project(deadline));
        lines.push(self.check_profile(deadline));
        lines
    }
}

fn line(what: String, ok: bool, found: String) -> CheckLine {
    CheckLine { what, ok, found }
}

/// A part of a path or query (RFC 3986), for identifiers that came from elsewhere.
pub(super) fn escape(part: &str) -> String {
    let mut escaped = String::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~,".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_cannot_leave_its_place_in_a_path() {
        assert_eq!(escape("lake,ip-0123"), "lake,ip-0123");
        assert_eq!(escape("../a?b#c d"), "..%2Fa%3Fb%23c%20d");
    }
}
