//! The JSON Schema of the YAML, for editors.

use schemars::generate::SchemaSettings;

use super::file::File;

/// The JSON Schema (draft 2020-12) of a configuration file. It knows the keys, words and ranges; what depends on
/// several values together only [`super::parse`] knows.
#[must_use]
pub fn schema() -> serde_json::Value {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<File>()
        .to_value()
}
