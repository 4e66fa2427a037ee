//! Any text as ignore files and as the patterns of a spec: what they leave is a part of what there is, in
//! its order, and the spec's word is the last.
//!
//! The input is the text of the outer file, of an inner one and of the spec, with lines `===` between.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_core::{MemTree, RelPath};
use plumb_render::{RenderOptions, render};

const FILES: [&str; 6] =
    ["a.yaml", "b/a.yaml", "b/c/d.yml", "b/c/e/[f] !g#.json", "b/\u{e9} h.yaml", "c.yaml"];

fuzz_target!(|text: &str| {
    let mut texts = text.splitn(3, "\n===\n");
    let mut next = || texts.next().unwrap_or_default();
    let (outer, inner, options) = (next(), next(), next());
    let all = left("", "", "").expect("nothing is wrong with these");
    assert_eq!(all.len(), FILES.len());
    if let Some(some) = left(outer, inner, options) {
        let mut rest = all.iter();
        assert!(some.iter().all(|name| rest.any(|other| other == name)), "{some:?}");
        assert_eq!(left(outer, inner, options).as_ref(), Some(&some));
    }
    for (last, wanted) in [("*", &[][..]), ("!*", &all)] {
        if let Some(some) = left(outer, inner, last) {
            assert_eq!(some, wanted, "{last}");
        }
    }
});

/// The names that are left, unless a pattern is wrong.
fn left(outer: &str, inner: &str, options: &str) -> Option<Vec<String>> {
    let mut tree = MemTree::new().file(".plumbignore", outer).file("b/.sourceignore", inner);
    for (number, file) in FILES.into_iter().enumerate() {
        let name = format!("\"file-{number}\"");
        let text = format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {{\"name\": {name}}}}}"
        );
        tree = tree.file(file, text);
    }
    let options = RenderOptions { ignore: Some(options.into()), ..RenderOptions::default() };
    let rendered = render(&tree, &RelPath::root(), &options, &|| false).ok()?;
    Some(rendered.objects.iter().map(|object| object.name().to_owned()).collect())
}
