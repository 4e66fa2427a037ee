//! Webhooks, and everything else that listens.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use plumb_testkit::{Agent, Scratch, runtime, wait_for};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::scrape::Probe;
use crate::world::{LIMIT, World, config_map};

const OLD: &str = "the secret of before-2f61d0a9e48c";
pub(crate) const NEW: &str = "the secret of now-c03e6f8d51b7";

/// Where an agent takes hooks.
pub(crate) struct Hooks(String);

impl Hooks {
    pub(crate) async fn of(agent: &mut Agent) -> Self {
        let line = agent.wait_for_log("taking webhooks", LIMIT).await;
        let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
        Self(address.unwrap_or_else(|| panic!("no address in {line}")).to_owned())
    }

    /// The URL of a service's hook.
    pub(crate) fn url(&self, service: &str) -> String {
        format!("http://{}/hook/{service}", self.0)
    }

    /// What GitHub sends for a push to main: the status of the answer.
    pub(crate) async fn push(&self, url: &str, secret: &str, delivery: &str) -> u16 {
        let body = json!({
            "ref": "refs/heads/main",
            "repository": {"clone_url": url, "html_url": url.strip_suffix(".git").unwrap_or(url)},
        })
        .to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let bytes = mac.finalize().into_bytes();
        let signature = bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let headers = format!(
            "X-GitHub-Event: push\r\nX-GitHub-Delivery: {delivery}\r\n\
             X-Hub-Signature-256: sha256={signature}\r\n",
        );
        self.post("github", &headers, &body).await
    }

    /// Sends a hook as it is told: the status of the answer.
    pub(crate) async fn post(&self, service: &str, headers: &str, body: &str) -> u16 {
        let request = format!(
            "POST /hook/{service} HTTP/1.1\r\nHost: plumb\r\nContent-Type: application/json\r\n\
             {headers}Content-Length: {}\r\n\r\n{body}",
            body.len(),
        );
        let mut stream = TcpStream::connect(&self.0).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Sends the same until it is answered with this status.
    pub(crate) async fn wait(&self, url: &str, secret: &str, status: u16) {
        wait_for(&format!("a hook to be answered {status}"), LIMIT, async || {
            match self.push(url, secret, "again and again").await {
                got if got == status => Ok(()),
                got => Err(got),
            }
        })
        .await;
    }
}

pub(crate) fn secret(world: &World, values: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> = values
        .iter()
        .map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value).into()))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "data": data,
        "metadata": {"name": "hooks", "namespace": world.ns},
    })
}

pub(crate) const FLAGS: [&str; 2] = ["--receiver-addr=127.0.0.1:0", "--receiver-secret=hooks"];

/// The interval is an hour: what comes before comes by the hook.
#[test]
fn a_signed_hook_brings_a_push_and_no_other_one_asks_git_for_anything() {
    runtime().block_on(async {
        let world = World::new("hooks").await;
        let first = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        world.apply(&secret(&world, &[("old", OLD)])).await;
        let mut agent = world.agent_with(world.identity.kubeconfig().to_owned(), &FLAGS);
        let hooks = Hooks::of(&mut agent).await;
        let probe = Probe::of(&mut agent).await;
        world.sync("web", "app", &first).await;
        // Nobody follows this one; from now on hooks are taken.
        hooks.wait("https://git.example/nobody/follows", OLD, 202).await;
        probe.idle(2).await;
        world.git.forget();

        let second = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "two");
        let url = world.git.url("repo");
        assert_eq!(hooks.push(&url, NEW, "1").await, 401, "the secret of another");
        assert_eq!(hooks.push("https://git.example/org/repo", OLD, "2").await, 202);
        probe.idle(2).await;
        assert!(world.git.requests().is_empty(), "{:?}", world.git.requests());
        assert_eq!(hooks.push(&url, OLD, "3").await, 202);
        world.wait_applied("web", &second).await;
        world.wait_value("a", "2").await;
        let asked = world.git.requests();
        println!("a push by its hook: {} requests to Git", asked.len());
        assert!(asked.len() <= 4, "one look and one fetch: {asked:?}");
        assert_eq!(hooks.push(&url, OLD, "3").await, 200, "it came before");
        let scrape = probe.scrape().await;
        for (outcome, least) in [("asked", 1), ("unsigned", 1), ("nobody", 2), ("repeated", 1)] {
            let labels = format!("service=\"github\",outcome=\"{outcome}\"");
            assert!(scrape.sum("plumb_hooks_total", &labels) >= least, "{outcome} in {scrape:?}");
        }

        // A rotation: the new one is added, and the old one removed.
        hooks.wait(&url, NEW, 401).await;
        world.apply(&secret(&world, &[("old", OLD), ("new", NEW)])).await;
        hooks.wait(&url, NEW, 200).await;
        assert_ne!(hooks.push(&url, OLD, "4").await, 401);
        world.apply(&secret(&world, &[("new", NEW)])).await;
        wait_for("the old one to be refused", LIMIT, async || {
            match hooks.push(&url, OLD, "5").await {
                401 | 429 => Ok(()),
                got => Err(got),
            }
        })
        .await;
        world.delete(&world.api("v1", "Secret"), "hooks").await;
        hooks.wait(&url, NEW, 503).await;
        agent.stop();
        let logs = agent.logs();
        assert!(!logs.contains(OLD) && !logs.contains(NEW), "a secret is in the log");
        assert!(!logs.contains("git.example"), "what a body names is in the log");
    });
}

/// The sockets of a process that others can begin to talk to: protocol and port, or path.
fn listening(pid: u32) -> BTreeSet<String> {
    let own: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    assert!(!own.is_empty(), "it talks to the API server");
    let table = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        let rows = text
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        rows.collect::<Vec<_>>()
    };
    let mut found = BTreeSet::new();
    // TCP_LISTEN, and UDP and raw sockets without a peer.
    for (name, state) in [
        ("tcp", "0A"),
        ("tcp6", "0A"),
        ("udp", "07"),
        ("udp6", "07"),
        ("raw", "07"),
        ("raw6", "07"),
    ] {
        for row in table(name).iter().filter(|row| row[3] == state && own.contains(&row[9])) {
            let port = u16::from_str_radix(row[1].rsplit(':').next().unwrap(), 16).unwrap();
            found.insert(format!("{} {port}", name.trim_end_matches('6')));
        }
    }
    // Those that accept.
    for row in table("unix").iter().filter(|row| row[3] == "00010000" && own.contains(&row[6])) {
        found.insert(format!("unix {}", row.get(7).map_or("", String::as_str)));
    }
    found
}

#[test]
fn nothing_listens_but_probes_metrics_and_the_receiver() {
    fn port(address: &str) -> String {
        format!("tcp {}", address.rsplit(':').next().unwrap())
    }
    // It would be seen.
    let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let seen = port(&own.local_addr().unwrap().to_string());
    assert!(listening(std::process::id()).contains(&seen), "{seen}");
    runtime().block_on(async {
        let world = World::new("listening").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let kubeconfig = world.identity.kubeconfig().to_owned();
        let mut agent = world.agent_with(kubeconfig.clone(), &["--metrics-addr=none"]);
        world.sync("web", "app", &commit).await;
        assert_eq!(listening(agent.id()), BTreeSet::new(), "after it has done all that it does");
        agent.stop();

        let second = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "two");
        world.apply(&secret(&world, &[("new", NEW)])).await;
        let mut agent = world.agent_with(kubeconfig, &FLAGS);
        let hooks = Hooks::of(&mut agent).await;
        let line = agent.wait_for_log("serving probes and metrics", LIMIT).await;
        let metrics = line.split("address=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        world.wait_applied("web", &second).await;
        assert_eq!(listening(agent.id()), [port(&metrics), port(&hooks.0)].into());
    });
}

/// The component of deploy/ for webhooks, also together with that for tenants.
#[test]
fn the_component_for_webhooks_opens_one_port_and_reads_one_secret() {
    for others in ["", "plumb/components/tenants, "] {
        let dir = Scratch::new("receiver");
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(&deploy).arg(dir.path().join("plumb"));
        assert!(copy.status().unwrap().success());
        let text = format!("resources: [plumb]\ncomponents: [{others}plumb/components/receiver]\n");
        std::fs::write(dir.path().join("kustomization.yaml"), text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_plumb"))
            .args(["build", "-o", "json", dir.path().to_str().unwrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let built: Value = serde_json::from_slice(&output.stdout).unwrap();
        let items = built["items"].as_array().unwrap();
        let object = |kind: &str, name: &str| {
            let mut found =
                items.iter().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name);
            found.next().unwrap_or_else(|| panic!("no {kind} {name}")).clone()
        };
        let container =
            object("Deployment", "plumb")["spec"]["template"]["spec"]["containers"][0].clone();
        let port = json!({"name": "hooks", "containerPort": 9292});
        assert!(container["ports"].as_array().unwrap().contains(&port), "{container}");
        let env = |name: &str| {
            let env = container["env"].as_array().unwrap().iter().find(|env| env["name"] == name);
            env.unwrap_or_else(|| panic!("no {name}"))["value"].as_str().unwrap().to_owned()
        };
        assert_eq!(env("PLUMB_RECEIVER_ADDR"), "0.0.0.0:9292");
        let rules = object("Role", "plumb-receiver")["rules"].clone();
        let rule = json!([{
            "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"],
            "resourceNames": [env("PLUMB_RECEIVER_SECRET")],
        }]);
        assert_eq!(rules, rule);
        let policy = object("NetworkPolicy", "plumb")["spec"]["ingress"].clone();
        let ports = json!([{"ports": [{"port": "http"}]}, {"ports": [{"port": "hooks"}]}]);
        assert_eq!(policy, ports);
        let target = object("Service", "plumb-receiver")["spec"]["ports"][0]["targetPort"].clone();
        assert_eq!(target, "hooks");
    }
}
