//! Signed commits: `spec.verify` of a GitRepository.

use std::io::Write as _;
use std::process::{Command, Stdio};

use plumb_testkit::{Scratch, SshKey, runtime, wait_for};
use serde_json::{Value, json};

use crate::signers::Gpg;
use crate::world::{LIMIT, World, condition, config_map};

/// Commits, and signs what came of it.
fn signed(world: &World, key: &SshKey, value: &str) -> String {
    unsigned(world, value);
    world.repo.sign(key)
}

fn unsigned(world: &World, value: &str) -> String {
    let [a, b] = ["a", "b"].map(|name| config_map(name, value));
    world.repo.commit(&[("app/a.yaml", Some(&a)), ("other/b.yaml", Some(&b))], value)
}

/// Runs git in the repository.
fn git(world: &World, args: &[&str], input: &str) -> String {
    let mut child = Command::new("git")
        .current_dir(world.repo.dir())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Commits, and signs what came of it with gpg, to which more can be said.
fn signed_by(world: &World, gpg: &Gpg, key: &str, more: &[&str], value: &str) -> String {
    let commit = unsigned(world, value);
    let raw = git(world, &["cat-file", "commit", &commit], "") + "\n";
    let signature = gpg.sign(key, more, raw.as_bytes());
    let (head, message) = raw.split_once("\n\n").unwrap();
    let signature = signature.trim_end().replace('\n', "\n ");
    let raw = format!("{head}\ngpgsig {signature}\n\n{message}");
    let commit = git(world, &["hash-object", "-t", "commit", "-w", "--stdin"], &raw);
    git(world, &["update-ref", "refs/heads/main", &commit], "");
    commit
}

/// The Secret of keys.
fn keys(world: &World, entries: &[&SshKey]) -> Value {
    let data: serde_json::Map<String, Value> =
        entries.iter().map(|key| key.entry()).map(|(name, key)| (name, json!(key))).collect();
    world.secret("keys", &Value::Object(data))
}

/// Replaces the keys, of which the old ones go.
async fn replace_keys(world: &World, entries: &[&SshKey]) {
    let secrets = world.api("v1", "Secret");
    world.edit(&secrets, "keys", &json!({"data": null})).await;
    let new = keys(world, entries);
    world.edit(&secrets, "keys", &json!({"stringData": new["stringData"]})).await;
}

fn verifying(world: &World, mode: &str, reference: &Value) -> Value {
    let mut source = world.source("1h");
    source["spec"]["ref"] = reference.clone();
    source["spec"]["verify"] = json!({"mode": mode, "secretRef": {"name": "keys"}});
    source
}

/// Waits until the source is not ready since something is not signed as it should be.
async fn refused(world: &World, reason: &str, parts: &[&str]) -> Value {
    let object = world.wait_refused(&world.sources(), "repo", "VerificationFailed", parts).await;
    let verified = condition(&object, "SourceVerified");
    assert_eq!((&verified["status"], &verified["reason"]), (&json!("False"), &json!(reason)));
    assert_eq!(condition(&object, "Stalled")["status"], "True");
    object
}

/// Waits until the source is ready at a revision that was signed.
async fn verified(world: &World, revision: &str, mode: &str) -> String {
    let object = world
        .wait_condition(&world.sources(), "repo", ("SourceVerified", "True"), |object| {
            object["status"]["revision"] == revision
                && condition(object, "Ready")["status"] == "True"
        })
        .await;
    assert_eq!(object["status"]["sourceVerificationMode"], mode);
    condition(&object, "SourceVerified")["message"].as_str().unwrap().to_owned()
}

async fn overwrite(world: &World) {
    world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
}

#[test]
fn only_signed_commits_are_applied_and_the_last_one_stays() {
    runtime().block_on(async {
        let world = World::new("signed").await;
        let [ada, bob, eve] = ["ada", "bob", "eve"].map(SshKey::create);
        let older = unsigned(&world, "0");
        let first = signed(&world, &ada, "1");
        let _agent = world.agent();
        world.apply(&keys(&world, &[&ada])).await;
        world.apply(&verifying(&world, "HEAD", &json!({"branch": "main"}))).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;
        let said = verified(&world, &format!("main@sha1:{first}"), "HEAD").await;
        assert!(said.contains("commit signed by SSH key SHA256:"), "{said}");
        assert!(said.ends_with(", ada"), "{said}");

        // Nobody signed it: nothing changes, and what is there stays enforced.
        let second = unsigned(&world, "2");
        world.look().await;
        let brief = format!("commit {} is not verified: it is not signed", &second[..12]);
        let object = refused(&world, "NotSigned", &[&brief, "git commit -S"]).await;
        assert_eq!(object["status"]["revision"], format!("main@sha1:{first}"));
        world.wait_event("repo", &["VerificationFailed", &brief]).await;
        overwrite(&world).await;
        world.wait_value("a", "1").await;
        let third = signed(&world, &eve, "3");
        world.look().await;
        refused(&world, "UnknownKey", &["SSH key SHA256:", "not among the trusted ones"]).await;
        overwrite(&world).await;
        world.wait_value("a", "1").await;

        // An Application that is pinned to one of them applies nothing of it.
        let mut pinned = world.app("pinned", "other", "1h");
        for commit in [&older, &second, &third] {
            pinned["spec"]["revision"] = json!(commit);
            world.apply(&pinned).await;
            let brief = format!("commit {} is not verified", &commit[..12]);
            world.wait_refused(&world.apps(), "pinned", "VerificationFailed", &[&brief]).await;
        }
        assert_eq!(world.data("b").await, None);
        pinned["spec"]["revision"] = json!(first);
        world.apply(&pinned).await;
        world.wait_value("b", "1").await;

        let fourth = signed(&world, &ada, "4");
        world.look().await;
        world.wait_applied("web", &fourth).await;
        verified(&world, &format!("main@sha1:{fourth}"), "HEAD").await;

        // Other keys: what they did not sign is trusted no more, and nothing is put back to it.
        replace_keys(&world, &[&bob]).await;
        refused(&world, "UnknownKey", &["not among the trusted ones"]).await;
        let parts = ["not verified", "nothing is corrected and nothing pruned"];
        world.wait_refused(&world.apps(), "web", "VerificationFailed", &parts).await;
        world.wait_refused(&world.apps(), "pinned", "VerificationFailed", &parts).await;
        overwrite(&world).await;
        let fifth = signed(&world, &bob, "5");
        world.look().await;
        world.wait_applied("web", &fifth).await;
        world.wait_value("a", "5").await;
        assert_eq!(world.data("b").await.unwrap()["value"], "1", "the pin is Ada's");
        replace_keys(&world, &[&ada, &bob]).await;
        world.wait_condition(&world.apps(), "pinned", ("Ready", "True"), |_| true).await;

        // Without keys nobody is trusted.
        world.delete(&world.api("v1", "Secret"), "keys").await;
        world.wait_refused(&world.sources(), "repo", "SecretNotFound", &["verify.secretRef"]).await;
        world.wait_refused(&world.apps(), "web", "SecretNotFound", &["nothing is corrected"]).await;
        world.apply(&keys(&world, &[&ada, &bob])).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
    });
}

#[test]
fn what_was_applied_before_anybody_asked_for_signatures_is_not_trusted() {
    runtime().block_on(async {
        let world = World::new("unsigned").await;
        let (ada, cache) = (SshKey::create("ada"), Scratch::new("cache"));
        let args = ["--identity", "one-pod", "--cache-dir", cache.path().to_str().unwrap()];
        let agent = || world.agent_with(world.identity.kubeconfig().to_owned(), &args);
        let first = unsigned(&world, "1");
        let mut running = agent();
        world.sync("web", "app", &first).await;
        world.apply(&keys(&world, &[&ada])).await;
        world.apply(&verifying(&world, "HEAD", &json!({"branch": "main"}))).await;
        refused(&world, "NotSigned", &["is not signed"]).await;
        let parts = ["not verified", "nothing is corrected and nothing pruned"];
        world.wait_refused(&world.apps(), "web", "VerificationFailed", &parts).await;
        // A new Application of the same commit gets nothing of it, nor does one after a restart, nor of a
        // source that is suspended.
        for name in ["new", "restarted", "suspended"] {
            world.apply(&world.app(name, "other", "1h")).await;
            let parts = ["not verified"];
            wait_for(&format!("{name} to be refused"), LIMIT, async || {
                let object = world.get(&world.apps(), name).await;
                let ready = condition(&object, "Ready");
                let message = ready["message"].as_str().unwrap_or_default();
                if parts.iter().all(|part| message.contains(part)) { Ok(()) } else { Err(ready) }
            })
            .await;
            assert_eq!(world.data("b").await, None);
            running.stop();
            if name == "restarted" {
                let suspend = json!({"spec": {"suspend": true}});
                world.edit(&world.sources(), "repo", &suspend).await;
            }
            running = agent();
        }
        overwrite(&world).await;
        world.edit(&world.sources(), "repo", &json!({"spec": {"suspend": false}})).await;
        let second = signed(&world, &ada, "2");
        world.look().await;
        for name in ["web", "new", "restarted", "suspended"] {
            world.delete(&world.apps(), name).await;
            world.wait_gone(&world.apps(), name).await;
        }
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &second).await;
        // What is asked for no more is not needed any more.
        world.edit(&world.sources(), "repo", &json!({"spec": {"verify": null}})).await;
        let third = unsigned(&world, "3");
        world.look().await;
        world.wait_applied("web", &third).await;
        let object = world.get(&world.sources(), "repo").await;
        assert_eq!(condition(&object, "SourceVerified"), Value::Null);
        assert_eq!(object["status"]["sourceVerificationMode"], Value::Null);
        running.stop();
    });
}

#[test]
fn tags_are_applied_under_the_name_that_was_signed() {
    runtime().block_on(async {
        let world = World::new("tags").await;
        let ada = SshKey::create("ada");
        let tag = |name: &str, commit: &str| world.repo.signed_tag(name, commit, &ada);
        let first = unsigned(&world, "1");
        tag("v1.0.0", &first);
        let _agent = world.agent();
        world.apply(&keys(&world, &[&ada])).await;
        world.apply(&verifying(&world, "Tag", &json!({"semver": ">=1.0.0"}))).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let revision = format!("v1.0.0@sha1:{first}");
        let said = verified(&world, &revision, "Tag").await;
        assert!(said.contains("tag v1.0.0 signed by SSH key SHA256:"), "{said}");
        world.wait_value("a", "1").await;

        // The release of before under a higher number, and one that nobody signed.
        let id = world.repo.git(&["rev-parse", "refs/tags/v1.0.0"]);
        world.repo.set_ref("refs/tags/v1.1.0", &id);
        world.look().await;
        refused(&world, "WrongTag", &["\"v1.1.0\"", "made under the name \"v1.0.0\""]).await;
        world.repo.delete_tag("v1.1.0");
        let second = unsigned(&world, "2");
        world.repo.annotated_tag("v1.2.0", &second, "release");
        world.look().await;
        refused(&world, "NotSigned", &["tag \"v1.2.0\" is not verified: it is not signed"]).await;
        world.repo.tag("v1.2.0", &second);
        world.look().await;
        refused(&world, "NotSigned", &["lightweight"]).await;
        overwrite(&world).await;
        world.wait_value("a", "1").await;
        world.repo.delete_tag("v1.2.0");
        tag("v1.2.0", &second);
        world.look().await;
        verified(&world, &format!("v1.2.0@sha1:{second}"), "Tag").await;
        world.wait_value("a", "2").await;

        // Back to the release of before, by its tag that is still at hand; the commit alone says nothing.
        let pin = |commit: &str| json!({"spec": {"revision": commit}});
        world.edit(&world.apps(), "web", &pin(&first)).await;
        world.wait_value("a", "1").await;
        let loose = unsigned(&world, "loose");
        world.edit(&world.apps(), "web", &pin(&loose)).await;
        let parts = ["no annotated tag of it is known here"];
        world.wait_refused(&world.apps(), "web", "VerificationFailed", &parts).await;
        world.edit(&world.apps(), "web", &json!({"spec": {"revision": null}})).await;
        world.wait_value("a", "2").await;
        // The same tag, and now the commit has to be signed, too.
        world
            .edit(&world.sources(), "repo", &json!({"spec": {"verify": {"mode": "TagAndHEAD"}}}))
            .await;
        refused(&world, "NotSigned", &[&second[..12], "git commit -S"]).await;
        let third = signed(&world, &ada, "3");
        tag("v1.3.0", &third);
        world.look().await;
        let said = verified(&world, &format!("v1.3.0@sha1:{third}"), "TagAndHEAD").await;
        assert!(said.contains("; commit signed by"), "{said}");
        world.wait_value("a", "3").await;
    });
}

/// A key that is revoked, or comes to its end, takes along what it signed.
#[test]
fn keys_of_openpgp_that_are_revoked_or_over_let_nothing_in() {
    runtime().block_on(async {
        let world = World::new("openpgp").await;
        let gpg = Gpg::new();
        let [ada, bob] = ["ada", "bob"].map(|user| gpg.key(user, "ed25519", "sign", "never"));
        let early = ["--faked-system-time", "20200101T000000!", "--ignore-time-conflict"];
        let make = [&early[..], &["--quick-gen-key", "eva", "ed25519", "sign", "1y"]].concat();
        gpg.run(&make, b"");
        let eva = "eva";
        let keys = |entries: &[&str]| {
            let data: serde_json::Map<String, Value> = entries
                .iter()
                .map(|key| {
                    let text = String::from_utf8(gpg.export(key)).unwrap();
                    (format!("{}.asc", key.to_lowercase()), json!(text))
                })
                .collect();
            world.secret("keys", &Value::Object(data))
        };
        let first = signed_by(&world, &gpg, &ada, &[], "1");
        let _agent = world.agent();
        world.apply(&keys(&[&ada, &bob, eva])).await;
        world.apply(&verifying(&world, "HEAD", &json!({"branch": "main"}))).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;
        let said = verified(&world, &format!("main@sha1:{first}"), "HEAD").await;
        assert!(said.contains("OpenPGP"), "{said}");

        // It was signed while the key was good, which it is not any more.
        let second = signed_by(&world, &gpg, eva, &early, "2");
        world.look().await;
        let brief = format!("commit {} is not verified", &second[..12]);
        let object = refused(&world, "KeyExpired", &[&brief]).await;
        assert_eq!(object["status"]["revision"], format!("main@sha1:{first}"));
        overwrite(&world).await;
        world.wait_value("a", "1").await;

        let third = signed_by(&world, &gpg, &bob, &[], "3");
        world.look().await;
        world.wait_applied("web", &third).await;
        gpg.run(&["--import"], gpg.revocation(&bob).as_bytes());
        let secrets = world.api("v1", "Secret");
        let new = keys(&[&ada, &bob, eva]);
        world.edit(&secrets, "keys", &json!({"stringData": new["stringData"]})).await;
        refused(&world, "KeyRevoked", &["not verified"]).await;
        let parts = ["not verified", "nothing is corrected and nothing pruned"];
        world.wait_refused(&world.apps(), "web", "VerificationFailed", &parts).await;
        assert_eq!(world.data("a").await.unwrap()["value"], "3", "nothing is taken away, either");

        let fourth = signed_by(&world, &gpg, &ada, &[], "4");
        world.look().await;
        world.wait_applied("web", &fourth).await;
        world.wait_value("a", "4").await;
    });
}
