//! Splits a signed commit or tag into what was signed and the signature.
//!
//! Git takes nearly anything for a commit. What is signed here has to be exactly as Git writes it, so
//! that nobody reads something else in it than who signed it: Git, libgit2 and this must agree on which
//! tree it names, and on where the signature ends.

use crate::verify::Refusal;

/// A commit or tag, in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// All but the signature.
    pub(super) payload: Vec<u8>,
    pub(super) signature: Armored,
    /// When the committer or tagger says it was made, in seconds since 1970.
    pub(super) time: i64,
}

/// A signature in the text form of its kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Armored {
    OpenPgp(String),
    Ssh(String),
}

/// A tag, in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignedTag {
    /// The id of the commit that it points to.
    pub(super) target: String,
    pub(super) name: String,
    /// Nothing when it is not signed.
    pub(super) signed: Option<Signed>,
}

const PGP: (&str, &str) = ("-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----");
const SSH: (&str, &str) = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----");

/// How signatures begin that Git would look for in a tag (gpg-interface.c of Git 2.47).
const BEGINNINGS: [&str; 4] =
    [PGP.0, SSH.0, "-----BEGIN PGP MESSAGE-----", "-----BEGIN SIGNED MESSAGE-----"];

fn malformed<T>(why: &'static str) -> Result<T, Refusal> {
    Err(Refusal::Malformed { why })
}

/// Splits the content of a commit object.
pub(super) fn commit(raw: &[u8]) -> Result<Signed, Refusal> {
    let mut payload = Vec::with_capacity(raw.len());
    let mut signature: Option<String> = None;
    let mut time = None;
    let mut at = At::Start;
    let mut in_signature = false;
    let mut rest = raw;
    loop {
        let Some((line, after)) = line(rest) else { return malformed("its header has no end") };
        if line.is_empty() {
            // The empty line and the message.
            payload.extend_from_slice(rest);
            break;
        }
        rest = after;
        if line.contains(&0) {
            return malformed("its header holds a zero byte");
        }
        if let Some(more) = line.strip_prefix(b" ") {
            if at != At::Others {
                return malformed("a line of its header goes on where none may");
            }
            match &mut signature {
                Some(signature) if in_signature => push_line(signature, more)?,
                _ => extend_line(&mut payload, line),
            }
            continue;
        }
        let (name, value) = header(line)?;
        if name.to_ascii_lowercase().starts_with(b"gpgsig") {
            if at < At::Committer {
                return malformed("a signature stands before its committer");
            }
            if name != b"gpgsig" {
                return malformed("it has a header that looks like a signature");
            }
            if signature.is_some() {
                return malformed("it has more than one signature");
            }
            push_line(signature.insert(String::new()), value)?;
            (in_signature, at) = (true, At::Others);
            continue;
        }
        in_signature = false;
        at = match (at, name) {
            (At::Start, b"tree") | (At::Tree, b"parent") if is_id(value) => At::Tree,
            (At::Tree, b"author") => At::Author,
            (At::Author, b"committer") => {
                time = time_of(value);
                At::Committer
            }
            (_, b"tree" | b"parent" | b"author" | b"committer") => {
                return malformed("tree, parents, author and committer are not in Git's order");
            }
            (At::Committer | At::Others, _) => At::Others,
            _ => return malformed("it has an unknown header before its committer"),
        };
        extend_line(&mut payload, line);
    }
    if at < At::Committer {
        return malformed("it has no committer");
    }
    let Some(time) = time else { return malformed("its committer has no time") };
    let Some(signature) = signature else { return Err(Refusal::Unsigned) };
    Ok(Signed { payload, signature: armored(&signature)?, time })
}

/// Splits the content of a tag object.
pub(super) fn tag(raw: &[u8]) -> Result<SignedTag, Refusal> {
    let mut rest = raw;
    let mut field = |wanted: &[u8]| {
        let Some((line, after)) = line(rest) else { return malformed("its header has no end") };
        rest = after;
        match header(line) {
            Ok((name, value)) if name == wanted && !line.contains(&0) => Ok(value),
            _ => malformed("object, type, name and tagger are not in Git's order"),
        }
    };
    let target = field(b"object")?;
    let kind = field(b"type")?;
    let name = field(b"tag")?;
    let tagger = field(b"tagger")?;
    if !is_id(target) {
        return malformed("it names no object");
    }
    if kind != b"commit" {
        return malformed("it points to something that is no commit");
    }
    if !rest.starts_with(b"\n") {
        return malformed("it has an unknown header");
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut found = None;
    let mut start = raw.len() - rest.len();
    while let Some((line, after)) = line(&raw[start..]) {
        if BEGINNINGS.iter().any(|beginning| line.starts_with(beginning.as_bytes()))
            && found.replace(start).is_some()
        {
            return malformed("it has more than one signature");
        }
        start = raw.len() - after.len();
    }
    let signed = match found {
        None => None,
        Some(start) => {
            let Some(time) = time_of(tagger) else { return malformed("its tagger has no time") };
            let (payload, signature) = raw.split_at(start);
            let Ok(signature) = str::from_utf8(signature) else {
                return malformed("its signature is no text");
            };
            Some(Signed { payload: payload.to_vec(), signature: armored(signature)?, time })
        }
    };
    Ok(SignedTag { target: text(target), name: text(name), signed })
}

/// How far the header of a commit has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Start,
    Tree,
    Author,
    Committer,
    Others,
}

/// The first line, without its end, and what follows it.
fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    Some((&text[..end], &text[end + 1..]))
}

fn header(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    match line.iter().position(|byte| *byte == b' ') {
        Some(space) if space > 0 && line[..space].iter().all(u8::is_ascii_graphic) => {
            Ok((&line[..space], &line[space + 1..]))
        }
        _ => malformed("a line of its header is none"),
    }
}

fn is_id(value: &[u8]) -> bool {
    value.len() == 40 && value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The seconds at the end of `Ada <ada@example.com> 1700000000 +0100`.
fn time_of(person: &[u8]) -> Option<i64> {
    let person =
        str::from_utf8(&person[person.iter().rposition(|byte| *byte == b'>')? + 1..]).ok()?;
    let (seconds, zone) = person.strip_prefix(' ')?.split_once(' ')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let zone = zone.strip_prefix(['+', '-'])?;
    if digits(seconds) && zone.len() == 4 && digits(zone) { seconds.parse().ok() } else { None }
}

fn push_line(text: &mut String, line: &[u8]) -> Result<(), Refusal> {
    match str::from_utf8(line) {
        Ok(line) => {
            text.push_str(line);
            text.push('\n');
            Ok(())
        }
        Err(_) => malformed("its signature is no text"),
    }
}

fn extend_line(bytes: &mut Vec<u8>, line: &[u8]) {
    bytes.extend_from_slice(line);
    bytes.push(b'\n');
}

/// Takes a text that is one signature and nothing else but blank lines at its end, as GitHub leaves one.
fn armored(text: &str) -> Result<Armored, Refusal> {
    let text = text.trim_end_matches([' ', '\n']);
    let first = text.lines().next().unwrap_or_default();
    let kinds = [(PGP, Armored::OpenPgp as fn(String) -> Armored), (SSH, Armored::Ssh)];
    let Some(((_, end), kind)) = kinds.into_iter().find(|((begin, _), _)| *begin == first) else {
        return if first.starts_with("-----BEGIN SIGNED MESSAGE-----") {
            Err(Refusal::Unsupported { what: "an X.509 signature".into() })
        } else {
            malformed("its signature is none of OpenPGP or SSH")
        };
    };
    let mut inner = text.lines().skip(1);
    let closes = inner.by_ref().find(|line| line.starts_with("-----"));
    if closes != Some(end) {
        return malformed("its signature has no end");
    }
    if inner.next().is_some() {
        return malformed("something follows its signature");
    }
    Ok(kind(format!("{text}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";
    const ARMOR: &str = "-----BEGIN SSH SIGNATURE-----\nAAAA\nBBBB\n-----END SSH SIGNATURE-----\n";

    fn people() -> String {
        "author A <a@b> 1 +0000\ncommitter B <c@d> 2 -0130\n".to_owned()
    }

    fn gpgsig(armor: &str) -> String {
        format!("gpgsig {}\n", armor.trim_end().replace('\n', "\n "))
    }

    #[test]
    fn a_commit_comes_apart_as_git_put_it_together() {
        let (people, sig) = (people(), gpgsig(ARMOR));
        let tree = format!("tree {ID}\n");
        let parent = format!("parent {ID}\n");
        let merged = "mergetag object 1\n type commit\n \n gpgsig x\n";
        for (before, after) in [
            (format!("{tree}{people}"), "\nmessage\n".to_owned()),
            (format!("{tree}{parent}{parent}{people}"), "\n\ngpgsig not a header\n".to_owned()),
            (format!("{tree}{people}encoding X\n{merged}"), "\n".to_owned()),
            (format!("{tree}{people}"), format!("{merged}HG:extra x:y\n\nmessage")),
        ] {
            let signed = commit(format!("{before}{sig}{after}").as_bytes()).unwrap();
            assert_eq!(String::from_utf8(signed.payload).unwrap(), format!("{before}{after}"));
            assert_eq!((signed.signature, signed.time), (Armored::Ssh(ARMOR.into()), 2));
            let bare = commit(format!("{before}{after}").as_bytes());
            assert_eq!(bare, Err(Refusal::Unsigned));
        }
        // GitHub signs with an empty line at the end.
        let raw = format!("{tree}{people}{sig} \n\nmessage");
        let signed = commit(raw.as_bytes()).unwrap();
        assert_eq!(signed.payload, format!("{tree}{people}\nmessage").as_bytes());
        assert_eq!(signed.signature, Armored::Ssh(ARMOR.into()));
    }

    #[test]
    fn a_commit_that_can_be_read_in_two_ways_is_refused() {
        let (people, sig) = (people(), gpgsig(ARMOR));
        let tree = format!("tree {ID}\n");
        let parent = format!("parent {ID}\n");
        let begun = format!("{tree}{people}");
        let other = sig.replace("gpgsig", "gpgsig-sha256");
        for (raw, why) in [
            (String::new(), "no end"),
            (begun.clone(), "no end"),
            (format!("\n{begun}"), "no committer"),
            (format!("{people}{tree}{sig}\nm"), "order"),
            (format!("{begun}{sig}{tree}\nm"), "order"),
            (format!("{begun}{tree}{sig}\nm"), "order"),
            (format!("{tree}{people}{parent}{sig}\nm"), "order"),
            (format!("{begun}author A <a@b> 1 +0000\n{sig}\nm"), "order"),
            (format!("tree {}\n{people}{sig}\nm", ID.to_uppercase()), "order"),
            (format!("tree {ID}0\n{people}{sig}\nm"), "order"),
            (format!("{tree}extra x\n{people}{sig}\nm"), "before its committer"),
            (format!("{tree}{sig}{people}\nm"), "before its committer"),
            (format!("{tree} more\n{people}{sig}\nm"), "goes on"),
            (format!("{begun}{sig}{sig}\nm"), "more than one"),
            (format!("{begun}{sig}extra x\n{sig}\nm"), "more than one"),
            (format!("{begun}{sig}{other}\nm"), "looks like"),
            (format!("{begun}{other}\nm"), "looks like"),
            (format!("{begun}GPGSIG x\n{sig}\nm"), "looks like"),
            (format!("{begun}gpgsig2 x\n{sig}\nm"), "looks like"),
            (format!("{begun}novalue\n{sig}\nm"), "is none"),
            (format!("{begun}x\u{1} y\n{sig}\nm"), "is none"),
            (format!("{begun}x a\0b\n{sig}\nm"), "zero byte"),
            (format!("{begun}{}\nm", gpgsig("-----BEGIN PGP SIGNATURE-----\nAA\n")), "no end"),
            (format!("{begun}{}\nm", gpgsig("words")), "none of OpenPGP or SSH"),
            (format!("{begun}{}\nm", gpgsig(&format!("x\n{ARMOR}"))), "none of OpenPGP or SSH"),
            (format!("{begun}{}\nm", gpgsig(&format!("{ARMOR}x\n"))), "follows"),
            (format!("{begun}{}\nm", gpgsig(&format!("{ARMOR}{ARMOR}"))), "follows"),
            (format!("{begun}{}\nm", gpgsig(&ARMOR.replace("END SSH", "END PGP"))), "no end"),
            (begun.replace("2 -0130", "x -0130") + &sig + "\nm", "no time"),
            (begun.replace("2 -0130", "2 -013") + &sig + "\nm", "no time"),
            (begun.replace("2 -0130", "-2 -0130") + &sig + "\nm", "no time"),
        ] {
            let refused = commit(raw.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(why), "{raw:?}: {refused}");
        }
        let x509 = gpgsig("-----BEGIN SIGNED MESSAGE-----\nAA\n-----END SIGNED MESSAGE-----\n");
        let refused = commit(format!("{begun}{x509}\nm").as_bytes()).unwrap_err();
        assert!(matches!(refused, Refusal::Unsupported { .. }), "{refused}");
    }

    #[test]
    fn a_tag_comes_apart_at_its_signature() {
        let head = format!("object {ID}\ntype commit\ntag v1\ntagger A <a@b> 3 +0000\n");
        let raw = format!("{head}\nrelease\n{ARMOR}");
        let parts = tag(raw.as_bytes()).unwrap();
        assert_eq!((parts.target.as_str(), parts.name.as_str()), (ID, "v1"));
        let signed = parts.signed.unwrap();
        assert_eq!(signed.payload, format!("{head}\nrelease\n").as_bytes());
        assert_eq!((signed.signature, signed.time), (Armored::Ssh(ARMOR.into()), 3));
        let bare = tag(format!("{head}\nrelease -----BEGIN SSH SIGNATURE-----\n").as_bytes());
        assert_eq!(bare.unwrap().signed, None);

        let other = ARMOR.replace("SSH", "PGP");
        for (raw, why) in [
            (format!("{head}\n{other}{ARMOR}"), "more than one"),
            (format!("{head}\n{ARMOR}words\n{ARMOR}"), "more than one"),
            (format!("{head}\n{ARMOR}words\n"), "follows"),
            (format!("{head}\n-----BEGIN SSH SIGNATURE-----x\n"), "none of OpenPGP"),
            (format!("{head}\n-----BEGIN PGP MESSAGE-----\nA\n"), "none of OpenPGP"),
            (format!("{head}gpgsig x\n\n{ARMOR}"), "unknown header"),
            (format!("{head}{ARMOR}"), "unknown header"),
            (format!("object {ID}\n{head}\n{ARMOR}"), "order"),
            (head.replace("object", "Object"), "order"),
            (head.replace("v1", "v\0"), "order"),
            (format!("object {ID}\ntype commit\ntag v1\n\n{ARMOR}"), "order"),
            (head.replace("type commit", "type tag") + "\n" + ARMOR, "no commit"),
            (head.replace(ID, "0") + "\n" + ARMOR, "names no object"),
            (head.replace("3 +", "+") + "\n" + ARMOR, "no time"),
            (head[..60].to_owned(), "no end"),
        ] {
            let refused = tag(raw.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(why), "{raw:?}: {refused}");
        }
    }
}
