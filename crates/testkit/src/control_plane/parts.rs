//! The processes of a control plane and the flags they are started with.

use super::kubeconfig;
use crate::control_plane::Options;
use crate::pki::{Authority, key_pair};
use crate::process::{Launch, Output, Process, tail};
use crate::tools::{Tool, Tools};
use k8s_openapi::api::core::v1::Node;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Components that talk to the API server, each with a name of its own in the audit log.
const USERS: [&str; 4] = ["admin", "kube-controller-manager", "kube-scheduler", "kwok"];

/// Ports below those that the system gives to outgoing connections (from 32768 on), so that none
/// of those takes the port of a part that is stopped for a while.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The controllers' and simulated nodes' own reads and heartbeats would fill the log and tell a
/// test nothing. Their other writes stay: they tell who deleted an object. What processes under
/// test send stands in it with its body.
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived"],
  "rules": [
    {
      "level": "None",
      "users": ["kube-controller-manager", "kube-scheduler", "kwok", "system:apiserver"],
      "verbs": ["get", "list", "watch"]
    },
    {
      "level": "None",
      "users": ["kwok", "system:apiserver"],
      "resources": [
        { "group": "coordination.k8s.io", "resources": ["leases"] },
        { "group": "", "resources": ["nodes/status"] }
      ]
    },
    {
      "level": "Metadata",
      "resources": [
        { "group": "coordination.k8s.io", "resources": ["leases"] }
      ]
    },
    {
      "level": "Request",
      "userGroups": ["system:serviceaccounts"],
      "verbs": ["patch", "delete"]
    },
    {
      "level": "Request",
      "userGroups": ["system:serviceaccounts"],
      "verbs": ["create"],
      "resources": [{ "group": "events.k8s.io", "resources": ["events"] }]
    },
    { "level": "Metadata" }
  ]
}
"#;

/// All processes of one control plane. Ended in the order of the fields, clients first.
#[derive(Debug)]
pub(crate) struct Parts {
    clients: Vec<Process>,
    apiserver: Option<Process>,
    etcd: Process,
    tools: Tools,
    dir: PathBuf,
    ca: String,
    server: String,
    kubeconfig: PathBuf,
    store: String,
    apiserver_launch: Launch,
}

impl Parts {
    /// Starts etcd and the API server.
    pub(crate) fn start(tools: &Tools, options: &Options, quota: Option<u64>, dir: &Path) -> Parts {
        for sub in ["logs", "certs"] {
            std::fs::create_dir(dir.join(sub)).expect("an empty directory of our own");
        }
        let authority = Authority::create();
        let signed =
            authority.server(&["127.0.0.1", "localhost", "kubernetes.default.svc", "10.96.0.1"]);
        let (account_key, account_public) = key_pair();
        let write = |name: &str, content: &str| {
            std::fs::write(dir.join(name), content).expect("our own directory");
        };
        write("ca.crt", authority.pem());
        write("apiserver.crt", &signed.certificate);
        write("apiserver.key", &signed.key);
        write("accounts.key", &account_key);
        write("accounts.pub", &account_public);
        let [client_port, peer_port, api_port] = free_ports();
        let client_url = format!("http://127.0.0.1:{client_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let server = format!("https://127.0.0.1:{api_port}");

        let mut tokens = String::new();
        let mut admin_kubeconfig = PathBuf::new();
        for user in USERS {
            let token: String = std::iter::repeat_with(fastrand::alphanumeric).take(32).collect();
            writeln!(tokens, "{token},{user},{user},system:masters").expect("a string");
            let name = format!("{user}.kubeconfig");
            let text = kubeconfig::text(&server, Some(authority.pem()), user, &token);
            write(&name, &text);
            if user == "admin" {
                admin_kubeconfig = dir.join(name);
            }
        }
        write("tokens.csv", &tokens);
        write("audit-policy.json", AUDIT_POLICY);

        let mut etcd = Launch::new(tools.path(Tool::Etcd))
            .arg("--data-dir")
            .arg(dir.join("etcd"))
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .args(["--unsafe-no-fsync", "--log-level", "warn"]);
        if let Some(bytes) = quota {
            etcd = etcd.arg(format!("--quota-backend-bytes={bytes}"));
        }
        let flag = |name: &str, file: &str| format!("--{name}={}", dir.join(file).display());
        let mut apiserver = Launch::new(tools.path(Tool::Apiserver))
            .arg(format!("--etcd-servers={client_url}"))
            .arg(format!("--secure-port={api_port}"))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            // There is nothing that could reach the API server through a Service.
            .arg("--endpoint-reconciler-type=none")
            .args(["--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged"])
            .arg("--authorization-mode=RBAC")
            .arg(flag("cert-dir", "certs"))
            .arg(flag("tls-cert-file", "apiserver.crt"))
            .arg(flag("tls-private-key-file", "apiserver.key"))
            .arg(flag("token-auth-file", "tokens.csv"))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(flag("service-account-key-file", "accounts.pub"))
            .arg(flag("service-account-signing-key-file", "accounts.key"))
            .arg(flag("audit-policy-file", "audit-policy.json"))
            .arg(flag("audit-log-path", "audit.log"))
            // 0 means 100 MB; a log that is rotated during a test cannot be counted in.
            .arg("--audit-log-maxsize=100000");
        if !options.controllers {
            // Nobody would make the `default` account that every Pod is given.
            apiserver = apiserver.arg("--disable-admission-plugins=ServiceAccount");
        }

        let etcd = Process::spawn("etcd", &etcd, Output::File(dir.join("logs/etcd.log")));
        let mut parts = Parts {
            clients: Vec::new(),
            apiserver: None,
            etcd,
            tools: tools.clone(),
            dir: dir.to_owned(),
            ca: authority.pem().to_owned(),
            server,
            kubeconfig: admin_kubeconfig,
            store: client_url,
            apiserver_launch: apiserver,
        };
        parts.start_apiserver();
        parts
    }

    /// Starts what needs an API server that is ready.
    pub(crate) fn start_clients(&mut self, options: &Options) {
        let kubeconfig =
            |user: &str| format!("--kubeconfig={}/{user}.kubeconfig", self.dir.display());
        // Alone on this cluster: no election. The default of 20 requests a second would be the
        // bottleneck of every measurement. Port 0: nobody asks for their metrics.
        let common = ["--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000"];
        let mut launches = Vec::new();
        if options.controllers {
            let manager = Launch::new(self.tools.path(Tool::ControllerManager))
                .arg(kubeconfig("kube-controller-manager"))
                .args(common)
                .arg("--secure-port=0")
                .arg(format!("--root-ca-file={}", self.dir.join("ca.crt").display()))
                .arg(format!(
                    "--service-account-private-key-file={}",
                    self.dir.join("accounts.key").display()
                ));
            launches.push((Tool::ControllerManager, manager));
        }
        if options.nodes > 0 {
            let scheduler = Launch::new(self.tools.path(Tool::Scheduler))
                .arg(kubeconfig("kube-scheduler"))
                .args(common)
                .arg("--secure-port=0");
            launches.push((Tool::Scheduler, scheduler));
            let kwok = Launch::new(self.tools.path(Tool::Kwok))
                .arg(kubeconfig("kwok"))
                .arg(format!("--config={}", self.tools.stages().display()))
                .arg("--manage-all-nodes=true")
                // It would keep a configuration of its own there.
                .env("HOME", &self.dir);
            launches.push((Tool::Kwok, kwok));
        }
        for (tool, launch) in launches {
            let log = self.log(tool.name());
            self.clients.push(Process::spawn(tool.name(), &launch, Output::File(log)));
        }
    }

    pub(crate) fn start_apiserver(&mut self) {
        assert!(self.apiserver.is_none(), "the API server is running");
        let name = Tool::Apiserver.name();
        let output = Output::File(self.log(name));
        self.apiserver = Some(Process::spawn(name, &self.apiserver_launch, output));
    }

    pub(crate) fn stop_apiserver(&mut self) {
        self.apiserver = None;
    }

    pub(crate) fn pause_apiserver(&mut self) {
        self.apiserver.as_mut().expect("the API server is stopped").signal(Signal::STOP);
    }

    pub(crate) fn resume_apiserver(&mut self) {
        self.apiserver.as_mut().expect("the API server is stopped").signal(Signal::CONT);
    }

    /// What ended that should run, with the end of its log.
    pub(crate) fn dead(&mut self) -> Option<String> {
        let dir = self.dir.clone();
        std::iter::once(&mut self.etcd)
            .chain(self.apiserver.as_mut())
            .chain(&mut self.clients)
            .find_map(|process| {
                let status = process.ended()?;
                let log = dir.join(format!("logs/{}.log", process.name()));
                Some(format!("{} ended with {status}:\n{}", process.name(), tail(&log, 20)))
            })
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }

    /// The URL of etcd.
    pub(crate) fn store(&self) -> &str {
        &self.store
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("logs/{name}.log"))
    }
}

/// Distinct ports of loopback that nobody listens on now. None is given out twice, nor even tried:
/// it may belong to a server that is stopped for a while.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("not poisoned");
    std::array::from_fn(|_| {
        loop {
            let port = fastrand::u16(PORTS);
            if given.insert(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return port;
            }
        }
    })
}

/// A node that kwok manages, with room for whatever a test schedules.
pub(crate) fn node(number: u32) -> Node {
    let room = serde_json::json!({ "cpu": "64", "memory": "256Gi", "pods": "1000" });
    serde_json::from_value(serde_json::json!({
        "metadata": {
            "name": format!("node-{number}"),
            "annotations": { "kwok.x-k8s.io/node": "fake" },
            "labels": {
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": format!("node-{number}"),
            },
        },
        "status": { "allocatable": room, "capacity": room },
    }))
    .expect("a node")
}

/// Ready, and the node controller has taken off the taint that a new node begins with.
pub(crate) fn usable(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| {
        let condition = serde_json::to_value(condition).expect("a condition");
        condition["type"] == "Ready" && condition["status"] == "True"
    });
    let tainted = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_ref())
        .is_some_and(|taints| !taints.is_empty());
    ready && !tainted
}
