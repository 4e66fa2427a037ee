//! The CRDs as objects to install.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{Application, GitRepository};

/// The CRDs of all our kinds.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![Application::crd(), GitRepository::crd()];
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) =
            version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut())
        {
            tidy(schema);
        }
    }
    crds
}

/// The CRDs of all our kinds as JSON, to be printed.
pub fn crd_documents() -> Result<Vec<Value>, serde_json::Error> {
    let mut documents: Vec<Value> =
        crds().iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    documents.iter_mut().for_each(make_whole);
    Ok(documents)
}

/// Bounds are fractions in the type of a schema; whole ones are written and read as whole.
fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|n| number.is_f64() && n.fract() == 0.0);
            // Bounds are far below what a fraction holds exactly.
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
            if let Some(n) = whole {
                *number = (n as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(map) => map.values_mut().for_each(make_whole),
        _ => {}
    }
}

/// Makes optional fields not nullable, and paragraphs of descriptions one line each, which readers
/// wrap themselves.
///
/// The schema generator takes every `Option` for a field that may be null; a null would then be
/// stored, and `has()` in a rule would take it for a value. When null is not allowed the API server
/// drops it, as it does for its own kinds.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(text) = &mut schema.description {
        let paragraphs: Vec<_> = text.split("\n\n").map(|lines| lines.replace('\n', " ")).collect();
        *text = paragraphs.join("\n\n");
    }
    for property in schema.properties.iter_mut().flat_map(|map| map.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    fn document(kind: &str) -> Value {
        crd_documents()
            .unwrap()
            .into_iter()
            .find(|crd| crd["spec"]["names"]["kind"] == kind)
            .unwrap()
    }

    fn schema(kind: &str) -> Value {
        document(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    /// Calls `check` with each schema in a schema, and its path.
    fn each(path: &str, schema: &Value, check: &mut dyn FnMut(&str, &Value)) {
        check(path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            each(&format!("{path}.{name}"), property, check);
        }
        if schema["items"].is_object() {
            each(&format!("{path}[]"), &schema["items"], check);
        }
    }

    #[test]
    fn kinds_are_listed_by_their_category_and_have_no_short_names() {
        for kind in ["Application", "GitRepository"] {
            let crd = document(kind);
            assert_eq!(crd["spec"]["group"], names::GROUP);
            assert_eq!(crd["spec"]["versions"][0]["name"], names::VERSION);
            assert_eq!(crd["spec"]["scope"], "Namespaced");
            assert_eq!(crd["spec"]["names"]["categories"], serde_json::json!([names::CATEGORY]));
            assert!(
                crd["spec"]["names"]
                    .get("shortNames")
                    .is_none_or(|names| { names.as_array().is_some_and(Vec::is_empty) })
            );
            let columns: Vec<_> = crd["spec"]["versions"][0]["additionalPrinterColumns"]
                .as_array()
                .unwrap()
                .iter()
                .map(|column| column["name"].as_str().unwrap())
                .collect();
            assert_eq!(columns, ["Ready", "Status", "Revision", "Age"]);
        }
    }

    #[test]
    fn an_application_can_be_the_parent_of_an_applyset() {
        assert_eq!(
            document("Application")["metadata"]["labels"][names::APPLYSET_IS_PARENT_TYPE],
            "true"
        );
    }

    #[test]
    fn what_is_read_for_an_application_is_of_its_own_namespace() {
        let spec = &schema("Application")["properties"]["spec"]["properties"];
        for (pointer, fields) in [
            ("/sourceRef", &["kind", "name"][..]),
            ("/postBuild/properties/substituteFrom/items", &["kind", "name", "optional"]),
            ("/decryption/properties/secretRef", &["name"]),
        ] {
            let found = spec.pointer(pointer).unwrap()["properties"].as_object().unwrap();
            assert_eq!(found.keys().collect::<Vec<_>>(), fields, "{pointer}");
        }
    }

    #[test]
    fn conditions_merge_by_type() {
        for kind in ["Application", "GitRepository"] {
            let conditions = &schema(kind)["properties"]["status"]["properties"]["conditions"];
            assert_eq!(conditions["x-kubernetes-list-type"], "map");
            assert_eq!(conditions["x-kubernetes-list-map-keys"], serde_json::json!(["type"]));
        }
    }

    #[test]
    fn every_field_is_described_and_none_is_nullable() {
        for kind in ["Application", "GitRepository"] {
            each(kind, &schema(kind), &mut |path, schema| {
                assert!(schema.get("nullable").is_none(), "{path} is nullable");
                assert!(
                    path.ends_with("[]") || schema["description"].is_string(),
                    "{path} has no description"
                );
                // The API server warns of formats that it does not know.
                if let Some(format) = schema.get("format") {
                    let known = ["int64", "date-time"];
                    assert!(
                        format.as_str().is_some_and(|format| known.contains(&format)),
                        "{path} has the format {format}"
                    );
                }
            });
        }
    }

    #[test]
    fn what_may_be_left_out_has_the_documented_default() {
        let application = schema("Application");
        let spec = &application["properties"]["spec"];
        assert_eq!(spec["required"], serde_json::json!(["interval", "sourceRef"]));
        for (field, default) in [
            ("path", serde_json::json!("./")),
            ("timeout", serde_json::json!("5m")),
            ("prune", serde_json::json!(true)),
            ("deletionPolicy", serde_json::json!("MirrorPrune")),
        ] {
            assert_eq!(spec["properties"][field]["default"], default, "{field}");
        }
        let repository = schema("GitRepository");
        let spec = &repository["properties"]["spec"];
        assert_eq!(spec["required"], serde_json::json!(["interval", "url"]));
        assert_eq!(spec["properties"]["timeout"]["default"], "1m");
    }
}
