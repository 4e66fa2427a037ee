//! Gitea on loopback, as people run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, header};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::control_plane::free_ports;
use crate::process::{Launch, Output, Process};
use crate::runtime;
use crate::scratch::Scratch;
use crate::tools::{Tool, ToolError};
use crate::wait_for;

/// How long it may take until it answers: it makes a database first.
const START: Duration = Duration::from_mins(3);

/// A Gitea with one user, ended on drop.
pub struct Gitea {
    base: String,
    client: Client,
    password: String,
    dir: Scratch,
    _process: Process,
}

impl Gitea {
    /// Its only user, who may do everything.
    pub const USER: &str = "ada";

    /// Starts it, and builds it first when it is missing.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(password: &str) -> Result<Gitea, ToolError> {
        let binary = tokio::task::spawn_blocking(|| Tool::Gitea.peer()).await.expect("no panic")?;
        let dir = Scratch::new("gitea");
        let [port] = free_ports();
        let base = format!("http://127.0.0.1:{port}");
        let config = dir.write("app.ini", configuration(dir.path(), &binary, port));
        let launch = Launch::new(&binary)
            .env("GITEA_WORK_DIR", dir.path())
            .env("HOME", dir.path())
            .arg("--config")
            .arg(&config);
        let log = dir.path().join("gitea.log");
        let process =
            Process::spawn("gitea", &launch.clone().arg("web"), Output::File(log.clone()));
        let client = runtime()
            .spawn(async move {
                let mut config = Config::new(format!("http://127.0.0.1:{port}").parse()?);
                config.default_retry = false;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Client::try_from(config)?)
            })
            .await
            .expect("no panic in there")
            .expect("a client");
        let gitea = Gitea { base, client, password: password.to_owned(), dir, _process: process };
        wait_for("Gitea to answer", START, async || {
            let request = Request::get("/api/v1/version").body(Vec::new()).expect("a request");
            gitea.client.request_text(request).await.map_err(|error| {
                format!("{error}: {}", fs::read_to_string(&log).unwrap_or_default())
            })
        })
        .await;
        let user = ["admin", "user", "create", "--admin", "--must-change-password=false"];
        let made = Command::new(&binary)
            .env("GITEA_WORK_DIR", gitea.dir.path())
            .env("HOME", gitea.dir.path())
            .arg("--config")
            .arg(&config)
            .args(user)
            .args(["--username", Gitea::USER, "--email", "ada@example.com"])
            .args(["--password", password])
            .output()
            .expect("it was there a moment ago");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        Ok(gitea)
    }

    /// The URL of one of the user's repositories.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{}/{name}.git", self.base, Gitea::USER)
    }

    /// The same with user and password in it, for `git push`.
    pub fn push_url(&self, name: &str) -> String {
        let login = format!("http://{}:{}@", Gitea::USER, self.password);
        self.url(name).replacen("http://", &login, 1)
    }

    /// Sends something to its API as the user, and returns what it answers.
    ///
    /// # Panics
    /// When it refuses that.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let login = STANDARD.encode(format!("{}:{}", Gitea::USER, self.password));
        let request = Request::post(format!("/api/v1/{path}"))
            .header(header::AUTHORIZATION, format!("Basic {login}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_string().into_bytes())
            .expect("a request");
        let answer = self.client.request_text(request).await;
        let answer = answer.unwrap_or_else(|error| panic!("Gitea refuses {path}: {error}"));
        serde_json::from_str(&answer).expect("JSON")
    }

    /// Makes a private repository, empty.
    pub async fn create(&self, name: &str) {
        let body = json!({"name": name, "private": true, "default_branch": "main"});
        self.post("user/repos", &body).await;
    }
}

/// Everything in one directory, and nothing asked of anybody.
fn configuration(dir: &Path, binary: &Path, port: u16) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    // A binary that was given may hold them itself.
    let beside: Option<PathBuf> = binary.parent().map(Path::to_owned);
    let files = beside.filter(|dir| dir.join("options").is_dir());
    let files = files.map_or(String::new(), |dir| format!("STATIC_ROOT_PATH = {}", dir.display()));
    let secret = "not-secret-at-all-0123456789abcdef0123456789abcdef";
    let text = format!(
        "RUN_MODE = prod
         I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
         [server]
         HTTP_ADDR = 127.0.0.1
         HTTP_PORT = {port}
         ROOT_URL = http://127.0.0.1:{port}/
         DISABLE_SSH = true
         OFFLINE_MODE = true
         {files}
         [database]
         DB_TYPE = sqlite3
         PATH = {database}
         [repository]
         ROOT = {repositories}
         [security]
         INSTALL_LOCK = true
         SECRET_KEY = {secret}
         PASSWORD_HASH_ALGO = pbkdf2
         [webhook]
         ALLOWED_HOST_LIST = loopback
         [service]
         DISABLE_REGISTRATION = true
         [cron]
         ENABLED = false
         [log]
         LEVEL = Warn
         MODE = console
         ROOT_PATH = {log}
        ",
        database = at("gitea.db"),
        repositories = at("repositories"),
        log = at("log"),
    );
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}
