//! Whether what a hook names can move what a GitRepository follows.

use plumb_source::Reference;

use super::payload::Refs;

/// Whether a ref that moved may be the one that is followed, or one that is chosen from.
pub(crate) fn may_move(followed: &Reference, refs: &Refs) -> bool {
    let Refs::These(names) = refs else { return true };
    let any = |of: &str| names.iter().any(|name| name.starts_with(of));
    match followed {
        // Which branch HEAD names is not asked: it may be this one.
        Reference::Default => any("refs/heads/"),
        Reference::Branch(branch) => names.contains(&format!("refs/heads/{branch}")),
        Reference::Tag(tag) => names.contains(&format!("refs/tags/{tag}")),
        Reference::Semver { .. } => any("refs/tags/"),
        Reference::Name(name) => names.contains(name),
        // It moves nowhere, but a push may bring a commit that was missing.
        Reference::Commit { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_move_is_looked_at() {
        let branch = Reference::Branch("release/1.x".into());
        let tag = Reference::Tag("v1.0.0".into());
        let semver = Reference::Semver { range: "1.x".into(), pattern: None };
        let pull = Reference::Name("refs/pull/12/head".into());
        let commit = Reference::Commit { id: "c".repeat(40), branch: Some("main".into()) };
        let all = [&Reference::Default, &branch, &tag, &semver, &pull, &commit];
        for (names, moved) in [
            (&["refs/heads/release/1.x"][..], [true, true, false, false, false, true]),
            (&["refs/heads/release/1.x2"], [true, false, false, false, false, true]),
            (&["refs/heads/v1.0.0"], [true, false, false, false, false, true]),
            (&["refs/tags/v1.0.0"], [false, false, true, true, false, true]),
            (&["refs/tags/release/1.x"], [false, false, false, true, false, true]),
            (
                &["refs/pull/12/head", "refs/pull/12/merge"],
                [false, false, false, false, true, true],
            ),
            (&["refs/pull/121/head"], [false, false, false, false, false, true]),
            (&["refs/tags/x", "refs/heads/release/1.x"], [true, true, false, true, false, true]),
        ] {
            let refs = Refs::These(names.iter().map(ToString::to_string).collect());
            assert_eq!(all.map(|followed| may_move(followed, &refs)), moved, "{names:?}");
            assert!(all.iter().all(|followed| may_move(followed, &Refs::Any)));
        }
    }
}
