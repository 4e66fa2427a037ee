//! Which files of a tree are left out.
//!
//! Patterns have gitignore syntax. From weak to strong: the built-in ones; each directory's
//! `.sourceignore`, then its `.plumbignore`, for what is below that directory, from the root of
//! the tree inwards; the options'. The strongest pattern that matches decides, and `!` takes back
//! in. What is below an excluded directory stays out.

use std::sync::LazyLock;

use ::ignore::Match;
use ::ignore::gitignore::{Gitignore, GitignoreBuilder};
use plumb_core::RelPath;

/// Ignore files, weak before strong.
pub(crate) const FILES: [&str; 2] = [".sourceignore", ".plumbignore"];

/// What messages call the patterns of the options: the field that people write them in.
pub(crate) const OPTIONS: &str = "spec.ignore";

/// Bytes of one ignore file; each pattern becomes an automaton, so this is much.
pub(crate) const MAX_BYTES: u64 = 64 << 10;

/// How many ignore files one path may have, and how many bytes in all. The same few bytes can lie in
/// every directory of a tree, and each time they become automatons.
pub(crate) const MAX_FILES: u64 = 1000;
pub(crate) const MAX_TOTAL: u64 = 1 << 20;

/// What Git and build systems keep in a repository under names that manifests have. A strict
/// subset of what Flux excludes, which leaves out pictures and archives because they are never
/// read here; unlike there, patterns of one's own do not switch these off.
const BUILT_IN: &str = "\
.git/
.github/
.circleci/
.travis.yml
.gitlab-ci.yml
appveyor.yml
.drone.yml
cloudbuild.yaml
codeship-services.yml
codeship-steps.yml
.goreleaser.yml
.sops.yaml
.flux.yaml
";

/// Where in an ignore text a pattern is wrong: the line counted from one, and why.
pub(crate) struct BadPattern {
    pub(crate) line: u32,
    pub(crate) why: String,
}

/// Patterns that hold below one directory.
pub(crate) struct Domain {
    dir: RelPath,
    origin: String,
    patterns: Gitignore,
}

impl Domain {
    /// Reads patterns; bad ones are left out and told.
    pub(crate) fn parse(dir: RelPath, origin: String, text: &str) -> (Self, Vec<BadPattern>) {
        // Paths are matched relative to the directory, so the matcher's own root is empty.
        let mut builder = GitignoreBuilder::new("");
        // Git lets `a[b` match nothing; it is a slip that people want to hear about.
        builder.allow_unclosed_class(false);
        let mut bad = Vec::new();
        for (line, pattern) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            if let Err(error) = builder.add_line(None, pattern) {
                let why = error.to_string();
                bad.push(BadPattern { line, why });
            }
        }
        let patterns = builder.build().unwrap_or_else(|error| {
            let why = error.to_string();
            bad.push(BadPattern { line: 1, why });
            Gitignore::empty()
        });
        let domain = Self { dir, origin, patterns };
        (domain, bad)
    }

    fn matched(&self, path: &RelPath, kind: Kind) -> Option<Verdict<'_>> {
        let below = match self.dir.as_str() {
            "" => path.as_str(),
            dir => path.as_str().strip_prefix(dir)?.strip_prefix('/')?,
        };
        match self.patterns.matched(below, kind == Kind::Directory) {
            Match::None => None,
            Match::Whitelist(_) => Some(Verdict::Included),
            Match::Ignore(glob) => {
                Some(Verdict::Excluded { pattern: glob.original(), origin: &self.origin })
            }
        }
    }
}

/// What a path is, for patterns that end in `/`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    Other,
}

enum Verdict<'r> {
    Included,
    Excluded { pattern: &'r str, origin: &'r str },
}

/// The pattern that excludes a path, and what holds it.
pub(crate) type Excluder<'r> = (&'r str, &'r str);

/// All patterns that hold at one point of a walk.
pub(crate) struct Rules {
    built_in: &'static Domain,
    /// Outer before inner.
    files: Vec<Domain>,
    options: Domain,
}

impl Rules {
    /// The built-in patterns and those of the options, whose bad ones are told.
    pub(crate) fn new(options: Option<&str>) -> (Self, Vec<BadPattern>) {
        static COMPILED: LazyLock<Domain> = LazyLock::new(|| {
            Domain::parse(RelPath::root(), "the built-in patterns".into(), BUILT_IN).0
        });
        let text = options.unwrap_or_default();
        let (options, bad) = Domain::parse(RelPath::root(), OPTIONS.into(), text);
        let rules = Self { built_in: &COMPILED, files: Vec::new(), options };
        (rules, bad)
    }

    /// Enters the domain of an ignore file.
    pub(crate) fn push(&mut self, domain: Domain) {
        self.files.push(domain);
    }

    /// How many domains are entered, for [`Rules::leave`].
    pub(crate) fn level(&self) -> usize {
        self.files.len()
    }

    /// Leaves all domains entered since the level was taken.
    pub(crate) fn leave(&mut self, level: usize) {
        self.files.truncate(level);
    }

    /// What excludes a path whose parent is not excluded.
    pub(crate) fn excluded(&self, path: &RelPath, kind: Kind) -> Option<Excluder<'_>> {
        let strongest = [&self.options]
            .into_iter()
            .chain(self.files.iter().rev())
            .chain([self.built_in])
            .find_map(|domain| domain.matched(path, kind));
        match strongest {
            Some(Verdict::Excluded { pattern, origin }) => Some((pattern, origin)),
            Some(Verdict::Included) | None => None,
        }
    }
}
