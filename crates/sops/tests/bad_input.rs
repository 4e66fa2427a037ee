//! Files and keys that cannot be used: each is refused with words that help, and with nothing in them
//! that is secret.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use plumb_core::RelPath;
use plumb_sops::{Error, KeyError, Keys, Options, Shape, open};

const AGE: &str = "age age1w5usnup8c5f39prw45ucsuups5dc2uatjsy0n5eqrxsefxxquqxqe2qvw5";

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)).unwrap()
}

fn golden(case: &str) -> String {
    read(&format!("golden/{case}/sealed.yaml"))
}

fn key(name: &str) -> Keys {
    let content = read(&format!("keys/{name}"));
    Keys::of_secret([(name, content.as_bytes())]).unwrap()
}

fn open_as(name: &str, content: &[u8], keys: &Keys) -> Result<Option<Vec<u8>>, Error> {
    let file = Arc::new(RelPath::parse(name).unwrap());
    let limits = plumb_yaml::Limits::default();
    open(&file, content, &Options { keys, shape: Shape::Text, marks: &[], limits })
}

/// Why a file of YAML does not open with the key of most cases.
fn refused(content: &str) -> Error {
    let error = open_as("a.yaml", content.as_bytes(), &key("age.agekey")).unwrap_err();
    let shown = format!("{error} {error:?} {:?}", error.hint());
    for secret in ["hunter2", "aHVudGVyMg", "secret value", "AGE-SECRET", "PRIVATE KEY"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    error
}

fn why(content: &str) -> String {
    refused(content).to_string()
}

/// The text with the first of something replaced, which must be there.
fn with(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old} is not there");
    text.replacen(old, new, 1)
}

/// The line of a text that begins so.
fn line<'t>(text: &'t str, begins: &str) -> &'t str {
    text.lines().find(|line| line.trim_start().starts_with(begins)).unwrap()
}

#[test]
fn a_wrong_key_is_told_with_those_that_would_do() {
    let error = open_as("a.yaml", golden("yaml").as_bytes(), &key("stranger.agekey")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("it needs one of: {AGE}; the keys given are age age1")),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("sops updatekeys"), "{error:?}");
}

#[test]
fn a_key_of_another_kind_is_told_with_those_that_would_do() {
    let error = open_as("a.yaml", golden("yaml-pgp").as_bytes(), &key("age.agekey")).unwrap_err();
    let text = error.to_string();
    let want =
        "it needs one of: OpenPGP F24959A3CD0C7FFA1038B57035712D29928F1F4B; the keys given are";
    assert!(text.contains(want), "{text}");
}

#[test]
fn a_recipient_that_is_only_said_to_be_ours_does_not_help() {
    let other = golden("yaml-regex");
    let sealed = golden("yaml");
    // The data key of one file in the metadata of another.
    let block = |text: &str| {
        let from = text.find("-----BEGIN AGE").unwrap();
        text[from..text.find("-----END AGE").unwrap()].to_owned()
    };
    let mixed = with(&sealed, &block(&sealed), &block(&other));
    assert!(why(&mixed).contains("apiVersion cannot be decrypted"), "{}", why(&mixed));
}

#[test]
fn a_changed_mac_is_seen() {
    let sealed = golden("yaml");
    let mac = line(&sealed, "mac:");
    let other = golden("yaml-regex");
    let moved = with(&sealed, mac, line(&other, "mac:"));
    assert!(matches!(refused(&moved), Error::MacSealed), "{}", why(&moved));
    let gone = with(&sealed, &format!("{mac}\n"), "");
    assert!(matches!(refused(&gone), Error::NoMac), "{}", why(&gone));
    let date = line(&sealed, "lastmodified:");
    let dated = with(&sealed, date, "    lastmodified: \"2020-01-01T00:00:00Z\"");
    assert!(matches!(refused(&dated), Error::MacSealed), "{}", why(&dated));
}

#[test]
fn a_changed_value_is_seen() {
    let sealed = golden("yaml");
    let plain = line(&sealed, "plain:");
    let at = plain.find("data:").unwrap() + 5;
    let flipped = if &plain[at..=at] == "A" { "B" } else { "A" };
    let changed = format!("{}{flipped}{}", &plain[..at], &plain[at + 1..]);
    let text = why(&with(&sealed, plain, &changed));
    assert!(text.starts_with("stringData.plain cannot be decrypted"), "{text}");
    // In the place of another value it is another value.
    let quote = line(&sealed, "quote:");
    let swapped = with(&sealed, quote, &plain.replace("plain:", "quote:"));
    assert!(why(&swapped).starts_with("stringData.quote cannot"), "{}", why(&swapped));
    let open = with(&sealed, plain, "    plain: hunter2");
    assert!(why(&open).starts_with("stringData.plain is not encrypted"), "{}", why(&open));
    let number = with(&sealed, plain, "    plain: 5");
    assert!(why(&number).starts_with("stringData.plain is not encrypted"), "{}", why(&number));
    let emptied = with(&sealed, plain, "    plain: \"\"");
    assert!(matches!(refused(&emptied), Error::MacMismatch), "{}", why(&emptied));
    let removed = with(&sealed, &format!("{plain}\n"), "");
    assert!(matches!(refused(&removed), Error::MacMismatch), "{}", why(&removed));
}

#[test]
fn a_changed_value_is_seen_where_it_is_not_encrypted() {
    let sealed = golden("yaml-regex");
    for (old, new) in
        [("name: db", "name: other"), ("type: Opaque\n", ""), ("kind: Secret", "kind: ConfigMap")]
    {
        let changed = with(&sealed, old, new);
        assert!(matches!(refused(&changed), Error::MacMismatch), "{old}: {}", why(&changed));
    }
    // Unless the MAC is one of encrypted values alone, which is what that asks for.
    let changed = with(&golden("yaml-mac-only-encrypted"), "name: db", "name: other");
    let opened = open_as("a.yaml", changed.as_bytes(), &key("age.agekey")).unwrap().unwrap();
    assert!(String::from_utf8(opened).unwrap().contains("name: other"));
    let user = line(&changed, "user:").to_owned();
    let removed = with(&changed, &format!("{user}\n"), "");
    assert!(matches!(refused(&removed), Error::MacMismatch), "{}", why(&removed));
}

#[test]
fn values_that_comments_encrypt_cannot_be_replaced() {
    let sealed = golden("yaml-comments");
    let value = line(&sealed, "b:").to_owned();
    for new in ["b: hunter2", "b: \"\"", "b: null"] {
        let changed = with(&sealed, &value, new);
        assert!(matches!(refused(&changed), Error::MacMismatch), "{new}: {}", why(&changed));
    }
}

#[test]
fn moved_documents_are_seen() {
    let sealed = golden("yaml-documents");
    let parts: Vec<&str> = sealed.split("\n---\n").collect();
    let swapped = [parts[1], parts[0], parts[2]].join("\n---\n");
    assert!(matches!(refused(&swapped), Error::MacMismatch), "{}", why(&swapped));
    let fewer = [parts[0], parts[2]].join("\n---\n");
    assert!(matches!(refused(&fewer), Error::MacMismatch), "{}", why(&fewer));
}

#[test]
fn documents_that_were_encrypted_apart_open_apart() {
    let both =
        format!("{}---\nplain: document\n---\n{}", golden("yaml-regex"), golden("yaml-suffix"));
    let opened = open_as("a.yaml", both.as_bytes(), &key("age.agekey")).unwrap().unwrap();
    let opened = String::from_utf8(opened).unwrap();
    assert_eq!(opened.matches("---\n").count(), 2, "{opened}");
    assert!(opened.contains("user: admin") && opened.contains("plain: document"), "{opened}");
}

#[test]
fn changed_metadata_is_seen() {
    let sealed = golden("yaml-regex");
    let rule = line(&sealed, "encrypted_regex:").to_owned();
    // With another rule other values are encrypted, or none.
    let none = with(&sealed, &rule, "    encrypted_regex: ^nothing$");
    assert!(matches!(refused(&none), Error::MacMismatch), "{}", why(&none));
    let more = with(&sealed, &rule, "    encrypted_regex: ^(data|stringData|metadata)$");
    assert!(why(&more).starts_with("metadata.name is not encrypted"), "{}", why(&more));
    let less = with(&sealed, &rule, &format!("{rule}\n    mac_only_encrypted: true"));
    assert!(matches!(refused(&less), Error::MacMismatch), "{}", why(&less));
    let broken = with(&sealed, &rule, "    encrypted_regex: '('");
    assert!(why(&broken).ends_with("encrypted_regex is no regular expression"), "{}", why(&broken));
    let two = with(&sealed, &rule, &format!("{rule}\n    encrypted_suffix: _x"));
    assert!(why(&two).contains("both encrypted_suffix and encrypted_regex"), "{}", why(&two));
    let undated = with(&sealed, line(&sealed, "lastmodified:"), "    lastmodified: never");
    assert!(why(&undated).ends_with("lastmodified is not a date"), "{}", why(&undated));
    let keyless = with(&sealed, "    age:\n", "    edge:\n");
    assert!(why(&keyless).contains("there is no key"), "{}", why(&keyless));
    let groups = with(&golden("yaml-groups"), "shamir_threshold: 2", "shamir_threshold: many");
    assert!(why(&groups).ends_with("shamir_threshold is not a number"), "{}", why(&groups));
    let one = with(&golden("yaml-groups"), "shamir_threshold: 2", "shamir_threshold: 1");
    assert!(matches!(refused(&one), Error::Threshold { threshold: 2, .. }), "{}", why(&one));
}

#[test]
fn a_truncated_file_never_opens() {
    let keys = key("age.agekey");
    let sealed = golden("yaml-regex");
    for end in 0..sealed.trim_end().len() {
        let cut = &sealed[..end];
        match open_as("a.yaml", cut.as_bytes(), &keys) {
            // Too little is left to tell that it is encrypted.
            Ok(None) => assert!(!cut.contains("lastmodified: ") || !cut.contains("sops:"), "{end}"),
            // Behind the MAC is the version, which nothing depends on.
            Ok(Some(_)) => assert!(end > sealed.find("type:str]\n    version").unwrap(), "{end}"),
            Err(_) => {}
        }
    }
    let error = refused(&sealed[..sealed.find("mac:").unwrap()]);
    assert!(matches!(error, Error::NoMac), "{error}");
    let json = read("golden/json/sealed.json");
    let error = open_as("a.json", &json.as_bytes()[..json.len() - 20], &keys).unwrap_err();
    assert!(error.to_string().contains("cannot be read: line"), "{error}");
    let dotenv = read("golden/dotenv/sealed.env");
    let error = open_as("a.env", &dotenv.as_bytes()[..dotenv.find("=\n").unwrap()], &keys);
    assert!(matches!(error, Ok(None)), "{error:?}");
}

#[test]
fn keys_that_others_keep_are_named() {
    let sealed = golden("yaml-regex");
    let from = sealed.find("    age:\n").unwrap();
    let end = sealed.find("    encrypted_regex").unwrap();
    let date = "created_at: \"2026-01-01T00:00:00Z\"\n          enc: abc";
    let cases = [
        ("kms", "arn: arn:aws:kms:eu-1:1:key/x", "AWS KMS arn:aws:kms:eu-1:1:key/x"),
        ("gcp_kms", "resource_id: projects/p/k", "GCP KMS projects/p/k"),
        (
            "azure_kv",
            "vault_url: https://v.azure.net\n          name: k",
            "Azure Key Vault https://v.azure.net/k",
        ),
        (
            "hc_vault",
            "vault_address: https://vault:8200\n          engine_path: sops\n          key_name: k",
            "Vault https://vault:8200/sops/k",
        ),
        ("hckms", "key_id: region:id", "Huawei Cloud KMS region:id"),
    ];
    for (field, key, name) in cases {
        let metadata = format!("    {field}:\n        - {key}\n          {date}\n");
        let remote = format!("{}{metadata}{}", &sealed[..from], &sealed[end..]);
        let error = refused(&remote);
        assert_eq!(
            error.to_string(),
            format!(
                "it is encrypted for {name} alone, and only age and OpenPGP keys are supported"
            )
        );
        assert!(error.hint().unwrap().contains("add an age key"), "{error:?}");
        // Beside a key of ours it is not needed.
        let both = format!("{}{metadata}{}", &sealed[..from], &sealed[from..]);
        assert!(open_as("a.yaml", both.as_bytes(), &self::key("age.agekey")).unwrap().is_some());
    }
}

#[test]
fn ini_files_are_refused() {
    let ini = "[a]\nb = ENC[AES256_GCM,data:x,iv:x,tag:x,type:str]\n\n[sops]\nversion = 3\n";
    for name in ["a.ini", "a.txt"] {
        let error = open_as(name, ini.as_bytes(), &key("age.agekey")).unwrap_err();
        assert_eq!(error.to_string(), "it is encrypted as an INI file, which is not supported");
        assert!(error.hint().unwrap().contains("--input-type binary"));
    }
}

#[test]
fn a_file_cannot_ask_for_much() {
    let sealed = golden("yaml-regex");
    let large = format!("{sealed}# {}\n", "x".repeat(5 << 20));
    assert!(matches!(refused(&large), Error::TooLarge { .. }));
    let from = sealed.find("        - enc:").unwrap();
    let end = sealed.find("    encrypted_regex").unwrap();
    // Our key, once more and once more, with data that it does not open.
    let broken = sealed[from..end].replace("YWdl", "AAAA");
    let many =
        |count: usize| format!("{}{}{}", &sealed[..from], broken.repeat(count), &sealed[end..]);
    assert!(matches!(refused(&many(257)), Error::TooMuch { what: "keys", .. }));
    let tried = refused(&many(65));
    assert!(
        matches!(tried, Error::TooMuch { what: "keys of ours that do not open", .. }),
        "{tried}"
    );
    assert!(matches!(refused(&many(3)), Error::NoKey { .. }));
    let bytes = with(&sealed, "YWdl", &"A".repeat(17 << 10));
    assert!(matches!(
        refused(&bytes),
        Error::TooMuch { what: "bytes in an encrypted data key", .. }
    ));
    let group = "        - age:\n            - recipient: x\n              enc: x\n";
    let groups = format!(
        "{}    key_groups:\n{}{}",
        &sealed[..sealed.find("    age:\n").unwrap()],
        group.repeat(33),
        &sealed[end..]
    );
    assert!(matches!(refused(&groups), Error::TooMuch { what: "groups of keys", .. }));
    let deep = format!("a: {}\n{sealed}", "[".repeat(100_000));
    assert!(matches!(refused(&deep), Error::Yaml(_)));
}

#[test]
fn aliases_are_refused() {
    let sealed = golden("yaml-regex");
    let alias = with(&sealed, "type: Opaque", "x: &x [a]\ny: *x");
    assert!(why(&alias).contains("an alias cannot be read here (line "), "{}", why(&alias));
}

#[test]
fn encrypted_values_stand_on_one_line() {
    let sealed = golden("yaml-regex");
    let user = line(&sealed, "user:").to_owned();
    let folded = with(&sealed, &user, &user.replace("user: ", "user: >-\n        "));
    assert!(
        why(&folded).ends_with("has an encrypted value in a block of lines"),
        "{}",
        why(&folded)
    );
    let quoted = with(&sealed, &user, &format!("{}\"", user.replace("user: ", "user: \"")));
    let opened = open_as("a.yaml", quoted.as_bytes(), &key("age.agekey")).unwrap().unwrap();
    assert!(String::from_utf8(opened).unwrap().contains("user: \"admin\"\n"));
}

#[test]
fn what_is_marked_is_left_alone() {
    let sealed = golden("yaml-regex");
    let marked = with(&sealed, "name: db", "name: db\n    annotations: {leave: Disabled}");
    let keys = key("age.agekey");
    let file = Arc::new(RelPath::parse("a.yaml").unwrap());
    let limits = plumb_yaml::Limits::default();
    let options = |marks| Options { keys: &keys, shape: Shape::Lines, marks, limits };
    let json = br#"{"metadata": {"annotations": {"leave": "disabled"}}, "a": "ENC[AES256_GCM,", "sops": {"mac": "x"}}"#;
    for content in [marked.as_bytes(), json] {
        assert!(open(&file, content, &options(&["leave"])).unwrap().is_none());
        assert!(open(&file, content, &options(&[])).is_err());
    }
}

#[test]
fn random_damage_is_no_panic_and_never_another_value() {
    let keys = key("age.agekey");
    let seed = 20_261_126;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let files = [
        ("a.yaml", "golden/yaml-mac-only-encrypted/sealed.yaml"),
        ("a.json", "golden/json/sealed.json"),
        ("a.env", "golden/dotenv/sealed.env"),
        ("a.txt", "golden/text/sealed.txt"),
    ];
    let mut opened = 0;
    for _ in 0..2000 {
        let (name, path) = files[random.usize(..files.len())];
        let mut bytes = read(path).into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(0..3) {
                0 => bytes[at] = random.u8(..),
                1 => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, b":\n{[\"-#="[random.usize(..8)]),
            }
        }
        opened += usize::from(matches!(open_as(name, &bytes, &keys), Ok(Some(_))));
    }
    println!("{opened} opened all the same");
}

fn bad_key(name: &str, content: &str) -> KeyError {
    let error = Keys::of_secret([(name, content.as_bytes())]).unwrap_err();
    let shown = format!("{error} {error:?} {}", error.hint());
    assert!(!shown.contains("hunter2") && !shown.contains("SECRET-KEY-1Y"), "{shown}");
    error
}

#[test]
fn a_secret_without_keys_says_how_entries_are_named() {
    let none = Keys::of_secret([]).unwrap_err();
    assert_eq!(none.to_string(), "there is no key in it");
    let key = read("keys/age.agekey");
    let other = bad_key("age.key", &key);
    assert_eq!(other.to_string(), "there is no key in it, only age.key");
    assert!(other.hint().contains(".agekey") && other.hint().contains(".asc"), "{}", other.hint());
}

#[test]
fn an_entry_of_another_name_is_told_where_it_would_have_helped() {
    let (ours, theirs) = (read("keys/stranger.agekey"), read("keys/age.agekey"));
    let entries = [("a.agekey", ours.as_bytes()), ("identity.txt", theirs.as_bytes())];
    let keys = Keys::of_secret(entries).unwrap();
    let error = open_as("a.yaml", golden("yaml").as_bytes(), &keys).unwrap_err();
    let hint = error.hint().unwrap();
    assert!(hint.starts_with("identity.txt was not used"), "{hint}");
}

#[test]
fn keys_that_do_not_parse_are_told_without_them() {
    let key = read("keys/age.agekey");
    let (_, line) = key.split_once('\n').unwrap();
    let cut = &line[..line.len() - 3];
    let cases = [
        ("a.agekey", format!("# one\n{cut}\n"), "a.agekey: line 2 is no age key"),
        ("a.agekey", "hunter2".into(), "a.agekey: line 1 is no age key"),
        ("a.agekey", "# none\n".into(), "a.agekey has no age key"),
        (
            "a.agekey",
            "AGE-SECRET-KEY-PQ-1X".into(),
            "a.agekey: a post-quantum age key cannot be used",
        ),
        ("a.agekey", "AGE-PLUGIN-X-1X".into(), "a.agekey: a key of an age plugin cannot be used"),
        (
            "a.agekey",
            "-----BEGIN AGE ENCRYPTED FILE-----".into(),
            "a.agekey: an age key behind a passphrase cannot be used",
        ),
        ("a.asc", "hunter2".into(), "a.asc is no armored OpenPGP private key"),
        ("a.asc", read("keys/public.asc"), "a.asc is no armored OpenPGP private key"),
        ("a.asc", key.clone(), "a.asc is no armored OpenPGP private key"),
        (
            "a.asc",
            read("keys/rsa.asc").replace("=\n", "\n").replace('A', "B"),
            "a.asc is no armored OpenPGP private key",
        ),
    ];
    for (name, content, want) in cases {
        assert_eq!(bad_key(name, &content).to_string(), want);
    }
    let locked = bad_key("a.asc", &read("keys/locked.asc"));
    assert!(matches!(&locked, KeyError::Locked { name, .. } if name == "a.asc"), "{locked}");
    let many = line.repeat(101);
    assert_eq!(bad_key("a.agekey", &many), KeyError::TooMany { limit: 100 });
}

#[test]
fn files_of_keys_may_have_any_name() {
    let (age, pgp) = (read("keys/age.agekey"), read("keys/curve.asc"));
    let keys = Keys::of_files([("keys.txt", age.as_bytes()), ("key", pgp.as_bytes())]).unwrap();
    assert_eq!(keys.names(), [AGE, "OpenPGP F24959A3CD0C7FFA1038B57035712D29928F1F4B"]);
    let shown = format!("{keys:?}");
    assert!(shown.contains(AGE) && !shown.contains("SECRET"), "{shown}");
}
