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
    let html = read_advertisement(&mut PktReader::new(&b"<!DOCTYPE html>"[..], 100), 3, |_| true);
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
fn names_that_git_could_not_have_are_left_out() {
    let long = format!("{ONE} refs/heads/{}\n", "x".repeat(300));
    let odd = format!("{ONE} refs/heads/a\x1b[31m\n");
    let main = format!("{ONE} refs/heads/main\n");
    let head = format!("{ONE} HEAD symref-target:refs/heads/\x07\n");
    let bytes = frames(&[&long, &odd, &head, &main, "0000"]);
    let refs = read_refs(&mut PktReader::new(&bytes[..], 10_000), 10, |_| true).unwrap();
    let names: Vec<_> = refs.iter().map(|r| (r.name.as_str(), r.symref.as_deref())).collect();
    assert_eq!(names, [("HEAD", None), ("refs/heads/main", None)]);

    let head = format!("{ONE} HEAD\0symref=HEAD:refs/heads/\x07 x\n");
    let bytes = frames(&[&head, &odd, &main, "0000"]);
    let mut reader = PktReader::new(&bytes[..], 10_000);
    let (_, refs) = read_advertisement(&mut reader, 10, |_| true).unwrap();
    let names: Vec<_> = refs.iter().map(|r| (r.name.as_str(), r.symref.as_deref())).collect();
    assert_eq!(names, [("HEAD", None), ("refs/heads/main", None)]);
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
    assert!(matches!(error(&v2, &["packfile\n", "\x01PA"]), WireError::Pkt(PktError::Truncated)));
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
        for server in [Server::V2(Capabilities::default()), Server::V0(Capabilities::default())] {
            let _ = read_pack(&mut reader(), &server, |_| Ok::<(), WireError>(()));
        }
        assert!(round < 20_000, "seed {seed}");
    }
}
