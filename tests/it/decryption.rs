//! Files that SOPS encrypted: `spec.decryption`. They were made by sops itself, see
//! `crates/sops/tests/golden.rs`.

use plumb_testkit::{runtime, wait_for};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, condition};

const SEALED: &str = include_str!("../../crates/sops/tests/golden/yaml-regex/sealed.yaml");
const ENV: &str = include_str!("../../crates/sops/tests/golden/dotenv/sealed.env");
const KEY: &str = include_str!("../../crates/sops/tests/keys/age.agekey");
const STRANGER: &str = include_str!("../../crates/sops/tests/keys/stranger.agekey");
/// What is in the files, in both forms, and the private part of the key.
const SECRETS: [&str; 3] = ["hunter2", "aHVudGVyMg", "AGE-SECRET-KEY-1Y5L3Y4MN"];

fn keys(world: &World, entries: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "keys", "namespace": world.ns}, "stringData": entries,
    })
}

/// An Application that opens files, and of which nothing comes by itself within an hour.
fn with_keys(world: &World) -> Value {
    let mut app = world.app("web", "app", "1h");
    app["spec"]["decryption"] = json!({"provider": "sops", "secretRef": {"name": "keys"}});
    app["spec"]["retryInterval"] = json!("1h");
    app
}

#[test]
fn encrypted_files_are_applied_once_the_key_is_there() {
    runtime().block_on(async {
        let world = World::new("decryption").await;
        let kustomization = "resources: [a.yaml]\nsecretGenerator: [{name: env, envs: [b.env]}]\n\
                             generatorOptions: {disableNameSuffixHash: true}\n";
        let files = [
            ("app/kustomization.yaml", Some(kustomization)),
            ("app/a.yaml", Some(SEALED)),
            ("app/b.env", Some(ENV)),
        ];
        let commit = world.repo.commit(&files, "one");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        let app = with_keys(&world);
        world.apply(&app).await;
        let parts = [format!("Secret {}/keys does not exist", world.ns)];
        let parts = parts.each_ref().map(String::as_str);
        world.wait_refused(&world.apps(), "web", "SecretNotFound", &parts).await;

        world.apply(&keys(&world, &json!({"id.txt": KEY}))).await;
        let parts = ["no usable keys", "only id.txt", ".agekey"];
        world.wait_refused(&world.apps(), "web", "InvalidSecret", &parts).await;

        world.apply(&keys(&world, &json!({"id.agekey": STRANGER}))).await;
        let parts =
            ["cannot decrypt app/", "it needs one of: age age1w5usnup8", "id.txt was not used"];
        let object = world.wait_refused(&world.apps(), "web", "BuildFailed", &parts).await;
        assert_eq!(condition(&object, "Stalled")["status"], "True");

        world.apply(&keys(&world, &json!({"id.agekey": KEY}))).await;
        world.wait_applied("web", &commit).await;
        let secrets = world.api("v1", "Secret");
        let db = world.get(&secrets, "db").await;
        assert_eq!(db["data"], json!({"password": "aHVudGVyMg==", "user": "YWRtaW4="}));
        assert_eq!(db.get("sops"), None);
        assert_eq!(world.get(&secrets, "env").await["data"]["USER"], "YWRtaW4=");

        // What was opened is watched over like anything else.
        world.edit(&secrets, "db", &json!({"stringData": {"password": "by hand"}})).await;
        wait_for("the Secret to be put back", LIMIT, async || {
            let now = world.get(&secrets, "db").await["data"]["password"].clone();
            if now == "aHVudGVyMg==" { Ok(()) } else { Err(now) }
        })
        .await;

        // A changed file is refused, and what was applied last stays.
        let changed = SEALED.replace("type: Opaque", "type: Other");
        world.repo.commit(&[("app/a.yaml", Some(&changed))], "two");
        world.look().await;
        let parts = ["cannot decrypt app/a.yaml", "MAC does not match"];
        world.wait_refused(&world.apps(), "web", "BuildFailed", &parts).await;
        assert_eq!(world.get(&secrets, "db").await["type"], "Opaque");

        // Nothing of it is told.
        let mut told = vec![world.get(&world.apps(), "web").await["status"].to_string()];
        told.extend(world.events_of("web").await);
        assert!(agent.stop().success());
        told.push(agent.logs());
        let told = told.join("\n");
        for secret in SECRETS {
            assert!(!told.contains(secret), "{told}");
        }
    });
}

#[test]
fn without_keys_encrypted_files_are_refused() {
    runtime().block_on(async {
        let world = World::new("sealed").await;
        world.repo.commit(&[("app/a.yaml", Some(SEALED))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let parts = ["app/a.yaml:1: Secret db is encrypted with SOPS", "spec.decryption"];
        world.wait_refused(&world.apps(), "web", "BuildFailed", &parts).await;
    });
}
