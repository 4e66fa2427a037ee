//! Judging live objects.
//!
//! One thread judges objects that were read before, and by turns the same from the text that the API
//! server sends, which is what a watch has to do. What one core does a second is reckoned from the time
//! that the thread ran, so that it holds on a busy machine too.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use plumb_health::{Basis, Rules, assess};
use serde_json::{Value, json};

use super::BenchArgs;
use super::pairs::{Variant, measure};
use super::samples::{Sort, own_rule, sorts};
use crate::error::TaskError;

/// How many objects of each sort are judged in one run.
const OBJECTS: usize = 1000;
/// What a core is to do a second at least.
const AT_LEAST: f64 = 10_000.0;
/// Names a directory with more objects, as health's own test of conformance has it.
const MORE: &str = "PLUMB_CONFORMANCE_DIR";

pub(super) fn run(args: &BenchArgs) -> Result<Value, TaskError> {
    let sizes = if args.objects.is_empty() { &[OBJECTS][..] } else { &args.objects };
    let pairs = args.pairs.unwrap_or(15);
    let exprs = own_rule();
    let rules = Rules::compile([&exprs]).map_err(|error| TaskError::Evidence {
        what: "a rule compiles".into(),
        found: error.to_string(),
    })?;
    let sorts = sorts();
    let agree = sorts.iter().all(|sort| is_judged(sort, &rules));
    let mut rows: Vec<(String, Vec<Value>)> = vec![("all".into(), Vec::new())];
    for sort in sorts {
        let objects: Vec<_> = sort.objects.into_iter().map(|(object, _)| object).collect();
        rows[0].1.extend(objects.clone());
        rows.push((sort.what.into(), objects));
    }
    if let Some(dir) = std::env::var_os(MORE) {
        rows.push((MORE.into(), more(Path::new(&dir))?));
    }
    let mut measured = Vec::new();
    for size in sizes {
        for (what, objects) in &rows {
            let objects: Vec<_> = objects.iter().cycle().take(*size).cloned().collect();
            measured.push(one(what, &objects, &rules, pairs));
        }
    }
    Ok(json!({ "agree": agree, "measured": measured }))
}

/// Whether each object is judged as it should be, by what should, and the same from its text.
fn is_judged(sort: &Sort, rules: &Rules) -> bool {
    sort.objects.iter().all(|(object, health)| {
        let (verdict, basis) = assess(object, rules);
        let again: Value = serde_json::from_str(&object.to_string()).unwrap_or_default();
        verdict.health == *health && basis == sort.basis && assess(&again, rules).0 == verdict
    })
}

fn one(what: &str, objects: &[Value], rules: &Rules, pairs: usize) -> Value {
    let texts: Vec<_> = objects.iter().map(Value::to_string).collect();
    let (mut read, mut judged) = (Spent::default(), Spent::default());
    let mut first = || {
        read.during(|| {
            for text in &texts {
                let object: Value = serde_json::from_str(text).unwrap_or_default();
                black_box(assess(&object, rules));
            }
        });
    };
    let mut second = || {
        judged.during(|| {
            for object in objects {
                black_box(assess(object, rules));
            }
        });
    };
    let figures = measure(
        pairs,
        Variant { name: "from text", run: &mut first },
        Variant { name: "as read", run: &mut second },
    );
    let bases = objects.iter().map(|object| assess(object, rules).1);
    json!({
        "what": what,
        "objects": objects.len(),
        "bytes": texts.iter().map(String::len).sum::<usize>(),
        "by_rule": bases.filter(|basis| *basis != Basis::Generic).count(),
        "at_least": AT_LEAST,
        "per_second_and_core": {
            "from text": read.rate(objects.len()),
            "as read": judged.rate(objects.len()),
        },
        "figures": figures,
    })
}

/// What runs cost a core.
#[derive(Default)]
struct Spent {
    time: Duration,
    runs: u32,
    /// The first run is not counted: rules are read and compiled in it.
    warm: bool,
}

impl Spent {
    fn during(&mut self, run: impl FnOnce()) {
        let (begun, had) = (Instant::now(), ran());
        run();
        let spent =
            ran().zip(had).map_or_else(|| begun.elapsed(), |(now, had)| now.saturating_sub(had));
        if std::mem::replace(&mut self.warm, true) {
            self.time += spent;
            self.runs += 1;
        }
    }

    fn rate(&self, objects: usize) -> f64 {
        let all = u32::try_from(objects).map_or(f64::MAX, f64::from) * f64::from(self.runs);
        (all / self.time.as_secs_f64().max(1e-9)).round()
    }
}

/// How long this thread has run, where the system tells.
fn ran() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// The objects of a directory of cases.
fn more(dir: &Path) -> Result<Vec<Value>, TaskError> {
    let dir = dir.join("health");
    let read = |name: &str| {
        let path = dir.join(name);
        let text = fs::read_to_string(&path);
        text.map_err(|source| TaskError::File { path, source })
    };
    let wrong = |name: &str, problem: String| TaskError::Evidence {
        what: format!("{} can be read", dir.join(name).display()),
        found: problem,
    };
    let list: Vec<Value> = serde_json::from_str(&read("cases.json")?)
        .map_err(|error| wrong("cases.json", error.to_string()))?;
    let mut objects = Vec::new();
    for case in &list {
        let name = format!("{}.yaml", case["id"].as_str().unwrap_or_default());
        let object = serde_yaml::from_str(&read(&name)?);
        objects.push(object.map_err(|error| wrong(&name, error.to_string()))?);
    }
    Ok(objects)
}

/// The figures for people.
pub(super) fn table(result: &Value) -> String {
    let mut table =
        String::from("objects  what                    a second and core:  as read  from text\n");
    for row in result["measured"].as_array().into_iter().flatten() {
        let rate = |what: &str| row["per_second_and_core"][what].as_f64().unwrap_or_default();
        let _infallible = writeln!(
            table,
            "{:7}  {:22}  {:27.0} {:10.0}",
            row["objects"].as_u64().unwrap_or_default(),
            row["what"].as_str().unwrap_or_default(),
            rate("as read"),
            rate("from text"),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_judged_as_it_says_and_by_what_it_says() {
        let rules = Rules::compile([&own_rule()]).unwrap();
        for sort in sorts() {
            for (object, health) in &sort.objects {
                let (verdict, basis) = assess(object, &rules);
                let kind = &object["kind"];
                assert_eq!((verdict.health, basis), (*health, sort.basis), "{kind}: {verdict:?}");
            }
            assert!(is_judged(&sort, &rules));
        }
    }

    #[test]
    fn a_core_s_rate_leaves_the_first_run_out() {
        let mut spent = Spent::default();
        spent.during(|| {});
        assert_eq!(spent.runs, 0);
        spent.during(|| {});
        assert_eq!(spent.runs, 1);
        spent.time = Duration::from_millis(100);
        assert!((spent.rate(1000) - 10_000.0).abs() < 1e-6);
        let table = table(&run(&BenchArgs { objects: vec![4], ..BenchArgs::default() }).unwrap());
        assert!(table.lines().count() >= 6, "{table}");
    }
}
