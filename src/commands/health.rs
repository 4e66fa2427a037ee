//! `plumb health`: what the agent would say of live objects.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use plumb_core::{Object, RelPath};
use plumb_health::{Rules, assess};

use crate::args::{Health, HealthOutput};
use crate::exit::Failure;

/// Judges every object of every file and prints a line for each.
pub(crate) fn run(args: &Health) -> Result<(), Failure> {
    let rules = Rules::default();
    let mut lines = String::new();
    for file in &args.files {
        for object in read(file)? {
            let (verdict, _) = assess(object.body(), &rules);
            let health = verdict.health.to_string();
            match args.output {
                HealthOutput::Text => {
                    let subject = format!("{} {}", object.kind(), object.name());
                    let line = format!("{health:12} {subject}  {}", verdict.reason);
                    lines += line.trim_end();
                }
                HealthOutput::Json => {
                    let line = serde_json::json!({
                        "file": file, "health": health, "reason": verdict.reason,
                    });
                    lines += &line.to_string();
                }
            }
            lines.push('\n');
        }
    }
    super::print(&lines)
}

/// The objects of a file, or of standard input.
fn read(file: &Path) -> Result<Vec<Object>, Failure> {
    let mut text = Vec::new();
    let result = if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut text).map(drop)
    } else {
        std::fs::read(file).map(|read| text = read)
    };
    let name = file.display();
    result.map_err(|error| Failure::input(format!("cannot read {name}: {error}")))?;
    // Where problems are is told beside the name as it was given, which may be any path.
    let inside = Arc::new(RelPath::root());
    let limits = plumb_yaml::Limits { bytes: usize::MAX, ..plumb_yaml::Limits::default() };
    let documents = plumb_yaml::read(&text, &inside, &limits).map_err(|errors| {
        let first = errors.problems.first();
        let (line, hint) = first.map_or((0, None), |error| (error.place.line, error.hint()));
        let problem = first.map(|error| error.problem.to_string()).unwrap_or_default();
        Failure::input(format!("{name}:{line}: {problem}")).with_hint(hint)
    })?;
    let objects = documents.into_iter().map(|document| {
        let line = document.place.line;
        let serde_json::Value::Object(body) = document.value else {
            return Err(Failure::input(format!("{name}:{line}: this is no object")));
        };
        Object::new(body, document.place, document.fields)
            .map_err(|missing| Failure::input(format!("{name}:{line}: the object has {missing}")))
    });
    objects.collect()
}
