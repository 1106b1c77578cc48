//! Bodies against the API's document.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("../../data/portal-openapi.json");

/// The API's document, and the validators made of it so far.
#[derive(Debug)]
pub(super) struct OpenApi {
    document: Value,
    validators: Mutex<HashMap<String, Option<Validator>>>,
}

impl OpenApi {
    pub(super) fn new() -> Self {
        Self {
            document: serde_json::from_str(DOCUMENT).expect("the document is JSON"),
            validators: Mutex::default(),
        }
    }

    /// What is wrong with a request's body.
    pub(super) fn request(&self, template: &str, method: &str, body: &Value) -> Vec<String> {
        let pointer = format!("/paths/{}/{method}/requestBody", escape(template));
        self.check(&pointer, body)
    }

    /// What is wrong with an answer's body, or that there is no such answer.
    pub(super) fn answer(
        &self,
        template: &str,
        method: &str,
        status: u16,
        body: Option<&Value>,
    ) -> Vec<String> {
        let pointer = format!("/paths/{}/{method}/responses/{status}", escape(template));
        let Some(known) = self.document.pointer(&pointer) else {
            return vec![format!("{method} {template} has no answer {status}")];
        };
        match (known.get("content"), body) {
            (Some(_), Some(body)) => self.check(&pointer, body),
            (None, None) => Vec::new(),
            _ => vec![format!(
                "{method} {template} {status}: body where none is, or none"
            )],
        }
    }

    fn check(&self, pointer: &str, body: &Value) -> Vec<String> {
        let mut validators = self
            .validators
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let validator = validators
            .entry(pointer.to_owned())
            .or_insert_with(|| self.compile(pointer));
        match validator {
            Some(validator) => validator
                .iter_errors(body)
                .map(|e| format!("{e} at `{}`", e.instance_path()))
                .collect(),
            None => vec![format!("there is no body at {pointer}")],
        }
    }

    fn compile(&self, pointer: &str) -> Option<Validator> {
        let schema = format!("{pointer}/content/application~1json/schema");
        let schema = self.document.pointer(&schema)?;
        let mut whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": self.document["components"],
        });
        whole.as_object_mut()?.extend(schema.as_object()?.clone());
        Some(jsonschema::validator_for(&whole).expect("the document's schemas are valid"))
    }
}

/// RFC 6901.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
