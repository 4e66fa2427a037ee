//! Commits and tags of a repository that are signed, or not, from the server to the verdict.

use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;
use plumb_source::{
    Cancel, CommitId, Mode, Question, Reference, Refusal, Resolved, SourceError, Tagged,
    TrustedKeys, Verified,
};

use crate::World;
use crate::signers::{Gpg, ssh_key, ssh_public};

struct Signed {
    world: World,
    gpg: Gpg,
    key: String,
    ssh: PathBuf,
    trusted: TrustedKeys,
}

impl Signed {
    fn new() -> Self {
        let (world, gpg) = (World::new(), Gpg::new());
        let key = gpg.key("ada", "ed25519", "sign", "never");
        let ssh = ssh_key(world.dir.path(), "bob", "ed25519", "256").unwrap();
        let (pgp, public) = (gpg.export(&key), ssh_public(&ssh));
        let entries = [("ada.asc", &pgp[..]), ("bob.sshpub", public.as_bytes())];
        let trusted = TrustedKeys::of_secret(entries).unwrap();
        Self { world, gpg, key, ssh, trusted }
    }

    /// Runs git so that it signs with the one or the other.
    fn git(&self, ssh: bool, args: &[&str]) -> String {
        let program = format!("gpg.program={}", self.gpg.program().display());
        let key = if ssh { self.ssh.display().to_string() } else { self.key.clone() };
        let key = format!("user.signingkey={key}");
        let format = if ssh { "gpg.format=ssh" } else { "gpg.format=openpgp" };
        let config = ["-c", &program, "-c", &key, "-c", format];
        self.world.repo.git(&[&config[..], args].concat())
    }

    fn commit(&self, ssh: bool, text: &str) -> CommitId {
        let repo = &self.world.repo;
        let tree = repo.tree(&[("100644", "a.yaml", &repo.blob(text))]);
        let commit = self.git(ssh, &["commit-tree", "-S", &tree, "-m", text]).parse().unwrap();
        repo.point("refs/heads/main", &commit);
        commit
    }

    fn resolve(&self, reference: &Reference) -> Resolved {
        let question = Question { reference, with_tag: true, others: &[], since: Instant::now() };
        let remote = self.world.remote();
        self.world.mirrors.look(&remote, &question, &Cancel::new()).unwrap().resolved
    }

    fn verify(
        &self,
        commit: &CommitId,
        mode: Mode,
        tagged: Tagged<'_>,
    ) -> Result<Verified, SourceError> {
        let with = (&self.trusted, Timestamp::now());
        self.world.mirrors.verify(&self.world.remote(), commit, mode, tagged, with)
    }

    /// Resolves a tag and verifies what it leads to.
    fn tag(&self, name: &str, mode: Mode) -> Result<Verified, SourceError> {
        let Resolved { revision, tag } = self.resolve(&Reference::Tag(name.into()));
        self.verify(&revision.commit, mode, Tagged::Resolved(name, tag))
    }
}

fn refusal(result: Result<Verified, SourceError>) -> Refusal {
    match result.unwrap_err() {
        SourceError::Unverified { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[test]
fn commits_and_tags_that_git_signed_are_verified() {
    let signed = Signed::new();
    for ssh in [false, true] {
        let commit = signed.commit(ssh, &format!("{ssh}"));
        let name = format!("v1.{}.0", u8::from(ssh));
        signed.git(ssh, &["tag", "-s", "-m", "release", &name, &commit.to_string()]);
        let by = if ssh { "SSH key SHA256:" } else { "OpenPGP key " };
        let head = signed.tag(&name, Mode::Head).unwrap().to_string();
        assert!(head.starts_with(&format!("commit signed by {by}")), "{head}");
        let tag = signed.tag(&name, Mode::Tag).unwrap();
        assert!(tag.to_string().starts_with(&format!("tag {name} signed by {by}")), "{tag}");
        assert!(tag.commit.is_none());
        let both = signed.tag(&name, Mode::TagAndHead).unwrap();
        assert!(both.tag.is_some() && both.commit.is_some());

        // What is here is enough later on, also when only the name of the tag is known, or not that.
        signed.world.mirrors.keep(&signed.world.remote(), &[commit]).unwrap();
        signed.verify(&commit, Mode::TagAndHead, Tagged::Named(&name)).unwrap();
        signed.verify(&commit, Mode::Tag, Tagged::Any).unwrap();
        let other = refusal(signed.verify(&commit, Mode::Tag, Tagged::Named("v9")));
        assert!(matches!(other, Refusal::OtherName { .. }), "{other}");
    }
    let highest = signed.resolve(&Reference::Semver { range: "1.x".into(), pattern: None });
    assert_eq!(highest.revision.name, "v1.1.0");
    assert!(highest.tag.is_some());
}

#[test]
fn a_tag_counts_under_its_name_for_its_commit() {
    let signed = Signed::new();
    let repo = &signed.world.repo;
    let old = signed.commit(false, "old");
    signed.git(false, &["tag", "-s", "-m", "release", "v1", &old.to_string()]);
    let tag = repo.git(&["rev-parse", "refs/tags/v1"]);
    // An old release shown as a new one.
    repo.git(&["update-ref", "refs/tags/v2", &tag]);
    signed.tag("v1", Mode::Tag).unwrap();
    let renamed = refusal(signed.tag("v2", Mode::Tag));
    assert_eq!(renamed, Refusal::OtherName { found: "v1".into() });

    let new = signed.commit(true, "new");
    repo.git(&["tag", "light", &new.to_string()]);
    assert_eq!(refusal(signed.tag("light", Mode::Tag)), Refusal::Lightweight);
    signed.tag("light", Mode::Head).unwrap();
    repo.git(&["tag", "-a", "-m", "bare", "bare", &new.to_string()]);
    assert_eq!(refusal(signed.tag("bare", Mode::TagAndHead)), Refusal::Unsigned);
    signed.git(false, &["tag", "-s", "-m", "again", "nested", "v1"]);
    assert!(matches!(refusal(signed.tag("nested", Mode::Tag)), Refusal::Malformed { .. }));
    // Nobody signed the commit, but the tag.
    let plain = repo.commit("refs/heads/plain", &[("a.yaml", "plain")]);
    signed.git(true, &["tag", "-s", "-m", "release", "v3", &plain.to_string()]);
    signed.tag("v3", Mode::Tag).unwrap();
    assert_eq!(refusal(signed.tag("v3", Mode::TagAndHead)), Refusal::Unsigned);
    let error = signed.tag("v3", Mode::Head).unwrap_err();
    assert_eq!(error.reason(), "VerificationFailed");
    assert_eq!(error.to_string(), format!("commit {} is not verified", &plain.to_string()[..12]));
    assert!(error.hint().unwrap().contains("git commit -S"));
    // A commit whose tag was never asked for.
    let main = signed.resolve(&crate::branch("main"));
    assert_eq!((main.revision.commit, main.tag), (new, None));
    let fresh = signed.commit(true, "fresh");
    signed.resolve(&crate::branch("main"));
    assert_eq!(refusal(signed.verify(&fresh, Mode::Tag, Tagged::Any)), Refusal::NoTag);
}

#[test]
fn a_tag_is_fetched_once_and_stays_as_long_as_its_commit() {
    for v0 in [false, true] {
        let mut signed = Signed::new();
        if v0 {
            let root = signed.world.dir.path().join("git");
            signed.world.server = crate::Server::with(move |request| {
                let mut request = request.clone();
                request.headers.retain(|(name, _)| name != "git-protocol");
                crate::server::backend(&root, &request)
            });
        }
        let commit = signed.commit(false, "one");
        // The commit is here, its tag is not.
        assert_eq!(signed.world.main().commit, commit);
        signed.git(false, &["tag", "-s", "-m", "release", "v1", &commit.to_string()]);
        let fetches = |signed: &Signed| {
            signed.world.server.take_log().iter().filter(|request| request.is_fetch()).count()
        };
        fetches(&signed);
        signed.tag("v1", Mode::TagAndHead).unwrap();
        assert_eq!(fetches(&signed), 1);
        signed.tag("v1", Mode::TagAndHead).unwrap();
        assert_eq!(fetches(&signed), 0);

        // Many packs are made one, and the tag is in it.
        for n in 0..40 {
            signed.commit(false, &format!("{n}"));
            signed.world.main();
        }
        let remote = signed.world.remote();
        signed.world.mirrors.keep(&remote, &[commit]).unwrap();
        signed.world.mirrors.keep(&remote, &[commit]).unwrap();
        assert_eq!(signed.world.packs(), 1);
        fetches(&signed);
        signed.tag("v1", Mode::Tag).unwrap();
        assert_eq!(fetches(&signed), 0);
        assert!(
            signed.world.mirror_dir().join("refs/plumb-tags").join(commit.to_string()).exists()
        );
        signed.world.mirrors.keep(&remote, &[]).unwrap();
        signed.world.mirrors.keep(&remote, &[]).unwrap();
        let tags = signed.world.mirror_dir().join("refs/plumb-tags").join(commit.to_string());
        assert!(!tags.exists());
        signed.tag("v1", Mode::Tag).unwrap();
    }
}

#[test]
fn a_damaged_tag_is_fetched_again() {
    let signed = Signed::new();
    let commit = signed.commit(false, "one");
    signed.git(false, &["tag", "-s", "-m", "release", "v1", &commit.to_string()]);
    signed.tag("v1", Mode::Tag).unwrap();
    let packs = signed.world.mirror_dir().join("objects/pack");
    for file in std::fs::read_dir(packs).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    signed.verify(&commit, Mode::Tag, Tagged::Named("v1")).unwrap_err();
    signed.tag("v1", Mode::TagAndHead).unwrap();
}
