//! What becomes of folded blocks (`>`) in a build. The reference prints every object in the styles
//! that it was written in and reads it again, and its printer puts line breaks into folded blocks
//! that were not there.

/// A folded block's text after it was printed and read again.
pub(crate) fn refolded(text: &str) -> String {
    let breaks_after_space = text.contains(" \n") || text.contains("\t\n");
    if text.is_empty()
        || breaks_after_space
        || text.ends_with([' ', '\t'])
        || text.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}'])
    {
        // Printed in quotes, where nothing happens to it.
        return text.to_owned();
    }
    folded(&printed(text), text)
}

/// The lines of the block. A break between two lines of words is doubled, so that folding leaves
/// it; that it is also doubled before indented lines, which are not folded, is the mistake.
fn printed(text: &str) -> String {
    let indented_start = text.trim_start_matches('\n').starts_with([' ', '\t']);
    let mut out = String::with_capacity(text.len() + 8);
    let (mut at_start, mut indented) = (true, true);
    for c in text.chars() {
        if c == '\n' {
            if !at_start && !indented && !indented_start {
                out.push('\n');
            }
            at_start = true;
        } else {
            if at_start {
                indented = matches!(c, ' ' | '\t');
            }
            at_start = false;
        }
        out.push(c);
    }
    out
}

/// Reads the lines of a folded block. How it ends was chosen for the text before it was printed.
fn folded(lines: &str, before: &str) -> String {
    let mut out = String::with_capacity(lines.len());
    // Whether a line stands before, whether it was indented, and the empty lines behind it.
    let (mut any, mut indented, mut empty) = (false, false, 0);
    for line in lines.trim_end_matches('\n').split('\n') {
        if line.is_empty() {
            empty += 1;
            continue;
        }
        let indents = line.starts_with([' ', '\t']);
        if any && (indented || indents) {
            out.push('\n');
        } else if any && empty == 0 {
            out.push(' ');
        }
        out.extend(std::iter::repeat_n('\n', empty));
        out.push_str(line);
        (any, indented, empty) = (true, indents, 0);
    }
    let last = lines.len() - lines.trim_end_matches('\n').len();
    let kept = match before.len() - before.trim_end_matches('\n').len() {
        0 => 0,
        1 if before.len() > 1 => 1,
        _ => last,
    };
    out.extend(std::iter::repeat_n('\n', kept));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_before_indented_lines_double() {
        for (text, want) in [
            ("a b\n", "a b\n"),
            ("a\nb\n", "a\nb\n"),
            ("a\n\nb", "a\n\nb"),
            ("a\n  b\nc", "a\n\n  b\nc"),
            ("a\n\n  b\n", "a\n\n\n  b\n"),
            ("a\n\n", "a\n\n\n"),
            ("  a\nb\nc", "  a\nb c"),
            ("\na", "\na"),
            ("a \n  b", "a \n  b"),
            ("", ""),
            ("\n", "\n"),
        ] {
            assert_eq!(refolded(text), want, "{text:?}");
        }
    }
}
