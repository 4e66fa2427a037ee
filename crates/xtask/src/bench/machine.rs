//! What a figure was measured on.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::root;

/// Kernel, processors, memory, compiler and commit. What cannot be read is null.
pub(super) fn facts() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    json!({
        "kernel": first_word(&read("/proc/sys/kernel/osrelease")),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cpus": std::thread::available_parallelism().ok().map(std::num::NonZero::get),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "load": first_word(&read("/proc/loadavg")),
        "rustc": output("rustc", &["--version"]),
        "commit": output("git", &["describe", "--always", "--dirty", "--abbrev=40"]),
    })
}

fn first_word(text: &str) -> Option<&str> {
    text.split_whitespace().next()
}

/// The value of the first line `name : value`.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(root()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 85\nmodel name\t: Fast: 2 GHz\nMemTotal:   12 kB\n";
        assert_eq!(field(text, "model name"), Some("Fast: 2 GHz"));
        assert_eq!(field(text, "MemTotal"), Some("12 kB"));
        assert_eq!(field(text, "none"), None);
    }
}
