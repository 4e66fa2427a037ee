//! Variables in objects.

use std::collections::BTreeMap;

use serde_json::json;

use super::path;
use crate::{RenderOptions, Substitution, Variable, render};
use plumb_core::{MemTree, Object};

fn options(values: &[(&str, &str)]) -> RenderOptions {
    let variable = |(name, text): &(&str, &str)| {
        let secret = name.starts_with("secret");
        ((*name).to_owned(), Variable { text: (*text).to_owned(), secret })
    };
    let values: BTreeMap<_, _> = values.iter().map(variable).collect();
    let substitution = Substitution { values, always: false, strict: true };
    RenderOptions { substitution, ..RenderOptions::default() }
}

fn done(text: &str, options: &RenderOptions) -> Vec<Object> {
    let tree = MemTree::new().file("app/a.yaml", text);
    render(&tree, &path("app"), options, &|| false).unwrap().objects
}

fn wrong(text: &str, options: &RenderOptions) -> String {
    let tree = MemTree::new().file("app/a.yaml", text);
    let failure = render(&tree, &path("app"), options, &|| false).unwrap_err();
    let hint = failure.error.hint().unwrap_or_default();
    format!("{failure} ({hint})")
}

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a-${ENV}\n";

#[test]
fn values_take_the_place_of_variables_and_may_change_the_type() {
    let text = format!(
        "{MAP}data:\n  host: ${{HOST:=localhost}}:${{PORT}}\n  port: ${{PORT}}\n  text: \"${{PORT}}\"\n  quoted: ${{Q}}${{PORT}}${{Q}}\n  map: ${{MAP}}\n  old: ${{OLD}}\n  ${{ENV}}: key\n"
    );
    let values =
        [("ENV", "prod"), ("PORT", "8080"), ("Q", "\""), ("MAP", "{a: 1}"), ("OLD", "yes")];
    let objects = done(&text, &options(&values));
    assert_eq!(objects[0].name(), "a-prod");
    let data = json!({
        "host": "localhost:8080", "port": 8080, "text": 8080, "quoted": "8080",
        "map": {"a": 1}, "old": true, "prod": "key",
    });
    assert_eq!(objects[0].body()["data"], data);
    assert_eq!(objects[0].place().to_string(), "app/a.yaml:1");
    assert!(!objects[0].is_secret());
}

#[test]
fn objects_and_texts_can_say_that_they_are_left_alone() {
    let values = [("ENV", "prod")];
    for mark in ["plumb.dev/substitute", "kustomize.toolkit.fluxcd.io/substitute"] {
        for field in ["labels", "annotations"] {
            let text = format!("{MAP}  {field}: {{{mark}: disabled}}\n");
            assert_eq!(done(&text, &options(&values))[0].name(), "a-${ENV}", "{mark} {field}");
        }
    }
    let escaped = MAP.replace("${ENV}", "$${ENV}");
    assert_eq!(done(&escaped, &options(&values))[0].name(), "a-${ENV}");
    // Without any values nothing is done, unless that is asked for.
    assert_eq!(done(MAP, &options(&[]))[0].name(), "a-${ENV}");
    let mut always = options(&[]);
    always.substitution.always = true;
    let text = MAP.replace("${ENV}", "${ENV:=dev}");
    assert_eq!(done(&text, &always)[0].name(), "a-dev");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let values = [("ENV", "prod"), ("BAD", "a: b: c"), ("LIST", "[a]")];
    let options = options(&values);
    let text = format!("{MAP}data:\n  x: y\n  z: a ${{none}} b\n");
    assert_eq!(
        wrong(&text, &options),
        "app/a.yaml:7: ConfigMap a-${ENV}: ${none} has no value, and no default (in data.z) (give none a value in postBuild, write ${none:=default}, or $${none} for what is no variable of ours)"
    );
    let text = format!("{MAP}data:\n  x: ${{ENV-y}}\n");
    assert!(
        wrong(&text, &options)
            .starts_with("app/a.yaml:6: ConfigMap a-${ENV}: after ${ENV comes `-`")
    );
    let text = format!("{MAP}data:\n  x: ${{BAD}}\n");
    let said = wrong(&text, &options);
    assert!(
        said.starts_with(
            "app/a.yaml:1: ConfigMap a-${ENV}: with its variables replaced it cannot be read: "
        ),
        "{said}"
    );
    let text = MAP.replace("a-${ENV}", "${LIST}");
    assert!(wrong(&text, &options).contains("it has a metadata.name that is not a string"));
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 'a${A:=}'}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: 'a${B:=}'}\n";
    assert!(wrong(text, &options).contains("is already defined at app/a.yaml:1"));
}

#[test]
fn a_secret_value_is_shown_nowhere() {
    let values = [("ENV", "prod"), ("secret", "hunter2: hunter2: hunter2")];
    let options = options(&values);
    let text = format!("{MAP}data:\n  x: ${{secret}}\n");
    let said = wrong(&text, &options);
    assert!(!said.contains("hunter2"), "{said}");
    assert!(!format!("{options:?}").contains("hunter2"));
    let text = format!("{MAP}data:\n  x: '${{secret:0:4}}'\n");
    assert!(done(&text, &options)[0].is_secret(), "and the API server's words are masked");
}
