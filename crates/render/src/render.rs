//! Finds the path and chooses what renders it.

use plumb_core::{
    Digest, Entry, EntryKind, Hasher, Inputs, Object, Recorder, RelPath, Tree, TreeError, follow,
};

use crate::plain::Plain;
use crate::{Failure, RenderError, RenderOptions};

/// What a path renders to.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The objects: files in the byte order of names, directory by directory, documents in the
    /// order of their file.
    pub objects: Vec<Object>,
    /// What was read.
    pub inputs: Inputs,
    /// A digest of the objects and their order, not of where they were written.
    pub digest: Digest,
}

/// Renders a directory of plain manifests, or one file of them.
///
/// Of a directory, all files named `*.yaml`, `*.yml` and `*.json` are read, in sub-directories
/// too, but for those that `.plumbignore`, `.sourceignore`, the options or a few built-in patterns
/// exclude. Symbolic links are followed inside the tree. Submodules and sub-directories that are
/// Helm charts are passed over. All objects need a kind, an `apiVersion` and a name, and none may
/// be there twice.
///
/// `interrupted` is asked before each directory and each file; once it says yes, rendering fails
/// with [`RenderError::Interrupted`].
pub fn render(
    tree: &dyn Tree,
    path: &RelPath,
    options: &RenderOptions,
    interrupted: &dyn Fn() -> bool,
) -> Result<Rendered, Failure> {
    let recorder = Recorder::new(tree);
    let result = locate(tree, &recorder, path)
        .and_then(|found| Plain::new(&recorder, options, interrupted).run(&found));
    let inputs = recorder.finish();
    let objects = result.map_err(|error| Failure { error, inputs: inputs.clone() })?;
    let mut hasher = Hasher::new();
    for object in &objects {
        hasher.part(object.digest().as_bytes());
    }
    Ok(Rendered { objects, inputs, digest: hasher.finish() })
}

/// Follows links to the path itself.
fn locate(
    tree: &dyn Tree,
    recorder: &Recorder<'_>,
    path: &RelPath,
) -> Result<RelPath, RenderError> {
    // The look itself is not recorded where no link is on the way: recording a directory records
    // the names beside the path, which do not matter.
    match follow(tree, path) {
        Ok(found) if found == *path => {}
        Ok(_) => {
            follow(recorder, path).map_err(RenderError::Tree)?;
        }
        Err(TreeError::NotFound(_) | TreeError::WrongKind { .. }) => {
            return Err(missing(tree, recorder, path));
        }
        Err(source @ TreeError::Link { .. }) => {
            // Recorded as far as it goes.
            let _ = follow(recorder, path);
            let path = path.clone();
            return Err(RenderError::Link { path, source });
        }
        Err(error) => return Err(RenderError::Tree(error)),
    }
    let found = follow(tree, path).map_err(RenderError::Tree)?;
    match tree.entry(&found).map_err(RenderError::Tree)? {
        Some(Entry { kind: EntryKind::Submodule, .. }) => Err(missing(tree, recorder, path)),
        _ => Ok(found),
    }
}

/// Says how far a path exists, and records what would make it exist further.
fn missing(tree: &dyn Tree, recorder: &Recorder<'_>, path: &RelPath) -> RenderError {
    let mut nearest = RelPath::root();
    for segment in path.segments() {
        let next = nearest.child(segment);
        let found = follow(tree, &next);
        let entry = found.as_ref().ok().and_then(|at| tree.entry(at).ok()?);
        let direct = follow(tree, &nearest).is_ok_and(|at| at == nearest)
            && !is_kind(tree, &next, EntryKind::Symlink);
        match entry {
            Some(entry) if entry.kind != EntryKind::Submodule => {
                nearest = next;
                continue;
            }
            // Where links are on the way, each of them matters.
            _ if !direct => {
                let _ = follow(recorder, path);
            }
            _ => {
                let _ = recorder.entry(&next);
                // A file where a directory is meant may be replaced by one, or by a link to one.
                if !is_kind(tree, &nearest, EntryKind::Directory) {
                    let _ = recorder.entry(&nearest);
                }
            }
        }
        if entry.is_some() {
            return RenderError::Submodule { path: path.clone(), submodule: next };
        }
        break;
    }
    RenderError::NoSuchPath { path: path.clone(), nearest }
}

fn is_kind(tree: &dyn Tree, path: &RelPath, kind: EntryKind) -> bool {
    matches!(tree.entry(path), Ok(Some(entry)) if entry.kind == kind)
}
