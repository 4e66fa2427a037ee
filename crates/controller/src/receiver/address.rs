//! Where a repository is, however its URL is spelled.
//!
//! A service names a repository by several URLs, for browsers, for HTTP and for SSH, and a GitRepository
//! by one. Two of them mean the same repository when host, port and path are equal; by which protocol,
//! and as which user, does not matter.

use std::fmt;

use url::Url;

/// The longest URL that is looked at, as in the definition of a GitRepository.
const LONGEST: usize = 2048;

/// Host, port and path of a repository; displays as `host/path`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    /// Missing where it is the protocol's own.
    port: Option<u16>,
    path: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}/{}", self.host, self.path),
            None => write!(f, "{}/{}", self.host, self.path),
        }
    }
}

impl Address {
    /// Reads a URL, or what SSH takes: `user@host:path`. `None` when neither a host nor a path can be
    /// made out.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > LONGEST || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return None;
        }
        if text.contains("://") { Self::of_url(text) } else { Self::of_ssh(text) }
    }

    /// Whether the path is this one, or ends with it.
    pub fn ends_with(&self, path: &str) -> bool {
        let rest = self.path.strip_suffix(plain_path(path).as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    }

    fn of_url(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        // The parser knows the ports of HTTP and HTTPS.
        let usual = match url.scheme() {
            "ssh" | "git+ssh" | "ssh+git" => Some(22),
            "git" => Some(9418),
            _ => None,
        };
        let port = url.port().filter(|port| Some(*port) != usual);
        Self::new(url.host_str()?, port, url.path())
    }

    fn of_ssh(text: &str) -> Option<Self> {
        // As GitRepositories are read: of the signs `@` only one before the path ends a user's name.
        let text = match text.split_once('@') {
            Some((user, rest)) if !user.contains([':', '/']) => rest,
            _ => text,
        };
        // An IPv6 address has colons of its own.
        let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':')? };
        let (host, path) = (text.get(..end)?, text.get(end..)?.strip_prefix(':')?);
        if host.contains('/') {
            return None;
        }
        Self::new(host, None, path)
    }

    fn new(host: &str, port: Option<u16>, path: &str) -> Option<Self> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let path = plain_path(path);
        (!host.is_empty() && !path.is_empty()).then_some(Self { host, port, path })
    }
}

/// A path without what may be there or not. Services tell `Org/Repo` from `org/repo` seldom, and
/// people spell it either way; one look too many is cheap.
fn plain_path(path: &str) -> String {
    let path = path.trim_matches('/').to_ascii_lowercase();
    let path = path.strip_suffix(".git").unwrap_or(&path);
    // The one character of usual paths that some percent-encode, for a person's own repositories.
    path.trim_end_matches('/').replace("%7e", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repository_has_one_address_however_it_is_spelled() {
        for (want, spellings) in [
            (
                "github.com/octocat/hello-world",
                &[
                    "https://github.com/octocat/Hello-World",
                    "https://github.com/octocat/hello-world.git",
                    "http://github.com:80/octocat/hello-world/",
                    "HTTPS://GitHub.com:443//Octocat/hello-world.git/",
                    "https://somebody:secret@github.com/octocat/hello-world",
                    "https://github.com./octocat/hello-world?tab=readme#top",
                    "git@github.com:octocat/Hello-World.git",
                    "github.com:octocat/hello-world",
                    "github.com:/octocat/hello-world",
                    "org-1234@github.com:octocat/hello-world.git",
                    "ssh://git@github.com/octocat/hello-world.git",
                    "ssh://git@GITHUB.COM:22/octocat/hello-world",
                    "git+ssh://git@github.com/octocat/hello-world",
                    "git://github.com:9418/octocat/hello-world.git",
                    " https://github.com/octocat/hello-world\n",
                ][..],
            ),
            (
                "git.example:3000/org/repo",
                &["https://git.example:3000/org/repo", "ssh://git.example:3000/org/repo.git"],
            ),
            ("[::1]/r", &["http://[::1]/r", "git@[::1]:r.git", "ssh://[::1]/r"]),
            ("h/~me/r", &["ssh://h/~me/r.git", "https://h/%7Eme/r", "h:~me/r"]),
            ("h/.git", &["https://h/.git.git"]),
            (
                "h/team@work/r",
                &[
                    "git@h:team@work/r.git",
                    "h:team@work/r",
                    "ssh://git@h/team@work/r",
                    "https://h/team@work/r",
                ],
            ),
            ("[::1]/a@b", &["git@[::1]:a@b", "http://[::1]/a@b"]),
        ] {
            for spelling in spellings {
                let address = Address::parse(spelling).map(|address| address.to_string());
                assert_eq!(address.as_deref(), Some(want), "{spelling}");
            }
        }
    }

    #[test]
    fn other_repositories_have_other_addresses() {
        let all = [
            "https://git.example/org/repo",
            "https://git.example/org/repo2",
            "https://git.example/org",
            "https://git.example/other/repo",
            "https://git.example:8443/org/repo",
            "http://git.example:443/org/repo",
            "ssh://git.example:2222/org/repo",
            "https://git.example.com/org/repo",
            "https://git.example/org/repo.git/info",
        ];
        let addresses: std::collections::BTreeSet<_> =
            all.iter().map(|url| Address::parse(url).unwrap()).collect();
        assert_eq!(addresses.len(), all.len());
    }

    #[test]
    fn what_is_no_address_is_none() {
        let long = format!("https://h/{}", "a".repeat(2048));
        for text in [
            "",
            "/",
            "repo",
            "../repo",
            "/srv/git/repo",
            "file:///srv/git/repo",
            "https://",
            "https:///x",
            "https://host",
            "https://host/",
            "https://host/.git",
            ":x",
            "@:x",
            "host:",
            "a/b:c",
            "[::1",
            "[::1]",
            "[::1]x",
            "https://h/a b",
            "h:a\nb",
            "https://[x/y",
            "://h/x",
            &long,
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_path_ends_with_whole_names() {
        let address =
            Address::parse("https://bitbucket.example/scm/PROJECT_1/repository.git").unwrap();
        for (end, ends) in [
            ("PROJECT_1/repository", true),
            ("project_1/repository.git", true),
            ("scm/project_1/repository", true),
            ("1/repository", false),
            ("project_1/repo", false),
            ("other/repository", false),
        ] {
            assert_eq!(address.ends_with(end), ends, "{end}");
        }
        assert!(Address::parse("ssh://h/p/r").unwrap().ends_with("p/r"));
    }
}
