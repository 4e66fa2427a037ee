//! Any text as known hosts: a key is trusted only if it stands in the text, and without a line that
//! revokes everywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_ssh::KnownHosts;

const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

fuzz_target!(|text: &str| {
    let line = format!("ssh-ed25519 {KEY}");
    let trusts = |text: &str, host: &str, port: u16| {
        let known = KnownHosts::parse(text).and_then(|known| known.of(host, port));
        known.is_ok_and(|keys| keys.trusts(&line))
    };
    for (host, port) in [("example.com", 22), ("example.com", 2222), ("::1", 22), ("*", 1)] {
        // What follows a key on its line is a comment.
        if trusts(text, host, port) {
            assert!(text.contains(KEY), "trusted out of nothing");
        }
        let own = format!("{text}\n[example.com]:2222,example.com,::1,[*]:1 {line}\n");
        let revoked = format!("{own}@revoked * {line}\n");
        assert!(!trusts(&revoked, host, port), "trusted although it is revoked");
    }
});
