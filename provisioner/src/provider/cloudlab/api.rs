//! What goes over the wire of the Portal REST API. Requests are exact; answers are read leniently:
//! unknown fields are ignored, missing and null ones have a value that means "not known yet".

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// Body of `POST /experiments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreateExperiment {
    /// At most 16 characters, unique in the project.
    pub name: String,
    /// Project that pays.
    pub project: String,
    /// Profile.
    pub profile_name: String,
    /// Project of the profile.
    pub profile_project: String,
    /// Hours.
    pub duration: u32,
    /// Values of the profile's parameters.
    pub bindings: BTreeMap<String, String>,
    /// A public key that may log in, besides those of the portal's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sshpubkey: Option<String>,
}

/// Body of `PUT /experiments/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExtendExperiment {
    /// Hours after the present end.
    pub extend_by: u32,
    /// For the testbed's staff, who read it when the extension is not granted by itself.
    pub reason: String,
}

/// Body of `PATCH /experiments/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModifyExperiment {
    /// All bindings, the changed ones and the others.
    pub bindings: BTreeMap<String, String>,
}

/// An experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Experiment {
    /// UUID.
    pub id: String,
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Project.
    #[serde(default)]
    pub project: String,
    /// An open word; see [`super::experiment::Standing`].
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// When the portal ends it.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// Parameters. Absent from lists that were not asked to be elaborate.
    #[serde(default)]
    pub bindings: Option<BTreeMap<String, serde_json::Value>>,
    /// Its machines, by cluster.
    #[serde(default, deserialize_with = "or_default")]
    pub aggregates: BTreeMap<String, Aggregate>,
}

/// One cluster's part of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Aggregate {
    /// Name (`Cloudlab Utah`).
    #[serde(default)]
    pub name: Option<String>,
    /// An open word.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// Its machines.
    #[serde(default, deserialize_with = "or_default")]
    pub nodes: Vec<Node>,
}

/// One machine of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// The profile's name for it (`node0`).
    #[serde(default, deserialize_with = "or_default")]
    pub client_id: String,
    /// Host name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Address.
    #[serde(default)]
    pub ipv4: Option<String>,
    /// An open word; `ready` and `failed` are certain.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// What the node monitor sees; `ISUP` is certain.
    #[serde(default, deserialize_with = "or_default")]
    pub rawstate: String,
    /// How the profile's execute service ended; null where it has none.
    #[serde(default)]
    pub startup_status: Option<serde_json::Value>,
}

/// Answer of `GET /experiments`.
#[derive(Debug, Default, Deserialize)]
pub struct Experiments {
    /// What the token may see.
    #[serde(default, deserialize_with = "or_default")]
    pub experiments: Vec<Experiment>,
}

/// Answer of `GET /profiles`.
#[derive(Debug, Default, Deserialize)]
pub struct Profiles {
    /// What the token may see.
    #[serde(default, deserialize_with = "or_default")]
    pub profiles: Vec<Profile>,
}

/// A profile.
#[derive(Debug, Default, Deserialize)]
pub struct Profile {
    /// UUID.
    #[serde(default)]
    pub id: String,
    /// Name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Project.
    #[serde(default, deserialize_with = "or_default")]
    pub project: String,
    /// The version that is instantiated.
    #[serde(default)]
    pub current_version: Option<ProfileVersion>,
}

/// A version of a profile.
#[derive(Debug, Default, Deserialize)]
pub struct ProfileVersion {
    /// Its source, where it is a script.
    #[serde(default)]
    pub script: Option<String>,
}

/// Answer of `GET /tokens/this`.
#[derive(Debug, Default, Deserialize)]
pub struct Token {
    /// When it ends.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// Answer of `GET /version`.
#[derive(Debug, Default, Deserialize)]
pub struct Version {
    /// Version of the API, in whatever form.
    #[serde(default)]
    pub version: Option<serde_json::Value>,
}

/// Body of every refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// One sentence.
    #[serde(default, deserialize_with = "or_default")]
    pub error: String,
    /// Details.
    #[serde(default, deserialize_with = "or_default")]
    pub errors: Vec<serde_json::Value>,
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_nulls_and_unknown_fields_is_read() {
        let text = r#"{"id": "u", "name": "n", "project": "p", "status": null, "wbstore_id": 7,
            "aggregates": {"urn:a": {"nodes": [{"client_id": "node0", "startup_status": null,
            "weather": "fair"}], "status": "resting"}}}"#;
        let read: Experiment = serde_json::from_str(text).expect("read");
        assert_eq!(read.status, "");
        assert_eq!(read.aggregates["urn:a"].nodes[0].client_id, "node0");
        let bare: Experiment =
            serde_json::from_str(r#"{"id": "u", "aggregates": null}"#).expect("read");
        assert!(bare.aggregates.is_empty());
    }

    #[test]
    fn a_request_has_only_what_is_known() {
        let request = CreateExperiment {
            name: "ip-0123456789".into(),
            project: "lake".into(),
            profile_name: "ipop".into(),
            profile_project: "lake".into(),
            duration: 16,
            bindings: [("count".to_owned(), "4".to_owned())].into(),
            sshpubkey: None,
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&request).expect("JSON"));
    }
}
