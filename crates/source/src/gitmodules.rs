//! What `.gitmodules` says: which repository stands at which path, in the syntax of Git's own
//! configuration. It comes from whoever can push, and is data: nothing is included, looked up or run.

use std::collections::BTreeMap;

use plumb_core::RelPath;

/// The file's name, at the root of a commit.
pub(crate) const FILE: &str = ".gitmodules";

/// Bytes of the file. A submodule takes about a hundred.
pub(crate) const MAX_BYTES: u64 = 256 << 10;

/// Bytes of a URL, as of that of a GitRepository.
const MAX_URL: usize = 2048;

/// One submodule by name; the last word about each of its fields counts, as in Git.
#[derive(Default)]
struct Section {
    path: Option<String>,
    url: Option<String>,
}

/// Reads the file: paths, and the URLs as they are written. What has no path or no URL is left out,
/// and so is a path that no entry of a tree can have, such as one with `..`. An error is the number of the line
/// that is not Git's syntax.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<RelPath, String>, usize> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut reader = Reader::new(text);
    let mut name: Option<String> = None;
    loop {
        reader.skip(|c| c.is_ascii_whitespace());
        match reader.peek() {
            None => break,
            Some('#' | ';') => reader.skip(|c| c != '\n'),
            Some('[') => name = reader.header()?,
            Some(c) if c.is_ascii_alphabetic() => {
                let (key, value) = reader.entry()?;
                let (Some(name), Some(value)) = (&name, value) else { continue };
                let section = sections.entry(name.clone()).or_default();
                match key.as_str() {
                    "path" => section.path = Some(value),
                    "url" => section.url = Some(value),
                    _ => {}
                }
            }
            Some(_) => return Err(reader.line),
        }
    }
    let usable = |section: Section| {
        let (path, url) = (section.path?, section.url?);
        let parsed = RelPath::parse(&path).ok()?;
        let exact = parsed.as_str() == path && !path.is_empty() && !path.contains(char::is_control);
        exact.then_some((parsed, url))
    };
    Ok(sections.into_values().filter_map(usable).collect())
}

/// Reads Git's configuration, character by character, as Git does.
struct Reader<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    line: usize,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { rest: text.chars().peekable(), line: 1 }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    /// The next character; line ends of Windows are line ends.
    fn next(&mut self) -> Option<char> {
        let mut c = self.rest.next()?;
        if c == '\r' && self.peek() == Some('\n') {
            c = self.rest.next()?;
        }
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn skip(&mut self, of: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&of) {
            self.next();
        }
    }

    fn take(&mut self, of: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.peek().filter(|c| of(*c)) {
            taken.push(c);
            self.next();
        }
        taken
    }

    /// `[section]`, `[section "name"]` or the older `[section.name]`: the name of a submodule, if it
    /// is one.
    fn header(&mut self) -> Result<Option<String>, usize> {
        let line = self.line;
        self.next();
        let section = self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
        let section = section.to_ascii_lowercase();
        self.skip(|c| matches!(c, ' ' | '\t'));
        let mut name = None;
        if self.peek() == Some('"') {
            self.next();
            let mut text = String::new();
            loop {
                match self.next() {
                    Some('"') => break,
                    Some('\\') => match self.next() {
                        Some(c) if c != '\n' => text.push(c),
                        _ => return Err(line),
                    },
                    Some(c) if c != '\n' => text.push(c),
                    _ => return Err(line),
                }
            }
            name = Some(text);
        }
        if self.next() != Some(']') {
            return Err(line);
        }
        Ok(match (section.as_str(), name) {
            ("submodule", name) => name,
            (section, None) => section.strip_prefix("submodule.").map(String::from),
            _ => None,
        })
    }

    /// `key = value`, or a key alone, which says yes.
    fn entry(&mut self) -> Result<(String, Option<String>), usize> {
        let line = self.line;
        let key = self.take(|c| c.is_ascii_alphanumeric() || c == '-').to_ascii_lowercase();
        self.skip(|c| matches!(c, ' ' | '\t'));
        match self.next() {
            None | Some('\n') => Ok((key, None)),
            Some('=') => Ok((key, Some(self.value().ok_or(line)?))),
            Some(_) => Err(line),
        }
    }

    /// The rest of a line, and of those that it goes on in.
    fn value(&mut self) -> Option<String> {
        let mut value = String::new();
        // How much of it stays when only blanks follow.
        let mut kept = 0;
        let mut quoted = false;
        loop {
            match self.next() {
                None | Some('\n') => {
                    value.truncate(kept);
                    return (!quoted).then_some(value);
                }
                Some('#' | ';') if !quoted => {
                    self.skip(|c| c != '\n');
                    continue;
                }
                Some(c) if c.is_ascii_whitespace() && !quoted => {
                    if !value.is_empty() {
                        value.push(c);
                    }
                    continue;
                }
                Some('"') => quoted = !quoted,
                Some('\\') => match self.next()? {
                    '\n' => continue,
                    't' => value.push('\t'),
                    'b' => value.push('\u{8}'),
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    _ => return None,
                },
                Some(c) => value.push(c),
            }
            kept = value.len();
        }
    }
}

/// The URL of a submodule whose URL is written so in the repository at `parent`: what begins with
/// `./` or `../` is relative to that, as in Git, but for leaving the server, which Git allows. An
/// error says what is wrong in words that follow "it".
pub(crate) fn resolve(parent: &str, url: &str) -> Result<String, &'static str> {
    if url.len() > MAX_URL {
        return Err("it is too long");
    }
    if url.contains(char::is_control) {
        return Err("it has control characters");
    }
    if url.starts_with('-') {
        return Err("it begins like an option of a command");
    }
    let mut base = Base::of(parent.trim_end_matches('/'));
    let mut rest = url;
    loop {
        if let Some(below) = rest.strip_prefix("../") {
            base.climb()?;
            rest = below;
        } else if let Some(below) = rest.strip_prefix("./") {
            rest = below;
        } else {
            break;
        }
    }
    if rest.split('/').any(|segment| segment == "..") {
        return Err("it has .. in the middle of its path");
    }
    if rest.len() == url.len() {
        return Ok(url.to_owned());
    }
    let url = format!("{}{}{}{rest}", base.server, base.separator, base.path);
    Ok(url.trim_end_matches('/').to_owned())
}

/// The URL of a repository, in parts.
struct Base<'u> {
    /// `https://host`, or `user@host`.
    server: &'u str,
    /// `/`, or `:` of the shorter form for SSH.
    separator: &'static str,
    /// What comes then, with a slash after each part; nothing at the server's root.
    path: String,
}

impl<'u> Base<'u> {
    fn of(url: &'u str) -> Self {
        let (at, separator) = match url.find("://") {
            Some(scheme) => {
                let host = scheme + 3;
                (url[host..].find('/').map_or(url.len(), |at| host + at), "/")
            }
            // An IPv6 address has colons of its own.
            None => (url.find("]:").map(|at| at + 1).or(url.find(':')).unwrap_or(url.len()), ":"),
        };
        let (server, path) = url.split_at(at);
        let path = path.get(1..).unwrap_or_default();
        let path = if path.is_empty() { String::new() } else { format!("{path}/") };
        Self { server, separator, path }
    }

    /// Goes one part up.
    fn climb(&mut self) -> Result<(), &'static str> {
        let whole = self.path.strip_suffix('/').ok_or("it leads above the root of the server")?;
        // Of `user@host:/path` the first slash is a part of the path.
        let left = whole.rfind('/').map_or(0, |at| at + 1);
        self.path.truncate(left);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let found = parse(text).unwrap_or_else(|line| panic!("line {line} of {text:?}"));
        found.into_iter().map(|(path, url)| (path.to_string(), url)).collect()
    }

    fn one(path: &str, url: &str) -> Vec<(String, String)> {
        vec![(path.to_owned(), url.to_owned())]
    }

    #[test]
    fn the_syntax_is_that_of_git() {
        for text in [
            "[submodule \"a\"]\n\tpath = libs/a\n\turl = https://h/a.git\n",
            "[submodule \"a\"]\r\n\tpath = libs/a\r\n\turl = https://h/a.git\r\n",
            "\u{feff}# c\n; d\n[SubModule\t\"a\"] PATH=libs/a\nURL=https://h/a.git",
            "[submodule.a]\npath=libs/a # c\nurl=https://h/a.git ; d\n",
            "[submodule \"a\"]\npath = \"libs/a\"\nurl = \"https://\"h/a.git\n",
            "[submodule \"a\"]\npath = li\\\nbs/a\nurl = https://h/\\\na.git\n",
            "[submodule \"a\"]\npath = b\nurl = https://h/b\npath = libs/a\nurl = https://h/a.git\n",
            "[submodule \"a\"]\npath = libs/a\n[core]\nurl = x\n[submodule \"a\"]\nurl = https://h/a.git\n",
            "[submodule \"a\"]\nshallow\nupdate = !touch x\nbranch = .\npath = libs/a\nurl = https://h/a.git\n",
            "[include]\npath = /etc/x\n[submodule \"a\"]\npath = libs/a\nurl = https://h/a.git\n",
            "path = x\n[submodule \"a\"]\npath = libs/a\nurl = https://h/a.git\n",
            "[submodule \"..\\\"/\\\\x\"]\npath = libs/a\nurl = https://h/a.git\n",
        ] {
            assert_eq!(read(text), one("libs/a", "https://h/a.git"), "{text:?}");
        }
        let blanks = "[submodule \"a\"]\npath = a  b \nurl = \"x \" y\\t\\\"\n";
        assert_eq!(read(blanks), one("a  b", "x  y\t\""));
        assert_eq!(read(""), []);
        let two = "[submodule \"b\"]\npath=b\nurl=y\n[submodule \"a\"]\npath=a\nurl=x\n";
        assert_eq!(read(two), [one("a", "x"), one("b", "y")].concat());
    }

    #[test]
    fn what_is_no_submodule_is_left_out() {
        for (path, url) in [
            ("/etc", "x"),
            ("../a", "x"),
            ("a/../b", "x"),
            ("./a", "x"),
            ("a/", "x"),
            ("a//b", "x"),
            (".", "x"),
            ("", "x"),
            ("a\\nb", "x"),
        ] {
            let text = format!("[submodule \"a\"]\npath = {path}\nurl = {url}\n");
            assert_eq!(read(&text), [], "{text:?}");
        }
        for text in [
            "[submodule \"a\"]\npath = a\n",
            "[submodule \"a\"]\nurl = a\n",
            "[submodule \"a\"]\npath\nurl = a\n",
            "[submodule]\npath = a\nurl = a\n",
            "[submodules \"a\"]\npath = a\nurl = a\n",
            "[core]\npath = a\nurl = a\n",
        ] {
            assert_eq!(read(text), [], "{text:?}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_told_by_its_line() {
        for (text, line) in [
            ("[submodule \"a\"]\npath = \"a\n", 2),
            ("[submodule \"a\"]\npath = a\\x\n", 2),
            ("[submodule \"a\"]\npath = a\\", 2),
            ("[submodule \"a\"]\n\npath a\n", 3),
            ("[submodule \"a\"]\npa_th = a\n", 2),
            ("[submodule \"a\n\"]\n", 1),
            ("[submodule \"a\"\n", 1),
            ("[submodule \"a", 1),
            ("[sub/module]\n", 1),
            ("\n\n= a\n", 3),
            ("\u{1}", 1),
            ("<!doctype html>", 1),
        ] {
            assert_eq!(parse(text), Err(line), "{text:?}");
        }
    }

    #[test]
    fn relative_urls_are_from_their_repository_as_in_git() {
        for (parent, url, want) in [
            ("https://h/a/b.git", "https://other/x.git", "https://other/x.git"),
            ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
            ("https://h/a/b.git/", "../c.git", "https://h/a/c.git"),
            ("https://h/a/b.git", "../../x/c.git/", "https://h/x/c.git"),
            ("https://h/a/b.git", "./c.git", "https://h/a/b.git/c.git"),
            ("https://h/a/b.git", ".././../c", "https://h/c"),
            ("https://h/a/b.git", "./", "https://h/a/b.git"),
            ("https://h:8443/b.git", "../c", "https://h:8443/c"),
            ("https://h/a/b", "..//evil/x", "https://h/a//evil/x"),
            ("https://h/b", "../@evil/x", "https://h/@evil/x"),
            ("ssh://git@h/a/b.git", "../c.git", "ssh://git@h/a/c.git"),
            ("git@h:a/b.git", "../c.git", "git@h:a/c.git"),
            ("git@h:a/b.git", "../../c.git", "git@h:c.git"),
            ("git@h:/a/b.git", "../c.git", "git@h:/a/c.git"),
            ("git@h:/b.git", "../c.git", "git@h:/c.git"),
            ("git@[::1]:a/b", "../c", "git@[::1]:a/c"),
            ("git@h:b.git", "../c.git", "git@h:c.git"),
            // These are not taken as they are, which whoever looks at the whole URL says.
            ("https://h/a", "file:///etc", "file:///etc"),
            ("https://h/a", "ext::sh -c id", "ext::sh -c id"),
            ("https://h/a", "/srv/git/x", "/srv/git/x"),
        ] {
            assert_eq!(resolve(parent, url).as_deref(), Ok(want), "{parent} {url}");
        }
        for (parent, url) in [
            ("https://h/a/b.git", "../../../c.git"),
            ("https://h/a", "../../evil/x"),
            ("https://h", "../evil"),
            ("git@h:a", "../../evil:x"),
            ("git@h:/a", "../../../x"),
            ("https://h/a", "-u./payload"),
            ("https://h/a", "--upload-pack=id"),
            ("https://h/a", "../x/../../y"),
            ("https://h/a", "https://h/x/../y"),
            ("https://h/a", "../a\nb"),
            ("https://h/a", &"x".repeat(2049)),
        ] {
            assert!(resolve(parent, url).is_err(), "{parent} {url}");
        }
    }
}
