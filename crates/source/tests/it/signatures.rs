//! Commits and tags that real programs signed, as they should be and not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{Timestamp, ToSpan as _};
use plumb_source::{CommitId, KeysError, Refusal, Signer, TrustedKeys, verify_commit, verify_tag};

use crate::signers::{Gpg, ssh_certificate, ssh_key, ssh_public, ssh_sign};

const TREE: &str = "0123456789abcdef0123456789abcdef01234567";

fn head() -> String {
    format!("tree {TREE}\nauthor A <a@b> 1700000000 +0000\ncommitter B <c@d> 1700000000 +0000\n")
}

fn payload() -> Vec<u8> {
    format!("{}\nmessage\n", head()).into_bytes()
}

/// The commit with a signature, where git puts it.
fn commit(signature: &str) -> Vec<u8> {
    let lines = signature.trim_end().replace('\n', "\n ");
    format!("{}gpgsig {lines}\n\nmessage\n", head()).into_bytes()
}

fn tag_payload() -> Vec<u8> {
    format!("object {TREE}\ntype commit\ntag v1\ntagger A <a@b> 1700000000 +0000\n\nrelease\n")
        .into_bytes()
}

fn tag(signature: &str) -> Vec<u8> {
    [tag_payload(), signature.as_bytes().to_vec()].concat()
}

fn keys(entries: &[(&str, &[u8])]) -> TrustedKeys {
    TrustedKeys::of_secret(entries.iter().copied()).unwrap()
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn check(signature: &str, keys: &TrustedKeys) -> Result<Signer, Refusal> {
    verify_commit(&commit(signature), keys, now())
}

/// Both a commit and a tag, and neither when it was changed.
fn check_both(sign: impl Fn(&[u8]) -> String, keys: &TrustedKeys) -> Result<Signer, Refusal> {
    let signature = sign(&payload());
    let signer = check(&signature, keys)?;
    let of_tag = sign(&tag_payload());
    let target: CommitId = TREE.parse().unwrap();
    let (name, by) = verify_tag(&tag(&of_tag), &target, Some("v1"), keys, now()).unwrap();
    assert_eq!((name.as_str(), &by), ("v1", &signer));

    let broken = |result: Result<Signer, Refusal>| {
        let refusal = result.unwrap_err();
        assert!(matches!(refusal, Refusal::Broken { .. }), "{refusal}");
    };
    let changed = String::from_utf8(commit(&signature)).unwrap().replace("message", "massage");
    broken(verify_commit(changed.as_bytes(), keys, now()));
    let changed = String::from_utf8(tag(&of_tag)).unwrap().replace("release", "rebase");
    broken(verify_tag(changed.as_bytes(), &target, None, keys, now()).map(|(_, by)| by));
    broken(check(&of_tag, keys));
    let renamed = verify_tag(&tag(&of_tag), &target, Some("v2"), keys, now()).unwrap_err();
    assert!(matches!(renamed, Refusal::OtherName { .. }), "{renamed}");
    let other: CommitId = "1".repeat(40).parse().unwrap();
    let moved = verify_tag(&tag(&of_tag), &other, Some("v1"), keys, now()).unwrap_err();
    assert!(matches!(moved, Refusal::OtherCommit { .. }), "{moved}");
    Ok(signer)
}

#[test]
fn every_algorithm_of_gpg_is_verified_or_refused_by_name() {
    let gpg = Gpg::new();
    for (algorithm, refused) in [
        ("rsa2048", None),
        ("rsa4096", None),
        ("ed25519", None),
        ("nistp256", None),
        ("nistp384", None),
        ("nistp521", None),
        ("rsa1024", Some("too weak: it is RSA of 1024 bits")),
        ("dsa2048", Some("too weak: it is DSA")),
        ("secp256k1", Some("the curve secp256k1 is not supported")),
        ("brainpoolP256r1", Some("the curve brainpoolP256r1 is not supported")),
        ("brainpoolP384r1", Some("the curve brainpoolP384r1 is not supported")),
        ("brainpoolP512r1", Some("the curve brainpoolP512r1 is not supported")),
    ] {
        let user = format!("{algorithm} <{algorithm}@example.com>");
        let key = gpg.key(&user, algorithm, "sign", "never");
        let keys = keys(&[("key.asc", &gpg.export(&key))]);
        let result = check_both(|payload| gpg.sign(&key, &[], payload), &keys);
        match refused {
            None => {
                let signer = result.unwrap_or_else(|refusal| panic!("{algorithm}: {refusal}"));
                assert_eq!(signer.to_string(), format!("OpenPGP key {key}, {user}"));
            }
            Some(why) => {
                let refusal = result.unwrap_err();
                assert!(refusal.to_string().contains(why), "{algorithm}: {refusal}");
                assert!(!refusal.hint().is_empty());
            }
        }
    }
}

#[test]
fn no_byte_of_what_was_signed_can_be_changed() {
    let (gpg, dir) = (Gpg::new(), tempfile::tempdir().unwrap());
    let key = gpg.key("ada", "ed25519", "sign", "never");
    let ssh = ssh_key(dir.path(), "bob", "ed25519", "256").unwrap();
    let trusted = keys(&[("a.asc", &gpg.export(&key)), ("b.sshpub", ssh_public(&ssh).as_bytes())]);
    for signature in [gpg.sign(&key, &[], &payload()), ssh_sign(&ssh, "git", &[], &payload())] {
        let good = commit(&signature);
        verify_commit(&good, &trusted, now()).unwrap();
        let begin = head().len();
        let end = good.len() - "\n\nmessage\n".len();
        for at in (0..begin).chain(end..good.len()) {
            for change in [1, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= change;
                assert!(verify_commit(&bad, &trusted, now()).is_err(), "byte {at}");
            }
            let mut shorter = good.clone();
            shorter.remove(at);
            assert!(verify_commit(&shorter, &trusted, now()).is_err(), "without byte {at}");
        }
    }
}

#[test]
fn hashes_that_can_be_collided_are_refused() {
    let gpg = Gpg::new();
    let key = gpg.key("ada", "rsa2048", "sign", "never");
    let trusted = keys(&[("key.asc", &gpg.export(&key))]);
    for hash in ["SHA256", "SHA384", "SHA512"] {
        check_both(|payload| gpg.sign(&key, &["--digest-algo", hash], payload), &trusted).unwrap();
    }
    for hash in ["SHA1", "RIPEMD160", "SHA224"] {
        let more = ["--digest-algo", hash, "--allow-weak-digest-algos"];
        let refusal = check(&gpg.sign(&key, &more, &payload()), &trusted).unwrap_err();
        assert!(matches!(refusal, Refusal::WeakHash { .. }), "{hash}: {refusal}");
    }
    // Also where the key vouches for itself with one.
    let old =
        ["--cert-digest-algo", "SHA1", "--allow-weak-digest-algos", "--allow-weak-key-signatures"];
    gpg.run(&[&old[..], &["--quick-gen-key", "old", "rsa2048", "sign", "never"]].concat(), b"");
    let refusal = check(&gpg.sign("old", &[], &payload()), &keys(&[("a.asc", &gpg.export("old"))]));
    let refusal = refusal.unwrap_err();
    assert!(matches!(refusal, Refusal::NoSelfSignature { weak: true, .. }), "{refusal}");
}

#[test]
fn every_algorithm_of_ssh_keygen_is_verified_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, bits) in [
        ("ed25519", "256"),
        ("ecdsa", "256"),
        ("ecdsa", "384"),
        ("ecdsa", "521"),
        ("rsa", "2048"),
        ("rsa", "4096"),
    ] {
        let name = format!("{kind}{bits}");
        let key = ssh_key(dir.path(), &name, kind, bits).unwrap();
        let trusted = keys(&[("key.sshpub", ssh_public(&key).as_bytes())]);
        for hash in ["hashalg=sha256", "hashalg=sha512"] {
            let sign = |payload: &[u8]| ssh_sign(&key, "git", &["-O", hash], payload);
            let signer = check_both(sign, &trusted).unwrap();
            assert!(signer.key.starts_with("SSH key SHA256:"), "{signer}");
            assert_eq!(signer.name, name);
        }
    }
    for (kind, bits, why) in [("rsa", "1024", "RSA key of 1024 bits"), ("dsa", "1024", "DSA")] {
        // A newer ssh-keygen does not make them any more.
        let Ok(key) = ssh_key(dir.path(), &format!("weak-{kind}"), kind, bits) else { continue };
        let error =
            TrustedKeys::of_secret([("a.sshpub", ssh_public(&key).as_bytes())]).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// Also by a key that is trusted itself: whoever vouched for it, and for how long, nobody would ask.
#[test]
fn a_certificate_of_ssh_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, bits) in [("ed25519", "256"), ("ecdsa", "256"), ("rsa", "2048")] {
        let [authority, ada] =
            ["ca", "ada"].map(|name| ssh_key(dir.path(), &format!("{name}-{kind}"), kind, bits));
        let (authority, ada) = (authority.unwrap(), ada.unwrap());
        let lines = [ssh_public(&ada), ssh_public(&authority)].concat();
        let trusted = keys(&[("all.sshpub", lines.as_bytes())]);
        check(&ssh_sign(&ada, "git", &[], &payload()), &trusted).unwrap();
        let certificate = ssh_certificate(&authority, &ada);
        let refusal = check(&ssh_sign(&certificate, "git", &[], &payload()), &trusted).unwrap_err();
        assert!(refusal.to_string().contains("an SSH certificate is not supported"), "{refusal}");
        assert_eq!(refusal.reason(), "UnsupportedSignature");
        assert!(refusal.hint().contains("with an SSH key itself"));
    }
}

#[test]
fn an_ssh_signature_counts_for_git_by_a_trusted_key_in_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let [ada, eve] =
        ["ada", "eve"].map(|name| ssh_key(dir.path(), name, "ed25519", "256").unwrap());
    let public = ssh_public(&ada);
    let bare = public.trim_end();
    let signature = ssh_sign(&ada, "git", &[], &payload());
    let with = |line: &str| keys(&[("keys.sshpub", line.as_bytes())]);
    let check_line = |line: &str| check(&signature, &with(line));

    for line in [
        format!("# people\n\n  {bare}\r\n{}", ssh_public(&eve)),
        format!("ada@example.com,*@example.org {bare}"),
        format!("ada namespaces=\"file,git\" {bare}"),
        format!("ada namespaces=\"git\",valid-after=\"20200101\" {bare}"),
        format!("valid-after=20200101,valid-before=\"29991231235959Z\" {bare}"),
        // Of two lines for one key, one that holds is enough.
        format!("ada valid-before=\"202001011200\" {bare}\nada {bare}"),
    ] {
        assert_eq!(check_line(&line).unwrap().name, "ada", "{line}");
    }
    let unknown = check(&signature, &with(&ssh_public(&eve))).unwrap_err();
    assert!(matches!(unknown, Refusal::UnknownKey { .. }), "{unknown}");
    assert!(unknown.to_string().contains("SSH key SHA256:"), "{unknown}");
    for other in ["file", "email"] {
        let refusal = check(&ssh_sign(&ada, other, &[], &payload()), &with(bare)).unwrap_err();
        assert!(matches!(refusal, Refusal::OtherPurpose { .. }), "{refusal}");
    }
    // The commit is of 2023; the key may not be used today, or could not be used then.
    for before in ["20200101", "20240101"] {
        let refusal = check_line(&format!("ada valid-before=\"{before}\" {bare}")).unwrap_err();
        assert!(matches!(refusal, Refusal::KeyExpired { .. }), "{refusal}");
    }
    for after in ["20240101", "29990101"] {
        let refusal = check_line(&format!("ada valid-after=\"{after}\" {bare}")).unwrap_err();
        assert!(matches!(refusal, Refusal::BeforeKey { .. }), "{refusal}");
    }
    for (line, why) in [
        (format!("ada cert-authority {bare}"), "cert-authority"),
        (format!("restrict {bare}"), "restrict"),
        (format!("from=\"10.0.0.0/8\" {bare}"), "from"),
        (format!("ada namespaces=\"file\" {bare}"), "do not include git"),
        (format!("ada valid-before=\"soon\" {bare}"), "no time"),
        (format!("ada valid-before=\"20250132\" {bare}"), "no time"),
        (format!("ada x y {bare}"), "more than principals"),
        (format!("ada namespaces=\"git {bare}"), "quote"),
        ("ada".to_owned(), "no kind of key"),
        ("ssh-ed25519".to_owned(), "missing"),
        ("ssh-ed25519 AAAA".to_owned(), "line 1"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA".to_owned(), "certificate"),
        ("# nobody\n".to_owned(), "there is none"),
    ] {
        let error = TrustedKeys::of_secret([("a.sshpub", line.as_bytes())]).unwrap_err();
        assert!(error.to_string().contains(why), "{line}: {error}");
        assert!(error.to_string().contains("a.sshpub"), "{error}");
    }
    let private = std::fs::read(&ada).unwrap();
    let error = TrustedKeys::of_secret([("a.sshpub", &private[..])]).unwrap_err();
    assert!(matches!(error, KeysError::Private { .. }), "{error}");
}

#[test]
fn what_is_wrong_with_a_key_of_gpg_is_told() {
    let gpg = Gpg::new();
    let key = gpg.key("ada <ada@example.com>", "ed25519", "sign", "1y");
    let signature = gpg.sign(&key, &[], &payload());
    let exported = gpg.export(&key);
    let trusted = keys(&[("ada.asc", &exported)]);
    let raw = commit(&signature);
    let at = |days: i64| now() + (days * 24).hours();

    verify_commit(&raw, &trusted, at(0)).unwrap();
    verify_commit(&raw, &trusted, at(364)).unwrap();
    let expired = verify_commit(&raw, &trusted, at(366)).unwrap_err();
    assert!(matches!(expired, Refusal::KeyExpired { .. }), "{expired}");
    let future = verify_commit(&raw, &trusted, at(-1)).unwrap_err();
    assert!(matches!(future, Refusal::Future { .. }), "{future}");
    // A clock may be a little behind.
    verify_commit(&raw, &trusted, now() - 2.minutes()).unwrap();

    let unknown = gpg.key("eve", "ed25519", "sign", "never");
    let refusal = check(&gpg.sign(&unknown, &[], &payload()), &trusted).unwrap_err();
    let wanted = format!("it is signed by the OpenPGP key {unknown}, which is not among");
    assert!(refusal.to_string().starts_with(&wanted), "{refusal}");
    let both = [&exported[..], b"\n", &gpg.export(&unknown)].concat();
    check(&gpg.sign(&unknown, &[], &payload()), &keys(&[("all.asc", &both)])).unwrap();
    check(&signature, &keys(&[("all.asc", &both)])).unwrap();

    let early = ["--faked-system-time", "20200101T000000!", "--ignore-time-conflict"];
    let refusal = check(&gpg.sign(&key, &early, &payload()), &trusted).unwrap_err();
    assert!(matches!(refusal, Refusal::BeforeKey { .. }), "{refusal}");
    let short = gpg.sign(&key, &["--default-sig-expire", "1d"], &payload());
    check(&short, &trusted).unwrap();
    let over = verify_commit(&commit(&short), &trusted, at(2)).unwrap_err();
    assert!(matches!(over, Refusal::SignatureExpired { .. }), "{over}");
    let text = check(&gpg.sign(&key, &["--textmode"], &payload()), &trusted).unwrap_err();
    assert!(matches!(text, Refusal::Unreadable { .. }), "{text}");
    let twice = gpg.sign(&key, &["-u", &unknown], &payload());
    let refusal = check(&twice, &keys(&[("all.asc", &both)])).unwrap_err();
    assert!(refusal.to_string().contains("more than one"), "{refusal}");
    let asks = ["--sig-notation", "!seal@example.com=wax"];
    let refusal = check(&gpg.sign(&key, &asks, &payload()), &trusted).unwrap_err();
    assert!(matches!(refusal, Refusal::Unsupported { .. }), "{refusal}");
    check(&gpg.sign(&key, &["--sig-notation", "seal@example.com=wax"], &payload()), &trusted)
        .unwrap();

    // What extends the key, and what revokes it, counts wherever it stands.
    gpg.run(&["--quick-set-expire", &key, "3y"], b"");
    let longer = gpg.export(&key);
    verify_commit(&raw, &keys(&[("a.asc", &longer)]), at(366)).unwrap();
    verify_commit(&raw, &keys(&[("a.asc", &longer), ("b.asc", &exported)]), at(366)).unwrap();
    let revocation = gpg.revocation(&key);
    let revoked = keys(&[("a.asc", &exported), ("b.asc", revocation.as_bytes())]);
    let refusal = check(&signature, &revoked).unwrap_err();
    assert!(matches!(refusal, Refusal::KeyRevoked { .. }), "{refusal}");
    gpg.run(&["--import"], revocation.as_bytes());
    for entries in [
        &[("a.asc", &gpg.export(&key)[..])][..],
        &[("a.asc", &exported[..]), ("b.asc", &gpg.export(&key)[..])],
    ] {
        let refusal = check(&signature, &keys(entries)).unwrap_err();
        assert!(matches!(refusal, Refusal::KeyRevoked { .. }), "{refusal}");
    }
    let alone = TrustedKeys::of_secret([("b.asc", revocation.as_bytes())]).unwrap_err();
    assert!(alone.to_string().contains("a revocation of a key that is not there"), "{alone}");
}

#[test]
fn subkeys_sign_as_long_as_they_and_their_main_key_may() {
    use pgp::composed::{ArmorOptions, Deserializable as _, SignedPublicKey};

    let gpg = Gpg::new();
    let main = gpg.key("ada", "ed25519", "cert", "never");
    gpg.run(&["--quick-add-key", &main, "ed25519", "sign", "1y"], b"");
    let signature = gpg.sign(&main, &[], &payload());
    let raw = commit(&signature);
    let exported = gpg.export(&main);
    let trusted = keys(&[("ada.asc", &exported)]);
    let signer = check_both(|payload| gpg.sign(&main, &[], payload), &trusted).unwrap();
    assert!(signer.key.starts_with(&format!("OpenPGP key {main} (subkey ")), "{signer}");
    let expired = verify_commit(&raw, &trusted, now() + (366 * 24).hours()).unwrap_err();
    assert!(matches!(expired, Refusal::KeyExpired { .. }), "{expired}");

    // Without a word of the subkey on its main key anybody could claim it.
    let (mut claimed, _) = SignedPublicKey::from_armor_single(&exported[..]).unwrap();
    for signature in &mut claimed.public_subkeys[0].signatures {
        while signature.embedded_signature().is_some() {
            signature.unhashed_subpacket_remove(0).unwrap();
        }
    }
    let claimed = claimed.to_armored_bytes(ArmorOptions::default()).unwrap();
    let refusal = check(&signature, &keys(&[("a.asc", &claimed)])).unwrap_err();
    assert!(matches!(refusal, Refusal::NotCrossCertified { .. }), "{refusal}");
    // And the other way round, a main key that knows nothing of the subkey.
    let (mut loose, _) = SignedPublicKey::from_armor_single(&exported[..]).unwrap();
    loose.public_subkeys[0].signatures.clear();
    let (eve, _) = SignedPublicKey::from_armor_single(
        &gpg.export(&gpg.key("eve", "ed25519", "sign", "never"))[..],
    )
    .unwrap();
    let stolen = SignedPublicKey {
        primary_key: eve.primary_key,
        details: eve.details,
        ..claimed_of(&exported)
    };
    for key in [loose, stolen] {
        let armored = key.to_armored_bytes(ArmorOptions::default()).unwrap();
        let refusal = check(&signature, &keys(&[("a.asc", &armored)])).unwrap_err();
        let known = matches!(refusal, Refusal::UnknownKey { .. } | Refusal::NoSelfSignature { .. });
        assert!(known, "{refusal}");
    }

    gpg.edit(&main, "key 1\nchange-usage\ns\nq\nsave\n");
    let refusal = check(&signature, &keys(&[("a.asc", &gpg.export(&main))])).unwrap_err();
    assert!(matches!(refusal, Refusal::MayNotSign { .. }), "{refusal}");
    gpg.edit(&main, "key 1\nrevkey\ny\n0\n\ny\nsave\n");
    let refusal = check(&signature, &keys(&[("a.asc", &gpg.export(&main))])).unwrap_err();
    assert!(matches!(refusal, Refusal::KeyRevoked { .. }), "{refusal}");

    // A main key that expired takes its subkeys along, and one that is only to certify signs nothing.
    gpg.run(&["--quick-add-key", &main, "ed25519", "sign", "never"], b"");
    let signature = gpg.sign(&main, &[], &payload());
    gpg.run(&["--quick-set-expire", &main, "1y"], b"");
    let trusted = keys(&[("a.asc", &gpg.export(&main))]);
    check(&signature, &trusted).unwrap();
    let expired = verify_commit(&commit(&signature), &trusted, now() + (366 * 24).hours());
    let expired = expired.unwrap_err();
    assert!(matches!(expired, Refusal::KeyExpired { .. }), "{expired}");
    let both = gpg.key("bob", "ed25519", "sign", "never");
    let signature = gpg.sign(&both, &[], &payload());
    gpg.edit(&both, "change-usage\ns\nq\nsave\n");
    let refusal = check(&signature, &keys(&[("b.asc", &gpg.export(&both))])).unwrap_err();
    assert!(matches!(refusal, Refusal::MayNotSign { .. }), "{refusal}");
}

/// What is revoked says no more until when a key is good and what for, and neither does its revocation.
#[test]
fn a_user_id_that_is_revoked_takes_no_limit_of_the_key_along() {
    use pgp::composed::ArmorOptions;

    let gpg = Gpg::new();
    let later = (now() + 1.hours()).strftime("%Y%m%dT%H%M%S").to_string();
    let revoke = |key: &str, user: &str| {
        gpg.run(&["--quick-add-uid", key, user], b"");
        gpg.run(&["--faked-system-time", &later, "--quick-revoke-uid", key, user], b"");
    };
    let at = |days: i64| now() + (days * 24).hours();

    let ada = gpg.key("ada", "ed25519", "sign", "1y");
    let raw = commit(&gpg.sign(&ada, &[], &payload()));
    revoke(&ada, "ada lovelace");
    let exported = gpg.export(&ada);
    let trusted = keys(&[("ada.asc", &exported)]);
    verify_commit(&raw, &trusted, at(1)).unwrap();
    let expired = verify_commit(&raw, &trusted, at(366)).unwrap_err();
    assert!(matches!(expired, Refusal::KeyExpired { .. }), "{expired}");

    // One that nobody vouches for but a user id that is revoked.
    let mut alone = claimed_of(&exported);
    alone.details.users.retain(|user| user.id.id() == b"ada lovelace");
    assert_eq!(alone.details.users.len(), 1);
    let alone = alone.to_armored_bytes(ArmorOptions::default()).unwrap();
    let refusal = verify_commit(&raw, &keys(&[("ada.asc", &alone)]), at(1)).unwrap_err();
    assert!(matches!(refusal, Refusal::NoSelfSignature { weak: false, .. }), "{refusal}");

    let bob = gpg.key("bob", "ed25519", "sign", "never");
    let raw = commit(&gpg.sign(&bob, &[], &payload()));
    gpg.edit(&bob, "change-usage\ns\nq\nsave\n");
    revoke(&bob, "bob the builder");
    let trusted = keys(&[("bob.asc", &gpg.export(&bob))]);
    let refusal = verify_commit(&raw, &trusted, at(1)).unwrap_err();
    assert!(matches!(refusal, Refusal::MayNotSign { .. }), "{refusal}");
}

fn claimed_of(exported: &[u8]) -> pgp::composed::SignedPublicKey {
    use pgp::composed::{Deserializable as _, SignedPublicKey};
    SignedPublicKey::from_armor_single(exported).unwrap().0
}

#[test]
fn a_secret_holds_keys_and_nothing_else() {
    let gpg = Gpg::new();
    let key = gpg.key("ada", "ed25519", "sign", "never");
    let public = gpg.export(&key);
    let private = gpg.run(&["--armor", "--export-secret-keys", &key], b"");
    let binary = gpg.run(&["--export", &key], b"");
    let text = String::from_utf8(public.clone()).unwrap();
    let cut = text.replace("-----END PGP PUBLIC KEY BLOCK-----", "");
    let disguised =
        String::from_utf8(private.clone()).unwrap().replace("PRIVATE KEY", "PUBLIC KEY");
    for (name, content, why) in [
        ("key.gpg", &public[..], "key.gpg ends neither in .asc nor in .sshpub"),
        ("author", &public[..], "author ends neither"),
        ("a.asc", &private[..], "a.asc holds a private key"),
        ("a.asc", disguised.as_bytes(), "a.asc holds a private key"),
        ("a.asc", &binary[..], "not armored"),
        ("a.asc", b"words", "no line -----BEGIN"),
        ("a.asc", cut.as_bytes(), "has no end"),
        (
            "a.asc",
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
            "a.asc",
        ),
    ] {
        let error = TrustedKeys::of_secret([(name, content)]).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.hint().is_empty());
    }
    assert_eq!(TrustedKeys::of_secret([]).unwrap_err(), KeysError::None);
    let trusted = keys(&[("a.asc", &public)]);
    assert_eq!(trusted, keys(&[("a.asc", &public)]));
    assert_ne!(trusted, keys(&[("b.asc", &public)]));
    assert_eq!(format!("{trusted:?}"), "TrustedKeys(1 OpenPGP, 0 SSH)");
}

/// A text of SSH's own form: its length, and itself.
fn ssh_text(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A security key that is none: what one signs stands in PROTOCOL.u2f of OpenSSH, and what is signed with
/// it in PROTOCOL.sshsig.
struct SecurityKey(ring::signature::Ed25519KeyPair);

impl SecurityKey {
    const KIND: &str = "sk-ssh-ed25519@openssh.com";

    fn public(&self) -> Vec<u8> {
        use ring::signature::KeyPair as _;
        let parts = [Self::KIND.as_bytes(), self.0.public_key().as_ref(), b"ssh:"];
        parts.map(ssh_text).concat()
    }

    fn line(&self) -> String {
        format!("{} {} bob", Self::KIND, STANDARD.encode(self.public()))
    }

    fn sign(&self, flags: u8, message: &[u8]) -> String {
        use ring::digest::{SHA256, SHA512, digest};
        let purpose = [&b"git"[..], b"", b"sha512"].map(ssh_text).concat();
        let hash = ssh_text(digest(&SHA512, message).as_ref());
        let signed = [&b"SSHSIG"[..], &purpose, &hash].concat();
        let end = [&[flags][..], &7_u32.to_be_bytes()].concat();
        let application = digest(&SHA256, b"ssh:");
        let signed = digest(&SHA256, &signed);
        let signature = self.0.sign(&[application.as_ref(), &end, signed.as_ref()].concat());
        let signature =
            [ssh_text(Self::KIND.as_bytes()), ssh_text(signature.as_ref()), end].concat();
        let blob = [
            &b"SSHSIG"[..],
            &1_u32.to_be_bytes(),
            &ssh_text(&self.public()),
            &purpose,
            &ssh_text(&signature),
        ];
        let text = STANDARD.encode(blob.concat());
        let lines: Vec<&str> =
            text.as_bytes().chunks(70).map(|line| str::from_utf8(line).unwrap()).collect();
        let body = lines.join("\n");
        format!("-----BEGIN SSH SIGNATURE-----\n{body}\n-----END SSH SIGNATURE-----\n")
    }
}

#[test]
fn a_security_key_counts_if_somebody_touched_it() {
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = SecurityKey(pair);
    let trusted = keys(&[("bob.sshpub", key.line().as_bytes())]);
    check_both(|payload| key.sign(1, payload), &trusted).unwrap();
    check_both(|payload| key.sign(5, payload), &trusted).unwrap();
    let untouched = check(&key.sign(0, &payload()), &trusted).unwrap_err();
    assert!(untouched.to_string().contains("nobody touched"), "{untouched}");
}
