//! Prints what a directory builds to: `build ROOT [PATH] [--legacy] [--any-file] [--times N]`.
//! PATH is inside ROOT, which nothing can leave. With `--times` it builds N times and says how
//! long the fastest took.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use plumb_core::{DirTree, RelPath};
use plumb_kustomize::{LoadRestrictions, Options, Reorder, build};

fn main() -> ExitCode {
    let mut options = Options::default();
    let (mut places, mut times) = (Vec::new(), 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--legacy" => options.reorder = Reorder::Legacy,
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
            let _ = std::io::stdout().write_all(built.to_yaml().as_bytes());
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
