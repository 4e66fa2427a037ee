//! Any text as the URL of a repository.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_controller::receiver::address::Address;

fuzz_target!(|text: &str| {
    if let Some(address) = Address::parse(text) {
        // It can be shown as it is.
        let shown = address.to_string();
        let odd = |c: char| c.is_control() || c.is_whitespace() || c.is_ascii_uppercase();
        assert!(!shown.contains(odd) && !shown.ends_with('/'), "{shown:?}");
        let _ = address.ends_with(text);
    }
});
