//! Commits and tags with anything in them: nothing panics, and nothing that was not signed is verified.

#![no_main]

use std::sync::LazyLock;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use plumb_source::{CommitId, TrustedKeys, verify_commit, verify_tag};

/// Keys that nobody has signed with anything that the fuzzer could know.
static KEYS: LazyLock<TrustedKeys> = LazyLock::new(|| {
    let entries: [(&str, &[u8]); 2] =
        [("ada.asc", include_bytes!("ada.asc")), ("bob.sshpub", include_bytes!("bob.sshpub"))];
    TrustedKeys::of_secret(entries).unwrap()
});

fuzz_target!(|data: &[u8]| {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let target: CommitId = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
    assert!(verify_commit(data, &KEYS, now).is_err());
    assert!(verify_tag(data, &target, None, &KEYS, now).is_err());
    // And as keys, which people put into Secrets.
    let _ = TrustedKeys::of_secret([("a.asc", data)]);
    let _ = TrustedKeys::of_secret([("a.sshpub", data)]);
});
