//! No password, token or key of a repository is told anywhere, whatever a server, a proxy or a sender of
//! hooks answers or sends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::ListParams;
use plumb_testkit::{Fault, GitServer, Match, Proxy, Rule, Sshd, runtime};
use serde_json::{Value, json};

use crate::programs::{Authority, Nginx, Socks, Squid, users};
use crate::receiver::{FLAGS, Hooks};
use crate::scrape::Probe;
use crate::world::{World, condition, config_map};

/// Decides nothing here: no rule has a probability.
const SEED: u64 = 1;

const PASSWORD: &str = "password-7f1c9e52b0d4";
const BEARER: &str = "bearer-2a86d3f0c971";
const INSTALLATION: &str = "ghs_e90c41d7ab65";
const PASSPHRASE: &str = "passphrase-41c8d07be92f";
const PROXY: &str = "proxy-b45e0a7d19c3";
const HOOK: &str = "hook-secret-0d93b7e6c25a";
/// What servers and proxies do not take.
const WRONG: &str = "wrong-93e5c2d80f1b";

/// What the processes of an agent show of themselves to everybody on the machine, at all times.
struct Shown {
    seen: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    looking: Option<JoinHandle<()>>,
}

impl Shown {
    fn by(agent: u32) -> Self {
        let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (found, ended) = (Arc::clone(&seen), Arc::clone(&stop));
        let looking = std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                for process in family(agent) {
                    for file in ["cmdline", "environ"] {
                        // One that ended meanwhile shows nothing.
                        let text = fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
                        let text = String::from_utf8_lossy(&text).into_owned();
                        found.lock().unwrap().insert(text);
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { seen, stop, looking: Some(looking) }
    }

    fn end(mut self) -> String {
        self.stop.store(true, Ordering::SeqCst);
        self.looking.take().unwrap().join().unwrap();
        self.seen.lock().unwrap().iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// A process and all below it.
fn family(first: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // The name before it may hold anything.
            let (_, rest) = stat.rsplit_once(')')?;
            Some((id, rest.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut family = vec![first];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(all.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        at += 1;
    }
    family
}

/// The names and contents of all files below a directory.
fn files(dir: &Path, into: &mut Vec<u8>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        into.extend(path.display().to_string().bytes().chain(*b"\n"));
        if path.is_dir() {
            files(&path, into);
        } else {
            into.extend(fs::read(&path).unwrap());
            into.push(b'\n');
        }
    }
}

/// The lines of a key that nobody else has.
fn lines(pem: &str) -> Vec<String> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----") && line.len() > 20);
    lines.map(String::from).collect()
}

fn rsa() -> String {
    let key = Command::new("openssl").args(["genrsa", "2048"]).output().unwrap();
    assert!(key.status.success(), "this test needs openssl");
    String::from_utf8(key.stdout).unwrap()
}

/// What one is called and where it is, its Secret and that of its proxy, and what comes of it.
type Case<'c> = (&'c str, &'c str, (Value, Option<Value>), Option<&'static str>);

/// GitRepositories, and whether they become ready or for which reason not.
struct Cases<'w> {
    world: &'w World,
    all: Vec<(String, Option<&'static str>)>,
}

impl Cases<'_> {
    /// One with a Secret of its own, and with one for a proxy.
    async fn add(&mut self, (name, url, (secret, proxy), becomes): Case<'_>) {
        let mut source = self.world.source("1h");
        source["metadata"]["name"] = json!(name);
        source["spec"]["url"] = json!(url);
        if !secret.is_null() {
            self.world.apply(&self.world.secret(name, &secret)).await;
            source["spec"]["secretRef"] = json!({"name": name});
        }
        if let Some(proxy) = proxy {
            let of_proxy = format!("{name}-proxy");
            self.world.apply(&self.world.secret(&of_proxy, &proxy)).await;
            source["spec"]["proxySecretRef"] = json!({"name": of_proxy});
        }
        self.world.apply(&source).await;
        self.all.push((name.to_owned(), becomes));
    }

    async fn wait(&self) {
        let sources = self.world.sources();
        for (name, becomes) in &self.all {
            let ready = match becomes {
                None => ("Ready", "True"),
                Some(_) => ("Ready", "False"),
            };
            self.world
                .wait_condition(&sources, name, ready, |object| {
                    becomes.is_none_or(|reason| condition(object, "Ready")["reason"] == reason)
                })
                .await;
        }
    }
}

#[test]
fn no_credential_is_told_whatever_is_answered() {
    runtime().block_on(async {
        let world = World::new("secrecy").await;
        let text = config_map("a", "1");
        let file = [("app/a.yaml", Some(&*text))];
        let first = world.repo.commit(&file, "one");
        for name in ["bearer", "app", "ssh"] {
            world.git.repo(name).commit(&file, "one");
        }
        world.git.require("repo", "ada", PASSWORD);
        world.git.require_bearer("bearer", BEARER);
        world.git.require("app", "x-access-token", INSTALLATION);

        // Those who let in, and those who do not.
        let authority = Authority::new();
        let root = world.repo.dir().parent().unwrap();
        let clients = tempfile::NamedTempFile::new().unwrap();
        fs::write(clients.path(), &authority.pem).unwrap();
        let verify = format!(
            "ssl_client_certificate {}; ssl_verify_client on;",
            clients.path().display()
        );
        let nginx = Nginx::new(root, Some(&authority.issue("127.0.0.1")), &verify);
        let [ours, theirs] = ["ours", "theirs"].map(|name| authority.issue(name));
        let (_dir, known) = users("bob", PROXY);
        let (squid, socks) = (Squid::new(Some(&known), ""), Socks::new(Some(("bob", PROXY))));
        let sshd = Sshd::start();
        let (identity, public) = sshd.make_key("ed25519", PASSPHRASE);
        let (stranger, _) = sshd.make_key("rsa", "");
        sshd.authorize(&public);
        let front = Proxy::to_http(&world.git.base(), SEED).await;
        let token = json!({"token": INSTALLATION, "expires_at": "2999-01-01T00:00:00Z"});
        let given = Fault::Answer { code: 201, body: token.to_string() };
        front.add(Rule::new(Match::method("POST").path("/access_tokens"), given));

        // The agent's own requests are seen, too.
        let api = Proxy::to_api(&world.plane, SEED).await;
        let kubeconfig = world.identity.through(&api.url());
        world.apply(&world.secret("hooks", &json!({"hook": HOOK}))).await;
        let builder = world.agent_builder(kubeconfig).args(FLAGS).args(["--log-level", "trace"]);
        let cache = builder.dir().join("cache");
        let mut agent = builder.start();
        let shown = Shown::by(agent.id());
        let hooks = Hooks::of(&mut agent).await;
        let probe = Probe::of(&mut agent).await;

        let basic = |password: &str| json!({"username": "ada", "password": password});
        let bearer = |token: &str| json!({"bearerToken": token});
        let (key, other_key) = (rsa(), rsa());
        let app = |key: &str, api: String| {
            json!({
                "githubAppID": "1", "githubAppInstallationID": "2", "githubAppPrivateKey": key,
                "githubAppBaseURL": api,
            })
        };
        let by = |address: String, password: &str| {
            Some(json!({"address": address, "username": "bob", "password": password}))
        };
        let http = |port| format!("http://127.0.0.1:{port}");
        let socks5 = |port| format!("socks5://127.0.0.1:{port}");
        let ssh = |identity: &str, password: &str, known_hosts: String| {
            json!({"identity": identity, "password": password, "known_hosts": known_hosts})
        };
        let tls = |certificate: &str, key: &str| {
            json!({
                "ca.crt": authority.pem, "tls.crt": certificate, "tls.key": key,
                "username": "ada", "password": PASSWORD,
            })
        };
        let mut cases = Cases { world: &world, all: Vec::new() };
        let repo = world.git.url("repo");
        let (own, bob) = (|secret: Value| (secret, None), |proxy| (basic(PASSWORD), proxy));
        let refused = Some("AuthenticationFailed");
        let host = sshd.known_hosts();
        let front_app = front.through(&world.git.url("app"));
        let front_api = format!("{}/api", front.url());
        let ssh_url = sshd.url(world.git.repo("ssh").dir());
        let table: [Case<'_>; 16] = [
            ("repo", &repo, own(basic(PASSWORD)), None),
            ("basic-wrong", &repo, own(basic(WRONG)), refused),
            ("bearer", &world.git.url("bearer"), own(bearer(BEARER)), None),
            ("bearer-wrong", &world.git.url("bearer"), own(bearer(WRONG)), refused),
            ("app", &front_app, own(app(&key, front_api.clone())), None),
            ("app-broken", &front_app, own(app(&key[..500], front_api)), Some("CredentialsInvalid")),
            ("tls", &nginx.url("repo.git"), own(tls(&ours.certificate, &ours.key)), None),
            (
                "tls-mixed",
                &nginx.url("repo.git"),
                own(tls(&ours.certificate, &theirs.key)),
                Some("CertificatesInvalid"),
            ),
            ("ssh", &ssh_url, own(ssh(&identity, PASSPHRASE, host.clone())), None),
            (
                "ssh-wrong",
                &ssh_url,
                own(ssh(&identity, WRONG, host.clone())),
                Some("PassphraseWrong"),
            ),
            (
                "ssh-unknown",
                &ssh_url,
                own(ssh(&identity, PASSPHRASE, host.replace("127.0.0.1", "127.0.0.2"))),
                Some("HostKeyUnknown"),
            ),
            ("ssh-stranger", &ssh_url, own(ssh(&stranger, "", host)), refused),
            ("squid", &repo, bob(by(http(squid.port), PROXY)), None),
            (
                "squid-wrong",
                &repo,
                bob(by(http(squid.port), WRONG)),
                Some("ProxyAuthenticationFailed"),
            ),
            ("socks", &repo, bob(by(socks5(socks.port), PROXY)), None),
            (
                "socks-wrong",
                &repo,
                bob(by(socks5(socks.port), WRONG)),
                Some("ProxyAuthenticationFailed"),
            ),
        ];
        for case in table {
            cases.add(case).await;
        }

        // Servers that say what they were sent.
        let mut quoting = Vec::new();
        for (code, reason) in [
            (200, "ServerError"),
            (302, "RedirectRefused"),
            (401, "AuthenticationFailed"),
            (403, "AuthenticationFailed"),
            (404, "RepositoryNotFound"),
            (500, "ServerError"),
        ] {
            let proxy = Proxy::to_http(&world.git.base(), SEED).await;
            proxy.add(Rule::new(Match::any(), Fault::Quote { code }));
            let url = proxy.through(&repo);
            let name = |kind: &str| format!("{kind}-{code}");
            cases.add((&name("basic"), &url, (basic(PASSWORD), None), Some(reason))).await;
            cases.add((&name("bearer"), &url, (bearer(BEARER), None), Some(reason))).await;
            // What quotes the app is asked for tokens, and what quotes a token for the repository.
            let front_of_api = app(&other_key, format!("{}/api", proxy.url()));
            let no_token = Some("GitHubAppRefused");
            cases.add((&name("app"), &url, (front_of_api, None), no_token)).await;
            let of_front = app(&other_key, format!("{}/api", front.url()));
            cases.add((&name("token"), &url, (of_front, None), Some(reason))).await;
            quoting.push(proxy);
        }
        let elsewhere = GitServer::start().await;
        let proxy = Proxy::to_http(&world.git.base(), SEED).await;
        let location = format!("{}/info/refs?service=git-upload-pack", elsewhere.url("repo"));
        let away =
            Fault::Respond { code: 302, headers: vec![("location", location)], body: Vec::new() };
        proxy.add(Rule::new(Match::any(), away));
        let away = Some("RepositoryNotFound");
        cases.add(("away", &proxy.through(&repo), (basic(PASSWORD), None), away)).await;
        world.apply(&world.app("web", "app", "1h")).await;
        cases.wait().await;
        world.wait_applied("web", &first).await;

        // Hooks with the right secret and with another one, as signature and as it is.
        hooks.wait(&repo, HOOK, 202).await;
        assert_eq!(hooks.push(&repo, WRONG, "1").await, 401);
        let body = json!({"object_kind": "push", "project": {"git_http_url": repo}}).to_string();
        for (secret, status) in [(HOOK, 202), (WRONG, 401)] {
            let headers = format!("X-Gitlab-Event: Push Hook\r\nX-Gitlab-Token: {secret}\r\n");
            assert_eq!(hooks.post("gitlab", &headers, &body).await, status);
        }
        // What was right is so no more.
        world.git.require("repo", "ada", "another");
        world.look().await;
        world.wait_refused(&world.sources(), "repo", "AuthenticationFailed", &[]).await;
        probe.idle(0).await;

        let mut told = vec![
            ("the metrics", probe.get("/metrics").await),
            ("what /proc shows", shown.end()),
            ("the log", agent.logs()),
        ];
        let mut kept = Vec::new();
        files(&cache, &mut kept);
        told.push(("the cache", String::from_utf8_lossy(&kept).into_owned()));
        for (what, api) in [
            ("events", world.api("events.k8s.io/v1", "Event")),
            ("sources", world.sources()),
            ("applications", world.apps()),
            ("leases", world.api("coordination.k8s.io/v1", "Lease")),
        ] {
            let items = api.list(&ListParams::default()).await.unwrap().items;
            told.push((what, serde_json::to_string(&items).unwrap()));
        }
        let requests = api.exchanges().into_iter().map(|exchange| {
            let body = String::from_utf8_lossy(&exchange.request.body).into_owned();
            // Where a list goes on is a token of the API server.
            let line = exchange.line();
            let line = line.split("&continue=").next().unwrap_or_default();
            format!("{line} {body}\n")
        });
        told.push(("what it asks the API server", requests.collect()));
        let text = |what: &str| &told.iter().find(|(name, _)| *name == what).unwrap().1;
        // Each holds what it is to hold.
        for (what, part) in [
            ("the metrics", "plumb_git_polls"),
            ("what /proc shows", "KUBECONFIG="),
            ("what /proc shows", "--log-level"),
            ("the log", "DEBUG"),
            ("the log", "(hidden)"),
            ("the cache", "refs/"),
            ("events", "AuthenticationFailed"),
            ("sources", "(hidden)"),
            ("applications", "\"web\""),
            ("what it asks the API server", "/status"),
        ] {
            assert!(text(what).contains(part), "{part} in {what}: {}", text(what));
        }

        let passwords = [PASSWORD, BEARER, INSTALLATION, PASSPHRASE, PROXY, HOOK, WRONG];
        let mut secrets: Vec<String> = passwords.map(String::from).into();
        secrets.extend(passwords.map(|password| STANDARD.encode(password)));
        for (user, password) in [
            ("ada", PASSWORD),
            ("ada", WRONG),
            ("bob", PROXY),
            ("bob", WRONG),
            ("x-access-token", INSTALLATION),
        ] {
            secrets.push(STANDARD.encode(format!("{user}:{password}")));
        }
        // What an app signs begins so, and so does the token of the agent itself.
        secrets.push("eyJ".into());
        let keys = [&key, &other_key, &ours.key, &theirs.key, &identity, &stranger];
        secrets.extend(keys.into_iter().flat_map(|key| lines(key)));
        for secret in secrets {
            for (what, text) in &told {
                let line = text.lines().find(|line| line.contains(&secret));
                assert!(line.is_none(), "{secret} is in {what}: {line:?}");
            }
        }
    });
}
