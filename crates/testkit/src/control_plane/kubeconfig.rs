//! Kubeconfig files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::Kubeconfig;
use serde_json::json;
use std::path::Path;

/// A kubeconfig as JSON, which every reader of YAML reads. Without `ca` the server speaks HTTP.
pub(crate) fn text(server: &str, ca: Option<&str>, user: &str, token: &str) -> String {
    let mut cluster = json!({ "server": server });
    if let Some(ca) = ca {
        cluster["certificate-authority-data"] = json!(STANDARD.encode(ca));
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": cluster }],
        "users": [{ "name": user, "user": { "token": token } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
        "current-context": "test",
    });
    format!("{config:#}\n")
}

/// Reads back what [`text`] wrote.
pub(crate) fn server_and_ca(path: &Path) -> (String, String) {
    let broken = || -> ! { panic!("{} is not a kubeconfig of testkit", path.display()) };
    let Ok(config) = Kubeconfig::read_from(path) else { broken() };
    let Some(cluster) = config.clusters.first().and_then(|named| named.cluster.as_ref()) else {
        broken()
    };
    let ca = cluster
        .certificate_authority_data
        .as_ref()
        .and_then(|data| STANDARD.decode(data).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match (&cluster.server, ca) {
        (Some(server), Some(ca)) => (server.clone(), ca),
        _ => broken(),
    }
}
