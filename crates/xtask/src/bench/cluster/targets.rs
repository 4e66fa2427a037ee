//! What the figures are to be, and the table of all of them.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What is compared in each phase, with how a table says it and by what it is divided.
const FIGURES: [(&str, &str, f64); 6] = [
    ("seconds", "s", 1.0),
    ("requests", "requests", 1.0),
    ("writes", "writes", 1.0),
    ("cpu_seconds", "CPU s", 1.0),
    ("peak_kib", "peak MiB", 1024.0),
    ("git_bytes", "Git KB", 1000.0),
];

/// The `--lease-duration` that is measured with, in seconds.
const LEASE: f64 = 15.0;

/// The budget of the release binary, in bytes, as it was measured; a tenth more fails. Our own crates that no
/// manifest passes through are built for size: the file got three megabytes larger by that, since generics of
/// theirs are not merged, and what is resident of it two smaller.
const BINARY: f64 = 31_850_000.0;

/// The limit of memory for up to a thousand applications, in KiB.
const MEMORY: f64 = 48.0 * 1024.0;

/// Medians of each figure of each phase of each system.
pub(super) fn medians(runs: &[Value]) -> Value {
    let mut systems = serde_json::Map::new();
    for run in runs {
        let system = run["system"].as_str().unwrap_or_default();
        if systems.contains_key(system) {
            continue;
        }
        let all: Vec<&Value> = runs.iter().filter(|run| run["system"] == system).collect();
        let mut phases = serde_json::Map::new();
        for phase in run["phases"].as_array().into_iter().flatten() {
            let what = phase["what"].as_str().unwrap_or_default();
            let same = |run: &&Value| -> Option<Value> {
                let mut phases = run["phases"].as_array()?.iter();
                phases.find(|phase| phase["what"] == what).cloned()
            };
            let same: Vec<Value> = all.iter().filter_map(same).collect();
            phases.insert(what.into(), median(&same));
        }
        let limits: Vec<&Value> = all.iter().filter_map(|run| run.get("limit")).collect();
        let shares = |what: &str| -> Vec<Value> {
            let of =
                |limit: &&Value| limit.as_array()?.iter().find(|one| one["what"] == what).cloned();
            limits.iter().filter_map(of).collect()
        };
        for what in ["first sync", "commit to all"] {
            let shares = shares(what);
            if !shares.is_empty() {
                phases[what]["limit"] = median(&shares);
            }
        }
        systems.insert(system.into(), Value::Object(phases));
    }
    Value::Object(systems)
}

/// Of values of one shape: the median of each number; all else is that of the first.
fn median(values: &[Value]) -> Value {
    match values.first() {
        Some(Value::Object(first)) => first
            .keys()
            .map(|key| {
                let of: Vec<Value> = values.iter().map(|value| value[key].clone()).collect();
                (key.clone(), median(&of))
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Some(Value::Number(_)) => {
            let mut numbers: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
            numbers.sort_by(f64::total_cmp);
            json!(numbers[numbers.len() / 2])
        }
        Some(other) => other.clone(),
        None => Value::Null,
    }
}

/// One target: what was measured, and what it is to be.
struct Target<'a> {
    apps: f64,
    systems: &'a Value,
    told: Vec<Value>,
}

impl Target<'_> {
    fn figure(&self, system: &str, phase: &str, path: &str) -> Option<f64> {
        self.systems[system][phase].pointer(path)?.as_f64()
    }

    fn at_most(&mut self, what: &str, value: Option<f64>, most: f64) {
        let Some(value) = value else { return };
        self.told.push(json!({
            "what": what, "value": value, "at_most": most, "holds": value <= most,
        }));
    }

    fn at_least(&mut self, what: &str, value: Option<f64>, least: f64) {
        let Some(value) = value else { return };
        self.told.push(json!({
            "what": what, "value": value, "at_least": least, "holds": value >= least,
        }));
    }

    /// How often Plumb's figure goes into another one's.
    fn times(&mut self, phase: &str, path: &str, other: &str, least: f64) {
        let value = self
            .figure(other, phase, path)
            .zip(self.figure("plumb", phase, path))
            .map(|(other, plumb)| other / plumb.max(1e-9));
        let figure = path.trim_start_matches('/').replace('_', " ");
        self.at_least(&format!("{phase}: {figure} of {other} to plumb's"), value, least);
    }
}

/// The targets that the figures tell something of.
pub(super) fn targets(apps: usize, each: u16, binary: u64, systems: &Value) -> Vec<Value> {
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let mut t = Target { apps: apps as f64, systems, told: Vec::new() };
    let plumb = |t: &Target<'_>, phase: &str, path: &str| t.figure("plumb", phase, path);
    let apps = t.apps;
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    t.at_most("binary: bytes", Some(binary as f64), BINARY * 1.1);

    let first = plumb(&t, "first sync", "/requests");
    // Its objects, facts, status and an event.
    t.at_most("first sync: requests", first, (f64::from(each) + 3.0) * apps + 60.0);
    for phase in ["first sync", "commit to all"] {
        let share = plumb(&t, phase, "/limit/share");
        t.at_least(&format!("{phase}: share of the replay limit"), share, 0.85);
    }
    t.times("first sync", "/seconds", "flux", 6.0);
    t.times("first sync", "/cpu_seconds", "flux", 10.0);
    t.times("first sync", "/seconds", "argocd", 10.0);
    t.times("commit to all", "/seconds", "flux", 8.0);

    let renders = plumb(&t, "commit to one", "/renders");
    t.at_most("commit to one: renders", renders, 1.0);
    let live = plumb(&t, "commit to one", "/seconds");
    t.at_most("commit to one: seconds until live", live, 2.0);
    t.times("commit to one", "/seconds", "flux", 100.0);
    t.times("commit to one", "/requests", "flux", 1000.0);

    let writes = plumb(&t, "forced round", "/writes");
    t.at_most("forced round: writes", writes, apps);
    let beside = plumb(&t, "forced round", "/beside");
    t.at_most("forced round: requests beside writes, watches and the Lease", beside, 0.0);
    t.times("forced round", "/requests", "flux", 25.0);
    t.times("forced round", "/cpu_seconds", "flux", 20.0);

    let idle = plumb(&t, "idle, 60 s", "/writes");
    t.at_most("idle: writes", idle, 0.0);
    let beside = plumb(&t, "idle, 60 s", "/beside");
    t.at_most("idle: requests beside watches and the Lease", beside, 0.0);
    let cpu = plumb(&t, "idle, 60 s", "/cpu_seconds");
    t.at_most("idle: CPU seconds", cpu, 0.2);

    for (part, most) in [("p50", 3.0), ("p99", 10.0)] {
        let of = |loop_: &str| plumb(&t, "edits at rest", &format!("/{loop_}/{part}"));
        let ratio = of("undone_milliseconds").zip(of("bare_milliseconds"));
        let ratio = ratio.map(|(undone, bare)| undone / bare.max(1e-9));
        t.at_most(&format!("edits at rest: {part} to that of a bare loop"), ratio, most);
    }
    t.times("edits at rest", "/undone_milliseconds/p50", "argocd", 10.0);
    let during = plumb(&t, "edits during a sync", "/undone_milliseconds/p99");
    t.at_most("edits during a sync: p99 in milliseconds", during, 2000.0);

    let writes = plumb(&t, "restart", "/writes");
    t.at_most("restart: writes", writes, 0.0);
    let renders = plumb(&t, "restart", "/renders");
    t.at_most("restart: renders", renders, apps);
    let lists = plumb(&t, "restart", "/lists/seconds");
    let ratio = plumb(&t, "restart", "/seconds").zip(lists);
    let ratio = ratio.map(|(seconds, lists)| seconds / lists.max(1e-9));
    t.at_most("restart: seconds until in sync to those of the LISTs", ratio, 2.0);

    for phase in ["takeover after a stop", "takeover after a kill"] {
        let most = LEASE + 1.0;
        let seconds = plumb(&t, phase, "/seconds");
        t.at_most(&format!("{phase}: seconds until an edit is undone"), seconds, most);
        // The correction, its status, its event.
        let writes = plumb(&t, phase, "/writes");
        t.at_most(&format!("{phase}: writes but the Lease"), writes, 3.0);
    }

    if apps <= 1000.0 {
        let phases = systems["plumb"].as_object().into_iter().flatten();
        let peaks = phases.filter_map(|(_, phase)| phase["peak_kib"].as_f64());
        t.at_most("memory: the highest peak, in KiB", peaks.reduce(f64::max), MEMORY);
    }
    t.told
}

/// All figures for people, as Markdown, and what does not hold.
pub(in crate::bench) fn table(result: &Value) -> String {
    let mut text = String::new();
    for measured in result["measured"].as_array().into_iter().flatten() {
        let _infallible = writeln!(text, "\n{} applications\n", measured["apps"]);
        let systems = &measured["medians"];
        let mut head = "| phase | system |".to_owned();
        let mut line = "|---|---|".to_owned();
        for (_, name, _) in FIGURES {
            let _infallible = write!(head, " {name} |");
            line.push_str("---:|");
        }
        let _infallible = writeln!(text, "{head}\n{line}");
        let phases = systems["plumb"].as_object().into_iter().flatten().map(|(phase, _)| phase);
        for phase in ordered(phases) {
            for (system, phases) in systems.as_object().into_iter().flatten() {
                let Some(figures) = phases.get(phase) else { continue };
                let _infallible = write!(text, "| {phase} | {system} |");
                for (figure, _, by) in FIGURES {
                    let value = figures[figure].as_f64().map(|value| rounded(value / by));
                    let _infallible = write!(text, " {} |", value.unwrap_or_default());
                }
                text.push('\n');
            }
        }
        text.push('\n');
        for target in measured["targets"].as_array().into_iter().flatten() {
            let (word, bound) = match target.get("at_most") {
                Some(most) => ("most", most),
                None => ("least", &target["at_least"]),
            };
            let _infallible = writeln!(
                text,
                "{} {}: {} (at {word} {})",
                if target["holds"] == true { "holds " } else { "FAILS " },
                target["what"].as_str().unwrap_or_default(),
                rounded(target["value"].as_f64().unwrap_or_default()),
                rounded(bound.as_f64().unwrap_or_default()),
            );
        }
    }
    text
}

/// The phases as they are played, not by the alphabet.
fn ordered<'a>(phases: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    const ORDER: [&str; 10] = [
        "first sync",
        "commit to one",
        "commit to all",
        "forced round",
        "idle, 60 s",
        "edits at rest",
        "edits during a sync",
        "restart",
        "takeover after a stop",
        "takeover after a kill",
    ];
    let mut phases: Vec<_> = phases.collect();
    phases.sort_by_key(|phase| ORDER.iter().position(|known| known == phase));
    phases
}

/// Three digits that tell something.
fn rounded(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 || value == 0.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(system: &str, seconds: f64) -> Value {
        json!({ "system": system, "phases": [
            { "what": "first sync", "seconds": seconds, "requests": 700, "cpu_seconds": 1.0 },
        ] })
    }

    #[test]
    fn medians_are_taken_figure_by_figure_and_system_by_system() {
        let runs = [run("plumb", 3.0), run("flux", 90.0), run("plumb", 1.0), run("plumb", 2.0)];
        let systems = medians(&runs);
        assert_eq!(systems["plumb"]["first sync"]["seconds"], 2.0);
        assert_eq!(systems["flux"]["first sync"]["seconds"], 90.0);
        let targets = targets(100, 4, 0, &systems);
        let of = |what: &str| targets.iter().find(|target| target["what"] == what).unwrap();
        assert_eq!(of("first sync: requests")["holds"], true);
        assert_eq!(of("first sync: seconds of flux to plumb's")["value"], 45.0);
        assert_eq!(of("first sync: cpu seconds of flux to plumb's")["holds"], false);
    }

    #[test]
    fn the_table_has_a_row_for_each_phase_and_system() {
        let systems = medians(&[run("plumb", 3.0), run("flux", 90.0)]);
        let targets = targets(100, 4, 0, &systems);
        let measured = json!({ "apps": 100, "medians": systems, "targets": targets });
        let table = table(&json!({ "measured": [measured] }));
        assert!(table.contains("| first sync | flux | 90.0 | 700 |"), "{table}");
        assert!(table.contains("FAILS  first sync: cpu seconds of flux"), "{table}");
    }
}
