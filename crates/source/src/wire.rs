//! The fetch side of Git's wire protocol, versions 2 and 0, as text in and values out.
//!
//! Version 0 is for servers that do not answer with version 2. It is written here too, and not
//! left to libgit2's transport, because the messages are nearly the same, and libgit2 would need
//! a process-wide transport registered by `unsafe` code.

use std::collections::BTreeSet;
use std::io::Read;

use git2::Oid;

use crate::pkt::{self, Pkt, PktError, PktReader};

/// What we call ourselves.
pub(crate) const AGENT: &str = concat!("plumb/", env!("CARGO_PKG_VERSION"));

/// How many haves are sent at most; servers only need one that is close.
const MAX_HAVES: usize = 256;

/// How many capabilities a version 2 server may have, and how long each may be. Git has ten, of
/// some dozens of bytes.
const MAX_CAPABILITIES: usize = 1000;
const MAX_CAPABILITY: usize = 4096;

/// Bytes of a reference's name. Git keeps references as files, and no file has a longer name.
const MAX_NAME: usize = 255;

/// The version 2 capabilities that are asked for.
const USED: [&str; 3] = ["ls-refs", "fetch", "object-format"];

/// What a partial clone asks for that wants commits alone.
const NO_TREES: &str = "filter tree:0";

/// The depth that Git takes for "everything".
pub(crate) const FULL_DEPTH: u32 = 0x7fff_ffff;

/// Why an answer was not understood.
#[derive(Debug)]
pub(crate) enum WireError {
    Pkt(PktError),
    /// The server's own error text.
    Server(String),
    /// It is no Git protocol at all.
    NotGit(String),
    Protocol(String),
    Sha256,
    /// The server's own repository is a partial clone.
    Partial,
    TooManyRefs,
}

impl From<PktError> for WireError {
    fn from(error: PktError) -> Self {
        Self::Pkt(error)
    }
}

fn protocol<T>(why: impl Into<String>) -> Result<T, WireError> {
    Err(WireError::Protocol(why.into()))
}

/// Words that a server announced, such as `thin-pack` or `fetch=shallow`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(BTreeSet<String>);

impl Capabilities {
    fn of<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        Self(words.map(String::from).collect())
    }

    fn has(&self, word: &str) -> bool {
        self.0.contains(word)
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Whether a commit can be wanted that no reference points to.
    pub(crate) fn gives_any_commit(&self) -> bool {
        self.has("allow-reachable-sha1-in-want")
    }

    fn check_format(&self) -> Result<(), WireError> {
        match self.value("object-format") {
            None | Some("sha1") => Ok(()),
            Some("sha256") => Err(WireError::Sha256),
            Some(other) => protocol(format!("unknown object format {other:?}")),
        }
    }
}

/// What the server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    V2(Capabilities),
    V0(Capabilities),
}

/// A reference as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) id: Oid,
    /// What an annotated tag points to in the end.
    pub(crate) peeled: Option<Oid>,
    /// The full name that a symbolic reference stands for.
    pub(crate) symref: Option<String>,
}

/// The server's answer to "what do you have": its abilities, and with version 0 all references
/// that `wanted` says yes to.
pub(crate) fn read_advertisement<R: Read>(
    reader: &mut PktReader<R>,
    max_refs: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<(Server, Vec<Listed>), WireError> {
    let mut first = match reader.next() {
        Ok(Pkt::Data(data)) => data.to_vec(),
        Ok(_) => return protocol("the advertisement starts with no line"),
        Err(PktError::Length(head)) => {
            let head = String::from_utf8_lossy(&head).into_owned();
            return Err(WireError::NotGit(format!("its answer starts with {head:?}")));
        }
        Err(error) => return Err(error.into()),
    };
    if first.starts_with(b"# service=") {
        if !matches!(reader.next()?, Pkt::Flush) {
            return protocol("no flush after the service line");
        }
        first = match reader.next()? {
            Pkt::Data(data) => data.to_vec(),
            // An empty repository may announce nothing at all.
            _ => return Ok((Server::V0(Capabilities::default()), Vec::new())),
        };
    }
    if first == b"version 1\n" {
        first = match reader.next()? {
            Pkt::Data(data) => data.to_vec(),
            _ => return Ok((Server::V0(Capabilities::default()), Vec::new())),
        };
    }
    if first.strip_suffix(b"\n").unwrap_or(&first) == b"version 2" {
        // They are remembered for as long as the repository is: only those that are asked for.
        let mut words = BTreeSet::new();
        let mut lines = 0;
        loop {
            match reader.next()? {
                Pkt::Data(data) if lines < MAX_CAPABILITIES && data.len() <= MAX_CAPABILITY => {
                    lines += 1;
                    let word = pkt::text(data);
                    if USED.contains(&word.split('=').next().unwrap_or_default()) {
                        words.insert(word);
                    }
                }
                Pkt::Data(_) => return protocol("too many capabilities"),
                Pkt::Flush => break,
                Pkt::Delim | Pkt::End => return protocol("a section inside the capabilities"),
            }
        }
        let capabilities = Capabilities(words);
        capabilities.check_format()?;
        if !["ls-refs", "fetch"]
            .iter()
            .all(|c| capabilities.has(c) || capabilities.value(c).is_some())
        {
            return protocol("version 2 without ls-refs and fetch");
        }
        return Ok((Server::V2(capabilities), Vec::new()));
    }
    read_v0(reader, &first, max_refs, wanted)
}

fn read_v0<R: Read>(
    reader: &mut PktReader<R>,
    first: &[u8],
    max_refs: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<(Server, Vec<Listed>), WireError> {
    let mut split = first.splitn(2, |byte| *byte == 0);
    let first = pkt::text(split.next().unwrap_or_default());
    let Some(words) = split.next() else {
        if let Some(message) = first.strip_prefix("ERR ") {
            return Err(WireError::Server(clean(message)));
        }
        return protocol("no capabilities in the first line");
    };
    let capabilities = Capabilities::of(pkt::text(words).split(' '));
    capabilities.check_format()?;
    let head =
        capabilities.0.iter().find_map(|word| word.strip_prefix("symref=HEAD:")).map(String::from);
    let head = head.filter(|target| is_name(target));
    let mut refs: Vec<Listed> = Vec::new();
    let mut count = 0;
    let mut line = first;
    loop {
        let (id, name) = id_and_rest(&line)?;
        count += 1;
        if count > max_refs {
            return Err(WireError::TooManyRefs);
        }
        if let Some(tag) = name.strip_suffix("^{}") {
            if let Some(last) = refs.last_mut().filter(|last| last.name == tag) {
                last.peeled = Some(id);
            }
        } else if wanted(name) && is_name(name) {
            refs.push(Listed {
                name: name.into(),
                id,
                peeled: None,
                symref: head.clone().filter(|_| name == "HEAD"),
            });
        }
        line = match reader.next()? {
            Pkt::Data(data) => pkt::text(data),
            Pkt::Flush => break,
            Pkt::Delim | Pkt::End => return protocol("a section inside the references"),
        };
        if line.starts_with("shallow ") {
            // The server's own repository is shallow; its last lines say where.
            while matches!(reader.next()?, Pkt::Data(_)) {}
            break;
        }
    }
    Ok((Server::V0(capabilities), refs))
}

/// Whether Git could have such a reference. What it could not have may hold anything, and names go
/// into statuses.
fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME && git2::Reference::is_valid_name(name)
}

fn id_and_rest(line: &str) -> Result<(Oid, &str), WireError> {
    let Some((id, rest)) = line.split_once(' ') else {
        return protocol("a reference without a name");
    };
    if id.len() == 64 {
        return Err(WireError::Sha256);
    }
    if id.len() != 40 {
        return protocol("a reference without an object id");
    }
    match Oid::from_str(id) {
        Ok(id) => Ok((id, rest)),
        Err(_) => protocol("a reference without an object id"),
    }
}

/// The version 2 request for the references that start with one of the prefixes.
pub(crate) fn ls_refs_request(prefixes: &[String]) -> Vec<u8> {
    let mut body = Vec::new();
    pkt::line(&mut body, "command=ls-refs");
    pkt::line(&mut body, &format!("agent={AGENT}"));
    pkt::delim(&mut body);
    pkt::line(&mut body, "peel");
    pkt::line(&mut body, "symrefs");
    for prefix in prefixes {
        pkt::line(&mut body, &format!("ref-prefix {prefix}"));
    }
    pkt::flush(&mut body);
    body
}

/// The answer to [`ls_refs_request`]: what `wanted` says yes to.
pub(crate) fn read_refs<R: Read>(
    reader: &mut PktReader<R>,
    max_refs: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Listed>, WireError> {
    let mut refs = Vec::new();
    let mut count = 0;
    loop {
        let line = match reader.next()? {
            Pkt::Data(data) => pkt::text(data),
            Pkt::Flush => return Ok(refs),
            Pkt::Delim | Pkt::End => return protocol("a section inside the references"),
        };
        if let Some(message) = line.strip_prefix("ERR ") {
            return Err(WireError::Server(clean(message)));
        }
        count += 1;
        if count > max_refs {
            return Err(WireError::TooManyRefs);
        }
        let (id, rest) = id_and_rest(&line)?;
        let mut words = rest.split(' ');
        let mut listed = Listed {
            name: words.next().unwrap_or_default().into(),
            id,
            peeled: None,
            symref: None,
        };
        if !wanted(&listed.name) || !is_name(&listed.name) {
            continue;
        }
        for word in words {
            if let Some(target) = word.strip_prefix("symref-target:") {
                listed.symref = Some(target.into()).filter(|target: &String| is_name(target));
            } else if let Some(id) = word.strip_prefix("peeled:") {
                listed.peeled = Some(id_and_rest(&format!("{id} "))?.0);
            }
        }
        refs.push(listed);
    }
}

/// What to fetch, and what is here already.
#[derive(Debug)]
pub(crate) struct FetchRequest {
    pub(crate) wants: Vec<Oid>,
    pub(crate) haves: Vec<Oid>,
    /// Commits that are here without their parents.
    pub(crate) shallow: Vec<Oid>,
    pub(crate) depth: u32,
    /// Leaves out trees and files, where the server can.
    pub(crate) commits_only: bool,
}

impl FetchRequest {
    /// The bytes to send. One round: what the server has in common with us is known beforehand.
    pub(crate) fn encode(&self, server: &Server) -> Result<Vec<u8>, WireError> {
        let mut body = Vec::new();
        match server {
            Server::V2(capabilities) => {
                pkt::line(&mut body, "command=fetch");
                pkt::line(&mut body, &format!("agent={AGENT}"));
                if capabilities.value("object-format").is_some() {
                    pkt::line(&mut body, "object-format=sha1");
                }
                pkt::delim(&mut body);
                for word in ["thin-pack", "ofs-delta", "no-progress"] {
                    pkt::line(&mut body, word);
                }
                for want in &self.wants {
                    pkt::line(&mut body, &format!("want {want}"));
                }
                let can = |ability| {
                    let abilities = capabilities.value("fetch").unwrap_or_default();
                    abilities.split(' ').any(|word| word == ability)
                };
                if can("shallow") {
                    self.encode_depth(&mut body);
                }
                if self.commits_only && can("filter") {
                    pkt::line(&mut body, NO_TREES);
                }
            }
            Server::V0(capabilities) => {
                let band =
                    ["side-band-64k", "side-band"].into_iter().find(|word| capabilities.has(word));
                let Some(band) = band else {
                    return protocol("the server offers no side band");
                };
                let mut words = band.to_owned();
                for word in ["thin-pack", "ofs-delta", "no-progress"] {
                    if capabilities.has(word) {
                        words = format!("{words} {word}");
                    }
                }
                let filters = self.commits_only && capabilities.has("filter");
                if filters {
                    words.push_str(" filter");
                }
                words = format!("{words} agent={AGENT}");
                for want in &self.wants {
                    pkt::line(&mut body, format!("want {want} {words}").trim_end());
                    words.clear();
                }
                if capabilities.has("shallow") {
                    self.encode_depth(&mut body);
                }
                if filters {
                    pkt::line(&mut body, NO_TREES);
                }
                pkt::flush(&mut body);
            }
        }
        for have in self.haves.iter().take(MAX_HAVES) {
            pkt::line(&mut body, &format!("have {have}"));
        }
        pkt::line(&mut body, "done");
        if matches!(server, Server::V2(_)) {
            pkt::flush(&mut body);
        }
        Ok(body)
    }

    fn encode_depth(&self, body: &mut Vec<u8>) {
        for id in &self.shallow {
            pkt::line(body, &format!("shallow {id}"));
        }
        pkt::line(body, &format!("deepen {}", self.depth));
    }
}

/// Reads a fetch's answer and hands the pack's bytes to `pack`.
pub(crate) fn read_pack<R: Read, E: From<WireError>>(
    reader: &mut PktReader<R>,
    server: &Server,
    mut pack: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut in_pack = false;
    let mut partial = false;
    // Version 2 has named sections; version 0 starts with the lines of our own requests.
    let mut section = match server {
        Server::V2(_) => String::new(),
        Server::V0(_) => "packfile".to_owned(),
    };
    loop {
        let data = match reader.next().map_err(WireError::from)? {
            Pkt::Data(data) => data,
            Pkt::Delim => {
                section.clear();
                continue;
            }
            Pkt::Flush | Pkt::End if in_pack => return Ok(()),
            // Version 0 ends its list of shallow commits with one.
            Pkt::Flush if matches!(server, Server::V0(_)) => continue,
            Pkt::Flush | Pkt::End => {
                return Err(WireError::Protocol("the answer has no pack".into()).into());
            }
        };
        if let Some(message) = data.strip_prefix(b"ERR ") {
            return Err(WireError::Server(clean(&pkt::text(message))).into());
        }
        match section.as_str() {
            "" => section = pkt::text(data),
            "packfile" => match data.split_first() {
                Some((1, bytes)) => {
                    in_pack = true;
                    // Servers send empty pieces to keep the connection alive.
                    if !bytes.is_empty() {
                        pack(bytes)?;
                    }
                }
                // What a server that fails says of the cause.
                Some((2, said)) => partial |= says_partial(said),
                Some((3, _)) if partial => return Err(WireError::Partial.into()),
                Some((3, message)) => {
                    return Err(WireError::Server(clean(&pkt::text(message))).into());
                }
                _ if !in_pack && is_v0_line(data) => {}
                _ => return Err(WireError::Protocol("an unknown side band".into()).into()),
            },
            // What a section before the pack says is also seen from the pack itself.
            "acknowledgments" | "shallow-info" | "wanted-refs" => {}
            other => {
                let why = format!("an unknown section {:?}", clean(other));
                return Err(WireError::Protocol(why).into());
            }
        }
    }
}

/// Whether Git's own words are that it lacks what a partial clone leaves out.
fn says_partial(said: &[u8]) -> bool {
    let words = b"from promisor remote";
    said.windows(words.len()).any(|window| window == words)
}

fn is_v0_line(data: &[u8]) -> bool {
    ["NAK", "ACK ", "shallow ", "unshallow "].iter().any(|word| data.starts_with(word.as_bytes()))
}

/// A server's words on one line and of bounded length, fit for a status.
pub(crate) fn clean(message: &str) -> String {
    let message: String =
        message.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    message
}

#[cfg(test)]
mod tests;
