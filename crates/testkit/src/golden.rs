//! Expected text in files.

use std::path::Path;

/// Set to `1` to write the files instead of comparing with them.
const UPDATE_ENV: &str = "UPDATE_GOLDEN";

/// Compares `text` with the file. Cargo runs tests in the directory of their package, so a
/// relative path begins there.
///
/// # Panics
/// When they differ, with the first line that does.
pub fn golden(path: impl AsRef<Path>, text: &str) {
    let update = std::env::var_os(UPDATE_ENV).is_some_and(|value| value == "1");
    if let Err(difference) = compare(path.as_ref(), text, update) {
        panic!("{difference}\nIf the new text is right: {UPDATE_ENV}=1 cargo test");
    }
}

fn compare(path: &Path, text: &str, update: bool) -> Result<(), String> {
    if update {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        return std::fs::write(path, text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()));
    }
    let expected = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if expected == text {
        return Ok(());
    }
    let mut lines = 1;
    let (mut old, mut new) = (expected.lines(), text.lines());
    loop {
        match (old.next(), new.next()) {
            (Some(old), Some(new)) if old == new => lines += 1,
            (None, None) => {
                return Err(format!("{} differs in how its last line ends", path.display()));
            }
            (old, new) => {
                return Err(format!(
                    "{}:{lines} differs\n  expected: {}\n  got:      {}",
                    path.display(),
                    old.unwrap_or("(end of text)"),
                    new.unwrap_or("(end of text)")
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/a.txt");
        assert!(compare(&path, "a\n", false).unwrap_err().starts_with("cannot read"));
        compare(&path, "a\nb\n", true).unwrap();
        compare(&path, "a\nb\n", false).unwrap();
        let difference = compare(&path, "a\nc\n", false).unwrap_err();
        assert!(
            difference.contains("a.txt:2 differs\n  expected: b\n  got:      c"),
            "{difference}"
        );
        assert!(compare(&path, "a\n", false).unwrap_err().contains("got:      (end of text)"));
        assert!(compare(&path, "a\nb", false).unwrap_err().contains("last line"));
    }
}
