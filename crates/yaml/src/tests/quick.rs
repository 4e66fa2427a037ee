//! What is read without the parser is read as the parser does: a comment that is not ASCII hands a
//! text to the parser, and changes nothing else.

use std::path::Path;
use std::sync::Arc;

use plumb_core::RelPath;

use crate::compose::Composer;
use crate::quick::{Outcome, Quick};
use crate::read::Dialect;
use crate::{Limits, LineMark, Marking, read, read_config, read_nodes};

/// Everything that readers say about a text.
fn said(text: &str) -> [String; 3] {
    let file = Arc::new(RelPath::parse("a.yaml").unwrap());
    let limits = Limits::default();
    let marking = Marking::Below(LineMark::new(1, 0));
    [
        format!("{:?}", read(text.as_bytes(), &file, &limits)),
        format!("{:?}", read_nodes(text.as_bytes(), &file, &limits, marking)),
        format!("{:?}", read_config(text.as_bytes(), &file, &limits)),
    ]
}

/// Compares both ways; gives how many documents were read without the parser.
fn compare(text: &str) -> usize {
    let [quick, parser] = ["# e\n", "# é\n"].map(|comment| format!("{comment}{text}"));
    assert_eq!(said(&quick), said(&parser), "{text}");
    let limits = Limits::default();
    let mut documents = Quick::new(&quick);
    let mut next = || documents.document(&mut Composer::new(&limits, Dialect::Resource));
    std::iter::from_fn(|| matches!(next(), Outcome::Document).then_some(())).count()
}

/// Calls `each` with the text of all files below a directory that are YAML.
fn files(dir: &Path, each: &mut dyn FnMut(&str)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, each);
        } else if path.extension().is_some_and(|end| end == "yaml")
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            each(&text);
        }
    }
}

fn golden(each: &mut dyn FnMut(&str)) {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../kustomize/tests/golden"), each);
}

#[test]
fn a_list_behind_documents_read_without_the_parser_is_known_not_to_be_alone() {
    // The parser reads only the second document, but the list is not alone in its file.
    compare("kind: A\n---\nkind: List\nitems:\n- kind: B\n  b: >\n    c\n\n    d\n");
}

#[test]
fn files_are_read_as_the_parser_reads_them() {
    let (mut all, mut quick) = (0, 0);
    golden(&mut |text| {
        all += 1;
        quick += usize::from(compare(text) > 0);
    });
    assert!(all > 100 && quick * 10 > all * 8, "{quick} of {all}");
}

/// Characters that mean something to YAML, and some that do not.
const SIGNS: &[u8] = b" \n:-#'\"[]{},|>&*!?%@~a1.<=\\\t";

#[test]
fn files_with_slips_are_read_as_the_parser_reads_them() {
    let (mut random, rounds) = random(1);
    for _ in 0..rounds {
        golden(&mut |text| {
            let mut text: Vec<u8> = text.bytes().take(2000).chain(*b"\n").collect();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..text.len());
                let byte = *random.choice(SIGNS).unwrap_or(&b' ');
                match random.u8(0..3) {
                    0 => text[at] = byte,
                    1 => text.insert(at, byte),
                    _ => text.truncate(at.max(1)),
                }
            }
            if let Ok(text) = String::from_utf8(text) {
                compare(&text);
            }
        });
    }
}

/// Randomness, and how many rounds to take: more when somebody asks for them.
fn random(rounds: usize) -> (fastrand::Rng, usize) {
    let number =
        |name| -> Option<u64> { std::env::var(name).ok().and_then(|text| text.parse().ok()) };
    let seed = number("PLUMB_SEED").unwrap_or(1);
    println!("seed {seed}");
    let rounds = number("PLUMB_ROUNDS").and_then(|n| n.try_into().ok()).unwrap_or(rounds);
    (fastrand::Rng::with_seed(seed), rounds)
}

/// Lines that are put together at random, most of them wrongly.
const LINES: &[&str] = &[
    "a:",
    "b: 1",
    "c: |",
    "d: |-",
    "e: [x, {y: z}, \"q\", []]",
    "f: {}",
    "- g",
    "-",
    "- - h",
    "- i: j",
    "- k:",
    "-   l: 'm'",
    "\"n o\": p q",
    "r: s:t # u",
    "# v",
    "",
    "  ",
    "---",
    "--- # w",
    "...",
    "x: http://y/z",
    "- --flag",
    "A: >-",
    "B: &C D",
    "E: *C",
    "!F G: H",
    "I : J",
    "K: L: M",
    "? N",
    "O: 'P''Q'",
    "R: \"S\\n\"",
    "T: #U",
    "V: W#X",
    "Y: -Z",
    "- |",
    "- [aa, -]",
    "ab: {ac: }",
    "ad: 'ae' af",
    "ag: ah ",
    "<<: {ai: aj}",
    "a: again",
    "ak: ~",
    "%AL",
    "am: - an",
    "ao:ap",
    "aq",
    "\"ar\"",
    "- \"as\": at",
    "au: [av, aw",
    "ax]: ay",
    "az: [ba:bb, bc: bd]",
    "--- be",
    "be: |2",
    "bf: [-1, --bg, .5, a/b=c]",
    "bh: {bi:bj: bk}",
    "bl: 2001-01-01",
    "-bm: bn",
    "bo: @bp",
    "bq: `br`",
    "bs: |  # bt",
    "bu: \t",
    "bv: ]",
    "bw: a]b{c",
    "...: bx",
    "---by: bz",
    "ca: \"cb\"#cc",
    "cd: [\"ce\":cf]",
    "cg: {\"ch\" : ci}",
    "cj: [a, ]",
    "ck: ? cl",
    "cm: :cn",
    "co: cp :cq",
    "- : cr",
];

#[test]
fn random_lines_are_read_as_the_parser_reads_them() {
    let (mut random, rounds) = random(2000);
    let mut quick = 0;
    for _ in 0..rounds {
        let mut text = String::new();
        let mut indent = 0_usize;
        for _ in 0..random.usize(1..9) {
            indent = match random.u8(0..8) {
                0 => 0,
                1 | 2 => indent + 2,
                3 => indent + 1,
                4 => indent.saturating_sub(2),
                _ => indent,
            };
            // The first lines are those that are taken.
            let some = if random.bool() { 26 } else { LINES.len() };
            text.extend(std::iter::repeat_n(' ', indent));
            text += LINES[random.usize(0..some)];
            if random.u8(0..30) > 0 {
                text.push('\n');
            }
        }
        quick += usize::from(compare(&text) > 0);
    }
    assert!(quick * 20 > rounds, "{quick} of {rounds}");
}
