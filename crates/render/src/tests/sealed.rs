//! Encrypted files: sops made them, see crates/sops/tests/golden.rs.

use std::sync::Arc;

use plumb_core::{MemTree, Object, RelPath};
use plumb_sops::Keys;

use crate::{Failure, RenderOptions, Rendered, render};

macro_rules! golden {
    ($path:literal) => {
        include_str!(concat!("../../../sops/tests/golden/", $path))
    };
}

const SECRET: &str = golden!("yaml-regex/sealed.yaml");
const ENV: &str = golden!("dotenv/sealed.env");
const TEXT: &str = golden!("text/sealed.txt");
const DOCKER: &str = golden!("docker/sealed.dockerconfigjson");
/// The password in `SECRET`, as it is and as it stands in data.
const PASSWORDS: [&str; 2] = ["hunter2", "aHVudGVyMg=="];

fn keys(text: &str) -> Arc<Keys> {
    Arc::new(Keys::of_secret([("a.agekey", text.as_bytes())]).unwrap())
}

fn options() -> RenderOptions {
    let key = include_str!("../../../sops/tests/keys/age.agekey");
    RenderOptions { keys: Some(keys(key)), ..RenderOptions::default() }
}

fn rendered(tree: &MemTree, options: &RenderOptions) -> Result<Rendered, Failure> {
    let result = render(tree, &RelPath::parse("app").unwrap(), options, &|| false);
    if let Err(failure) = &result {
        let shown = format!("{failure} {failure:?} {:?}", failure.error.hint());
        assert!(!PASSWORDS.iter().any(|password| shown.contains(password)), "{shown}");
    }
    result
}

fn objects(tree: &MemTree) -> Vec<Object> {
    rendered(tree, &options()).unwrap_or_else(|failure| panic!("{failure}")).objects
}

/// Why it is refused, and what helps.
fn refused(tree: &MemTree, options: &RenderOptions) -> String {
    let error = rendered(tree, options).unwrap_err().error;
    format!("{error}; {}", error.hint().unwrap_or_default())
}

/// A value in data.
fn data(object: &Object, key: &str) -> String {
    use base64::Engine as _;
    let text = object.body()["data"][key].as_str().unwrap_or_default().replace('\n', "");
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

fn generators() -> MemTree {
    let kustomization = "\
secretGenerator:
- name: files
  files: [text.txt, 'config.json=pull.dockerconfigjson']
  envs: [a.env]
";
    MemTree::new()
        .file("app/kustomization.yaml", kustomization)
        .file("app/text.txt", TEXT)
        .file("app/pull.dockerconfigjson", DOCKER)
        .file("app/a.env", ENV)
}

#[test]
fn manifests_open_in_place() {
    let tree = MemTree::new().file("app/a.yaml", SECRET);
    let [secret] = &objects(&tree)[..] else { panic!("one") };
    assert_eq!(data(secret, "password"), "hunter2");
    assert_eq!(secret.body()["stringData"]["user"], "admin");
    assert_eq!(secret.body().get("sops"), None);
    let line = SECRET.lines().position(|line| line.contains("password")).unwrap() + 1;
    let place = secret.field_place(&plumb_core::FieldPath::keys(["data", "password"]));
    assert_eq!(place.line as usize, line);
}

#[test]
fn all_that_becomes_a_secret_opens() {
    let objects = objects(&generators());
    let find = |kind: &str| objects.iter().find(|object| object.kind() == kind).unwrap();
    let secret = find("Secret");
    assert_eq!(data(secret, "text.txt"), golden!("text/expected.txt"));
    assert_eq!(data(secret, "config.json"), golden!("docker/expected.dockerconfigjson"));
    assert_eq!(data(secret, "PASSWORD"), "hunter2=with=equals");
    // The hash in the name is that of what is in it.
    let plain = generators()
        .file("app/text.txt", golden!("text/expected.txt"))
        .file("app/pull.dockerconfigjson", golden!("docker/expected.dockerconfigjson"))
        .file("app/a.env", golden!("dotenv/expected.env"));
    let plain = rendered(&plain, &RenderOptions::default()).unwrap().objects;
    assert!(plain.iter().any(|object| object.name() == secret.name()), "{}", secret.name());
}

#[test]
fn nothing_is_opened_into_a_configmap() {
    let generator = |options: &str| {
        MemTree::new()
            .file(
                "app/kustomization.yaml",
                format!("configMapGenerator:\n- name: a\n  files: [text.txt]\n{options}"),
            )
            .file("app/text.txt", TEXT)
    };
    let text = refused(&generator(""), &options());
    assert!(
        text.contains("has an encrypted file, and what is in a ConfigMap is no secret (in data"),
        "{text}"
    );
    assert!(text.contains("make a Secret of it"), "{text}");
    let marked = generator("  options: {annotations: {plumb.dev/decrypt: disabled}}\n");
    assert_eq!(objects(&marked)[0].body()["data"]["text.txt"], TEXT);
}

#[test]
fn patches_and_components_open_too() {
    let tree = MemTree::new()
        .file("app/kustomization.yaml", "resources: [a.yaml]\ncomponents: [../more]\npatches: [{path: p.yaml}]\n")
        .file("app/a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
        .file("app/p.yaml", SECRET)
        .file(
            "more/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nsecretGenerator: [{name: env, envs: [a.env]}]\n",
        )
        .file("more/a.env", ENV);
    let objects = objects(&tree);
    assert_eq!(data(&objects[0], "password"), "hunter2");
    assert_eq!(data(&objects[2], "USER"), "admin");
    assert!(objects[1].is_secret(), "a patch can put what is secret anywhere");
}

#[test]
fn what_came_from_encrypted_files_is_hidden() {
    let map = SECRET.replace("kind: Secret", "kind: ConfigMap");
    let options = options();
    // Its MAC is over the kind as well; without the rest of the file it is not.
    let tree = MemTree::new().file("app/a.yaml", map);
    assert!(refused(&tree, &options).contains("MAC does not match"));

    let only =
        golden!("yaml-mac-only-encrypted/sealed.yaml").replace("kind: Secret", "kind: Thing");
    let plain = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: plain}\n";
    let tree = MemTree::new()
        .file("app/a.yaml", plain)
        .file("app/b.yaml", only.clone())
        .link("app/c.yaml", "../d.yaml")
        .file("d.yaml", only.replace("name: db", "name: linked"));
    for tree in
        [tree.clone(), tree.file("app/kustomization.yaml", "resources: [a.yaml, b.yaml, c.yaml]\n")]
    {
        let hidden: Vec<_> = objects(&tree)
            .iter()
            .map(|object| (object.name().to_owned(), object.is_secret()))
            .collect();
        let want = [("plain", false), ("db", true), ("linked", true)];
        assert_eq!(hidden, want.map(|(name, hidden)| (name.to_owned(), hidden)));
    }
}

#[test]
fn encrypted_data_in_a_plain_secret_opens() {
    use base64::Engine as _;
    let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let secret = |text: &str| {
        let text = encoded(text);
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ndata:\n  x: YQ==\n  c.txt: {text}\n"
        );
        MemTree::new().file("app/a.yaml", secret)
    };
    let found = objects(&secret(TEXT));
    assert_eq!(data(&found[0], "c.txt"), golden!("text/expected.txt"));
    assert_eq!(data(&found[0], "x"), "a");
    let damaged = TEXT.replacen("data:", "data:A", 1);
    let text = refused(&secret(&damaged), &options());
    assert!(text.starts_with("app/a.yaml:6: Secret a: cannot decrypt it (in data"), "{text}");
    let text = refused(&secret(TEXT), &RenderOptions::default());
    assert!(
        text.starts_with("app/a.yaml:6: Secret a is encrypted with SOPS, and there is no key"),
        "{text}"
    );
}

#[test]
fn without_keys_nothing_encrypted_is_applied() {
    let options = RenderOptions::default();
    let text = refused(&MemTree::new().file("app/a.yaml", SECRET), &options);
    assert!(text.starts_with("app/a.yaml:1: Secret db is encrypted with SOPS, and there is no key for it; give the keys"), "{text}");
    assert!(text.contains("spec.decryption") && text.contains("--decryption-key"), "{text}");
    let text = refused(&generators(), &options);
    assert!(text.contains("Secret files-") && text.contains("there is no key for it"), "{text}");

    // An operator may have kinds whose objects are encrypted until it opens them.
    let operators = SECRET
        .replace("apiVersion: v1", "apiVersion: isindir.github.com/v1alpha3")
        .replace("kind: Secret", "kind: SopsSecret");
    let tree = MemTree::new().file("app/a.yaml", operators);
    assert!(rendered(&tree, &options).unwrap().objects[0].body().get("sops").is_some());
}

#[test]
fn what_is_marked_is_applied_as_it_is() {
    for mark in ["plumb.dev/decrypt: disabled", "kustomize.toolkit.fluxcd.io/decrypt: Disabled"] {
        let marked = SECRET.replace("name: db", &format!("name: db\n    annotations: {{{mark}}}"));
        let tree = MemTree::new().file("app/a.yaml", marked);
        for options in [options(), RenderOptions::default()] {
            let object = &rendered(&tree, &options).unwrap().objects[0];
            assert!(
                object.body()["stringData"]["user"].as_str().unwrap().starts_with("ENC["),
                "{mark}"
            );
        }
    }
}

#[test]
fn a_file_that_does_not_open_is_told_with_what_it_needs() {
    let stranger = include_str!("../../../sops/tests/keys/stranger.agekey");
    let stranger = RenderOptions { keys: Some(keys(stranger)), ..RenderOptions::default() };
    let kustomization = "resources: [a.yaml]\n";
    for (tree, prefix) in [
        (
            MemTree::new(),
            "cannot decrypt app/a.yaml: none of the keys opens it; it needs one of: age age1w5",
        ),
        (
            MemTree::new().file("app/kustomization.yaml", kustomization),
            "app/kustomization.yaml:1: ",
        ),
    ] {
        let text = refused(&tree.clone().file("app/a.yaml", SECRET), &stranger);
        assert!(text.starts_with(prefix), "{text}");
        assert!(text.contains("cannot decrypt app/a.yaml: none of the keys opens it"), "{text}");
        assert!(text.contains("sops updatekeys"), "{text}");
        let changed = SECRET.replace("name: db", "name: other");
        let text = refused(&tree.file("app/a.yaml", changed), &options());
        assert!(text.contains("cannot decrypt app/a.yaml: its MAC does not match"), "{text}");
    }
}

#[test]
fn inputs_are_those_of_git_and_keys_are_part_of_the_options() {
    let tree = generators();
    let before = rendered(&tree, &options()).unwrap();
    assert!(before.inputs.unchanged_in(&tree).unwrap());
    let (from, _) = ENV.split_at(ENV.find("PASSWORD").unwrap());
    let changed = tree.clone().file("app/a.env", from);
    assert!(!before.inputs.unchanged_in(&changed).unwrap());
    let failure =
        rendered(&tree.clone().file("app/a.env", ENV.replace("EMPTY", "FULL")), &options());
    let inputs = failure.unwrap().inputs;
    assert!(!inputs.unchanged_in(&tree).unwrap());

    let stranger = include_str!("../../../sops/tests/keys/stranger.agekey");
    let other = RenderOptions { keys: Some(keys(stranger)), ..RenderOptions::default() };
    assert_ne!(options(), other);
    assert_ne!(options(), RenderOptions::default());
    assert_eq!(options(), options());
}
