use http::HeaderValue;

use super::*;

/// The secret of the test vectors of GitHub and Atlassian.
const EVERYBODY: &str = "It's a Secret to Everybody";

/// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation>
const GITHUB: (&str, &str) =
    ("Hello, World!", "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");

/// <https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/#Example-of-HMAC-hex-digest>
const ATLASSIAN: (&str, &str) =
    ("Hello World!", "a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9");

/// The key, id, time, body and signature that the libraries of Standard Webhooks are tested with:
/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/go/webhook_symmetric_test.go>
const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const STANDARD_ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const STANDARD_TIME: u64 = 1_614_265_330;
const STANDARD_BODY: &str = r#"{"test": 2432232314}"#;
const STANDARD_SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    });
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value);
    }
    headers
}

/// Whether a request is taken, its body coming in two pieces.
fn holds(service: Service, pairs: &[(&'static str, &str)], body: &str, secrets: &[&str]) -> bool {
    holds_at(service, pairs, body, secrets, STANDARD_TIME).is_some()
}

fn holds_at(
    service: Service,
    pairs: &[(&'static str, &str)],
    body: &str,
    secrets: &[&str],
    now: u64,
) -> Option<Signed> {
    let secrets = Secrets::new(secrets);
    let mut check = Check::begin(service, &headers(pairs), &secrets, now)?;
    let (head, rest) = body.as_bytes().split_at(body.len() / 2);
    check.update(head);
    check.update(rest);
    check.finish()
}

#[test]
fn every_service_signs_as_it_documents() {
    let github = format!("sha256={}", GITHUB.1);
    let atlassian = format!("sha256={}", ATLASSIAN.1);
    let table: [(Service, &'static str, &str, &str); 7] = [
        (Service::GitHub, "x-hub-signature-256", &github, GITHUB.0),
        (Service::Gitea, "x-hub-signature-256", &github, GITHUB.0),
        (Service::Gitea, "x-gitea-signature", GITHUB.1, GITHUB.0),
        (Service::Gitea, "x-forgejo-signature", GITHUB.1, GITHUB.0),
        (Service::Bitbucket, "x-hub-signature", &atlassian, ATLASSIAN.0),
        (Service::Generic, "x-signature", &github, GITHUB.0),
        (Service::GitLab, "x-gitlab-token", EVERYBODY, "whatever"),
    ];
    for (service, name, value, body) in table {
        println!("{service:?} {name}");
        assert!(holds(service, &[(name, value)], body, &[EVERYBODY]));
        let others = ["another secret of some length", EVERYBODY, "and one more of some length"];
        assert!(holds(service, &[(name, value)], body, &others), "any secret is as good");
        assert!(!holds(service, &[(name, value)], body, &others[..1]), "another secret");
        assert!(!holds(service, &[(name, value)], body, &[]), "no secret");
        assert!(!holds(service, &[], body, &[EVERYBODY]), "no signature");
        let twice = [(name, value), (name, value)];
        assert!(!holds(service, &twice, body, &[EVERYBODY]), "two of them mean neither");
        if service != Service::GitLab {
            assert!(!holds(service, &[(name, value)], "Hello, World?", &[EVERYBODY]));
            assert!(!holds(service, &[(name, value)], "", &[EVERYBODY]));
        }
        for broken in broken(value) {
            assert!(!holds(service, &[(name, &broken)], body, &[EVERYBODY]), "{broken}");
        }
        // The signature of one service is not taken by another that has it elsewhere.
        for other in Service::ALL {
            let same = matches!(
                (service, other),
                (Service::GitHub, Service::Gitea) | (Service::Gitea, Service::GitHub)
            );
            if other != service && !same {
                assert!(!holds(other, &[(name, value)], body, &[EVERYBODY]), "{other:?}");
            }
        }
    }
}

/// A value with each kind of mistake.
fn broken(value: &str) -> Vec<String> {
    let mut last = value.to_owned();
    let end = last.pop().unwrap();
    let other = if end == '0' { '1' } else { '0' };
    vec![
        String::new(),
        format!("{last}{other}"),
        last.clone(),
        format!("{value}0"),
        format!("{value} "),
        format!("{last}g"),
        value.replacen("sha256=", "sha1=", 1).replacen(value, "sha1=0", 1),
        format!("sha256={value}"),
    ]
}

#[test]
fn a_signature_of_standard_webhooks_covers_id_time_and_body() {
    let check = |time: &str, signature: &str, id: &str, body: &str, now: u64| {
        let pairs =
            [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)];
        holds_at(Service::GitLab, &pairs, body, &[STANDARD_SECRET], now).is_some()
    };
    let (id, time, good, body) =
        (STANDARD_ID, STANDARD_TIME.to_string(), STANDARD_SIGNATURE, STANDARD_BODY);
    assert!(check(&time, good, id, body, STANDARD_TIME));
    for (now, holds) in [(300, true), (301, false)] {
        assert_eq!(check(&time, good, id, body, STANDARD_TIME + now), holds);
        assert_eq!(check(&time, good, id, body, STANDARD_TIME - now), holds);
    }
    assert!(!check("1614265331", good, id, body, STANDARD_TIME));
    assert!(!check("now", good, id, body, STANDARD_TIME));
    assert!(!check("", good, id, body, STANDARD_TIME));
    assert!(!check(&time, good, "msg_other", body, STANDARD_TIME));
    assert!(!check(&time, good, id, "{}", STANDARD_TIME));
    let other = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";
    for (signatures, holds) in [
        (format!("{other} {}", good.replace("v1,", "v2,")), false),
        (format!("{other} v2,x {good} {other}"), true),
        ("v1,".into(), false),
        (good.replace("v1,", ""), false),
        (format!("{} {good}", [other; MOST_SIGNATURES].join(" ")), false),
    ] {
        assert_eq!(check(&time, &signatures, id, body, STANDARD_TIME), holds, "{signatures}");
    }
    for missing in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let pairs =
            [("webhook-id", id), ("webhook-timestamp", &*time), ("webhook-signature", good)];
        let pairs: Vec<_> = pairs.into_iter().filter(|(name, _)| *name != missing).collect();
        assert!(!holds(Service::GitLab, &pairs, body, &[STANDARD_SECRET]), "{missing}");
    }
}

/// GitLab sends both when both are set there; one of them here is enough.
#[test]
fn a_token_and_a_signature_may_come_together() {
    let time = STANDARD_TIME.to_string();
    let with = |token: &str| {
        let pairs = [
            ("x-gitlab-token", token),
            ("webhook-id", STANDARD_ID),
            ("webhook-timestamp", &time),
            ("webhook-signature", STANDARD_SIGNATURE),
        ];
        [[STANDARD_SECRET], [EVERYBODY], ["another secret of some length"]]
            .map(|secrets| holds(Service::GitLab, &pairs, STANDARD_BODY, &secrets))
    };
    assert_eq!(with(EVERYBODY), [true, true, false]);
    assert_eq!(with("wrong"), [true, false, false]);
}

#[test]
fn only_secrets_that_cannot_be_guessed_are_taken() {
    let count = |values: &[&str]| Secrets::new(values).len();
    assert_eq!(count(&["", "short", "fifteen bytes..", "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"]), 0);
    assert_eq!(count(&["sixteen bytes...", EVERYBODY]), 2);
    assert_eq!(count(&["fifteen bytes..\n"]), 0, "the line end does not count");
    assert_eq!(count(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "whsec_AAAAAAAAAAAAAAAAAAAA"]), 0);
    assert_eq!(count(&[STANDARD_SECRET]), 1);
    assert_eq!(Secrets::new(vec![EVERYBODY; 100]).len(), MOST_SECRETS);
    assert!(Secrets::default().is_empty());
    // As `kubectl create secret --from-file` stores it.
    let line = format!("{EVERYBODY}\r\n");
    assert!(holds(Service::GitLab, &[("x-gitlab-token", EVERYBODY)], "", &[&line]));
    assert!(!format!("{:?}", Secrets::new([EVERYBODY])).contains("Secret to"));
}

#[test]
fn a_delivery_that_is_sent_again_is_known_by_its_id() {
    let signature = format!("sha256={}", GITHUB.1);
    let delivery = |service, name: &'static str, id: &str, header: &'static str| {
        let pairs = [(header, signature.as_str()), (name, id)];
        holds_at(service, &pairs, GITHUB.0, &[EVERYBODY], 0).unwrap().delivery
    };
    for (service, header, name) in [
        (Service::GitHub, "x-hub-signature-256", "x-github-delivery"),
        (Service::Gitea, "x-hub-signature-256", "x-gitea-delivery"),
        (Service::Gitea, "x-hub-signature-256", "x-forgejo-delivery"),
        (Service::Bitbucket, "x-hub-signature", "x-request-uuid"),
        (Service::Bitbucket, "x-hub-signature", "x-request-id"),
    ] {
        let first = delivery(service, name, "a", header);
        assert!(first.is_some(), "{name}");
        assert_eq!(first, delivery(service, name, "a", header));
        assert_ne!(first, delivery(service, name, "b", header));
        assert_eq!(delivery(service, "x-other", "a", header), None);
    }
    assert_eq!(delivery(Service::Generic, "x-request-id", "a", "x-signature"), None);
    let token = |id: &str| {
        let pairs = [("x-gitlab-token", EVERYBODY), ("idempotency-key", id)];
        holds_at(Service::GitLab, &pairs, "", &[EVERYBODY], 0).unwrap().delivery
    };
    assert!(token("a").is_some() && token("a") == token("a") && token("a") != token("b"));
}
