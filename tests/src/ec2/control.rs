//! The way in for tests whose double is another process: paths below `/_double/`, on the same port.

use serde::Serialize;

use super::http::{Answer, Request};
use super::server::Shared;

/// The answer to a request of a test; none if it is a client's.
pub(super) fn answer(shared: &Shared, request: &Request) -> Option<Answer> {
    let name = request.path.strip_prefix("/_double/")?;
    Some(match (request.method.as_str(), name) {
        ("GET", "leftovers") => json(&shared.lock().world.leftovers()),
        ("GET", "audit") => json(&shared.lock().audit),
        ("GET", "behaviour") => json(&shared.lock().world.behaviour),
        ("POST", "behaviour") => with(request, |new| shared.lock().world.behaviour = new),
        ("POST", "faults") => with(request, |fault| shared.lock().faults.add(fault)),
        ("DELETE", "faults") => {
            shared.lock().faults.clear();
            json(&())
        }
        _ => status(404, format!("nothing at {name}")),
    })
}

fn with<T: serde::de::DeserializeOwned>(request: &Request, then: impl FnOnce(T)) -> Answer {
    match serde_json::from_slice(&request.body) {
        Ok(value) => {
            then(value);
            json(&())
        }
        Err(error) => status(400, error.to_string()),
    }
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(text) => status(200, text),
        Err(error) => status(500, error.to_string()),
    }
}

fn status(status: u16, text: String) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: text.into_bytes(),
    }
}
