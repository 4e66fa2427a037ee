//! `plumb build`: the renderer on a directory of this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_core::{DirTree, RelPath};
use plumb_render::{Keys, LoadRestrictions, RenderOptions, Reorder, render};

use crate::args::{self, Build, LoadRestrictor, Output};
use crate::exit::Failure;

/// Renders and prints.
pub(crate) fn run(args: &Build) -> Result<(), Failure> {
    let full = |path: &Path| {
        path.canonicalize()
            .map_err(|error| Failure::input(format!("cannot open {}: {error}", path.display())))
    };
    let target = full(&args.path)?;
    let (root, alone) = match &args.root {
        Some(root) => (full(root)?, None),
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
    let options = RenderOptions {
        ignore,
        keys: keys(&args.decryption_key)?,
        reorder: match args.reorder {
            args::Reorder::Legacy => Reorder::Legacy,
            args::Reorder::None => Reorder::Fifo,
        },
        load_restrictions: match args.load_restrictor {
            LoadRestrictor::RootOnly => LoadRestrictions::RootOnly,
            LoadRestrictor::None => LoadRestrictions::None,
        },
        ..RenderOptions::default()
    };
    let rendered = render(&DirTree::new(root), &path, &options, &|| false).map_err(|failure| {
        let hint = failure.error.hint().or(alone);
        Failure::new(failure.error.class(), &failure.error).with_hint(hint)
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

/// The keys in files, if any are named.
fn keys(files: &[PathBuf]) -> Result<Option<Arc<Keys>>, Failure> {
    if files.is_empty() {
        return Ok(None);
    }
    let mut read = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let content = std::fs::read(path)
            .map_err(|error| Failure::input(format!("cannot open {name}: {error}")))?;
        read.push((name, content));
    }
    let entries = read.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
    let keys = Keys::of_files(entries)
        .map_err(|error| Failure::input(error.to_string()).with_hint(Some(error.hint())))?;
    Ok(Some(Arc::new(keys)))
}

/// The nearest directory above that is a repository. Without one the current directory, if the
/// target is in it, or the directory itself, and then a hint that this was a guess.
fn repository_root(target: &Path) -> (PathBuf, Option<String>) {
    let own = if target.is_dir() { target } else { target.parent().unwrap_or(target) };
    if let Some(root) = own.ancestors().find(|dir| dir.join(".git").exists()) {
        return (root.to_owned(), None);
    }
    let current = std::env::current_dir().ok().and_then(|dir| dir.canonicalize().ok());
    let root = current.filter(|dir| own.starts_with(dir)).unwrap_or_else(|| own.to_owned());
    let hint = format!(
        "{} is taken for the repository, as no .git was found; --root names another directory",
        root.display()
    );
    (root, Some(hint))
}
