//! Where a repository is and how to get in.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use ureq::ProxyProtocol;
use url::Url;

use crate::SourceError;
use crate::address::{Address, PORT as SSH_PORT};
use crate::github::{CheckedApp, GitHubApp, Installation};
use crate::tidy::shown;

/// Characters of a mirror's id.
pub(crate) const ID_LENGTH: usize = 64;

/// A repository on a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// An `http://`, `https://` or `ssh://` URL as `git clone` takes it, or `user@host:path` for SSH.
    /// Without credentials, but for the user's name with SSH.
    pub url: String,
    /// How to get in.
    pub credentials: Credentials,
    /// Whom to trust, and how to show who asks.
    pub tls: Tls,
    /// Whom to ask by. Without one the proxy that the process's environment names, if any.
    pub proxy: Option<Proxy>,
    /// The longest that one call may take, with all its requests and waiting.
    pub timeout: Duration,
    /// Whether a commit is here only with its submodules, and read with them in their places.
    pub submodules: bool,
}

impl fmt::Debug for Remote {
    /// Without any password, also when somebody put one into the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("url", &redacted(&self.url))
            .field("credentials", &self.credentials)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy)
            .field("timeout", &self.timeout)
            .field("submodules", &self.submodules)
            .finish()
    }
}

/// How to get into a repository.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Without any.
    Anonymous,
    /// HTTP basic authentication; tokens go into the password.
    Basic {
        /// The user's name.
        username: String,
        /// The password or token.
        password: String,
    },
    /// A token in the Authorization header.
    Bearer {
        /// The token.
        token: String,
    },
    /// Tokens that a GitHub App is given, each for a time.
    GitHubApp(GitHubApp),
    /// A key for SSH.
    Ssh {
        /// The private key, in OpenSSH's format or PEM.
        identity: String,
        /// What opens it, if it is encrypted.
        passphrase: Option<String>,
        /// The lines of a known_hosts file: the keys of the server.
        known_hosts: String,
    },
}

impl fmt::Debug for Credentials {
    /// Without passwords and tokens, and without names, which at some hosts are tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { .. } => f.write_str("Basic"),
            Self::Bearer { .. } => f.write_str("Bearer"),
            Self::GitHubApp(app) => app.fmt(f),
            Self::Ssh { .. } => f.write_str("Ssh"),
        }
    }
}

/// Whom to trust for `https`, and how to show who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificates to trust in place of the system's.
    pub ca: Option<String>,
    /// What is shown to a server that asks for a certificate.
    pub client: Option<ClientCertificate>,
}

/// A certificate that says who asks. It is shown to the origin of the URL alone.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM: the certificate, then those that lead from it to its authority.
    pub certificate: String,
    /// PEM: the private key, without a passphrase.
    pub key: String,
}

impl fmt::Debug for ClientCertificate {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate")
    }
}

/// A proxy for one repository.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `http://`, `https://` or `socks5://`, host and port, without credentials.
    pub address: String,
    /// Who asks it.
    pub login: Option<ProxyLogin>,
}

impl fmt::Debug for Proxy {
    /// Without any password, also when somebody put one into the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.shown())
            .field("username", &self.login.as_ref().map(|login| &login.username))
            .finish_non_exhaustive()
    }
}

/// Who asks a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyLogin {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for ProxyLogin {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyLogin").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Where the value of the Authorization header comes from.
pub(crate) enum Authorization {
    None,
    Header(String),
    App {
        app: CheckedApp,
        /// Names whom a token is given to, and who is trusted for it.
        key: String,
    },
}

/// The value of an Authorization header with a user and a password.
pub(crate) fn basic(username: &str, password: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    format!("Basic {pair}")
}

/// A [`Remote`] whose parts were checked.
pub(crate) struct CheckedRemote {
    pub(crate) url: Url,
    pub(crate) authorization: Authorization,
    pub(crate) tls: Tls,
    pub(crate) proxy: Option<ureq::Proxy>,
    /// How it is asked if not by HTTP.
    pub(crate) ssh: Option<CheckedSsh>,
    pub(crate) timeout: Duration,
    /// Names the mirror: equal for equal URL, credentials, client certificate and proxy. Content
    /// fetched with one credential is never served to another. A proxy counts as one: it reaches
    /// what others do not reach, and may answer for the server what it likes. The authorities do
    /// not, for whoever they vouch for has to answer at the same address. The first half names the
    /// place alone, as [`place`] does.
    pub(crate) id: String,
}

/// What SSH takes.
pub(crate) struct CheckedSsh {
    pub(crate) address: Address,
    pub(crate) identity: String,
    pub(crate) passphrase: Option<String>,
    pub(crate) known_hosts: String,
}

impl CheckedRemote {
    /// Its server, and what of that is one to ask.
    pub(crate) fn way(&self) -> Way {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or(SSH_PORT);
        let mut host = format!("{host}:{port}");
        if let Some(proxy) = &self.proxy {
            host = format!("{host} by {}:{}", proxy.host(), proxy.port());
        }
        let mirror = digest(&[self.id.as_str(), self.trust().unwrap_or_default()]);
        Way { host, mirror, place: shown(&self.id).to_owned() }
    }

    /// Whom to trust for it: who is asked with another answer to that is not asked for all.
    pub(crate) fn trust(&self) -> Option<&str> {
        match &self.ssh {
            Some(ssh) => Some(&ssh.known_hosts),
            None => self.tls.ca.as_deref(),
        }
    }
}

/// A URL whose parts were looked at.
pub(crate) enum Place {
    /// `http` or `https`, without a final slash.
    Http(Url),
    Ssh(Address),
}

impl Place {
    pub(crate) fn of(text: &str) -> Result<Self, SourceError> {
        let invalid = |why: &str| SourceError::InvalidUrl { url: redacted(text), why: why.into() };
        if let Some(address) = Address::short(text) {
            return Ok(Self::Ssh(address.map_err(invalid)?));
        }
        let mut url = match Url::parse(text) {
            Ok(url) => url,
            Err(url::ParseError::RelativeUrlWithoutBase) => {
                return Err(invalid("it has no scheme; write https://host/path or user@host:path"));
            }
            Err(error) => return Err(invalid(&error.to_string())),
        };
        if !matches!(url.scheme(), "http" | "https" | "ssh") {
            // `host:path` parses as a URL whose scheme is no scheme at all.
            return Err(SourceError::UnsupportedScheme { scheme: url.scheme().into() });
        }
        let named = !url.username().is_empty() && url.scheme() != "ssh";
        if named || url.password().is_some() {
            return Err(SourceError::CredentialsInUrl { url: redacted(text) });
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it must not have a query or a fragment"));
        }
        if url.scheme() == "ssh" {
            return Ok(Self::Ssh(Address::long(&url).map_err(invalid)?));
        }
        trim(&mut url);
        Ok(Self::Http(url))
    }

    pub(crate) fn url(&self) -> &Url {
        match self {
            Self::Http(url) => url,
            Self::Ssh(address) => &address.url,
        }
    }
}

impl Remote {
    /// Where its server is, and what of that is one to ask. Errors are those of a remote that cannot
    /// be used.
    pub fn way(&self) -> Result<Way, SourceError> {
        Ok(self.check()?.way())
    }

    pub(crate) fn check(&self) -> Result<CheckedRemote, SourceError> {
        let invalid =
            |why: &str| SourceError::InvalidUrl { url: redacted(&self.url), why: why.into() };
        let url = match Place::of(&self.url)? {
            Place::Http(url) => url,
            Place::Ssh(address) => return self.check_ssh(address),
        };
        if url.scheme() == "http" && self.tls.client.is_some() {
            return Err(invalid("a client certificate can be shown over https only"));
        }

        let proxy = self.proxy.as_ref().map(|proxy| proxy.check(self)).transpose()?;
        let access = self.access();
        let authorization = match &self.credentials {
            Credentials::Anonymous => Authorization::None,
            Credentials::Basic { username, password } => {
                Authorization::Header(basic(username, password))
            }
            Credentials::Bearer { token } => {
                // Anything else would be no header, and an error that may quote it.
                if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(SourceError::InvalidCredentials {
                        why: "a bearer token is of visible ASCII characters".into(),
                    });
                }
                Authorization::Header(format!("Bearer {token}"))
            }
            Credentials::GitHubApp(app) => {
                let app = app.check(url.host_str().unwrap_or_default())?;
                let ca = self.tls.ca.as_deref().unwrap_or_default();
                Authorization::App { app, key: digest(&[&access, ca]) }
            }
            Credentials::Ssh { .. } => {
                let why = "an http url takes no private key".into();
                return Err(SourceError::InvalidCredentials { why });
            }
        };
        let id = mirror_id(&http_place(&url), &access);
        let (tls, timeout) = (self.tls.clone(), self.timeout);
        Ok(CheckedRemote { url, authorization, tls, proxy, ssh: None, timeout, id })
    }

    fn check_ssh(&self, address: Address) -> Result<CheckedRemote, SourceError> {
        let Credentials::Ssh { identity, passphrase, known_hosts } = self.credentials.clone()
        else {
            let why = "an ssh url needs a private key; name a Secret with identity and known_hosts \
                       in secretRef";
            return Err(SourceError::InvalidCredentials { why: why.into() });
        };
        if let Some(proxy) = &self.proxy {
            return Err(SourceError::InvalidProxy {
                address: proxy.shown(),
                why: "ssh does not go through proxies".into(),
            });
        }
        let url = address.url.clone();
        let id = mirror_id(&ssh_place(&address), &self.access());
        Ok(CheckedRemote {
            url,
            authorization: Authorization::None,
            tls: self.tls.clone(),
            proxy: None,
            ssh: Some(CheckedSsh { address, identity, passphrase, known_hosts }),
            timeout: self.timeout,
            id,
        })
    }

    /// The name of its mirror; nothing for one that cannot be used.
    fn mirror(&self) -> Option<String> {
        self.check().ok().map(|remote| remote.id)
    }

    /// Names who asks and by whom, whatever is asked.
    fn access(&self) -> String {
        let mut parts = match &self.credentials {
            Credentials::Anonymous => vec!["anonymous"],
            Credentials::Basic { username, password } => vec!["basic", username, password],
            Credentials::Bearer { token } => vec!["bearer", token],
            // Not by its tokens, of which each is another.
            Credentials::GitHubApp(GitHubApp { id, installation, key, api }) => {
                let installation = match installation {
                    Installation::Id(id) => ["id", id],
                    Installation::Owner(owner) => ["owner", owner],
                };
                let [kind, name] = installation;
                vec!["app", id, kind, name, key, api.as_deref().unwrap_or_default()]
            }
            // An encrypted key without what opens it is no key.
            Credentials::Ssh { identity, passphrase, known_hosts: _ } => {
                vec!["ssh", identity, passphrase.as_deref().unwrap_or_default()]
            }
        };
        if let Some(ClientCertificate { certificate, key }) = &self.tls.client {
            parts.extend(["client", certificate, key]);
        }
        if let Some(Proxy { address, login }) = &self.proxy {
            parts.extend(["proxy", address]);
            if let Some(ProxyLogin { username, password }) = login {
                parts.extend([username, password].map(String::as_str));
            }
        }
        digest(&parts)
    }
}

/// Whether two remotes have one mirror between them: the same repository, asked by the same one in the
/// same way. How long it may take, whom to trust for the answer, how the URL is spelled and
/// what is read of a commit part none.
pub fn same_mirror(one: &Remote, other: &Remote) -> bool {
    // Mostly they are equal, which is cheap to see.
    one == other || one.mirror().is_some_and(|mirror| other.mirror() == Some(mirror))
}

/// What the ids of all mirrors of a URL begin with, whoever asks for it; `None` when it is no URL of a
/// repository.
pub(crate) fn place(url: &str) -> Option<String> {
    match Place::of(url).ok()? {
        Place::Http(url) => Some(http_place(&url)),
        Place::Ssh(address) => Some(ssh_place(&address)),
    }
}

fn http_place(url: &Url) -> String {
    half(&digest(&[url.as_str()])).to_owned()
}

fn ssh_place(address: &Address) -> String {
    // The path that is sent says more than the URL does.
    half(&digest(&[address.url.as_str(), &address.path])).to_owned()
}

/// The name of the mirror of a place for those who have this access. Its second half tells nobody that
/// two places are asked with the same credentials.
fn mirror_id(place: &str, access: &str) -> String {
    format!("{place}{}", half(&digest(&[place, access])))
}

/// So much of a digest that nobody finds another text with the same: 128 bits.
fn half(digest: &str) -> &str {
    &digest[..ID_LENGTH / 2]
}

/// Without slashes at its end, which say nothing.
fn trim(url: &mut Url) {
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
}

/// A digest of texts that tells apart where one ends and the next begins, in hexadecimal digits.
fn digest(parts: &[&str]) -> String {
    let mut hasher = plumb_core::Hasher::new();
    for part in parts {
        hasher.part(part.as_bytes());
    }
    hasher.finish().to_string().trim_start_matches("sha256:").to_owned()
}

/// Why one that is spoken to over TLS will not do: the client that we use would show it the certificate
/// that is for the server.
pub(crate) const CERTIFICATE_SHOWN: &str =
    "a client certificate cannot be used through an https proxy; use an http or socks5 one";

impl Proxy {
    /// The address as it may be told. It comes from a Secret, and who writes a password into it need not
    /// know which signs end one: unless it is a host and a port beside them, nothing of it is shown.
    fn shown(&self) -> String {
        let hidden = "(hidden)".to_owned();
        let Ok(mut url) = Url::parse(&self.address) else { return hidden };
        let bare =
            matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if !bare || !url.has_host() {
            return hidden;
        }
        let cleared = url.set_password(None).and_then(|()| url.set_username(""));
        cleared.map_or(hidden, |()| url.as_str().trim_end_matches('/').to_owned())
    }

    fn check(&self, remote: &Remote) -> Result<ureq::Proxy, SourceError> {
        let invalid =
            |why: &str| SourceError::InvalidProxy { address: self.shown(), why: why.into() };
        let url = Url::parse(&self.address)
            .map_err(|_| invalid("it is no URL; write http://host:port or socks5://host:port"))?;
        let protocol = match url.scheme() {
            "http" => ProxyProtocol::Http,
            "https" if remote.tls.client.is_some() => {
                return Err(invalid(CERTIFICATE_SHOWN));
            }
            "https" => ProxyProtocol::Https,
            // Whoever needs a proxy often cannot resolve the names of what is behind it.
            "socks5" | "socks5h" => ProxyProtocol::Socks5h,
            _ => return Err(invalid("its scheme is none of http, https and socks5")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("it carries credentials; give them as username and password"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it must be a host and a port, without a path"));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| invalid("it has no host"))?;
        let mut builder = ureq::Proxy::builder(protocol).host(host);
        if let Some(port) = url.port() {
            builder = builder.port(port);
        }
        if let Some(ProxyLogin { username, password }) = &self.login {
            if protocol == ProxyProtocol::Socks5h
                && [username, password].iter().any(|text| !(1..=255).contains(&text.len()))
            {
                return Err(invalid(
                    "socks5 takes a username and a password of 1 to 255 bytes each",
                ));
            }
            builder = builder.username(username).password(password);
        }
        builder.build().map_err(|_| invalid("its host is not usable"))
    }
}

/// Where a repository's server is, and what of it is one to ask. Both are names without credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Way {
    /// The server: host and port, and the proxy that leads to it.
    pub host: String,
    /// The repository, as it is seen with these credentials by who trusts these authorities.
    pub mirror: String,
    /// The repository, whoever sees it.
    pub place: String,
}

impl Way {
    /// Whether it is this host, with or without a port.
    pub(crate) fn leads_to(&self, host: &str) -> bool {
        let rest = self.host.strip_prefix(host);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ' ']))
    }
}

/// A URL without what stands before the last `@`, whether or not it parses: a password that was written
/// into it may hold what ends the part that is for it.
pub(crate) fn redacted(url: &str) -> String {
    match url.rfind('@') {
        Some(at) => {
            let start = url[..at].find("://").map_or(0, |colon| colon + 3);
            format!("{}{}", &url[..start], &url[at + 1..])
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str, credentials: Credentials) -> Remote {
        Remote {
            url: url.into(),
            credentials,
            tls: Tls::default(),
            proxy: None,
            timeout: Duration::from_secs(1),
            submodules: false,
        }
    }

    #[test]
    fn bad_urls_are_told_apart_and_show_no_password() {
        for (url, reason) in [
            ("", "URLInvalid"),
            ("github.com/a/b", "URLInvalid"),
            ("https://", "URLInvalid"),
            ("github.com:a/b", "URLInvalid"),
            ("git@github.com:-a", "URLInvalid"),
            ("ssh://git:hunter2@github.com/a/b", "CredentialsInURL"),
            ("ssh://git@github.com/a/b", "CredentialsInvalid"),
            ("git@github.com:a/b", "CredentialsInvalid"),
            ("file:///etc", "URLInvalid"),
            ("https://host/a?b=c", "URLInvalid"),
            ("https://me:hunter2@host/a", "CredentialsInURL"),
            ("https://me:hunter2@host:bad/a", "URLInvalid"),
            ("https://me:hun@ter2@host/a", "CredentialsInURL"),
            ("https://token@host/a", "CredentialsInURL"),
            ("https://me:hun/ter2@host/a", "URLInvalid"),
            ("https://me:hun?ter2@host/a", "URLInvalid"),
            ("https://me:hun#ter2@host/a", "URLInvalid"),
            ("https:///me:hunter2@host/a", "CredentialsInURL"),
            ("https:/me:hunter2@host/a", "CredentialsInURL"),
            ("me:hunter2@host:a", "URLInvalid"),
        ] {
            let remote = remote(url, Credentials::Anonymous);
            let error = remote.check().err().unwrap();
            assert_eq!(error.reason(), reason, "{url}: {error}");
            for text in [format!("{error} {error:?}"), format!("{remote:?}")] {
                assert!(!text.contains("hun") && !text.contains("ter2"), "{text}");
            }
        }
    }

    #[test]
    fn a_way_is_a_server_and_what_of_it_is_one_to_ask() {
        let plain = remote("https://host/a", Credentials::Anonymous);
        let way = |change: &dyn Fn(&mut Remote)| {
            let mut remote = plain.clone();
            change(&mut remote);
            remote.way().unwrap()
        };
        let basic = Credentials::Basic { username: "me".into(), password: "x".into() };
        let proxy = Proxy { address: "http://proxy:3128".into(), login: None };
        let here = plain.way().unwrap();
        for (host, leads) in
            [("host", true), ("host:443", true), ("hos", false), ("host:44", false), ("x", false)]
        {
            assert_eq!(here.leads_to(host), leads, "{host}");
        }
        for (what, change, host, same) in [
            ("itself", (&|_: &mut Remote| ()) as &dyn Fn(&mut Remote), "host:443", true),
            ("patience", &|r| r.timeout = Duration::from_secs(9), "host:443", true),
            ("another repository", &|r| r.url = "https://host/b".into(), "host:443", false),
            ("credentials", &|r| r.credentials = basic.clone(), "host:443", false),
            ("authorities", &|r| r.tls.ca = Some("x".into()), "host:443", false),
            ("a port", &|r| r.url = "https://host:8443/a".into(), "host:8443", false),
            ("a proxy", &|r| r.proxy = Some(proxy.clone()), "host:443 by proxy:3128", false),
        ] {
            let way = way(change);
            assert_eq!((way.host.as_str(), way.mirror == here.mirror), (host, same), "{what}");
        }
    }

    #[test]
    fn equal_repositories_share_a_mirror_and_credentials_part_them() {
        let basic = |password: &str| Credentials::Basic {
            username: "me".into(),
            password: password.into(),
        };
        let id = |url: &str, c: Credentials| remote(url, c).check().unwrap().id;
        let anonymous = id("https://host/a/b", Credentials::Anonymous);
        assert_eq!(id("https://HOST:443/a/b/", Credentials::Anonymous), anonymous);
        assert_ne!(id("https://host/a/c", Credentials::Anonymous), anonymous);
        assert_ne!(id("https://host/a/b", basic("x")), anonymous);
        assert_ne!(id("https://host/a/b", basic("x")), id("https://host/a/b", basic("y")));
        assert!(!format!("{:?}", basic("hunter2")).contains("hunter2"));

        let one = remote("https://host/a/b", basic("x"));
        let patient = Remote { timeout: Duration::from_mins(2), submodules: true, ..one.clone() };
        let tls = Tls { ca: Some("another".into()), client: None };
        let trusting = Remote { tls, url: "https://HOST:443/a/b/".into(), ..one.clone() };
        assert!(same_mirror(&one, &patient) && same_mirror(&one, &trusting));
        assert!(!same_mirror(&one, &remote("https://host/a/b", basic("y"))));
        assert!(!same_mirror(&one, &remote("https://host/a/c", basic("x"))));
        let broken = |url: &str| remote(url, Credentials::Anonymous);
        assert!(!same_mirror(&broken("a"), &broken("b")), "neither has one");

        let ssh = |identity: &str, passphrase: Option<&str>, known_hosts: &str| Credentials::Ssh {
            identity: identity.into(),
            passphrase: passphrase.map(String::from),
            known_hosts: known_hosts.into(),
        };
        let plain = id("ssh://git@host/a/b", ssh("key", None, "known"));
        assert_eq!(id("ssh://HOST:22/a/b/", ssh("key", None, "others")), plain);
        // This one may be below the user's home.
        assert_ne!(id("git@host:a/b", ssh("key", None, "known")), plain);
        assert_eq!(id("git@host:/a/b", ssh("key", None, "known")), plain);
        for (url, credentials) in [
            ("ssh://me@host/a/b", ssh("key", None, "known")),
            ("ssh://git@host:2222/a/b", ssh("key", None, "known")),
            ("ssh://git@host/a/b", ssh("other", None, "known")),
            ("ssh://git@host/a/b", ssh("key", Some("x"), "known")),
        ] {
            assert_ne!(id(url, credentials), plain, "{url}");
        }
        // Whoever asks, the place is one.
        for (url, id) in [
            ("https://HOST:443/a/b/", &anonymous),
            ("https://host/a/b", &id("https://host/a/b", basic("x"))),
            ("ssh://HOST/a/b", &plain),
            ("git@host:/a/b", &plain),
            ("git@host:a/b", &id("git@host:a/b", ssh("other", None, "known"))),
        ] {
            let place = place(url).unwrap();
            assert!(id.starts_with(&place) && id.len() == 2 * place.len(), "{url}");
            assert_eq!(id.len(), ID_LENGTH);
        }
        assert_ne!(place("https://host/a/b"), place("https://host/a/c"));
        assert_ne!(place("git@host:a/b"), place("git@host:/a/b"));
        assert_eq!([place("file:///a"), place("a"), place("git@host:-a")], [None, None, None]);

        let shown = format!("{:?}", ssh("hunter2", Some("hunter2"), "hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
        let key = remote("https://host/a/b", ssh("key", None, "known")).check();
        assert_eq!(key.err().unwrap().reason(), "CredentialsInvalid");
    }
}
