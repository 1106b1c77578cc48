//! What the portal answers to each call.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::model::{Experiment, Faults, Node, Options};
use super::openapi::OpenApi;

/// A call as it came.
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) token: Option<&'a str>,
    pub(super) elaborate: bool,
    pub(super) body: &'a [u8],
}

/// What it is answered.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Option<Value>,
    pub(super) location: Option<String>,
    /// The connection is cut instead.
    pub(super) lost: bool,
}

type Refused = (u16, String, Vec<String>);

/// The portal's memory.
pub(super) struct Desk {
    pub(super) options: Options,
    pub(super) faults: Faults,
    pub(super) experiments: Vec<Experiment>,
    profiles: Vec<Value>,
    /// `METHOD path status` of every call.
    pub(super) log: Vec<String>,
    /// Answers of the double's own that its document does not allow.
    pub(super) defects: Vec<String>,
    recent: VecDeque<Instant>,
    api: OpenApi,
}

impl Desk {
    pub(super) fn new(options: Options) -> Self {
        let profile = |(name, parameters): (&String, &Vec<String>)| {
            let script: String = parameters
                .iter()
                .map(|p| format!("pc.defineParameter(\"{p}\", \"\", T, \"\")\n"))
                .collect();
            profile(name, &options.project, &script)
        };
        Self {
            profiles: options.profiles.iter().map(profile).collect(),
            options,
            faults: Faults::default(),
            experiments: Vec::new(),
            log: Vec::new(),
            defects: Vec::new(),
            recent: VecDeque::new(),
            api: OpenApi::new(),
        }
    }

    pub(super) fn answer(&mut self, call: &Call<'_>) -> Reply {
        let stage = self.options.stage;
        self.experiments.retain(|e| !e.gone(stage));
        // As the portal's framework does: collections are asked for with a slash.
        if ["/experiments", "/profiles"].contains(&call.path) {
            let query = match call.query {
                "" => String::new(),
                query => format!("?{query}"),
            };
            return Reply {
                status: 307,
                body: None,
                location: Some(format!("{}/{query}", call.path)),
                lost: false,
            };
        }
        let mut lost = false;
        let template = template(call.path);
        let result = match template {
            Some(_) => self.admit(call).and_then(|()| self.act(call, &mut lost)),
            None => Err((404, "No such endpoint".into(), Vec::new())),
        };
        let (status, body) = result.unwrap_or_else(|(status, error, errors)| {
            let body = json!({ "error": error, "errors": errors, "code": status });
            (status, Some(body))
        });
        self.log
            .push(format!("{} {} {status}", call.method, call.path));
        if let Some(template) = template {
            let method = call.method.to_ascii_lowercase();
            let wrong = self.api.answer(template, &method, status, body.as_ref());
            self.defects.extend(wrong);
        }
        Reply {
            status,
            body,
            location: None,
            lost,
        }
    }

    fn admit(&mut self, call: &Call<'_>) -> Result<(), Refused> {
        if let Some((left, status, text)) = &mut self.faults.refuse
            && *left > 0
        {
            *left -= 1;
            return Err((*status, text.clone(), Vec::new()));
        }
        if call.token != Some(self.options.token.as_str()) {
            return refuse(401, "Invalid token");
        }
        let now = Instant::now();
        self.recent
            .retain(|t| now.duration_since(*t) < Duration::from_secs(1));
        if let Some(most) = self.options.rate
            && self.recent.len() >= most as usize
        {
            return refuse(429, "Load average too high or too many experiments waiting");
        }
        self.recent.push_back(now);
        Ok(())
    }

    fn act(&mut self, call: &Call<'_>, lost: &mut bool) -> Result<(u16, Option<Value>), Refused> {
        let parts: Vec<_> = call.path.split('/').filter(|p| !p.is_empty()).collect();
        match (call.method, &parts[..]) {
            ("GET", ["version"]) => Ok((200, Some(json!({ "version": "1.0" })))),
            ("GET", ["tokens", "this"]) => {
                let ends = SystemTime::now() + Duration::from_secs(60 * 86_400);
                let ends = super::model::rfc3339(ends);
                Ok((
                    200,
                    Some(json!({ "subject": "person", "expires_at": ends })),
                ))
            }
            ("GET", ["profiles"]) => {
                let without_source = |p: &Value| {
                    let mut p = p.clone();
                    p.as_object_mut()
                        .expect("an object")
                        .remove("current_version");
                    p
                };
                let all: Vec<_> = self.profiles.iter().map(without_source).collect();
                Ok((200, Some(json!({ "profiles": all }))))
            }
            ("POST", ["profiles"]) => self.create_profile(call),
            ("GET", ["profiles", id]) => {
                let found = self.profiles.iter().find(|p| p["id"] == *id);
                found.map_or_else(
                    || refuse(404, "No such profile"),
                    |p| Ok((200, Some(p.clone()))),
                )
            }
            ("GET", ["experiments"]) => self.list(call),
            ("POST", ["experiments"]) => {
                let created = self.create(call)?;
                if self.faults.lose_creations > 0 {
                    self.faults.lose_creations -= 1;
                    *lost = true;
                }
                Ok((201, Some(created)))
            }
            (_, ["experiments", id]) => self.one(call, id),
            _ => refuse(400, "No such method"),
        }
    }

    fn body(&self, call: &Call<'_>, template: &str) -> Result<Map<String, Value>, Refused> {
        let defective = |errors| (400, "The request is defective".to_owned(), errors);
        let body: Value =
            serde_json::from_slice(call.body).map_err(|e| defective(vec![e.to_string()]))?;
        let method = call.method.to_ascii_lowercase();
        let wrong = self.api.request(template, &method, &body);
        match body {
            Value::Object(body) if wrong.is_empty() => Ok(body),
            _ => Err(defective(wrong)),
        }
    }

    fn create_profile(&mut self, call: &Call<'_>) -> Result<(u16, Option<Value>), Refused> {
        let body = self.body(call, "/profiles")?;
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("project") != self.options.project {
            return refuse(403, "You do not have permission in this project");
        }
        if self.profiles.iter().any(|p| p["name"] == text("name")) {
            return refuse(409, "A profile of this name already exists");
        }
        let made = profile(text("name"), text("project"), text("script"));
        self.profiles.push(made.clone());
        Ok((201, Some(made)))
    }

    fn list(&self, call: &Call<'_>) -> Result<(u16, Option<Value>), Refused> {
        let project = call.query.strip_prefix("project=");
        if project.is_some_and(|p| p != self.options.project) {
            return refuse(403, "You do not have permission in this project");
        }
        let stage = self.options.stage;
        let all: Vec<_> = self
            .experiments
            .iter()
            .map(|e| e.show(stage, call.elaborate))
            .collect();
        Ok((200, Some(json!({ "experiments": all }))))
    }

    fn create(&mut self, call: &Call<'_>) -> Result<Value, Refused> {
        let request = self.body(call, "/experiments")?;
        let text = |key: &str| request.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("project") != self.options.project {
            return refuse(403, "You do not have permission in this project");
        }
        let ours = |p: &&Value| {
            p["name"] == text("profile_name") && p["project"] == text("profile_project")
        };
        let Some(profile) = self.profiles.iter().find(ours) else {
            return refuse(404, "No such profile");
        };
        let name = text("name").to_owned();
        if self.experiments.iter().any(|e| e.name == name) {
            return refuse(409, "Experiment name already in use");
        }
        let count = count(&request, profile)?;
        let hours = request
            .get("duration")
            .and_then(Value::as_u64)
            .unwrap_or(16);
        let now = Instant::now();
        let mut experiment = Experiment {
            id: uuid(),
            name,
            created: SystemTime::now(),
            began: now,
            ends: SystemTime::now() + Duration::from_secs(hours * 3600),
            nodes: Vec::new(),
            failed: self.faults.late_capacity,
            terminated: None,
            request,
        };
        if !experiment.failed {
            let first = now + self.options.stage * 3;
            experiment.nodes = self.nodes(&experiment, 0..count, first)?;
        }
        let shown = experiment.show(self.options.stage, call.elaborate);
        self.experiments.push(experiment);
        Ok(shown)
    }

    /// Takes free machines for the nodes of these numbers, the first of which begins at `first`.
    fn nodes(
        &self,
        experiment: &Experiment,
        numbers: std::ops::Range<usize>,
        first: Instant,
    ) -> Result<Vec<Node>, Refused> {
        let hardware = experiment.request["bindings"]["hardware"].as_str();
        let hardware = hardware.filter(|h| !h.is_empty());
        let nodes = self.experiments.iter().flat_map(|e| &e.nodes);
        let taken: Vec<_> = nodes.map(|n| n.machine).collect();
        let own: Vec<_> = experiment.nodes.iter().map(|n| n.machine).collect();
        let free: Vec<_> = (0..self.options.machines.len())
            .filter(|m| !taken.contains(m) && !own.contains(m))
            .filter(|m| hardware.is_none_or(|h| self.options.machines[*m].hardware == h))
            .collect();
        if free.len() < numbers.len() {
            let kind = hardware.unwrap_or("any type");
            let text = format!("Not enough free nodes of {kind}: {} wanted", numbers.len());
            return refuse(503, &text);
        }
        let from =
            |place: usize| first + self.options.stage * u32::try_from(place).expect("few nodes");
        let node = |(place, (number, machine)): (usize, (usize, &usize))| {
            let client_id = format!("node{number}");
            Node {
                fails: self.faults.fail_node.as_ref() == Some(&client_id),
                startup_fails: self.faults.fail_startup.as_ref() == Some(&client_id),
                client_id,
                machine: *machine,
                ipv4: self.options.machines[*machine].ipv4.clone(),
                from: from(place),
            }
        };
        Ok(numbers.zip(&free).enumerate().map(node).collect())
    }

    fn one(&mut self, call: &Call<'_>, id: &str) -> Result<(u16, Option<Value>), Refused> {
        let named = format!("{},", self.options.project);
        let found = |e: &Experiment| match id.strip_prefix(&named) {
            Some(name) => e.name == name,
            None => e.id == id,
        };
        let Some(place) = self.experiments.iter().position(found) else {
            return refuse(404, "No such experiment");
        };
        match call.method {
            "GET" => {}
            "DELETE" => {
                let experiment = &mut self.experiments[place];
                experiment.terminated.get_or_insert_with(Instant::now);
                return Ok((204, None));
            }
            "PUT" => self.extend(call, place)?,
            "PATCH" => self.modify(call, place)?,
            _ => return refuse(400, "No such method"),
        }
        let shown = self.experiments[place].show(self.options.stage, call.elaborate);
        Ok((200, Some(shown)))
    }

    fn extend(&mut self, call: &Call<'_>, place: usize) -> Result<(), Refused> {
        let body = self.body(call, "/experiments/{experiment_id}")?;
        let Some(hours) = body.get("extend_by").and_then(Value::as_u64) else {
            return refuse(400, "The double knows extend_by only");
        };
        let ends = self.experiments[place].ends + Duration::from_secs(hours * 3600);
        let longest = Duration::from_secs(u64::from(self.options.longest) * 3600);
        if ends > SystemTime::now() + longest {
            return refuse(
                403,
                "Extension denied: a reservation of others begins before that",
            );
        }
        self.experiments[place].ends = ends;
        Ok(())
    }

    fn modify(&mut self, call: &Call<'_>, place: usize) -> Result<(), Refused> {
        let body = self.body(call, "/experiments/{experiment_id}")?;
        let shown = self.experiments[place].show(self.options.stage, false);
        if shown["status"] != "ready" {
            return refuse(400, "Experiment is not ready: it cannot be modified now");
        }
        let experiment = self.experiments[place].clone();
        let name = &experiment.request["profile_name"];
        let profile = self.profiles.iter().find(|p| p["name"] == *name);
        let count = count(&body, profile.unwrap_or(&Value::Null))?;
        let have = experiment.nodes.len();
        if count < have {
            return refuse(400, "The double takes no nodes away");
        }
        let first = Instant::now() + self.options.stage;
        let more = self.nodes(&experiment, have..count, first)?;
        let experiment = &mut self.experiments[place];
        experiment.nodes.extend(more);
        experiment
            .request
            .insert("bindings".into(), body["bindings"].clone());
        Ok(())
    }
}

/// The number of nodes that bindings ask for; bindings that the profile lacks are refused.
fn count(request: &Map<String, Value>, profile: &Value) -> Result<usize, Refused> {
    let script = profile["current_version"]["script"].as_str();
    let script = script.unwrap_or_default();
    let empty = Map::new();
    let bindings = request.get("bindings").and_then(Value::as_object);
    let bindings = bindings.unwrap_or(&empty);
    let unknown: Vec<_> = bindings
        .keys()
        .filter(|name| !script.contains(&format!("\"{name}\"")))
        .map(|name| format!("no parameter `{name}`"))
        .collect();
    if !unknown.is_empty() {
        return Err((400, "Bad bindings".into(), unknown));
    }
    let count = match bindings.get("count") {
        None => Some(1),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64().and_then(|n| usize::try_from(n).ok()),
    };
    match count.filter(|n| *n > 0) {
        Some(count) => Ok(count),
        None => refuse(400, "Bad bindings"),
    }
}

fn refuse<T>(status: u16, text: &str) -> Result<T, Refused> {
    Err((status, text.to_owned(), Vec::new()))
}

fn template(path: &str) -> Option<&'static str> {
    let parts: Vec<_> = path.split('/').filter(|p| !p.is_empty()).collect();
    Some(match parts[..] {
        ["version"] => "/version",
        ["tokens", "this"] => "/tokens/this",
        ["profiles"] => "/profiles",
        ["profiles", _] => "/profiles/{profile_id}",
        ["experiments"] => "/experiments",
        ["experiments", _] => "/experiments/{experiment_id}",
        _ => return None,
    })
}

fn profile(name: &str, project: &str, script: &str) -> Value {
    json!({
        "id": uuid(), "name": name, "project": project, "version": 0, "creator": "person",
        "current_version": { "id": uuid(), "version": 0, "script": script },
    })
}

fn uuid() -> String {
    let digits = format!("{:032x}", rand::random::<u128>());
    let cut = [0..8, 8..12, 12..16, 16..20, 20..32];
    cut.map(|range| &digits[range]).join("-")
}
