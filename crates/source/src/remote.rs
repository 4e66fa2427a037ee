//! Where a repository is and how to get in.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use url::Url;

use crate::SourceError;

/// A repository on a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// An `http://` or `https://` URL as `git clone` takes it, without credentials.
    pub url: String,
    /// How to get in.
    pub credentials: Credentials,
    /// Whom to trust.
    pub tls: Tls,
    /// The longest that one call may take, with all its requests and waiting.
    pub timeout: Duration,
}

impl fmt::Debug for Remote {
    /// Without any password, also when somebody put one into the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("url", &redacted(&self.url))
            .field("credentials", &self.credentials)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
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
}

impl fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => {
                f.debug_struct("Basic").field("username", username).finish_non_exhaustive()
            }
        }
    }
}

/// Whom to trust for `https`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// PEM certificates to trust in place of the system's.
    pub ca: Option<String>,
}

/// A [`Remote`] whose parts were checked.
pub(crate) struct CheckedRemote {
    pub(crate) url: Url,
    /// The value of the Authorization header.
    pub(crate) authorization: Option<String>,
    pub(crate) ca: Option<String>,
    pub(crate) timeout: Duration,
    /// Names the mirror: equal for equal URL and credentials. Content fetched with one credential
    /// is never served to another.
    pub(crate) id: String,
}

impl Remote {
    pub(crate) fn check(&self) -> Result<CheckedRemote, SourceError> {
        let invalid =
            |why: &str| SourceError::InvalidUrl { url: redacted(&self.url), why: why.into() };
        let mut url = match Url::parse(&self.url) {
            Ok(url) => url,
            Err(url::ParseError::RelativeUrlWithoutBase) => {
                return Err(invalid("it has no scheme; write https://host/path, not host:path"));
            }
            Err(error) => return Err(invalid(&error.to_string())),
        };
        if !matches!(url.scheme(), "http" | "https") {
            // `git@host:path` parses as a URL whose scheme is no scheme at all.
            return Err(SourceError::UnsupportedScheme { scheme: url.scheme().into() });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SourceError::CredentialsInUrl { url: redacted(&self.url) });
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it must not have a query or a fragment"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);

        let authorization = match &self.credentials {
            Credentials::Anonymous => None,
            Credentials::Basic { username, password } => {
                let pair = format!("{username}:{password}");
                let pair = base64::engine::general_purpose::STANDARD.encode(pair);
                Some(format!("Basic {pair}"))
            }
        };
        let mut hasher = plumb_core::Hasher::new();
        hasher.part(url.as_str().as_bytes());
        hasher.part(authorization.as_deref().unwrap_or_default().as_bytes());
        let digest = hasher.finish().to_string();
        let id = digest.trim_start_matches("sha256:")[..40].to_owned();
        Ok(CheckedRemote { url, authorization, ca: self.tls.ca.clone(), timeout: self.timeout, id })
    }
}

/// A URL without the part before `@` in its authority, whether or not it parses.
pub(crate) fn redacted(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    match url[start..end].rfind('@') {
        Some(at) => format!("{}{}", &url[..start], &url[start + at + 1..]),
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
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn bad_urls_are_told_apart_and_show_no_password() {
        for (url, reason) in [
            ("", "URLInvalid"),
            ("github.com/a/b", "URLInvalid"),
            ("https://", "URLInvalid"),
            ("ssh://git@github.com/a/b", "URLInvalid"),
            ("git@github.com:a/b", "URLInvalid"),
            ("file:///etc", "URLInvalid"),
            ("https://host/a?b=c", "URLInvalid"),
            ("https://me:hunter2@host/a", "CredentialsInURL"),
            ("https://me:hunter2@host:bad/a", "URLInvalid"),
            ("https://me:hun@ter2@host/a", "CredentialsInURL"),
            ("https://token@host/a", "CredentialsInURL"),
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
    }
}
