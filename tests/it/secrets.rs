//! A Secret's content goes to the API server and never comes back from there, and nothing that
//! Plumb says quotes it, whatever it is answered.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use plumb_testkit::{Agent, Fault, Match, Proxy, Rule, runtime, sample, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, config_map};

/// Decides nothing here: no rule of these tests has a probability.
const SEED: u64 = 1;

/// What Git asks for.
const DESIRED: &str = "desired-8c2f61d0a9e4";
/// What Git asks for later.
const NEXT: &str = "next-51b7c03e6f8d";
/// What somebody puts in its place.
const BY_HAND: &str = "by-hand-e07d94f2b16a";
/// What somebody adds, in a key that Git does not have.
const ADDED: &str = "added-3a6be8c5d719";
/// What an API server gone wrong quotes.
const QUOTED: &str = "quoted-90f1d7a2c4be";
/// The password of the Git server.
const GIT: &str = "git-password-6d42e8b0f357";

/// What an annotation holds: in a test of its own, because others see it too.
const ANNOTATED: &str = "annotated-2b95c8e1f47a";

const EVERY: [&str; 7] = [DESIRED, NEXT, BY_HAND, ADDED, QUOTED, GIT, ANNOTATED];

fn encoded(value: &str) -> String {
    STANDARD.encode(value)
}

/// A world whose agent speaks through a proxy and logs all that it can.
struct Guarded {
    world: World,
    proxy: Proxy,
    kubeconfig: PathBuf,
}

impl Guarded {
    async fn new(prefix: &str) -> Self {
        let world = World::new(prefix).await;
        let proxy = Proxy::to_api(&world.plane, SEED).await;
        let kubeconfig = world.identity.through(&proxy.url());
        Self { world, proxy, kubeconfig }
    }

    /// At this level libraries log what they send and get.
    fn agent(&self) -> Agent {
        let args = ["--log-level", "trace", "--identity", "one-pod"];
        self.world.agent_with(self.kubeconfig.clone(), &args)
    }

    /// No answer that the agent got held any of these values, plain or encoded.
    fn assert_unseen(&self, values: &[&str]) {
        for value in values {
            assert_eq!(self.proxy.leaks(value), [] as [String; 0], "{value} came back");
            assert_eq!(self.proxy.leaks(encoded(value)), [] as [String; 0], "{value} came back");
        }
    }

    /// Nothing that the agent said holds a secret: not its log, its statuses, its events or its
    /// metrics.
    async fn assert_untold(&self, agent: &mut Agent) {
        let metrics = format!("{:?}", Probe::of(agent).await.scrape().await);
        let all = ListParams::default();
        let events = self.world.api("events.k8s.io/v1", "Event");
        let mut told = vec![("the log", agent.logs()), ("the metrics", metrics)];
        for (what, api) in [
            ("statuses", self.world.apps()),
            ("statuses", self.world.sources()),
            ("events", events),
        ] {
            let items = api.list(&all).await.unwrap().items;
            told.push((what, serde_json::to_string(&items).unwrap()));
        }
        let basic = STANDARD.encode(format!("plumb:{GIT}"));
        let token = self.world.identity.token();
        let secrets = EVERY.into_iter().map(str::to_owned);
        let secrets =
            secrets.chain(EVERY.into_iter().map(encoded)).chain([basic, token.to_owned()]);
        for secret in secrets {
            for (what, text) in &told {
                if let Some(at) = text.find(&secret) {
                    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
                    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
                    panic!("{what} hold {secret}: {}", &text[start..end]);
                }
            }
        }
    }

    /// The text of a value in a live Secret.
    async fn live(&self, name: &str, key: &str) -> Option<String> {
        let secret = self.world.api("v1", "Secret").get_opt(name).await.unwrap()?;
        let bytes = STANDARD.decode(secret.data["data"][key].as_str()?).unwrap();
        Some(String::from_utf8(bytes).unwrap())
    }

    async fn wait_live(&self, name: &str, key: &str, value: Option<&str>) {
        wait_for(&format!("{key} of the Secret {name} to be {value:?}"), LIMIT, async || {
            let live = self.live(name, key).await;
            if live.as_deref() == value { Ok(()) } else { Err(live) }
        })
        .await;
    }

    async fn edit(&self, name: &str, values: &[(&str, &str)]) {
        let data: serde_json::Map<String, Value> =
            values.iter().map(|(key, value)| ((*key).to_owned(), encoded(value).into())).collect();
        let secrets = self.world.api("v1", "Secret");
        let patch = Patch::Merge(json!({ "data": data }));
        secrets.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// The Git server asks for a password, which is in a Secret of its own.
    async fn source_with_password(&self) {
        self.world.git.require("repo", "plumb", GIT);
        let credentials = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "git-credentials", "namespace": self.world.ns},
            "stringData": {"username": "plumb", "password": GIT},
        });
        self.world.apply(&credentials).await;
        let mut source = self.world.source("1h");
        source["spec"]["secretRef"] = json!({"name": "git-credentials"});
        self.world.apply(&source).await;
    }
}

#[test]
fn no_byte_of_a_secret_comes_back_while_it_is_kept_true() {
    runtime().block_on(async {
        let guarded = Guarded::new("secrets").await;
        let world = &guarded.world;
        let first = world.repo.commit(
            &[
                ("app/secret.yaml", Some(&sample::secret("kept", "password", DESIRED))),
                ("app/old.yaml", Some(&sample::secret("old", "password", DESIRED))),
                ("app/config.yaml", Some(&config_map("config", "1"))),
            ],
            "two secrets",
        );
        let mut agent = guarded.agent();
        guarded.source_with_password().await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;

        // A change is undone and an addition stays: the live content is not Git's now, and both
        // are known to nobody but the API server.
        guarded.edit("kept", &[("password", BY_HAND), ("added", ADDED)]).await;
        guarded.wait_live("kept", "password", Some(DESIRED)).await;
        assert_eq!(guarded.live("kept", "added").await.as_deref(), Some(ADDED));
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |o| {
                o["status"]["drift"]["count"] == 1
            })
            .await;
        assert_eq!(object["status"]["drift"]["fields"], json!(["data.password"]));

        // A LIST of what others have changed, and the claim of what is somebody else's.
        guarded.assert_untold(&mut agent).await;
        assert!(agent.stop().success());
        guarded.edit("kept", &[("password", BY_HAND)]).await;
        guarded.edit("old", &[("added", ADDED)]).await;
        let theirs = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "theirs", "namespace": world.ns},
            "data": {"password": encoded(BY_HAND)},
        });
        world.apply(&theirs).await;
        let mut agent = guarded.agent();
        guarded.wait_live("kept", "password", Some(DESIRED)).await;
        let theirs = sample::secret("theirs", "password", DESIRED);
        world.repo.commit(&[("app/theirs.yaml", Some(&theirs))], "not ours");
        world.look().await;
        let message = world.wait_not_ready("web", "FieldConflict").await;
        assert!(message.contains("app/theirs.yaml"), "{message}");
        assert_eq!(guarded.live("theirs", "password").await.as_deref(), Some(BY_HAND));

        // What the API server refuses: it quotes what it was sent.
        for (text, what) in [
            (sample::secret("kept", "password", "1").replace("\"1\"", "517309468215"), "a number"),
            (
                format!(
                    "apiVersion: v1\nkind: Secret\nmetadata:\n  name: kept\ndata:\n  password: \
                     {DESIRED}!\n"
                ),
                "no base64",
            ),
            (
                sample::secret("kept", "password", DESIRED) + "type: example.com/other\n",
                "another type",
            ),
        ] {
            let broken = world.repo.commit(
                &[("app/theirs.yaml", None), ("app/secret.yaml", Some(&text))],
                &format!("refused: {what}"),
            );
            world.look().await;
            let object = world
                .wait_condition(&world.apps(), "web", ("Ready", "False"), |o| {
                    o["status"]["lastAttemptedRevision"] == format!("main@sha1:{broken}")
                })
                .await;
            let status = object["status"].to_string();
            assert!(status.contains("app/secret.yaml"), "{what}: {status}");
            assert!(!status.contains("517309468215"), "{what}: {status}");
            assert!(!agent.logs().contains("517309468215"), "{what} in the log");
        }

        // Another value, and one Secret less.
        let second = world.repo.commit(
            &[
                ("app/secret.yaml", Some(&sample::secret("kept", "password", NEXT))),
                ("app/old.yaml", None),
            ],
            "another password",
        );
        world.look().await;
        world.wait_applied("web", &second).await;
        guarded.wait_live("kept", "password", Some(NEXT)).await;
        world.wait_gone(&world.api("v1", "Secret"), "old").await;

        // The Application lets its objects go.
        let orphan = json!({"spec": {"deletionPolicy": "Orphan"}});
        let params = PatchParams::default();
        world.apps().patch("web", &params, &Patch::Merge(&orphan)).await.unwrap();
        world.apps().delete("web", &DeleteParams::default()).await.unwrap();
        world.wait_gone(&world.apps(), "web").await;
        assert_eq!(guarded.live("kept", "added").await.as_deref(), Some(ADDED));

        let seen = guarded.proxy.exchanges();
        let asked = |method: &str, query: &str| {
            seen.iter().any(|e| {
                e.request.method == method
                    && e.request.path.contains("/secrets")
                    && e.request.query.contains(query)
            })
        };
        let list = seen.iter().any(|e| {
            e.request.path.ends_with("/secrets") && !e.request.query.contains("watch=true")
        });
        let patch = seen
            .iter()
            .any(|e| e.request.path.contains("/secrets/kept") && e.request.body.starts_with(b"["));
        assert!(list && patch && asked("GET", "watch=true") && asked("PATCH", "fieldManager"));
        assert!(asked("DELETE", ""), "every way to ask was tried");
        guarded.assert_unseen(&[DESIRED, NEXT, BY_HAND, ADDED]);
        guarded.assert_untold(&mut agent).await;
    });
}

#[test]
fn an_annotation_that_holds_a_secret_is_not_told() {
    runtime().block_on(async {
        let guarded = Guarded::new("annotated").await;
        let world = &guarded.world;
        // As `kubectl apply` leaves it on an object that is taken over: this comes in metadata,
        // and no request can leave it out.
        let annotation = json!({"data": {"password": encoded(ANNOTATED)}}).to_string();
        let theirs = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "name": "kept", "namespace": world.ns,
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": annotation},
            },
        });
        world.apply(&theirs).await;
        let secret = sample::secret("kept", "password", DESIRED);
        let first = world.repo.commit(&[("app/secret.yaml", Some(&secret))], "a secret");
        let mut agent = guarded.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;
        guarded.edit("kept", &[("password", ANNOTATED)]).await;
        guarded.wait_live("kept", "password", Some(DESIRED)).await;
        assert!(!guarded.proxy.leaks(encoded(ANNOTATED)).is_empty(), "the annotation came along");
        guarded.assert_untold(&mut agent).await;
    });
}

#[test]
fn values_of_a_secret_in_other_objects_are_not_told() {
    runtime().block_on(async {
        let guarded = Guarded::new("substituted").await;
        let world = &guarded.world;
        let theirs = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "token", "namespace": world.ns},
            "stringData": {"TOKEN": ANNOTATED},
        });
        world.apply(&theirs).await;
        let service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  \
                       type: ${TOKEN}\n  ports: [{port: 80}]\n";
        let config = config_map("a", "${TOKEN}");
        let files = [("app/service.yaml", Some(service)), ("app/a.yaml", Some(&*config))];
        world.repo.commit(&files, "one");
        let mut agent = guarded.agent();
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        app["spec"]["postBuild"] = json!({"substituteFrom": [{"kind": "Secret", "name": "token"}]});
        world.apply(&app).await;
        let parts = ["Service", "app/service.yaml", "spec.type", "withheld"];
        world.wait_refused(&world.apps(), "web", "Invalid", &parts).await;
        world.wait_value("a", ANNOTATED).await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": BY_HAND}})).await;
        world.wait_value("a", ANNOTATED).await;
        guarded.assert_untold(&mut agent).await;
    });
}

#[test]
fn an_answer_that_cannot_be_read_is_not_told() {
    runtime().block_on(async {
        let guarded = Guarded::new("unreadable").await;
        let (world, proxy) = (&guarded.world, &guarded.proxy);
        let commit = |value: &str| {
            let secret = sample::secret("kept", "password", value);
            world.repo.commit(&[("app/secret.yaml", Some(&secret))], "a secret")
        };
        let first = commit(DESIRED);
        let mut agent = guarded.agent();
        guarded.source_with_password().await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;

        // To an apply, whatever its status: a whole Secret, half of one, text, and refusals that
        // quote.
        let whole = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "kept", "namespace": world.ns, "uid": 7, "labels": QUOTED},
            "data": {"password": encoded(QUOTED)}, "stringData": {"password": QUOTED},
        })
        .to_string();
        let refusal = |code: u16, reason: &str| {
            let quote = format!(
                "Secret \"kept\" is invalid: data[password]: Invalid value: \
                                 \"{QUOTED}\": must not be \"{}\"",
                encoded(QUOTED)
            );
            json!({
                "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
                "reason": reason, "message": quote,
                "details": {"causes": [{"field": "data.password", "message": quote}]},
            })
            .to_string()
        };
        let secrets = || Match::method("PATCH").path("/secrets/kept");
        for (number, (code, body)) in [
            (200, whole.clone()),
            (200, whole[..whole.len() - 20].to_owned()),
            (200, format!("{QUOTED} {}", encoded(QUOTED))),
            (500, whole.clone()),
            (500, format!("panic: {QUOTED} {}", encoded(QUOTED))),
            (500, refusal(500, "InternalError")),
            (422, refusal(422, "Invalid")),
            (400, refusal(400, "BadRequest")),
            (403, refusal(403, "Forbidden")),
            (409, refusal(409, "Conflict")),
        ]
        .into_iter()
        .enumerate()
        {
            let rule = proxy.add(Rule::new(secrets(), Fault::Answer { code, body }));
            let refused = commit(&format!("{NEXT}-{number}"));
            world.look().await;
            world
                .wait_condition(&world.apps(), "web", ("Ready", "False"), |o| {
                    o["status"]["lastAttemptedRevision"] == format!("main@sha1:{refused}")
                })
                .await;
            assert!(proxy.hits(rule) > 0);
            proxy.remove(rule);
            guarded.assert_untold(&mut agent).await;
            let good = commit(&format!("{DESIRED}-{number}"));
            world.look().await;
            world.wait_applied("web", &good).await;
        }

        // To the look before a correction.
        let look = Match::method("GET").path("/secrets/kept");
        let rule = proxy.add(Rule::new(look, Fault::Answer { code: 200, body: whole.clone() }));
        guarded.edit("kept", &[("password", BY_HAND)]).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "False"), |_| true).await;
        assert!(proxy.hits(rule) > 0);
        proxy.remove(rule);
        guarded.wait_live("kept", "password", Some(&format!("{DESIRED}-9"))).await;
        guarded.assert_untold(&mut agent).await;

        // To a watch and the LIST after it.
        let event = format!("{{\"type\":\"ADDED\",\"object\":{whole}}}\n{whole}\n{QUOTED}\n");
        let watch = Match::method("GET").path("/api/v1/secrets").query("watch=true");
        let answer = Fault::Answer { code: 200, body: event };
        let watches = proxy.add(Rule::new(watch.clone(), answer).times(2));
        let list = Match::method("GET")
            .path("/api/v1/secrets")
            .when(|seen| !seen.query.contains("watch=true"));
        let items = format!("{{\"kind\":\"SecretList\",\"metadata\":{{}},\"items\":[{whole}]}}");
        let answer = Fault::Answer { code: 200, body: items };
        let unreadable = proxy.add(Rule::new(list.clone(), answer).times(1));
        let answer = Fault::Answer { code: 200, body: whole.clone() };
        let lists = proxy.add(Rule::new(list, answer).times(1));
        assert!(proxy.cut_open(&watch) > 0, "a watch was open");
        wait_for("the answers to watch and LIST", 2 * LIMIT, async || {
            let hits = [watches, unreadable, lists].map(|rule| proxy.hits(rule));
            if hits == [2, 1, 1] { Ok(()) } else { Err(hits) }
        })
        .await;
        proxy.clear();
        guarded.edit("kept", &[("password", BY_HAND), ("added", ADDED)]).await;
        guarded.wait_live("kept", "password", Some(&format!("{DESIRED}-9"))).await;
        guarded.assert_untold(&mut agent).await;

        // To the one Secret that is read whole, which happens when it changes.
        let read = Match::method("GET").path("/secrets/git-credentials");
        let body = whole.replace(&encoded(QUOTED), &format!("{QUOTED}!"));
        let credentials = world.api("v1", "Secret");
        for (body, turn) in [whole, body, QUOTED.to_owned()].into_iter().zip(["1", "2", "3"]) {
            let rule = proxy.add(Rule::new(read.clone(), Fault::Answer { code: 200, body }));
            world.annotate(&credentials, "git-credentials", "example.com/turn", turn).await;
            world.wait_condition(&world.sources(), "repo", ("Ready", "False"), |_| true).await;
            assert!(proxy.hits(rule) > 0);
            proxy.remove(rule);
            world.look().await;
            world.wait_condition(&world.sources(), "repo", ("Ready", "True"), |_| true).await;
        }
        guarded.assert_untold(&mut agent).await;
        guarded.assert_unseen(&[DESIRED, BY_HAND, ADDED]);
    });
}
