//! Tokens of GitHub Apps. An app signs with its private key that it is the app, is given a token for one
//! of its installations for that, and the token is shown to the Git server as a password. The rules are
//! those of docs.github.com: "Generating a JSON Web Token (JWT) for a GitHub App" and "Generating an
//! installation access token for a GitHub App".

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use url::Url;

use crate::SourceError;
use crate::cancel::lock;
use crate::http::Session;

/// The name beside which GitHub takes an installation token for a password.
pub(crate) const USERNAME: &str = "x-access-token";

/// Where the apps of github.com are asked for tokens.
const API: &str = "https://api.github.com";

/// The clocks of two machines differ by this much at most; a signature of the future is refused.
const SKEW: Duration = Duration::from_mins(1);

/// How long a signature counts. GitHub takes ten minutes from its own clock at most.
const SIGNED_FOR: Duration = Duration::from_mins(9);

/// A token is not used any more this long before it expires, so that it does not within a fetch.
const SPARE: Duration = Duration::from_mins(5);

/// No token counts longer, whatever its issuer's clock says. GitHub's are for an hour.
const LONGEST: Duration = Duration::from_hours(1);

/// An app that is registered with GitHub, and where it was installed.
#[derive(Clone, PartialEq, Eq)]
pub struct GitHubApp {
    /// The app's id, or its client id.
    pub id: String,
    /// Where it was installed.
    pub installation: Installation,
    /// Its private key: RSA, in PEM.
    pub key: String,
    /// Where to ask for tokens, without a final slash: `https://HOST/api/v3` of an Enterprise
    /// Server. Without it, github.com's.
    pub api: Option<String>,
}

/// One of an app's installations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installation {
    /// By its id.
    Id(String),
    /// That of an organization or user, by the name.
    Owner(String),
}

impl fmt::Debug for GitHubApp {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitHubApp")
            .field("id", &self.id)
            .field("installation", &self.installation)
            .field("api", &self.api.as_deref().map(crate::remote::redacted))
            .finish_non_exhaustive()
    }
}

/// A [`GitHubApp`] whose parts were checked.
#[derive(Clone)]
pub(crate) struct CheckedApp {
    id: String,
    installation: Installation,
    key: String,
    pub(crate) api: Url,
}

impl GitHubApp {
    /// For a repository on this host.
    pub(crate) fn check(&self, host: &str) -> Result<CheckedApp, SourceError> {
        let invalid = |why: &str| SourceError::InvalidCredentials { why: why.into() };
        let api = match &self.api {
            Some(api) => api.as_str(),
            // The token would go to a host that it was not given for.
            None if host != "github.com" => {
                return Err(invalid(
                    "a GitHub App of another host than github.com needs githubAppBaseURL, such as \
                     https://HOST/api/v3",
                ));
            }
            None => API,
        };
        let bad = || invalid("githubAppBaseURL is not an https:// URL of an API");
        let api = Url::parse(api).map_err(|_| bad())?;
        if !matches!(api.scheme(), "http" | "https")
            || !api.username().is_empty()
            || api.password().is_some()
            // What stands before may be half of a password with a slash in it.
            || api.path().contains('@')
            || api.query().is_some()
            || api.fragment().is_some()
        {
            return Err(bad());
        }
        let plain = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if !plain(&self.id) {
            return Err(invalid("githubAppID is not the id of an app"));
        }
        match &self.installation {
            Installation::Id(id) if !id.bytes().all(|b| b.is_ascii_digit()) || id.is_empty() => {
                return Err(invalid("githubAppInstallationID is not a number"));
            }
            Installation::Owner(owner) if !plain(owner) => {
                return Err(invalid(
                    "githubAppInstallationOwner is not the name of an organization or user",
                ));
            }
            _ => {}
        }
        let Self { id, installation, key, .. } = self.clone();
        Ok(CheckedApp { id, installation, key, api })
    }
}

/// An installation token.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) text: String,
    until: Instant,
}

/// The tokens that can still be used, by what they were given for.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<String, Token>>);

impl Tokens {
    pub(crate) fn get(&self, key: &str) -> Option<Token> {
        lock(&self.0).get(key).filter(|token| Instant::now() < token.until).cloned()
    }

    pub(crate) fn put(&self, key: &str, token: Token) {
        let mut tokens = lock(&self.0);
        let now = Instant::now();
        tokens.retain(|_, token| now < token.until);
        tokens.insert(key.to_owned(), token);
    }

    /// A token was refused before its time, unless there is another one by now.
    pub(crate) fn refuse(&self, key: &str, refused: &str) {
        let mut tokens = lock(&self.0);
        if tokens.get(key).is_some_and(|token| token.text == refused) {
            tokens.remove(key);
        }
    }
}

impl CheckedApp {
    /// Asks for a new token.
    pub(crate) fn token(&self, session: &Session<'_>) -> Result<Token, SourceError> {
        let signed = self.sign(SystemTime::now())?;
        let id = match &self.installation {
            Installation::Id(id) => id.clone(),
            Installation::Owner(owner) => self.find(session, &signed, owner)?,
        };
        let url = self.at(&["app", "installations", &id, "access_tokens"]);
        let (status, body) = session.ask_api(&url, true, &signed)?;
        if status != 201 {
            return Err(self.refused(status, Asked::Token));
        }
        let told = |key: &str| body[key].as_str();
        let expires = told("expires_at").and_then(|text| text.parse::<Timestamp>().ok());
        let (Some(text), Some(expires)) = (told("token"), expires) else {
            return Err(self.not_github("it gives no token"));
        };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.not_github("what it gives is no token"));
        }
        let left = Duration::try_from(expires.duration_since(Timestamp::now())).unwrap_or_default();
        let until = Instant::now() + left.min(LONGEST).saturating_sub(SPARE);
        Ok(Token { text: text.into(), until })
    }

    /// The id of an owner's installation.
    fn find(
        &self,
        session: &Session<'_>,
        signed: &str,
        owner: &str,
    ) -> Result<String, SourceError> {
        // Whether it is an organization or a user is not said.
        for kind in ["orgs", "users"] {
            let url = self.at(&[kind, owner, "installation"]);
            let (status, body) = session.ask_api(&url, false, signed)?;
            match status {
                200 => {
                    let id = body["id"].as_u64();
                    return id
                        .map(|id| id.to_string())
                        .ok_or_else(|| self.not_github("it names no installation"));
                }
                404 => {}
                status => return Err(self.refused(status, Asked::Owner)),
            }
        }
        Err(self.refused(404, Asked::Owner))
    }

    fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.api.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    fn refused(&self, status: u16, asked: Asked) -> SourceError {
        // What it says itself may quote what it was sent.
        let why = match (status, asked) {
            (401, _) => {
                "the app's signature was not accepted; check githubAppID, githubAppPrivateKey, and \
                 the clock of this machine"
            }
            (404, Asked::Token) => "there is no such installation; check githubAppInstallationID",
            (404, Asked::Owner) => {
                "the app is not installed there; check githubAppInstallationOwner"
            }
            (403, _) => "the app is suspended, or asks too often",
            (429, _) => "the app asks too often",
            (500.., _) => "the server failed",
            _ => "that is no answer of GitHub; check githubAppBaseURL",
        };
        let retry = status == 403 || status == 429 || status >= 500;
        let why = format!("it answered with HTTP status {status}: {why}");
        SourceError::NoAppToken { api: self.api.to_string(), why, retry }
    }

    fn not_github(&self, why: &str) -> SourceError {
        SourceError::NoAppToken { api: self.api.to_string(), why: why.into(), retry: false }
    }

    /// A JSON Web Token that says that this is the app.
    fn sign(&self, now: SystemTime) -> Result<String, SourceError> {
        let bad = |why: &str| SourceError::InvalidCredentials { why: why.into() };
        let der = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|_| bad("githubAppPrivateKey holds no private key in PEM"))?;
        let key = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
            _ => None,
        };
        let key = key.ok_or_else(|| {
            bad("githubAppPrivateKey is no RSA key of 2048 bits or more, as GitHub makes them")
        })?;
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(&json!({"alg": "RS256", "typ": "JWT"}));
        let claims = part(&json!({
            "iat": seconds(now - SKEW), "exp": seconds(now + SIGNED_FOR), "iss": self.id,
        }));
        let text = format!("{head}.{claims}");
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| bad("githubAppPrivateKey cannot sign"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// What was asked for.
#[derive(Clone, Copy)]
enum Asked {
    Token,
    Owner,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> GitHubApp {
        GitHubApp {
            id: "1234".into(),
            installation: Installation::Id("56".into()),
            key: "hunter2".into(),
            api: None,
        }
    }

    #[test]
    fn what_an_app_needs_is_told() {
        let owner = |name: &str| Installation::Owner(name.into());
        let api = |url: &str| GitHubApp { api: Some(url.into()), ..app() };
        app().check("github.com").unwrap();
        GitHubApp { installation: owner("some-org"), ..app() }.check("github.com").unwrap();
        assert_eq!(
            api("https://ghe.example/api/v3").check("ghe.example").unwrap().api.path(),
            "/api/v3"
        );
        for (app, host, words) in [
            (app(), "ghe.example", "githubAppBaseURL"),
            (api("ghe.example/api"), "ghe.example", "githubAppBaseURL"),
            (api("https://me:hunter2@ghe.example"), "ghe.example", "githubAppBaseURL"),
            (api("https://me:2/hunter2@ghe.example"), "ghe.example", "githubAppBaseURL"),
            (GitHubApp { id: String::new(), ..app() }, "github.com", "githubAppID"),
            (GitHubApp { id: "a b".into(), ..app() }, "github.com", "githubAppID"),
            (
                GitHubApp { installation: Installation::Id("5/6".into()), ..app() },
                "github.com",
                "githubAppInstallationID",
            ),
            (
                GitHubApp { installation: owner("a/b"), ..app() },
                "github.com",
                "githubAppInstallationOwner",
            ),
        ] {
            let error = app.check(host).err().unwrap();
            let text = format!("{error} {error:?} {app:?}");
            assert!(text.contains(words) && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn keys_that_cannot_sign_are_told_without_them() {
        let checked = app().check("github.com").unwrap();
        let error = checked.sign(UNIX_EPOCH + Duration::from_hours(1)).unwrap_err();
        assert_eq!(error.reason(), "CredentialsInvalid");
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn tokens_are_kept_until_they_are_refused_or_over() {
        let tokens = Tokens::default();
        let token = |text: &str, left: u64| Token {
            text: text.into(),
            until: Instant::now() + Duration::from_secs(left),
        };
        tokens.put("a", token("one", 60));
        tokens.put("b", token("two", 0));
        assert_eq!(tokens.get("a").unwrap().text, "one");
        assert!(tokens.get("b").is_none(), "its time is over");
        tokens.refuse("a", "an older one");
        assert!(tokens.get("a").is_some());
        tokens.refuse("a", "one");
        assert!(tokens.get("a").is_none());
    }
}
