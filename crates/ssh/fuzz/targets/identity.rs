//! Any text as a private key, with and without a passphrase.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_ssh::Identity;

fuzz_target!(|text: &str| {
    for passphrase in [None, Some("correct horse")] {
        if let Ok(identity) = Identity::parse(text, passphrase) {
            assert!(identity.fingerprint().starts_with("SHA256:"));
        }
    }
});
