//! `plumb build`: the renderer on a directory of this machine.

use std::path::{Path, PathBuf};

use plumb_core::{DirTree, RelPath};
use plumb_render::{RenderOptions, render};

use crate::args::{Build, Output};
use crate::exit::Failure;

/// Renders and prints.
pub(crate) fn run(args: &Build) -> Result<(), Failure> {
    let full = |path: &Path| {
        path.canonicalize()
            .map_err(|error| Failure::input(format!("cannot open {}: {error}", path.display())))
    };
    let target = full(&args.path)?;
    let root = match &args.root {
        Some(root) => full(root)?,
        None => repository_root(&target),
    };
    let Ok(inside) = target.strip_prefix(&root) else {
        let message = format!("{} is not inside {}", target.display(), root.display());
        return Err(Failure::input(message));
    };
    let path = inside
        .to_str()
        .ok_or_else(|| Failure::input(format!("{} is not UTF-8", inside.display())))
        .and_then(|text| RelPath::parse(text).map_err(|e| Failure::input(e.to_string())))?;
    let ignore = (!args.ignore.is_empty()).then(|| args.ignore.join("\n"));
    let options = RenderOptions { ignore, ..RenderOptions::default() };
    let rendered = render(&DirTree::new(root), &path, &options, &|| false).map_err(|failure| {
        Failure::new(failure.error.class(), &failure.error).with_hint(failure.error.hint())
    })?;
    let objects = rendered.objects.into_iter().map(plumb_core::Object::into_body);
    let text = match args.output {
        Output::Yaml => plumb_yaml::to_string_all(&objects.collect::<Vec<_>>()),
        Output::Json => {
            let list = serde_json::json!({
                "apiVersion": "v1",
                "kind": "List",
                "items": objects.collect::<Vec<_>>(),
            });
            format!("{list:#}\n")
        }
    };
    super::print(&text)
}

/// The nearest directory above that is a repository, or the directory itself.
fn repository_root(target: &Path) -> PathBuf {
    let own = if target.is_dir() { target } else { target.parent().unwrap_or(target) };
    own.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(own).to_owned()
}
