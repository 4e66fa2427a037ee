use std::path::Path;
use std::process::Command;

use pkcs8::der::Encode as _;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::pkcs5::pbes2::{EncryptionScheme as Cipher, Parameters, Pbkdf2Params, Pbkdf2Prf, Salt};

use super::*;

const PASSPHRASE: &str = "correct horse";

fn keygen(args: &[&str]) -> String {
    let run = Command::new("ssh-keygen").args(args).output().expect("these tests need ssh-keygen");
    assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// Makes a key and returns its text and its fingerprint.
fn make(dir: &Path, kind: &str, bits: &str, format: &str, passphrase: &str) -> (String, String) {
    let path = dir.join(format!("{kind}{bits}{format}{}", passphrase.len()));
    let path = path.to_str().unwrap();
    let mut args = vec!["-q", "-t", kind, "-m", format, "-N", passphrase, "-f", path, "-C", ""];
    if !bits.is_empty() {
        args.extend(["-b", bits]);
    }
    if format == "RFC4716" {
        // The default is made for attackers' patience, not for tests'.
        args.extend(["-a", "2"]);
    }
    keygen(&args);
    let shown = keygen(&["-l", "-f", path]);
    let fingerprint = shown.split(' ').nth(1).unwrap().to_owned();
    (std::fs::read_to_string(path).unwrap(), fingerprint)
}

#[test]
fn keys_of_every_type_and_format_open_with_their_passphrase_only() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, bits) in
        [("ed25519", ""), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")]
    {
        for format in ["RFC4716", "PEM", "PKCS8"] {
            let case = format!("{kind}{bits} {format}");
            let (text, fingerprint) = make(dir.path(), kind, bits, format, "");
            for passphrase in [None, Some("not asked for")] {
                let key =
                    Identity::parse(&text, passphrase).unwrap_or_else(|e| panic!("{case} {e}"));
                assert_eq!(key.fingerprint(), fingerprint, "{case}");
            }

            let (text, fingerprint) = make(dir.path(), kind, bits, format, PASSPHRASE);
            let parse = |passphrase| Identity::parse(&text, passphrase);
            if kind == "ecdsa" && format == "PEM" {
                let error = parse(Some(PASSPHRASE)).unwrap_err();
                assert!(error.to_string().contains("old way"), "{error}");
                continue;
            }
            let key = parse(Some(PASSPHRASE)).unwrap_or_else(|error| panic!("{case} {error}"));
            assert_eq!(key.fingerprint(), fingerprint, "{case}");
            assert_eq!(format!("{key:?}"), format!("Identity({fingerprint:?})"));
            let wrong = parse(Some("battery staple")).unwrap_err();
            assert!(matches!(wrong, SshError::PassphraseWrong), "{case} {wrong}");
            let missing = parse(None).unwrap_err();
            assert!(matches!(missing, SshError::PassphraseMissing), "{case} {missing}");
        }
    }
}

#[test]
fn a_key_may_be_indented_and_have_other_line_ends() {
    let dir = tempfile::tempdir().unwrap();
    for format in ["RFC4716", "PKCS8"] {
        let (text, fingerprint) = make(dir.path(), "ecdsa", "256", format, "");
        for text in [
            text.replace('\n', "\r\n"),
            text.lines().flat_map(|line| ["  ", line, "\n"]).collect(),
            format!("\n\n{text}\n"),
            text.trim_end().to_owned(),
        ] {
            assert_eq!(Identity::parse(&text, None).unwrap().fingerprint(), fingerprint);
        }
    }
}

#[test]
fn what_is_no_key_is_told_without_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let (key, _) = make(dir.path(), "ed25519", "", "RFC4716", "");
    let public = keygen(&["-y", "-f", dir.path().join("ed25519RFC47160").to_str().unwrap()]);
    let cut: String = key.lines().take(3).flat_map(|line| [line, "\n"]).collect();
    let rsa = make(dir.path(), "rsa", "1024", "PEM", PASSPHRASE).0;
    for (text, want) in [
        (String::new(), "does not begin"),
        ("hunter2".into(), "does not begin"),
        (public, "public key"),
        (cut, "cannot be decoded"),
        (key.replace("b3BlbnNz", "hunter2A"), "cannot be decoded"),
        ("-----BEGIN CERTIFICATE-----\nhunter2A\n-----END CERTIFICATE-----\n".into(), "no private"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2A\n-----END PRIVATE KEY-----\n".into(), "decoded"),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2A\n-----END ENCRYPTED PRIVATE KEY-----\n"
                .into(),
            "decoded",
        ),
        ("PuTTY-User-Key-File-3: hunter2".into(), "PuTTY"),
        ("-----BEGIN DSA PRIVATE KEY-----\n".into(), "DSA"),
        (rsa.replace("AES-128-CBC", "DES-EDE3-CBC"), "old way"),
        ("hunter2\n".repeat(20_000), "too long"),
    ] {
        for passphrase in [None, Some(PASSPHRASE)] {
            let error = Identity::parse(&text, passphrase).unwrap_err();
            assert_eq!(error.reason(), "IdentityInvalid", "{error}");
            let text = format!("{error} {error:?} {:?}", error.hint());
            assert!(text.contains(want) && !text.contains("hunter2"), "{want}: {text}");
        }
    }
}

fn armoured(label: &str, bytes: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes))
}

/// Encrypted keys that take for ever to open, or more memory than there is: one in each format.
fn endless() -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let (text, _) = make(dir.path(), "ed25519", "", "RFC4716", PASSPHRASE);
    let mut bytes = Block::first(&text).unwrap().unwrap().bytes().unwrap();
    let name = bytes.windows(6).position(|window| window == b"bcrypt").unwrap();
    // The name, two lengths and a salt of sixteen bytes.
    let rounds = name + 6 + 4 + 4 + 16;
    assert_eq!(bytes[rounds..rounds + 4], [0, 0, 0, 2]);
    bytes[rounds..rounds + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    let bcrypt = armoured("OPENSSH PRIVATE KEY", &bytes);

    let cipher = Cipher::Aes256Cbc { iv: [7; 16] };
    let salt = || Salt::new([7; 16]).unwrap();
    let pbkdf2 = Kdf::Pbkdf2(Pbkdf2Params {
        salt: salt(),
        iteration_count: u32::MAX,
        key_length: None,
        prf: Pbkdf2Prf::HmacWithSha256,
    });
    let scrypt = {
        let params = pkcs8::pkcs5::scrypt::Params::new(30, 8, 1).unwrap();
        let parameters = Parameters::generate_scrypt_aes256cbc(params, &[7; 16], [7; 16]).unwrap();
        parameters.kdf
    };
    let mut texts = vec![bcrypt];
    for kdf in [pbkdf2, scrypt] {
        let info = pkcs8::EncryptedPrivateKeyInfoRef {
            encryption_algorithm: Parameters { kdf, encryption: cipher }.into(),
            encrypted_data: OctetStringRef::new(&[7; 64]).unwrap(),
        };
        texts.push(armoured("ENCRYPTED PRIVATE KEY", &info.to_der().unwrap()));
    }
    texts
}

/// Whoever may write a Secret may write one that takes for ever to open.
#[test]
fn a_passphrase_that_takes_too_long_is_refused_at_once() {
    for text in endless() {
        let error = Identity::parse(&text, Some(PASSPHRASE)).unwrap_err();
        assert!(error.to_string().contains("too many rounds"), "{error}");
    }
}

#[test]
fn a_key_within_another_ones_marks_is_not_opened() {
    let head = format!("DEK-Info: AES-128-CBC,{}\n", "0".repeat(32));
    for text in endless() {
        for (label, head) in [("RSA", &*head), ("EC", &*head), ("RSA", ""), ("EC", "")] {
            let inside = format!("-----BEGIN {label} PRIVATE KEY-----\n{head}{text}");
            let error = Identity::parse(&inside, Some(PASSPHRASE)).unwrap_err();
            assert!(error.to_string().contains("another one begins"), "{error}");
        }
        // The library would begin with the second line as well.
        let (begin, rest) = text.split_once('\n').unwrap();
        let (_, label) = begin.split_at(3);
        let cut = format!("-----BEGIN RSA PRIVATE KEY-----\n{head}\n---\n{label}\n{rest}");
        assert_eq!(
            Identity::parse(&cut, Some(PASSPHRASE)).unwrap_err().reason(),
            "IdentityInvalid"
        );
    }
    // Nor is what follows, nor what stands before.
    let body = STANDARD.encode(b"no key");
    let first =
        format!("-----BEGIN RSA PRIVATE KEY-----\n{head}\n{body}\n-----END RSA PRIVATE KEY-----\n");
    for text in endless() {
        let after = Identity::parse(&format!("{first}{text}"), Some(PASSPHRASE)).unwrap_err();
        assert!(matches!(after, SshError::PassphraseWrong), "{after}");
        let putty = format!("PuTTY-User-Key-File-3: ssh-ed25519\n{first}");
        let before = Identity::parse(&putty, Some(PASSPHRASE)).unwrap_err();
        assert!(matches!(before, SshError::PassphraseWrong), "{before}");
    }
}
