//! Prints what a directory builds to:
//! `build ROOT [PATH] [--legacy] [--any-file] [--origins] [--times N]`.
//! PATH is inside ROOT, which nothing can leave. With `--origins` it prints the steps that made each
//! object and where its fields come from instead. With `--times` it builds N times and says how long
//! the fastest took.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use plumb_core::{DirTree, FieldPath, Object, RelPath, Step};
use plumb_kustomize::{LoadRestrictions, Options, Reorder, build};
use serde_json::Value;

fn main() -> ExitCode {
    let mut options = Options::default();
    let (mut places, mut times) = (Vec::new(), 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--legacy" => options.reorder = Reorder::Legacy,
            "--origins" => options.origins = true,
            "--any-file" => options.load_restrictions = LoadRestrictions::None,
            "--times" => times = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1),
            _ => places.push(argument),
        }
    }
    let tree = DirTree::new(places.first().map_or(".", String::as_str));
    let path = RelPath::parse(places.get(1).map_or("", String::as_str)).unwrap_or_default();
    let mut err = std::io::stderr();
    let mut fastest = None;
    let mut built = build(&tree, &path, &options, &|| false);
    for _ in 0..times {
        let start = Instant::now();
        built = build(&tree, &path, &options, &|| false);
        let text = built.as_ref().map(plumb_kustomize::Built::to_yaml);
        let took = start.elapsed();
        drop(text);
        fastest = Some(fastest.map_or(took, |fastest| took.min(fastest)));
    }
    if let Some(fastest) = fastest {
        let _ = writeln!(err, "{fastest:?}");
    }
    match built {
        Ok(built) => {
            let text = if options.origins { origins(&built.objects) } else { built.to_yaml() };
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(err, "error: {error}");
            if let Some(hint) = error.hint() {
                let _ = writeln!(err, "hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The steps of each object, then its fields, a line each; values are left out, because they may be a Secret's.
fn origins(objects: &[Object]) -> String {
    let mut text = String::new();
    for object in objects {
        let _ = writeln!(text, "{}  {}", object.key(), object.place());
        for step in object.steps() {
            let _ = writeln!(text, "  {step}");
        }
        text.push('\n');
        fields(object, object.body(), &FieldPath::root(), &mut text);
        text.push('\n');
    }
    text
}

fn fields(object: &Object, value: &Value, path: &FieldPath, text: &mut String) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            fields(object, value, &path.join(Step::Key(key.clone())), text);
        }),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, value)| {
            fields(object, value, &path.join(Step::Index(i)), text);
        }),
        _ => {
            let _ = writeln!(text, "  {path}  {}", object.field_place(path));
        }
    }
}
