//! Accounts and shared roster groups, by ejabberd's HTTP API (`mod_http_api`).
//!
//! Every call is idempotent: what is already there, or already gone, is no error.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::http::{Answer, Target, TargetError};
use super::mark;
use crate::provider::Tags;
use crate::secret::Secret;

/// The API of one server, for one XMPP domain.
#[derive(Debug, Clone)]
pub struct Api {
    target: Target,
    path: String,
    domain: String,
    authorization: Option<Secret<String>>,
    shown: String,
}

/// An administrator's account on an external server.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Bare JID.
    pub jid: String,
    /// Password.
    pub password: Secret<String>,
}

/// A call to the API failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nothing answers, or what answers is not the API.
    #[error("the rendezvous's API at {api} does not answer")]
    Unreachable {
        /// Address of the API.
        api: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The credentials are wrong or may not do this.
    #[error("the rendezvous's API at {api} does not let us call `{command}`")]
    Forbidden {
        /// Address of the API.
        api: String,
        /// The command.
        command: &'static str,
    },
    /// The server refused or failed.
    #[error("the rendezvous refused `{command}` for {object}: {status} {reason}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Account or group.
        object: String,
        /// HTTP status.
        status: u16,
        /// What the server says.
        reason: String,
    },
    /// The API's address or CA cannot be used.
    #[error("the rendezvous's API cannot be used")]
    Target(#[from] TargetError),
}

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The account is new.
    New,
    /// It existed; its password was replaced.
    Existing,
}

impl Api {
    /// The API at `url` (`https://host:port/api` or `unix:/path`). The certificate must chain to
    /// `ca_pem`, which a Unix socket has no use for.
    pub fn new(
        url: &str,
        domain: &str,
        ca_pem: &str,
        admin: Option<&Admin>,
    ) -> Result<Self, TargetError> {
        let (target, path) = Target::parse(url, domain, ca_pem)?;
        let authorization = admin.map(|admin| {
            let pair = format!("{}:{}", admin.jid, admin.password.expose());
            Secret::new(format!("Basic {}", BASE64_STANDARD.encode(pair)))
        });
        Ok(Self {
            target,
            path,
            domain: domain.to_owned(),
            authorization,
            shown: url.to_owned(),
        })
    }

    /// Whether the server is up, without side effects.
    pub fn ping(&self) -> Result<(), ApiError> {
        self.call("status", &self.domain, &json!({})).map(drop)
    }

    /// Makes an account, or gives an existing one this password.
    pub fn register(&self, user: &str, password: &Secret<String>) -> Result<Registered, ApiError> {
        const EXISTS: u16 = 409;
        let answer = self.post(
            "register",
            &json!({ "user": user, "host": self.domain, "password": password.expose() }),
        )?;
        if answer.status != EXISTS {
            return self
                .accept("register", user, answer)
                .map(|_| Registered::New);
        }
        self.change_password(user, password)
            .map(|()| Registered::Existing)
    }

    /// Gives an account another password.
    pub fn change_password(&self, user: &str, password: &Secret<String>) -> Result<(), ApiError> {
        let arguments = json!({ "user": user, "host": self.domain, "newpass": password.expose() });
        self.succeed("change_password", user, &arguments)
    }

    /// Whether this is the account's password; not so of an account that does not exist.
    pub fn check_password(&self, user: &str, password: &Secret<String>) -> Result<bool, ApiError> {
        let arguments = json!({ "user": user, "host": self.domain, "password": password.expose() });
        let answer = self.call("check_password", user, &arguments)?;
        match answer.as_i64() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(ApiError::Refused {
                command: "check_password",
                object: user.to_owned(),
                status: 200,
                reason: format!("unknown result {answer}"),
            }),
        }
    }

    /// Ends an account's sessions and refuses new ones.
    pub fn ban(&self, user: &str) -> Result<(), ApiError> {
        let reason = "the deployment's time is over";
        let arguments = json!({ "user": user, "host": self.domain, "reason": reason });
        self.succeed("ban_account", user, &arguments)
    }

    /// Removes an account.
    pub fn unregister(&self, user: &str) -> Result<(), ApiError> {
        self.call(
            "unregister",
            user,
            &json!({ "user": user, "host": self.domain }),
        )
        .map(drop)
    }

    /// Local parts of all accounts of the domain, sorted.
    pub fn accounts(&self) -> Result<Vec<String>, ApiError> {
        let value = self.call(
            "registered_users",
            &self.domain,
            &json!({ "host": self.domain }),
        )?;
        Ok(texts(&value))
    }

    /// Accounts of the domain that are named after a group, sorted.
    pub fn accounts_of(&self, group: &str) -> Result<Vec<String>, ApiError> {
        let mut accounts = self.accounts()?;
        accounts.retain(|user| user.strip_prefix(group).is_some_and(|r| r.starts_with('.')));
        Ok(accounts)
    }

    /// Full JIDs that are signed in, of any domain of the server, sorted.
    pub fn connected(&self) -> Result<Vec<String>, ApiError> {
        self.call("connected_users", &self.domain, &json!({}))
            .map(|value| texts(&value))
    }

    /// Makes a shared roster group whose members see each other, and writes whose it is into its
    /// description.
    pub fn create_group(&self, group: &str, tags: Option<&Tags>) -> Result<(), ApiError> {
        let description = tags.map_or("members of an overlay".to_owned(), mark::write);
        let arguments = |display: Value| {
            json!({
                "group": group, "host": self.domain, "label": group,
                "description": description, "display": display,
            })
        };
        // The groups to display are one text up to 23.x and a list in later versions.
        match self.succeed("srg_create", group, &arguments(json!(group))) {
            Err(ApiError::Refused { .. }) => {
                self.succeed("srg_create", group, &arguments(json!([group])))
            }
            other => other,
        }
    }

    /// Removes a shared roster group; its members' accounts stay.
    pub fn delete_group(&self, group: &str) -> Result<(), ApiError> {
        if !self.groups()?.iter().any(|known| known == group) {
            return Ok(());
        }
        self.succeed(
            "srg_delete",
            group,
            &json!({ "group": group, "host": self.domain }),
        )
    }

    /// Shared roster groups of the domain, sorted.
    pub fn groups(&self) -> Result<Vec<String>, ApiError> {
        self.call("srg_list", &self.domain, &json!({ "host": self.domain }))
            .map(|v| texts(&v))
    }

    /// Whose a shared roster group is, if its description says so.
    pub fn group_tags(&self, group: &str) -> Result<Option<Tags>, ApiError> {
        let arguments = json!({ "group": group, "host": self.domain });
        let info = self.call("srg_get_info", group, &arguments)?;
        // A list of keys and values, in one of two forms by the server's version.
        let described = info.as_array().and_then(|items| {
            let of = |item: &Value| item.get("key")?.as_str().map(|k| k == "description");
            let found = items.iter().find(|item| of(item) == Some(true))?;
            found.get("value")
        });
        let described = described.or_else(|| info.get("description"));
        Ok(described.and_then(Value::as_str).and_then(mark::read))
    }

    /// Makes an account a member of a group.
    pub fn add_member(&self, group: &str, user: &str) -> Result<(), ApiError> {
        self.succeed("srg_user_add", user, &self.membership(group, user))
    }

    /// Ends an account's membership.
    pub fn remove_member(&self, group: &str, user: &str) -> Result<(), ApiError> {
        self.succeed("srg_user_del", user, &self.membership(group, user))
    }

    /// Bare JIDs of a group's members, sorted; none when there is no such group.
    pub fn members(&self, group: &str) -> Result<Vec<String>, ApiError> {
        let arguments = json!({ "group": group, "host": self.domain });
        self.call("srg_get_members", group, &arguments)
            .map(|value| texts(&value))
    }

    fn membership(&self, group: &str, user: &str) -> Value {
        json!({ "user": user, "host": self.domain, "group": group, "grouphost": self.domain })
    }

    /// Calls a command that answers a result code: 0 is success, whatever the HTTP status.
    fn succeed(
        &self,
        command: &'static str,
        object: &str,
        arguments: &Value,
    ) -> Result<(), ApiError> {
        match self.call(command, object, arguments)? {
            Value::Number(code) if code.as_i64() == Some(1) => Err(ApiError::Refused {
                command,
                object: object.to_owned(),
                status: 200,
                reason: "result code 1".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn call(
        &self,
        command: &'static str,
        object: &str,
        arguments: &Value,
    ) -> Result<Value, ApiError> {
        let answer = self.post(command, arguments)?;
        self.accept(command, object, answer)
    }

    fn post(&self, command: &'static str, arguments: &Value) -> Result<Answer, ApiError> {
        let path = format!("{}/{command}", self.path);
        let authorization = self.authorization.as_ref().map(|a| a.expose().as_str());
        self.target
            .post(&path, authorization, &arguments.to_string())
            .map_err(|source| ApiError::Unreachable {
                api: self.shown.clone(),
                source,
            })
    }

    fn accept(
        &self,
        command: &'static str,
        object: &str,
        answer: Answer,
    ) -> Result<Value, ApiError> {
        let value = serde_json::from_slice(&answer.body);
        match (answer.status, value) {
            (200, Ok(value)) => Ok(value),
            (401 | 403, _) => Err(ApiError::Forbidden {
                api: self.shown.clone(),
                command,
            }),
            (status, value) => Err(ApiError::Refused {
                command,
                object: object.to_owned(),
                status,
                reason: reason(value.ok()),
            }),
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// The server's reason, which may be a text or an object with a message.
fn reason(value: Option<Value>) -> String {
    let Some(value) = value else {
        return "(no reason given)".to_owned();
    };
    let text = value.get("message").unwrap_or(&value);
    text.as_str()
        .map_or_else(|| text.to_string(), str::to_owned)
}

/// The texts of a list, sorted.
fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut texts: Vec<String> = items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect();
    texts.sort();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrators_password_is_not_shown() {
        let admin = Admin {
            jid: "a@b".into(),
            password: Secret::new("hunter2".into()),
        };
        let api = Api::new("unix:/run/x", "b", "", Some(&admin)).expect("valid");
        let shown = format!("{api:?} {admin:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains(&BASE64_STANDARD.encode("a@b:hunter2"))
        );
    }

    #[test]
    fn a_socket_nobody_listens_on_is_named() {
        let api = Api::new("unix:/nonexistent/api.sock", "b", "", None).expect("valid");
        let error = api.ping().expect_err("nothing there").to_string();
        assert_eq!(
            error,
            "the rendezvous's API at unix:/nonexistent/api.sock does not answer"
        );
    }
}
