//! Refusals, and how the two APIs write them.

use std::fmt;

use super::http::Answer;
use super::xml::escaped;

/// A call that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    /// The error's code, in EBS's words its type.
    pub code: String,
    pub message: String,
    /// EBS's second word for it.
    pub reason: Option<String>,
}

impl Refusal {
    /// The request is wrong (HTTP 400).
    pub fn new(code: &str, message: impl fmt::Display) -> Self {
        Self::with_status(400, code, message)
    }

    /// Any status.
    pub fn with_status(status: u16, code: &str, message: impl fmt::Display) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.to_string(),
            reason: None,
        }
    }

    /// EBS: `ValidationException` with a reason.
    pub fn validation(reason: &str, message: impl fmt::Display) -> Self {
        Self {
            reason: Some(reason.to_owned()),
            ..Self::new("ValidationException", message)
        }
    }

    /// The value of a parameter is no good.
    pub fn value(parameter: &str, value: impl fmt::Display, why: &str) -> Self {
        Self::new(
            "InvalidParameterValue",
            format!("Value ({value}) for parameter {parameter} is invalid. {why}"),
        )
    }

    /// EC2's form.
    pub fn xml(&self, request_id: &str) -> Answer {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{}</Code>\
             <Message>{}</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>",
            escaped(&self.code),
            escaped(&self.message)
        );
        Answer {
            status: self.status,
            headers: vec![("Content-Type", "text/xml;charset=UTF-8".to_owned())],
            body: body.into_bytes(),
        }
    }

    /// EBS's form.
    pub fn json(&self, request_id: &str) -> Answer {
        let mut body = serde_json::json!({ "Message": self.message });
        if let Some(reason) = &self.reason {
            body["Reason"] = reason.clone().into();
        }
        Answer {
            status: self.status,
            headers: vec![
                ("Content-Type", "application/json".to_owned()),
                ("x-amzn-ErrorType", self.code.clone()),
                ("x-amzn-RequestId", request_id.to_owned()),
            ],
            body: body.to_string().into_bytes(),
        }
    }
}
