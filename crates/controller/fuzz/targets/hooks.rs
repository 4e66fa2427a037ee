//! Any headers and any body, at each service: once as they come, once signed so that the body is read.
//!
//! The input is lines `name: value`, an empty line, and the body.
#![no_main]

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use plumb_controller::receiver::Service;
use plumb_controller::receiver::payload::{self, Said};
use plumb_controller::receiver::signature::{Check, Secrets};
use sha2::Sha256;

const SECRET: &str = "a secret for random hooks";

/// The time of the requests, in seconds since 1970.
const NOW: u64 = 1_614_265_330;

fuzz_target!(|input: &[u8]| {
    let (headers, body) = parts(input);
    let secrets = Secrets::new([SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    for service in Service::ALL {
        let taken = check(service, &headers, body, &secrets);
        // Who knows no secret signs nothing; a token is known only when it is in the input.
        let token = input.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
        assert!(!taken || token || body.is_empty() || headers.contains_key("webhook-signature"));
        let mut signed = headers.clone();
        sign(service, &mut signed, body);
        assert!(check(service, &signed, body, &secrets), "{service:?}");
        if let Ok(Said::News(news)) = payload::read(service, &signed, body) {
            assert!(!news.places.is_empty());
        }
        let _ = payload::is_unsigned_test(service, &headers);
    }
});

fn check(service: Service, headers: &HeaderMap, body: &[u8], secrets: &Secrets) -> bool {
    let Some(mut check) = Check::begin(service, headers, secrets, NOW) else { return false };
    check.update(body);
    check.finish().is_some()
}

fn parts(input: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = input;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value)
            && headers.len() < 64
        {
            headers.append(name, value);
        }
    }
    (headers, rest)
}

/// Signs a body as a service does, whatever the headers say.
fn sign(service: Service, headers: &mut HeaderMap, body: &[u8]) {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    let bytes = mac.finalize().into_bytes();
    let hex = bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    for name in ["x-forgejo-signature", "x-gitea-signature"] {
        headers.remove(name);
    }
    let (name, value) = match service {
        Service::GitHub | Service::Gitea => ("x-hub-signature-256", format!("sha256={hex}")),
        Service::Bitbucket => ("x-hub-signature", format!("sha256={hex}")),
        Service::Generic => ("x-signature", format!("sha256={hex}")),
        Service::GitLab => ("x-gitlab-token", SECRET.to_owned()),
    };
    headers.insert(name, HeaderValue::from_str(&value).unwrap());
}
