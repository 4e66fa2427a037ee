//! Any text as a private key, with and without a passphrase.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_ssh::Identity;

/// The beginning of a key in the one format that is left to a library with its passphrase.
const HEAD: &str = "-----BEGIN RSA PRIVATE KEY-----\n\
    DEK-Info: AES-128-CBC,00000000000000000000000000000000\n";

fuzz_target!(|text: &str| {
    // What is inside another key's marks is found by itself seldom.
    for text in [text.to_owned(), format!("{HEAD}{text}")] {
        for passphrase in [None, Some("correct horse")] {
            if let Ok(identity) = Identity::parse(&text, passphrase) {
                assert!(identity.fingerprint().starts_with("SHA256:"));
            }
        }
    }
});
