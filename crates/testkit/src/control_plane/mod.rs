//! A Kubernetes control plane on loopback.

mod audit;
mod identity;
pub(crate) mod kubeconfig;
mod parts;

pub use audit::{Audit, AuditEvent, Mark, Requests};
pub use identity::Identity;

use crate::scratch::Scratch;
use crate::tools::{Tool, ToolError, Tools};
use crate::wait::wait_for;
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use parts::Parts;
pub(crate) use parts::free_ports;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Names the kubeconfig of a control plane that is already running.
pub const KUBECONFIG_ENV: &str = "PLUMB_TEST_KUBECONFIG";
/// Names the audit log of that control plane.
pub const AUDIT_LOG_ENV: &str = "PLUMB_TEST_AUDIT_LOG";

/// A start takes 10 s; a machine that is compiling at the same time may need some minutes.
const START: Duration = Duration::from_mins(3);

/// How often a start is tried again when somebody else has taken one of the free ports.
const TRIES: u32 = 3;

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Simulated nodes, on which Pods run at once. None leaves out the scheduler and kwok.
    pub nodes: u32,
    /// kube-controller-manager: without it there are no Pods, no garbage collection and no end of
    /// a deleted namespace.
    pub controllers: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { nodes: 2, controllers: true }
    }
}

/// A running control plane, ended on drop and when the process ends.
#[derive(Debug)]
pub struct ControlPlane {
    kubeconfig: PathBuf,
    audit: Audit,
    server: String,
    ca: String,
    kubectl: PathBuf,
    scratch: Scratch,
    /// Nothing when it was started by somebody else.
    parts: Option<Mutex<Parts>>,
}

impl ControlPlane {
    /// Starts one of its own: for tests that stop parts of it, or must be alone.
    ///
    /// # Panics
    /// When it cannot be started, with the end of the log of the part that failed.
    pub async fn start(options: Options) -> ControlPlane {
        ControlPlane::try_start(options).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`ControlPlane::start`], with missing binaries as an error.
    pub async fn try_start(options: Options) -> Result<ControlPlane, ToolError> {
        ControlPlane::try_start_with(options, None).await
    }

    /// One of its own whose store takes so many bytes and no more, see [`ControlPlane::fill_store`].
    ///
    /// # Panics
    /// As [`ControlPlane::start`].
    pub async fn start_small(options: Options, bytes: u64) -> ControlPlane {
        let started = ControlPlane::try_start_with(options, Some(bytes)).await;
        started.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn try_start_with(
        options: Options,
        quota: Option<u64>,
    ) -> Result<ControlPlane, ToolError> {
        let tools = tokio::task::spawn_blocking(Tools::ready).await.expect("no panic in there")?;
        let mut tried = 0;
        loop {
            tried += 1;
            match ControlPlane::try_once(&tools, &options, quota).await {
                Ok(plane) => return Ok(plane),
                Err(failure) if failure.contains("address already in use") && tried < TRIES => {}
                Err(failure) => panic!("the control plane did not start: {failure}"),
            }
        }
    }

    async fn try_once(
        tools: &Tools,
        options: &Options,
        quota: Option<u64>,
    ) -> Result<ControlPlane, String> {
        let scratch = Scratch::new("control-plane");
        let parts = Parts::start(tools, options, quota, scratch.path());
        let plane = ControlPlane {
            kubeconfig: parts.kubeconfig().to_owned(),
            audit: Audit::new(parts.audit_log()),
            server: parts.server().to_owned(),
            ca: parts.ca().to_owned(),
            kubectl: tools.path(Tool::Kubectl).to_owned(),
            scratch,
            parts: Some(Mutex::new(parts)),
        };
        plane.ready().await?;
        if let Some(parts) = &plane.parts {
            parts.lock().expect("not poisoned").start_clients(options);
        }
        plane.settle(options).await?;
        Ok(plane)
    }

    /// The one control plane of this test run: the one that `PLUMB_TEST_KUBECONFIG` names, or one
    /// that this process starts at its first use and that ends with the process.
    pub async fn shared() -> &'static ControlPlane {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async {
                match std::env::var_os(KUBECONFIG_ENV) {
                    Some(path) => ControlPlane::running(path.into()).await,
                    None => ControlPlane::start(Options::default()).await,
                }
            })
            .await
    }

    async fn running(kubeconfig: PathBuf) -> ControlPlane {
        let audit = std::env::var_os(AUDIT_LOG_ENV)
            .unwrap_or_else(|| panic!("{KUBECONFIG_ENV} is set, {AUDIT_LOG_ENV} is not"));
        let tools = tokio::task::spawn_blocking(Tools::ready)
            .await
            .expect("no panic in there")
            .unwrap_or_else(|error| panic!("{error}"));
        let (server, ca) = kubeconfig::server_and_ca(&kubeconfig);
        let plane = ControlPlane {
            kubeconfig,
            audit: Audit::new(audit.into()),
            server,
            ca,
            kubectl: tools.path(Tool::Kubectl).to_owned(),
            scratch: Scratch::new("test-run"),
            parts: None,
        };
        if let Err(failure) = plane.ready().await {
            panic!("the control plane of {}: {failure}", plane.kubeconfig.display());
        }
        plane
    }

    /// A client of the administrator (`system:masters`), who no limit of the API server holds up.
    /// It belongs to the runtime it is made on, so every test makes its own.
    pub async fn client(&self) -> Client {
        self.client_of(&self.kubeconfig).await
    }

    /// A client with the identity of a kubeconfig file.
    pub async fn client_of(&self, kubeconfig: &Path) -> Client {
        let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig that we wrote");
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .expect("a kubeconfig that we wrote");
        // Whatever proxy the developer is behind, it does not reach our loopback.
        config.proxy_url = None;
        Client::try_from(config).expect("a client")
    }

    /// The administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The URL of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The certificate of the authority that signed the API server's, in PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// The kubectl binary of the same version.
    pub fn kubectl_path(&self) -> &Path {
        &self.kubectl
    }

    /// Runs kubectl as administrator.
    pub fn kubectl(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        Command::new(&self.kubectl)
            .env("KUBECONFIG", &self.kubeconfig)
            // kubectl caches discovery there, which another control plane on this port must not see.
            .env("HOME", self.scratch.path())
            .env("NO_PROXY", "127.0.0.1")
            // Sets of KEP-3659 are an alpha feature; without `--applyset` this changes nothing.
            .env("KUBECTL_APPLYSET", "true")
            .args(args)
            .output()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.kubectl.display()))
    }

    /// A new namespace whose name begins with `prefix` and that no other test of this run has.
    pub async fn namespace(&self, prefix: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        let namespace: Namespace =
            serde_json::from_value(serde_json::json!({ "metadata": { "name": name } }))
                .expect("a namespace");
        Api::all(self.client().await)
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap_or_else(|error| panic!("cannot create namespace {name}: {error}"));
        name
    }

    /// What the API server was asked.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Waits until everything that was answered before this call stands in the audit log.
    ///
    /// An entry may be written after the answer has gone out, and one of a request made now after
    /// it. Two such requests, because each is answered by a thread of its own: the first may
    /// overtake what it is to wait for.
    pub async fn settled(&self) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let api: Api<Namespace> = Api::all(self.client().await);
        for _ in 0..2 {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("sentinel-{}-{number}", std::process::id());
            let from = self.audit.mark();
            api.get_opt(&name).await.expect("the API server answers the sentinel");
            wait_for("the sentinel in the audit log", Duration::from_mins(1), || async {
                self.audit.since(from).iter().any(|event| event.name == name).then_some(())
            })
            .await;
        }
    }

    /// The directory of this control plane, with the logs of its parts in `logs/`.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Kills the API server, as a crash would. Watches end, the port refuses connections.
    ///
    /// # Panics
    /// On a control plane that others use too.
    pub fn stop_apiserver(&self) {
        self.own_parts().lock().expect("not poisoned").stop_apiserver();
    }

    /// Starts the API server again on the same port and waits until it is ready.
    pub async fn start_apiserver(&self) {
        self.own_parts().lock().expect("not poisoned").start_apiserver();
        if let Err(failure) = self.ready().await {
            panic!("the API server did not come back: {failure}");
        }
    }

    /// Holds the API server (SIGSTOP): connections stay open and nothing answers.
    pub fn pause_apiserver(&self) {
        self.own_parts().lock().expect("not poisoned").pause_apiserver();
    }

    /// Lets a held API server go on.
    pub fn resume_apiserver(&self) {
        self.own_parts().lock().expect("not poisoned").resume_apiserver();
    }

    /// Fills the store until it takes nothing more: from then on every write is refused.
    pub async fn fill_store(&self) {
        let value =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, vec![7; 256 << 10]);
        for number in 0.. {
            let key = format!("/filler/{number}");
            let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key);
            let put = serde_json::json!({ "key": key, "value": value });
            if let Err(error) = self.ask_store("/v3/kv/put", &put).await {
                assert!(error.contains("space exceeded"), "the store says: {error}");
                return;
            }
        }
    }

    /// Makes space in the store again, as an administrator does.
    pub async fn empty_store(&self) {
        let encode =
            |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        // All keys below the prefix: up to the one with the next letter.
        let all = serde_json::json!({ "key": encode("/filler/"), "range_end": encode("/filler0") });
        let deleted = self.ask_store("/v3/kv/deleterange", &all).await.expect("deletions are let");
        let revision = &deleted["header"]["revision"];
        for (path, body) in [
            ("/v3/kv/compaction", serde_json::json!({ "revision": revision, "physical": true })),
            ("/v3/maintenance/defragment", serde_json::json!({})),
        ] {
            let answer = self.ask_store(path, &body).await;
            answer.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        // An alarm is that of one member, and goes only when it is named.
        let member = &deleted["header"]["member_id"];
        let end =
            serde_json::json!({ "action": "DEACTIVATE", "memberID": member, "alarm": "NOSPACE" });
        let answer = self.ask_store("/v3/maintenance/alarm", &end).await;
        answer.unwrap_or_else(|error| panic!("the alarm: {error}"));
    }

    /// One request to the store's own API.
    async fn ask_store(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, String> {
        let url = self.own_parts().lock().expect("not poisoned").store().to_owned();
        let mut config = Config::new(url.parse().expect("a URL"));
        // That there is no space is told as HTTP 429, and another try does not help.
        config.default_retry = false;
        let client = Client::try_from(config).expect("a client");
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .expect("a request");
        let text = client.request_text(request).await.map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    fn own_parts(&self) -> &Mutex<Parts> {
        self.parts.as_ref().expect("only a control plane of one's own may be stopped")
    }

    /// Waits for `/readyz`.
    async fn ready(&self) -> Result<(), String> {
        let client = self.client().await;
        self.poll("/readyz", || {
            let client = client.clone();
            async move {
                let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
                client.request_text(request).await.map(|_ok| ()).map_err(|error| error.to_string())
            }
        })
        .await
    }

    /// Waits for what the controllers make: service accounts, and nodes that are ready.
    async fn settle(&self, options: &Options) -> Result<(), String> {
        let client = self.client().await;
        if options.controllers {
            let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
            self.poll("the default service account", || async {
                match accounts.get_opt("default").await {
                    Ok(Some(_account)) => Ok(()),
                    Ok(None) => Err("it does not exist".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            })
            .await?;
        }
        if options.nodes == 0 {
            return Ok(());
        }
        let nodes: Api<Node> = Api::all(client);
        for number in 0..options.nodes {
            let node = parts::node(number);
            nodes
                .create(&PostParams::default(), &node)
                .await
                .map_err(|error| format!("cannot create a node: {error}"))?;
        }
        self.poll("ready nodes", || async {
            let list = nodes
                .list(&ListParams::default())
                .await
                .map_err(|error| format!("cannot list nodes: {error}"))?;
            let ready = list.items.iter().filter(|node| parts::usable(node)).count();
            if ready >= options.nodes as usize { Ok(()) } else { Err(format!("{ready} are ready")) }
        })
        .await
    }

    /// Polls until `check` holds, all parts still running meanwhile.
    async fn poll<F, Fut>(&self, what: &str, mut check: F) -> Result<(), String>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), String>>,
    {
        let start = std::time::Instant::now();
        loop {
            let seen = match tokio::time::timeout(Duration::from_secs(5), check()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(seen)) => seen,
                Err(_elapsed) => "no answer within 5 s".to_owned(),
            };
            if let Some(parts) = &self.parts
                && let Some(dead) = parts.lock().expect("not poisoned").dead()
            {
                return Err(dead);
            }
            if start.elapsed() > START {
                return Err(format!("waited {START:?} for {what}; last seen: {seen}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
