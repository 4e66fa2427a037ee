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

/// The version 2 capabilities that are asked for.
const USED: [&str; 3] = ["ls-refs", "fetch", "object-format"];

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
        } else if wanted(name) {
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
        if !wanted(&listed.name) {
            continue;
        }
        for word in words {
            if let Some(target) = word.strip_prefix("symref-target:") {
                listed.symref = Some(target.into());
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
                let shallow = capabilities
                    .value("fetch")
                    .is_some_and(|f| f.split(' ').any(|word| word == "shallow"));
                if shallow {
                    self.encode_depth(&mut body);
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
                words = format!("{words} agent={AGENT}");
                for want in &self.wants {
                    pkt::line(&mut body, format!("want {want} {words}").trim_end());
                    words.clear();
                }
                if capabilities.has("shallow") {
                    self.encode_depth(&mut body);
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
                Some((2, _)) => {}
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

fn is_v0_line(data: &[u8]) -> bool {
    ["NAK", "ACK ", "shallow ", "unshallow "].iter().any(|word| data.starts_with(word.as_bytes()))
}

/// A server's words on one line and of bounded length, fit for a status.
fn clean(message: &str) -> String {
    let message: String =
        message.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn frames(parts: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            match *part {
                "0000" | "0001" | "0002" => bytes.extend_from_slice(part.as_bytes()),
                data => {
                    bytes.extend_from_slice(format!("{:04x}{data}", data.len() + 4).as_bytes());
                }
            }
        }
        bytes
    }

    fn advertised(parts: &[&str]) -> Result<(Server, Vec<Listed>), WireError> {
        let bytes = frames(parts);
        read_advertisement(&mut PktReader::new(&bytes[..], 10_000), 3, |name| {
            name != "refs/heads/other"
        })
    }

    #[test]
    fn advertisements_of_both_versions() {
        let service = "# service=git-upload-pack\n";
        let v2 = ["version 2\n", "ls-refs=unborn\n", "fetch=shallow\n", "0000"];
        let (server, refs) = advertised(&v2).unwrap();
        assert!(matches!(server, Server::V2(_)) && refs.is_empty());
        let (with_service, _) = advertised(&[&[service, "0000"][..], &v2].concat()).unwrap();
        assert_eq!(with_service, server);

        let head = format!("{ONE} HEAD\0thin-pack symref=HEAD:refs/heads/main agent=x\n");
        let tag = format!("{ONE} refs/tags/v1\n");
        let peeled = format!("{TWO} refs/tags/v1^{{}}\n");
        let (server, refs) =
            advertised(&[service, "0000", "version 1\n", &head, &tag, &peeled, "0000"]).unwrap();
        assert!(matches!(server, Server::V0(c) if c.has("thin-pack")));
        assert_eq!(refs[0].symref.as_deref(), Some("refs/heads/main"));
        assert_eq!(refs[1].peeled, Some(Oid::from_str(TWO).unwrap()));

        let other = format!("{ONE} refs/heads/other\0x\n");
        assert!(advertised(&[&other, "0000"]).unwrap().1.is_empty());
        assert!(advertised(&[service, "0000", "0000"]).unwrap().1.is_empty());
    }

    #[test]
    fn of_what_a_server_offers_only_what_is_used_is_remembered() {
        let offered = ["version 2\n", "agent=x\n", "ls-refs=unborn\n", "fetch=shallow\n"];
        let more = format!("padding={}\n", "x".repeat(4000));
        let (server, _) = advertised(&[&offered[..], &[&more, "0000"]].concat()).unwrap();
        let words = ["ls-refs=unborn", "fetch=shallow"];
        assert_eq!(server, Server::V2(Capabilities::of(words.into_iter())));
        let more = format!("padding={}\n", "x".repeat(5000));
        let error = advertised(&[&offered[..], &[&more, "0000"]].concat());
        assert!(matches!(error, Err(WireError::Protocol(_))), "{error:?}");
    }

    #[test]
    fn bad_advertisements() {
        let long = format!("{} refs/heads/main\0object-format=sha1\n", "1".repeat(64));
        let format = format!("{ONE} HEAD\0object-format=sha256\n");
        let line = format!("{ONE} HEAD\0x\n");
        assert!(matches!(advertised(&[&long, "0000"]), Err(WireError::Sha256)));
        assert!(matches!(advertised(&[&format, "0000"]), Err(WireError::Sha256)));
        assert!(matches!(
            advertised(&["version 2\n", "ls-refs\n", "fetch\n", "object-format=sha256\n", "0000"]),
            Err(WireError::Sha256)
        ));
        assert!(matches!(
            advertised(&[&line, &line, &line, &line, "0000"]),
            Err(WireError::Protocol(_) | WireError::TooManyRefs)
        ));
        assert!(matches!(
            advertised(&["ERR access\x1b denied\n"]),
            Err(WireError::Server(message)) if message == "access  denied"
        ));
        assert!(matches!(advertised(&["version 2\n", "0000"]), Err(WireError::Protocol(_))));
        assert!(matches!(advertised(&["hello\n"]), Err(WireError::Protocol(_))));
        let html =
            read_advertisement(&mut PktReader::new(&b"<!DOCTYPE html>"[..], 100), 3, |_| true);
        assert!(matches!(html, Err(WireError::NotGit(why)) if why.contains("<!DO")));
    }

    #[test]
    fn references_with_attributes() {
        let read = |parts: &[&str]| {
            let bytes = frames(parts);
            read_refs(&mut PktReader::new(&bytes[..], 10_000), 2, |_| true)
        };
        let head = format!("{ONE} HEAD symref-target:refs/heads/main\n");
        let tag = format!("{ONE} refs/tags/v1 peeled:{TWO}\n");
        let refs = read(&[&head, &tag, "0000"]).unwrap();
        assert_eq!(refs[0].symref.as_deref(), Some("refs/heads/main"));
        assert_eq!(refs[1].peeled, Some(Oid::from_str(TWO).unwrap()));
        assert!(matches!(read(&[&head, &tag, &head]), Err(WireError::TooManyRefs)));
        for bad in ["zzzz refs/heads/main\n", "1111\n", "\n", &format!("{ONE}\n")] {
            assert!(matches!(read(&[bad, "0000"]), Err(WireError::Protocol(_))), "{bad}");
        }
    }

    #[test]
    fn packs_of_both_versions() {
        let v2 = Server::V2(Capabilities::default());
        let v0 = Server::V0(Capabilities::default());
        let read = |server: &Server, parts: &[&str]| {
            let bytes = frames(parts);
            let mut pack = Vec::new();
            read_pack(&mut PktReader::new(&bytes[..], 10_000), server, |piece| {
                pack.extend_from_slice(piece);
                Ok::<(), WireError>(())
            })?;
            Ok::<_, WireError>(pack)
        };
        let shallow = format!("shallow {ONE}");
        let parts = [
            "shallow-info\n",
            &shallow,
            "0001",
            "packfile\n",
            "\x01PA",
            "\x02hm",
            "\x01",
            "\x01CK",
            "0000",
        ];
        assert_eq!(read(&v2, &parts).unwrap(), b"PACK");
        let parts = [shallow.as_str(), "0000", "NAK\n", "\x01PA", "\x01CK", "0000"];
        assert_eq!(read(&v0, &parts).unwrap(), b"PACK");

        let error = |server, parts: &[&str]| read(server, parts).unwrap_err();
        assert!(matches!(error(&v2, &["ERR no\n"]), WireError::Server(_)));
        assert!(matches!(error(&v2, &["packfile\n", "\x03no\n"]), WireError::Server(_)));
        assert!(matches!(error(&v2, &["0000"]), WireError::Protocol(_)));
        assert!(matches!(error(&v2, &["surprise\n", "x"]), WireError::Protocol(_)));
        assert!(matches!(error(&v2, &["packfile\n", "\x01PA", "NAK\n"]), WireError::Protocol(_)));
        assert!(matches!(error(&v0, &["packfile\n", "x"]), WireError::Protocol(_)));
        assert!(matches!(
            error(&v2, &["packfile\n", "\x01PA"]),
            WireError::Pkt(PktError::Truncated)
        ));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let seed = 42;
        let mut state: u64 = seed;
        let mut next = || {
            // A linear congruential generator is random enough to hit odd bytes.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        let good = frames(&[
            &format!("{ONE} HEAD\0thin-pack symref=HEAD:refs/heads/main\n"),
            &format!("{ONE} refs/tags/v1\n"),
            "0000",
        ]);
        for round in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=next() % 4 {
                let at = next() % bytes.len();
                bytes[at] = next().to_le_bytes()[0];
            }
            bytes.truncate(next() % (good.len() + 1));
            let reader = || PktReader::new(&bytes[..], 10_000);
            let _ = read_advertisement(&mut reader(), 10, |_| true);
            let _ = read_refs(&mut reader(), 10, |_| true);
            for server in [Server::V2(Capabilities::default()), Server::V0(Capabilities::default())]
            {
                let _ = read_pack(&mut reader(), &server, |_| Ok::<(), WireError>(()));
            }
            assert!(round < 20_000, "seed {seed}");
        }
    }
}
