//! The form of `sites.toml` as a JSON schema (draft 2020-12), for editors and checkers.

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::file::CommonTable;
use crate::provider::cloudlab::config::CloudlabSite;
use crate::provider::ec2::config::Ec2Site;
use crate::provider::libvirt::LibvirtSite;
use crate::provider::rocks::config::RocksSite;
use crate::provider::ssh::config::SshSite;
use crate::rendezvous::config::RendezvousConfig;

/// Writes the schema: the same types that read the file describe it.
pub fn schema() -> String {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut generator = settings.into_generator();
    let kinds = [
        site::<LibvirtSite>(&mut generator, "libvirt"),
        site::<SshSite>(&mut generator, "ssh"),
        site::<RocksSite>(&mut generator, "rocks"),
        site::<CloudlabSite>(&mut generator, "cloudlab"),
        site::<Ec2Site>(&mut generator, "ec2"),
    ];
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sites.toml",
        "description": "The sites that machines can be launched on, and the rendezvous they meet at.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "site": {
                "type": "object",
                "propertyNames": { "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" },
                "additionalProperties": { "oneOf": kinds },
            },
            "rendezvous": generator.subschema_for::<RendezvousConfig>(),
        },
    });
    // A value made of literals and of schemas cannot fail to be written.
    format!("{schema:#}\n")
}

/// A table `[site.NAME]` of one kind: its own keys, those of every kind, and `kind`.
fn site<T: JsonSchema>(generator: &mut SchemaGenerator, kind: &str) -> Value {
    let mut own = T::json_schema(generator).to_value();
    let common = CommonTable::json_schema(generator).to_value();
    if let Some(own) = own.as_object_mut() {
        let properties = own.entry("properties").or_insert_with(|| json!({}));
        if let (Some(properties), Some(common)) =
            (properties.as_object_mut(), properties_of(&common))
        {
            properties.extend(common.clone());
            properties.insert("kind".to_owned(), json!({ "const": kind }));
        }
        let required = own.entry("required").or_insert_with(|| json!([]));
        if let Some(required) = required.as_array_mut() {
            required.insert(0, json!("kind"));
        }
        own.insert("title".to_owned(), json!(format!("kind = \"{kind}\"")));
        own.insert("additionalProperties".to_owned(), json!(false));
    }
    own
}

fn properties_of(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}
