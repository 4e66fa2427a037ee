use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// A public key as files have it. Two with the same type and number are equal.
fn key(kind: &str, number: u8) -> String {
    let mut blob = Vec::new();
    let mut part = |bytes: &[u8]| {
        blob.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        blob.extend(bytes);
    };
    part(kind.as_bytes());
    match kind {
        "ssh-ed25519" => part(&[number; 32]),
        "ecdsa-sha2-nistp256" => {
            part(b"nistp256");
            let mut point = [number; 65];
            point[0] = 4;
            part(&point);
        }
        "ssh-rsa" => {
            part(&[1, 0, 1]);
            part(&[number.max(1); 256]);
        }
        _ => part(&[number; 8]),
    }
    format!("{kind} {}", STANDARD.encode(blob))
}

const ED: &str = "ssh-ed25519";
const EC: &str = "ecdsa-sha2-nistp256";
const RSA: &str = "ssh-rsa";

fn parse(text: &str) -> KnownHosts {
    KnownHosts::parse(text).unwrap()
}

fn public(kind: &str, number: u8) -> PublicKey {
    PublicKey::from_openssh(&key(kind, number)).unwrap()
}

/// What stands for each host is what OpenSSH's own tool finds.
#[test]
fn names_match_as_in_openssh() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    let salted = |name: &str| {
        std::fs::write(&file, format!("{name} {}\n", key(ED, 1))).unwrap();
        let run = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file).output();
        assert!(run.expect("these tests need ssh-keygen").status.success());
        let text = std::fs::read_to_string(&file).unwrap();
        let hashed = text.split(' ').next().unwrap().to_owned();
        assert!(hashed.starts_with("|1|"), "{hashed}");
        hashed
    };
    let (plain, port) = (salted("example.com"), salted("[example.com]:2222"));
    for (hosts, name, want) in [
        ("example.com", "example.com", true),
        ("EXAMPLE.com", "example.com", true),
        ("example.com", "www.example.com", false),
        ("a.com,example.com", "example.com", true),
        ("*.example.com", "www.example.com", true),
        ("*.example.com", "example.com", false),
        ("*", "example.com", true),
        ("*", "[example.com]:2222", true),
        ("ex?mple.com", "example.com", true),
        ("ex?mple.com", "exmple.com", false),
        ("e*m*e.com", "example.com", true),
        ("e*m*e.co", "example.com", false),
        ("*.com,!example.com", "example.com", false),
        ("!example.com,*.com", "example.com", false),
        ("!example.com,*.com", "other.com", true),
        ("!other.com", "example.com", false),
        ("[example.com]:2222", "[example.com]:2222", true),
        ("[example.com]:2222", "example.com", false),
        ("[example.com]:2222", "[example.com]:2223", false),
        ("[*.example.com]:2222", "[www.example.com]:2222", true),
        ("example.com", "[example.com]:2222", false),
        ("192.0.2.7", "192.0.2.7", true),
        ("::1", "::1", true),
        ("[::1]:2222", "[::1]:2222", true),
        (&plain, "example.com", true),
        (&plain, "example.org", false),
        (&plain, "[example.com]:2222", false),
        (&port, "[example.com]:2222", true),
        (&port, "example.com", false),
    ] {
        let text = format!("{hosts} {}\n", key(ED, 1));
        std::fs::write(&file, &text).unwrap();
        let found = Command::new("ssh-keygen").args(["-F", name, "-f"]).arg(&file).output();
        let found = !found.expect("these tests need ssh-keygen").stdout.is_empty();
        assert_eq!(found, want, "ssh-keygen: {hosts} {name}");
        let ours = parse(&text);
        assert_eq!(matches(&ours.lines[0].hosts, name), want, "{hosts} {name}");
    }
}

#[test]
fn hosts_on_other_ports_are_looked_for_with_and_without_it() {
    let known = parse(&format!("example.com {}\n[example.com]:2222 {}\n", key(ED, 1), key(ED, 2)));
    for (port, number) in [(22, 1), (2222, 2), (2223, 1)] {
        let keys = known.of("Example.COM", port).unwrap();
        assert!(keys.check(&public(ED, number)).is_ok(), "{port}");
        assert!(keys.check(&public(ED, 3 - number)).is_err(), "{port}");
    }
    assert_eq!(known.of("example.com", 2222).unwrap().host(), "[example.com]:2222");
}

#[test]
fn servers_are_asked_for_what_is_known_only() {
    for (kinds, want) in [
        (&[ED][..], "ssh-ed25519"),
        (&[RSA], "rsa-sha2-512,rsa-sha2-256"),
        (&[EC], "ecdsa-sha2-nistp256"),
        // Ours is the order, not the file's; one that stands twice is asked for once.
        (&[RSA, EC, ED, ED], "ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256"),
    ] {
        let lines = kinds.iter().zip(0..);
        let text: String =
            lines.flat_map(|(kind, i)| ["h ".into(), key(kind, i), "\n".into()]).collect();
        let keys = parse(&text).of("h", 22).unwrap();
        let algorithms: Vec<String> = keys.algorithms().iter().map(ToString::to_string).collect();
        assert_eq!(algorithms.join(","), want);
    }
    let text = format!("h {}\nother {}\nh {}\n", key(ED, 1), key(RSA, 1), key("ssh-dss", 1));
    let keys = parse(&text).of("h", 22).unwrap();
    assert_eq!(keys.algorithms(), [Algorithm::Ed25519]);
    assert_eq!(keys.types(), "ssh-ed25519");
}

#[test]
fn keys_are_trusted_changed_revoked_or_unknown() {
    let (one, two, rsa) = (key(ED, 1), key(ED, 2), key(RSA, 1));
    let reason = |text: &str, shown: PublicKey| {
        let keys = parse(text).of("h", 22);
        keys.and_then(|keys| keys.check(&shown)).map_err(|error| error.reason()).err()
    };
    for (text, shown, want) in [
        (format!("h {one}"), public(ED, 1), None),
        (format!("h {one} a comment # of any kind"), public(ED, 1), None),
        (format!("\n# h {two}\n\t h\t{one}\r\n"), public(ED, 1), None),
        (format!("h {one}\nh {two}\n"), public(ED, 2), None),
        (format!("h {one}\nh {rsa}\n"), public(RSA, 1), None),
        (format!("h {one}"), public(ED, 2), Some("HostKeyChanged")),
        (format!("h {one}\nother {two}"), public(ED, 2), Some("HostKeyChanged")),
        (String::new(), public(ED, 1), Some("HostKeyUnknown")),
        (format!("other {one}"), public(ED, 1), Some("HostKeyUnknown")),
        (format!("@cert-authority h {one}"), public(ED, 1), Some("HostKeyUnknown")),
        (format!("@cert-authority h {one}\nh {two}"), public(ED, 1), Some("HostKeyChanged")),
        (format!("h {}", key("ssh-dss", 1)), public(ED, 1), Some("HostKeyUnknown")),
        (format!("h {one}\n@revoked h {one}"), public(ED, 1), Some("HostKeyRevoked")),
        (format!("@revoked * {one}\nh {one}\nh {two}"), public(ED, 1), Some("HostKeyRevoked")),
        (format!("@revoked * {one}\nh {one}\nh {two}"), public(ED, 2), None),
        (format!("@revoked other {one}\nh {one}"), public(ED, 1), None),
        (format!("@revoked h {one}"), public(ED, 1), Some("HostKeyUnknown")),
    ] {
        assert_eq!(reason(&text, shown), want, "{text}");
    }
    // Revoked without the port, too.
    let text = format!("[h]:2222 {one}\n@revoked h {one}");
    assert_eq!(parse(&text).of("h", 2222).unwrap_err().reason(), "HostKeyRevoked");
}

#[test]
fn lines_that_cannot_be_read_are_told_by_number() {
    let one = key(ED, 1);
    for (text, line) in [
        (format!("# fine\nh {one}\nh\n"), 3),
        (one.clone(), 1),
        (format!("@trusted h {one}"), 1),
        (format!("@revoked {one}"), 1),
        ("|1|nothing ssh-ed25519 AAAA".into(), 1),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAA\n".into(), 2),
    ] {
        let error = KnownHosts::parse(&text).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, SshError::InvalidKnownHosts { line: at, .. } if at == line),
            "{text}: {error}"
        );
        assert!(!error.to_string().contains("b3Bl"), "{error}");
    }
    // A key that is cut off is an error for its host only, and so is one that should be revoked.
    let cut = &one[..one.len() - 9];
    let wrong = format!("ssh-rsa {}", &one[12..]);
    for text in [format!("h {cut}"), format!("@revoked h {cut}"), format!("h {wrong}")] {
        let known = parse(&format!("{text}\nh {one}\nother {one}\n"));
        assert_eq!(known.of("h", 22).unwrap_err().reason(), "KnownHostsInvalid", "{text}");
        known.of("other", 22).unwrap();
    }
}

#[test]
fn what_is_of_no_use_is_told() {
    for (text, want) in [
        (format!("@cert-authority h {}", key(ED, 1)), "certificate authority"),
        (format!("h {}", key("sk-ssh-ed25519@openssh.com", 1)), "sk-ssh-ed25519@openssh.com"),
    ] {
        let error = parse(&text).of("h", 22).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}
