//! How to get into a repository, out of the Secrets that a GitRepository names. Their keys are those
//! that Flux reads, so that Secrets made for it work as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_api::conditions::reasons;
use plumb_api::{GitRepository, SecretRef};
use plumb_engine::Account;
use plumb_source::{
    ClientCertificate, Credentials, GitHubApp, Installation, Proxy, ProxyLogin, Remote, Tls,
};

use super::Problem;
use crate::daemon::Daemon;
use crate::named::{Found, Named, NamedKind, named_by_source};
use crate::names::{Key, Name};

/// What a Secret holds.
type Data = BTreeMap<String, Vec<u8>>;

/// What a Secret gives: who asks, and whom to trust.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) credentials: Credentials,
    pub(super) tls: Tls,
}

impl Daemon {
    /// Where a GitRepository is, with the credentials of its Secrets.
    pub(super) async fn remote(
        &self,
        name: &Name,
        object: &GitRepository,
    ) -> Result<Remote, Problem> {
        let spec = &object.spec;
        let mut remote = Remote {
            url: spec.url.clone(),
            credentials: Credentials::Anonymous,
            tls: Tls::default(),
            proxy: None,
            timeout: spec.timeout.into(),
            submodules: spec.recurse_submodules,
        };
        let found = self.secrets(name, object).await?;
        if let Some(reference) = &spec.secret_ref {
            let Access { credentials, tls } =
                access(secret(&found, name, "secretRef", reference)?, &spec.url)
                    .map_err(|why| unusable(reference, &why))?;
            remote.credentials = credentials;
            remote.tls = tls;
        }
        if let Some(reference) = &spec.proxy_secret_ref {
            let data = secret(&found, name, "proxySecretRef", reference)?;
            remote.proxy = Some(proxy(data).map_err(|why| unusable(reference, &why))?);
        }
        Ok(remote)
    }

    /// Reads the Secrets that a GitRepository names, as the account that is for it.
    pub(super) async fn secrets(
        &self,
        name: &Name,
        object: &GitRepository,
    ) -> Result<Arc<Found>, Problem> {
        let reader = self.default_account().map(|account| Account {
            namespace: name.namespace.to_string(),
            name: account.clone(),
        });
        let cluster = self.engine.cluster();
        let acting = reader.as_ref().map(|reader| cluster.as_user(&reader.user()));
        let (who, names) = (Key::Source(name.clone()), named_by_source(object));
        let found = self.find_named(&who, names, acting.as_ref().unwrap_or(cluster)).await;
        found.map_err(|(Named { name, .. }, error)| Problem {
            reason: if error.is_forbidden() {
                reasons::ACCESS_DENIED
            } else {
                reasons::CLUSTER_UNAVAILABLE
            }
            .into(),
            message: match &reader {
                Some(reader) if error.is_forbidden() => format!(
                    "cannot read the Secret {}: {error}; give that right to the service account \
                     {reader}",
                    name.name
                ),
                _ => format!("cannot read the Secret {}: {error}", name.name),
            },
            class: error.class(),
        })
    }
}

/// What a Secret holds that a field of a GitRepository names.
pub(super) fn secret<'f>(
    found: &'f Found,
    name: &Name,
    field: &str,
    reference: &SecretRef,
) -> Result<&'f Data, Problem> {
    let named = Named::new(NamedKind::Secret, &name.namespace, &reference.name);
    if let Some(content) = found.get(&named).and_then(Option::as_ref) {
        return Ok(&content.data);
    }
    let message = format!(
        "the Secret {} does not exist in the namespace {}; create it, or correct spec.{field}.name",
        reference.name, name.namespace,
    );
    Err(Problem::user(reasons::SECRET_NOT_FOUND, message))
}

fn unusable(reference: &SecretRef, why: &str) -> Problem {
    Problem::user(reasons::INVALID_SECRET, format!("the Secret {} {why}", reference.name))
}

/// What the Secret of a repository at this URL gives. An error says what is wrong with the Secret, in
/// words that follow its name; it names keys and no values.
pub(super) fn access(data: &Data, url: &str) -> Result<Access, String> {
    if plumb_source::is_ssh(url) {
        let credentials = key(data)?;
        return Ok(Access { credentials, tls: Tls::default() });
    }
    if let Some(key) = ["identity", "known_hosts"].into_iter().find(|key| data.contains_key(*key)) {
        return Err(format!(
            "has {key}, which is for ssh:// URLs; name a Secret for https:// in spec.secretRef"
        ));
    }
    // The second name of each is an older one of Flux.
    let ca = either(data, "ca.crt", "caFile")?.map(|(_, pem)| pem);
    let certificate = either(data, "tls.crt", "certFile")?;
    let key = either(data, "tls.key", "keyFile")?;
    let client = match (certificate, key) {
        (Some((name, _)), Some(_)) if url.starts_with("http://") => {
            return Err(format!(
                "has {name}, and a client certificate can be shown over https:// only; remove it, \
                 or correct spec.url"
            ));
        }
        (Some((_, certificate)), Some((_, key))) => Some(ClientCertificate { certificate, key }),
        (None, None) => None,
        (Some((name, _)), None) => {
            return Err(format!("has a {name} but not its private key; add the key tls.key"));
        }
        (None, Some((name, _))) => {
            return Err(format!("has a {name} but no certificate for it; add the key tls.crt"));
        }
    };
    let tls = Tls { ca, client };

    let login = login(data)?
        .map(|(username, password)| ("username", Credentials::Basic { username, password }));
    let token =
        text(data, "bearerToken")?.map(|token| ("bearerToken", Credentials::Bearer { token }));
    let app = app(data)?.map(|app| ("githubAppID", Credentials::GitHubApp(app)));
    let mut given = [login, token, app].into_iter().flatten();
    let credentials = match (given.next(), given.next()) {
        (Some((one, _)), Some((other, _))) => {
            return Err(format!(
                "has both {one} and {other}; keep what the server takes, which for a token of \
                 GitHub, GitLab or Bitbucket is username and password"
            ));
        }
        (Some((_, Credentials::Basic { username, .. })), None) if username.contains(':') => {
            return Err("has a username with a colon, which cannot be sent; correct it".into());
        }
        (Some((_, credentials)), _) => credentials,
        (None, _) if tls != Tls::default() => Credentials::Anonymous,
        (None, _) => {
            return Err("has neither username and password nor bearerToken, githubAppID, ca.crt, \
                        or tls.crt and tls.key; add what the server asks for"
                .into());
        }
    };
    Ok(Access { credentials, tls })
}

/// A key for SSH. Whatever else the Secret has is for other URLs.
fn key(data: &Data) -> Result<Credentials, String> {
    let identity = text(data, "identity")?;
    let known_hosts = text(data, "known_hosts")?;
    let passphrase = text(data, "password")?;
    match (identity, known_hosts) {
        (Some(identity), Some(known_hosts)) => {
            Ok(Credentials::Ssh { identity, passphrase, known_hosts })
        }
        (Some(_), None) => {
            Err("has an identity but no known_hosts; add the key known_hosts, with what \
                                `ssh-keyscan` prints of the server"
                .into())
        }
        (None, Some(_)) => {
            Err("has known_hosts but no identity; add the key identity, with a private key".into())
        }
        (None, None) => {
            Err("has neither identity nor known_hosts, which an SSH server asks for; add \
                             a private key and what `ssh-keyscan` prints of the server"
                .into())
        }
    }
}

/// A GitHub App, if there is any key of one.
fn app(data: &Data) -> Result<Option<GitHubApp>, String> {
    let id = text(data, "githubAppID")?;
    let installation = text(data, "githubAppInstallationID")?;
    let owner = text(data, "githubAppInstallationOwner")?;
    let key = text(data, "githubAppPrivateKey")?;
    let api = text(data, "githubAppBaseURL")?;
    if [&id, &installation, &owner, &key, &api].into_iter().all(Option::is_none) {
        return Ok(None);
    }
    let lacks = |key: &str| format!("has keys of a GitHub App but no {key}; add the key {key}");
    let installation = match (installation, owner) {
        (Some(id), None) => Installation::Id(id),
        (None, Some(owner)) => Installation::Owner(owner),
        (None, None) => {
            return Err(
                "has keys of a GitHub App but not which installation; add one of the keys \
                        githubAppInstallationID and githubAppInstallationOwner"
                    .into(),
            );
        }
        (Some(_), Some(_)) => {
            return Err("has both githubAppInstallationID and githubAppInstallationOwner; remove \
                        one of them"
                .into());
        }
    };
    Ok(Some(GitHubApp {
        id: id.ok_or_else(|| lacks("githubAppID"))?,
        installation,
        key: key.ok_or_else(|| lacks("githubAppPrivateKey"))?,
        api: api.map(|api| api.trim_end_matches('/').to_owned()),
    }))
}

/// What the Secret of a proxy says. Errors are as those of [`access`].
pub(super) fn proxy(data: &Data) -> Result<Proxy, String> {
    let address = text(data, "address")?
        .ok_or("has no address; add the key address, such as http://proxy.example:3128")?;
    let login = login(data)?.map(|(username, password)| ProxyLogin { username, password });
    Ok(Proxy { address, login })
}

/// User name and password, or neither.
fn login(data: &Data) -> Result<Option<(String, String)>, String> {
    match (text(data, "username")?, text(data, "password")?) {
        (Some(username), Some(password)) => Ok(Some((username, password))),
        (None, None) => Ok(None),
        (Some(_), None) => Err("has a username but no password; add the key password".into()),
        (None, Some(_)) => Err("has a password but no username; add the key username".into()),
    }
}

/// The first of two keys that is there, with its text.
fn either<'k>(
    data: &Data,
    first: &'k str,
    second: &'k str,
) -> Result<Option<(&'k str, String)>, String> {
    for key in [first, second] {
        if let Some(text) = text(data, key)? {
            return Ok(Some((key, text)));
        }
    }
    Ok(None)
}

/// One key as text; an empty one counts as none.
fn text(data: &Data, key: &str) -> Result<Option<String>, String> {
    let Some(bytes) = data.get(key) else { return Ok(None) };
    let text = std::str::from_utf8(bytes).map_err(|_| format!("has a {key} that is not text"))?;
    // A trailing newline is what `kubectl create secret --from-file` leaves.
    let text = text.trim_end_matches(['\r', '\n']);
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://git.example/app.git";

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn the_formats_of_secrets() {
        let basic = || Credentials::Basic { username: "ada".into(), password: "s3cret".into() };
        let login = [("username", "ada"), ("password", "s3cret\n")];
        let ca = |ca: &str| Tls { ca: Some(ca.into()), client: None };
        let client = |certificate: &str, key: &str| Tls {
            ca: None,
            client: Some(ClientCertificate { certificate: certificate.into(), key: key.into() }),
        };
        let bearer = Credentials::Bearer { token: "t0ken".into() };
        let app = |installation, api: Option<&str>| {
            Credentials::GitHubApp(GitHubApp {
                id: "12".into(),
                installation,
                key: "pem".into(),
                api: api.map(String::from),
            })
        };
        let [id, key] = [("githubAppID", "12"), ("githubAppPrivateKey", "pem\n")];
        let installation = ("githubAppInstallationID", "34");
        for (pairs, credentials, tls) in [
            (&login[..], basic(), Tls::default()),
            (&[("bearerToken", "t0ken")], bearer.clone(), Tls::default()),
            (&[("ca.crt", "ca")], Credentials::Anonymous, ca("ca")),
            (&[("caFile", "old")], Credentials::Anonymous, ca("old")),
            (&[("caFile", "old"), ("ca.crt", "ca")], Credentials::Anonymous, ca("ca")),
            (&[("caFile", "old"), ("ca.crt", "")], Credentials::Anonymous, ca("old")),
            (&[("tls.crt", "c"), ("tls.key", "k")], Credentials::Anonymous, client("c", "k")),
            (&[("certFile", "c"), ("keyFile", "k")], Credentials::Anonymous, client("c", "k")),
            (
                &[("certFile", "o"), ("keyFile", "o"), ("tls.crt", "c"), ("tls.key", "k")],
                Credentials::Anonymous,
                client("c", "k"),
            ),
            (&[("bearerToken", "t0ken"), ("ca.crt", "ca")], bearer, ca("ca")),
            (&[login[0], login[1], ("other", "x")], basic(), Tls::default()),
            (&[id, key, installation], app(Installation::Id("34".into()), None), Tls::default()),
            (
                &[
                    id,
                    key,
                    ("githubAppInstallationOwner", "org"),
                    ("githubAppBaseURL", "https://ghe.example/api/v3/"),
                    ("ca.crt", "ca"),
                ],
                app(Installation::Owner("org".into()), Some("https://ghe.example/api/v3")),
                ca("ca"),
            ),
        ] {
            let found = access(&data(pairs), URL);
            assert_eq!(found, Ok(Access { credentials, tls }), "{pairs:?}");
        }
        let plain = access(&data(&login), "http://git.example/app.git").unwrap();
        assert_eq!(plain.credentials, basic());

        let pair = [("identity", "pem\n"), ("known_hosts", "h k\n")];
        for url in ["ssh://git@git.example/app.git", "git@git.example:app.git"] {
            for passphrase in [None, Some("s3cret")] {
                let password = passphrase.map(|passphrase| ("password", passphrase));
                let pairs: Vec<_> = pair.into_iter().chain(password).collect();
                let want = Credentials::Ssh {
                    identity: "pem".into(),
                    passphrase: passphrase.map(String::from),
                    known_hosts: "h k".into(),
                };
                assert_eq!(access(&data(&pairs), url).unwrap().credentials, want, "{url}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_key_and_not_by_its_value() {
        let http = "http://git.example/app.git";
        let ssh = "git@git.example:app.git";
        let [id, key] = [("githubAppID", "12"), ("githubAppPrivateKey", "hunter2")];
        let installation = ("githubAppInstallationID", "34");
        for (pairs, url, words) in [
            (&[][..], URL, "neither username and password nor bearerToken"),
            (&[("username", "hunter2")], URL, "no password"),
            (&[("username", "hunter2"), ("password", "")], URL, "no password"),
            (&[("password", "hunter2")], URL, "no username"),
            (&[("username", "hunter2:x"), ("password", "hunter2")], URL, "a username with a colon"),
            (
                &[("username", "a"), ("password", "hunter2"), ("bearerToken", "hunter2")],
                URL,
                "both username and bearerToken",
            ),
            (
                &[("username", "a"), ("password", "hunter2"), id, key, installation],
                URL,
                "both username and githubAppID",
            ),
            (&[id, key], URL, "githubAppInstallationID and githubAppInstallationOwner"),
            (
                &[id, key, installation, ("githubAppInstallationOwner", "org")],
                URL,
                "both githubAppInstallationID and",
            ),
            (&[id, installation], URL, "add the key githubAppPrivateKey"),
            (&[key, installation], URL, "add the key githubAppID"),
            (&[("tls.crt", "hunter2")], URL, "add the key tls.key"),
            (&[("certFile", "hunter2")], URL, "a certFile but not"),
            (&[("tls.key", "hunter2")], URL, "add the key tls.crt"),
            (&[("tls.crt", "hunter2"), ("tls.key", "hunter2")], http, "over https:// only"),
            (&[("identity", "hunter2"), ("known_hosts", "hunter2")], URL, "has identity, which"),
            (&[("known_hosts", "hunter2")], URL, "has known_hosts, which"),
            (&[("identity", "hunter2")], ssh, "no known_hosts"),
            (&[("known_hosts", "hunter2")], ssh, "no identity"),
            (&[("username", "a"), ("password", "hunter2")], ssh, "neither identity nor"),
        ] {
            let error = access(&data(pairs), url).unwrap_err();
            assert!(error.contains(words), "{pairs:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let binary = Data::from([("password".into(), vec![0xff])]);
        assert_eq!(access(&binary, URL), Err("has a password that is not text".into()));
    }

    #[test]
    fn proxies() {
        let address = ("address", "http://proxy:3128");
        let login = [("username", "ada"), ("password", "s3cret")];
        let open = proxy(&data(&[address])).unwrap();
        assert_eq!(open, Proxy { address: "http://proxy:3128".into(), login: None });
        let closed = proxy(&data(&[address, login[0], login[1]])).unwrap();
        let ada = ProxyLogin { username: "ada".into(), password: "s3cret".into() };
        assert_eq!(closed.login, Some(ada));
        for (pairs, words) in [
            (&login[..], "has no address"),
            (&[address, login[0]], "no password"),
            (&[address, login[1]], "no username"),
        ] {
            let error = proxy(&data(pairs)).unwrap_err();
            assert!(error.contains(words), "{pairs:?}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
