//! Where a repository is on an SSH server, in both ways that Git takes.
//!
//! `ssh://user@host:port/path` and the shorter `user@host:path` are one thing but for the path: the
//! latter's is sent as it stands, which on a plain account means from the user's home on. Without
//! `user@` only the former is taken, since `host:path` may as well be a URL with a forgotten scheme.
//! What is written as `ssh://host/~/path` is below the home, too, as in Git.

use plumb_ssh::Server;
use url::{Host, Url};

/// Who logs in where the URL does not say.
const USER: &str = "git";

/// The port of SSH.
pub(crate) const PORT: u16 = 22;

/// Whether a URL, in either form, is one for SSH, as far as can be told without looking at it closely.
pub fn is_ssh(url: &str) -> bool {
    url.starts_with("ssh://") || Address::short(url).is_some()
}

/// A repository on an SSH server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) server: Server,
    /// As the server's Git gets it.
    pub(crate) path: String,
    /// As everything shows it.
    pub(crate) url: Url,
}

impl Address {
    /// The shorter form; `None` when it is not that.
    pub(crate) fn short(text: &str) -> Option<Result<Self, &'static str>> {
        if text.contains("://") {
            return None;
        }
        let (user, rest) = text.split_once('@')?;
        if user.contains(['/', ':']) {
            return None;
        }
        let (host, path) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once("]:")?,
            None => rest.split_once(':')?,
        };
        if host.contains('/') {
            return None;
        }
        Some(Self::new(user, host, PORT, path))
    }

    /// The URL, whose scheme is ssh.
    pub(crate) fn long(url: &Url) -> Result<Self, &'static str> {
        let host = match url.host() {
            Some(Host::Domain(host)) => host.to_owned(),
            Some(Host::Ipv4(host)) => host.to_string(),
            Some(Host::Ipv6(host)) => host.to_string(),
            None => return Err("it has no host"),
        };
        let user =
            if url.username().is_empty() { USER.to_owned() } else { decoded(url.username())? };
        let path = decoded(url.path().trim_end_matches('/'))?;
        let path = if path.starts_with("/~") { &path[1..] } else { path.as_str() };
        Self::new(&user, &host, url.port().unwrap_or(PORT), path)
    }

    fn new(user: &str, host: &str, port: u16, path: &str) -> Result<Self, &'static str> {
        let name = |text: &str, more: &str| {
            let of_name = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            !text.is_empty() && !text.starts_with('-') && text.chars().all(of_name)
        };
        if !name(user, "._-+@~") {
            return Err("the user's name is not one that Plumb takes");
        }
        // An IPv6 address has colons, and may have a zone.
        if !name(host, "._-:%") {
            return Err("its host is not a name or an address");
        }
        if path.is_empty() || path == "/" {
            return Err("it has no path");
        }
        // Git, too, takes none that a command could take for an option.
        if path.starts_with('-') || path.contains(char::is_control) {
            return Err("its path is not usable");
        }
        let host = host.to_ascii_lowercase();
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let port_shown = if port == PORT { String::new() } else { format!(":{port}") };
        let mut url = Url::parse(&format!("ssh://{shown}{port_shown}/"))
            .map_err(|_| "its host is not a name or an address")?;
        url.set_username(user).map_err(|()| "the user's name is not one that Plumb takes")?;
        url.set_path(&format!("/{}", path.trim_start_matches('/')));
        let server = Server { host, port, user: user.to_owned() };
        Ok(Self { server, path: path.to_owned(), url })
    }

    /// What a shell on the server is told to run.
    pub(crate) fn command(&self) -> String {
        format!("git-upload-pack {}", quoted(&self.path))
    }
}

/// A part of a URL without its percent signs.
fn decoded(text: &str) -> Result<String, &'static str> {
    const BAD: &str = "a percent sign in it is not followed by two hexadecimal digits of UTF-8";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(BAD) };
        bytes.extend(u8::try_from(high * 16 + low));
    }
    String::from_utf8(bytes).map_err(|_| BAD)
}

/// A text as one word of a shell. Some shells of hosting services, like csh, give `!` a meaning also
/// between quotes; Git quotes in the same way.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("'");
    for c in text.chars() {
        match c {
            '\'' | '!' => {
                quoted.push_str("'\\");
                quoted.push(c);
                quoted.push('\'');
            }
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn parse(text: &str) -> Option<Result<Address, &'static str>> {
        match Address::short(text) {
            None => Url::parse(text)
                .ok()
                .filter(|url| url.scheme() == "ssh")
                .map(|url| Address::long(&url)),
            short => short,
        }
    }

    #[test]
    fn both_forms_are_read_as_git_reads_them() {
        for (text, user, host, port, path, url) in [
            ("ssh://h/a.git", "git", "h", 22, "/a.git", "ssh://git@h/a.git"),
            ("ssh://me@H:22/a/b/", "me", "h", 22, "/a/b", "ssh://me@h/a/b"),
            ("ssh://me@h:2222/a", "me", "h", 2222, "/a", "ssh://me@h:2222/a"),
            ("ssh://h/~/a", "git", "h", 22, "~/a", "ssh://git@h/~/a"),
            ("ssh://h/~me/a", "git", "h", 22, "~me/a", "ssh://git@h/~me/a"),
            ("ssh://h/a%20b%27", "git", "h", 22, "/a b'", "ssh://git@h/a%20b'"),
            ("ssh://[::1]:2222/a", "git", "::1", 2222, "/a", "ssh://git@[::1]:2222/a"),
            ("ssh://192.0.2.7/a", "git", "192.0.2.7", 22, "/a", "ssh://git@192.0.2.7/a"),
            ("git@h:a/b.git", "git", "h", 22, "a/b.git", "ssh://git@h/a/b.git"),
            ("me@H.example:/a", "me", "h.example", 22, "/a", "ssh://me@h.example/a"),
            ("me@h:2222/a", "me", "h", 22, "2222/a", "ssh://me@h/2222/a"),
            ("me@[::1]:a", "me", "::1", 22, "a", "ssh://me@[::1]/a"),
            ("git@h:v3/o/p/r", "git", "h", 22, "v3/o/p/r", "ssh://git@h/v3/o/p/r"),
        ] {
            let address = parse(text).unwrap().unwrap_or_else(|why| panic!("{text}: {why}"));
            let Address { server, path: sent, url: shown } = address;
            assert_eq!((server.user.as_str(), server.host.as_str()), (user, host), "{text}");
            assert_eq!((server.port, sent.as_str(), shown.as_str()), (port, path, url), "{text}");
        }
    }

    #[test]
    fn what_is_neither_form_is_left_or_refused() {
        for text in [
            "h:a",
            "/a@h:b",
            "https://h/a",
            "a@h",
            "a:b@h:c",
            "me@h/a:b",
            "me@[::1]/a",
            "file:///a",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in [
            "me@h:",
            "me@h:-oProxyCommand=x",
            "me@-h:a",
            "-me@h:a",
            "m e@h:a",
            "me@h h:a",
            "me@h:a\nb",
            "ssh://h",
            "ssh://h/",
            "ssh:///a",
            "ssh://h/a%0ab",
            "ssh://h/a%zz",
            "ssh://h/a%ff",
            "ssh://-h/a",
            "ssh://%2dme@h/a",
        ] {
            assert!(matches!(parse(text), Some(Err(_))), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn a_shell_takes_a_path_for_one_word() {
        for path in
            ["/a.git", "/it's", "/a b", "$(id)", "`id`", "\"", "a;b|c&d", "!!", "\\", "~/a", "*"]
        {
            let script = format!("printf %s {}", quoted(path));
            let said = Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
            assert_eq!(String::from_utf8(said).unwrap(), path);
        }
    }
}
