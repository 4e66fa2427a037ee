//! Which commits of a GitRepository are trusted, where its spec asks for signatures.
//!
//! Invariant: what is not in [`Trust`] is not rendered for an Application, whoever asks for it and
//! wherever it comes from: the ref, a pin, the status of before a restart, what was applied last. The
//! keys, the mode and the name of the Secret are a part of it, so that none of them outlives its commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use plumb_api::conditions::{self, reasons};
use plumb_api::{Condition, GitRepository, Verification, VerificationMode};
use plumb_core::ErrorClass;
use plumb_engine::{Sabotage, leaves_out};
use plumb_source::{
    Cancel, CommitId, KeysError, Mode, Refusal, Remote, SourceError, TagId, Tagged, TrustedKeys,
    Verified,
};

use super::credentials::secret;
use super::{Missed, Problem};
use crate::daemon::{Daemon, chain};
use crate::metrics::Kind;
use crate::named::{Named, NamedKind};
use crate::names::{Key, Name};
use crate::state::{Source, Store};
use crate::status::with_hint;

/// The commits that were verified, and by what.
#[derive(Debug)]
pub(crate) struct Trust {
    by: Verification,
    keys: Arc<TrustedKeys>,
    /// By what each was verified.
    good: BTreeMap<CommitId, (By, Verified)>,
}

/// Keys, and what is trusted by them: each commit, and by what it was verified.
type Trusted = (Arc<TrustedKeys>, Vec<(CommitId, By)>);

/// What is to be said of signatures: the status, reason and message of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    status: &'static str,
    reason: String,
    message: String,
    class: ErrorClass,
}

impl Word {
    fn good(commit: &CommitId, verified: &Verified) -> Self {
        let message = format!("{}: {verified}", &commit.to_string()[..12]);
        let class = ErrorClass::WaitForUser;
        Self { status: "True", reason: reasons::SUCCEEDED.into(), message, class }
    }

    fn bad(reason: &str, message: String, class: ErrorClass) -> Self {
        Self { status: "False", reason: reason.into(), message, class }
    }

    /// Nothing was found out by the keys and the mode that count now.
    fn open() -> Self {
        let message = "no commit was looked at yet by the keys and the mode that count now".into();
        let class = ErrorClass::Retry;
        Self { status: "Unknown", reason: reasons::PROGRESSING.into(), message, class }
    }

    /// What was wrong, if anything was.
    fn problem(self) -> Option<Problem> {
        let Self { status, reason, message, class } = self;
        (status == "False").then_some(Problem { reason, message, class })
    }
}

impl Problem {
    fn word(&self) -> Word {
        Word::bad(&self.reason, self.message.clone(), self.class)
    }
}

/// Which tag a commit is verified by, in the modes that ask for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    /// The one that the ref of this name leads to now.
    Resolved(String, Option<TagId>),
    /// One of this name that is at hand.
    Named(String),
    /// Any that is at hand.
    Any,
}

impl By {
    fn tagged(&self) -> Tagged<'_> {
        match self {
            Self::Resolved(name, tag) => Tagged::Resolved(name, *tag),
            Self::Named(name) => Tagged::Named(name),
            Self::Any => Tagged::Any,
        }
    }

    /// The same by the tag as it is at hand now.
    fn at_hand(&self) -> Tagged<'_> {
        match self {
            Self::Resolved(name, _) | Self::Named(name) => Tagged::Named(name),
            Self::Any => Tagged::Any,
        }
    }

    /// Whether what was found by that says enough. One tag under two names is right under one of them.
    fn is_met(&self, found: &Self) -> bool {
        match self {
            Self::Resolved(..) => self == found,
            Self::Named(_) | Self::Any => true,
        }
    }
}

/// Whether a mode asks for a tag.
pub(super) fn wants_tag(object: &GitRepository) -> bool {
    let mode = object.spec.verify.as_ref().map(|verify| verify.mode);
    mode.is_some_and(|mode| mode != VerificationMode::Head)
}

impl Source {
    /// Whether a commit may be applied. Asked with the spec as it is now: what was found by another
    /// one says nothing.
    pub(crate) fn trusts(&self, commit: &CommitId) -> bool {
        let Some(verify) = &self.object.spec.verify else { return true };
        if leaves_out(Sabotage::AppliesUnverifiedCommits) {
            return true;
        }
        self.trust(verify).is_some_and(|trust| trust.good.contains_key(commit))
    }

    fn trust(&self, verify: &Verification) -> Option<&Trust> {
        self.trust.as_ref().filter(|trust| trust.by == *verify)
    }
}

impl Store {
    /// Takes other keys, or none, in place of those of before. What was trusted by them is so no more, nor
    /// is what was said of it; runs that apply it end. Returns who has to look anew.
    fn turn_trust(&mut self, name: &Name, trust: Option<Trust>) -> Vec<Key> {
        let Some(source) = self.sources.get_mut(name) else { return Vec::new() };
        let lost = source.trust.take().is_some_and(|before| !before.good.is_empty());
        source.trust = trust;
        source.word = source.object.spec.verify.as_ref().map(|_| Word::open());
        if lost { self.stop_dependants(name) } else { Vec::new() }
    }

    /// The runs of all that take a source end. Returns who has to look anew.
    fn stop_dependants(&mut self, name: &Name) -> Vec<Key> {
        let keys: Vec<Key> = self.dependants(name).collect();
        for key in &keys {
            if let Some(app) = self.apps.get_mut(key.name()) {
                app.wanted += 1;
            }
        }
        keys
    }

    /// What is trusted of a source, and by which keys and what. What nobody names any more is let go.
    fn trusted(&mut self, name: &Name) -> Option<Trusted> {
        let named = self.commits_to_keep(name);
        let source = self.sources.get_mut(name)?;
        let verify = source.object.spec.verify.as_ref()?;
        let trust = source.trust.as_mut().filter(|trust| trust.by == *verify)?;
        trust.good.retain(|commit, _| named.contains(&commit.to_string()));
        let good = trust.good.iter().map(|(commit, (by, _))| (*commit, by.clone())).collect();
        Some((Arc::clone(&trust.keys), good))
    }

    /// Commits that are trusted no more although the keys are the same. Returns who has to look anew.
    fn lose_trust(&mut self, name: &Name, keys: &TrustedKeys, lost: &[CommitId]) -> Vec<Key> {
        let trust = self.sources.get_mut(name).and_then(|source| source.trust.as_mut());
        let Some(trust) = trust.filter(|trust| *trust.keys == *keys) else { return Vec::new() };
        let before = trust.good.len();
        trust.good.retain(|commit, _| !lost.contains(commit));
        if trust.good.len() < before { self.stop_dependants(name) } else { Vec::new() }
    }

    /// An object that a source names is not as it was read. If its keys are in it, nothing is trusted
    /// until they are read anew: a look under way takes nothing any more that they signed. Returns who
    /// has to look anew.
    pub(crate) fn distrust(&mut self, name: &Name, changed: &Named) -> Vec<Key> {
        let verify = self.sources.get(name).and_then(|source| source.object.spec.verify.as_ref());
        if verify.is_none_or(|verify| keys_of(name, verify) != *changed) {
            return Vec::new();
        }
        self.turn_trust(name, None)
    }
}

/// The Secret of keys.
fn keys_of(name: &Name, verify: &Verification) -> Named {
    Named::new(NamedKind::Secret, &name.namespace, &verify.secret_ref.name)
}

impl Daemon {
    /// Reads the keys that a GitRepository trusts, if it asks for signatures. Those that cannot be read
    /// just now, and are not known to have changed, stay as they were; without a Secret nobody is
    /// trusted. Returns who is to be called, since what it stands on may be trusted no more.
    pub(super) async fn take_keys(
        &self,
        name: &Name,
        object: &GitRepository,
    ) -> (Vec<Key>, Result<(), Missed>) {
        let turn = |trust| self.state.lock().turn_trust(name, trust);
        let Some(verify) = &object.spec.verify else {
            return (turn(None), Ok(()));
        };
        let found = match self.secrets(name, object).await {
            Ok(found) => found,
            Err(problem) => {
                // What is over in a moment says nothing of signatures.
                if problem.class != ErrorClass::Retry {
                    self.word(name, Some(problem.word()));
                }
                return (Vec::new(), Err(problem.into()));
            }
        };
        let secret = match secret(&found, name, "verify.secretRef", &verify.secret_ref) {
            Ok(secret) => secret,
            Err(problem) => {
                let called = turn(None);
                self.word(name, Some(problem.word()));
                return (called, Err(problem.into()));
            }
        };
        let entries = secret.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        match TrustedKeys::of_secret(entries) {
            Ok(keys) => {
                let mut store = self.state.lock();
                if store.named.outdates(&keys_of(name, verify), &found) {
                    // They changed while they were read, and the watch has said so already.
                    return (store.turn_trust(name, None), Err(Missed::CutShort));
                }
                let source = store.sources.get(name);
                let trust = source.and_then(|source| source.trust(verify));
                if trust.is_some_and(|trust| *trust.keys == keys) {
                    return (Vec::new(), Ok(()));
                }
                let trust =
                    Trust { by: verify.clone(), keys: Arc::new(keys), good: BTreeMap::new() };
                (store.turn_trust(name, Some(trust)), Ok(()))
            }
            Err(error) => {
                let problem = unusable(&verify.secret_ref.name, &error);
                let called = turn(None);
                self.word(name, Some(problem.word()));
                (called, Err(problem.into()))
            }
        }
    }

    /// Looks again at all that is trusted: a key may have come to its end since. Costs no server anything.
    /// Returns who is to be called, since what it stands on may be trusted no more.
    pub(super) async fn verify_again(
        &self,
        name: &Name,
        object: &GitRepository,
        remote: &Remote,
    ) -> Vec<Key> {
        let trusted = self.state.lock().trusted(name);
        let (Some(verify), Some((keys, good))) = (&object.spec.verify, trusted) else {
            return Vec::new();
        };
        let (mirrors, remote, mode) = (Arc::clone(&self.mirrors), remote.clone(), verify.mode);
        let with = Arc::clone(&keys);
        let look = move |_: &Cancel| {
            let now = Timestamp::now();
            let is_lost = |(commit, by): &(CommitId, By)| {
                let tagged = by.at_hand();
                is_refused(&mirrors.verify(&remote, commit, mode_of(mode), tagged, (&*with, now)))
            };
            good.into_iter().filter(is_lost).map(|(commit, _)| commit).collect::<Vec<_>>()
        };
        let lost = self.blocking(Kind::GitRepository, look).await.unwrap_or_default();
        self.state.lock().lose_trust(name, &keys, &lost)
    }

    /// Makes sure that a commit, which is at hand, is trusted, where the spec asks for that, and notes
    /// what there is to say. When other keys come meanwhile, or are known to come, that is cut short.
    pub(super) async fn verify(
        &self,
        name: &Name,
        object: &GitRepository,
        remote: &Remote,
        commit: CommitId,
        by: &By,
    ) -> Result<(), Missed> {
        let Some(found) = self.signer(name, object, remote, commit, by).await? else {
            return Ok(());
        };
        match &found {
            Ok(verified) => self.word(name, Some(Word::good(&commit, verified))),
            Err(error @ SourceError::Unverified { source, .. }) => {
                let message = with_hint(chain(error), error.hint());
                self.word(name, Some(Word::bad(source.reason(), message, error.class())));
            }
            Err(_) => {}
        }
        if !leaves_out(Sabotage::AppliesUnverifiedCommits) {
            found?;
        }
        Ok(())
    }

    /// The same of a commit that is not what the source is at, or is to be at: nothing is said.
    pub(super) async fn verify_aside(
        &self,
        name: &Name,
        object: &GitRepository,
        remote: &Remote,
        commit: CommitId,
        by: &By,
    ) -> Result<(), Missed> {
        if let Some(found) = self.signer(name, object, remote, commit, by).await? {
            found?;
        }
        Ok(())
    }

    /// Who signed a commit, if the spec asks for that. It is trusted from then on.
    async fn signer(
        &self,
        name: &Name,
        object: &GitRepository,
        remote: &Remote,
        commit: CommitId,
        by: &By,
    ) -> Result<Option<Result<Verified, SourceError>>, Missed> {
        let Some(verify) = &object.spec.verify else { return Ok(None) };
        let keys = {
            let store = self.state.lock();
            let trust = store.sources.get(name).and_then(|source| source.trust(verify));
            let Some(trust) = trust else {
                // Why there are no keys was found out when they were looked for.
                let word = store.sources.get(name).and_then(|source| source.word.clone());
                let problem = word.and_then(Word::problem);
                return Err(problem.map_or(Missed::CutShort, Missed::from));
            };
            match trust.good.get(&commit) {
                Some((found, verified)) if by.is_met(found) => {
                    return Ok(Some(Ok(verified.clone())));
                }
                _ => Arc::clone(&trust.keys),
            }
        };
        let (mirrors, remote) = (Arc::clone(&self.mirrors), remote.clone());
        let (mode, tagged, trusted) = (mode_of(verify.mode), by.clone(), Arc::clone(&keys));
        let look = move |_: &Cancel| {
            let with = (&*trusted, Timestamp::now());
            mirrors.verify(&remote, &commit, mode, tagged.tagged(), with)
        };
        let found = self.blocking(Kind::GitRepository, look).await?;
        let mut store = self.state.lock();
        let trust = store.sources.get_mut(name).and_then(|source| source.trust.as_mut());
        let trust = trust.filter(|trust| trust.by == *verify && trust.keys == keys);
        let Some(trust) = trust else { return Err(Missed::CutShort) };
        if let Ok(verified) = &found {
            trust.good.insert(commit, (by.clone(), verified.clone()));
        }
        Ok(Some(found))
    }

    fn word(&self, name: &Name, word: Option<Word>) {
        if let Some(source) = self.state.lock().sources.get_mut(name) {
            source.word = word;
        }
    }
}

/// The condition that tells of signatures: as was found last, or as it stands in the status, unless the
/// spec has changed since that said that all is well.
pub(super) fn condition_of(
    object: &GitRepository,
    word: Option<&Word>,
    before: &[Condition],
) -> Option<(&'static str, &'static str, String, String)> {
    object.spec.verify.as_ref()?;
    let type_ = conditions::SOURCE_VERIFIED;
    if let Some(Word { status, reason, message, .. }) = word {
        return Some((type_, status, reason.clone(), message.clone()));
    }
    let said = before.iter().find(|condition| condition.type_ == type_)?;
    let is_good = said.status == "True";
    let is_old = is_good && said.observed_generation != object.metadata.generation;
    if is_old || said.status == "Unknown" {
        let Word { status, reason, message, .. } = Word::open();
        return Some((type_, status, reason, message));
    }
    let status = if is_good { "True" } else { "False" };
    Some((type_, status, said.reason.clone(), said.message.clone()))
}

/// Whether a commit that was good is so no more. One that cannot be read, or whose tag is not here any
/// more, may still be.
fn is_refused(found: &Result<Verified, SourceError>) -> bool {
    matches!(found, Err(SourceError::Unverified { source, .. }) if *source != Refusal::NoTag)
}

fn mode_of(mode: VerificationMode) -> Mode {
    match mode {
        VerificationMode::Head => Mode::Head,
        VerificationMode::Tag => Mode::Tag,
        VerificationMode::TagAndHead => Mode::TagAndHead,
    }
}

fn unusable(secret: &str, error: &KeysError) -> Problem {
    let message = format!("the Secret {secret} is of no use for spec.verify: {error}");
    Problem::user(reasons::INVALID_SECRET, with_hint(message, Some(error.hint().to_owned())))
}

#[cfg(test)]
impl Store {
    /// A commit was found to be good before.
    pub(super) fn believe(&mut self, name: &Name, commit: CommitId) {
        let trust = self.sources.get_mut(name).and_then(|source| source.trust.as_mut());
        let verified = Verified { tag: None, commit: None };
        trust.unwrap().good.insert(commit, (By::Any, verified));
    }
}

#[cfg(test)]
mod tests {
    use plumb_api::SecretRef;
    use plumb_source::{Revision, Signer};
    use serde_json::json;

    use super::*;
    use crate::named::{Content, Found, Told};

    const KEYS: [&str; 2] = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAZB7F+dVF/pXLyzww5B75BPWJp0iWZcxmGoDIVjaLmD ada",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHI0uOW172eBrovn1zgS/QZXvIrxMb1O3ezjc5yu8uf7 eve",
    ];

    fn source(generation: i64, verify: &serde_json::Value) -> GitRepository {
        serde_json::from_value(json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
            "metadata": {"name": "repo", "namespace": "ns", "uid": "u", "generation": generation},
            "spec": {"url": "https://git.example/repo", "interval": "1m", "verify": verify},
        }))
        .unwrap()
    }

    fn trust(mode: VerificationMode, keys: &str, commit: CommitId) -> Trust {
        let keys = TrustedKeys::of_secret([("a.sshpub", keys.as_bytes())]).unwrap();
        let secret_ref = SecretRef { name: "keys".into() };
        let signer = Signer { key: "SSH key".into(), name: "ada".into() };
        let verified = Verified { tag: None, commit: Some(signer) };
        Trust {
            by: Verification { mode, secret_ref },
            keys: Arc::new(keys),
            good: BTreeMap::from([(commit, (By::Any, verified))]),
        }
    }

    #[test]
    fn a_commit_is_trusted_by_what_the_spec_says_now() {
        let mut store = Store::default();
        let name = Name::new("ns", "repo");
        let commit = |digit: &str| -> CommitId { digit.repeat(40).parse().unwrap() };
        let trusts = |store: &Store, commit: &CommitId| store.sources[&name].trusts(commit);
        store.put_source(source(1, &json!(null)));
        assert!(trusts(&store, &commit("1")), "nobody asks for signatures");
        let verify =
            |mode: &str, secret: &str| json!({"mode": mode, "secretRef": {"name": secret}});
        // From the moment on that the spec asks for them, before anybody has looked.
        store.put_source(source(2, &verify("HEAD", "keys")));
        assert!(!trusts(&store, &commit("1")));
        assert_eq!(
            store.turn_trust(&name, Some(trust(VerificationMode::Head, KEYS[0], commit("1")))),
            []
        );
        assert!(trusts(&store, &commit("1")));
        assert!(!trusts(&store, &commit("2")));
        for other in [verify("TagAndHEAD", "keys"), verify("HEAD", "others")] {
            store.put_source(source(3, &other));
            assert!(!trusts(&store, &commit("1")), "{other}");
        }
        store.put_source(source(4, &verify("HEAD", "keys")));
        assert!(trusts(&store, &commit("1")));
        store.sources.get_mut(&name).unwrap().forget();
        assert!(!trusts(&store, &commit("1")), "as after a restart");
    }

    #[test]
    fn who_stands_on_what_is_trusted_no_more_is_called_and_stops() {
        let mut store = Store::default();
        let name = Name::new("ns", "repo");
        store.put_source(source(1, &json!({"secretRef": {"name": "keys"}})));
        let app = serde_json::from_value(json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "generation": 1},
            "spec": {"sourceRef": {"name": "repo"}, "interval": "1h"},
        }));
        store.put_app(app.unwrap());
        let web = Name::new("ns", "web");
        let wanted = |store: &Store| store.apps[&web].wanted;
        let before = wanted(&store);
        let commit: CommitId = "1".repeat(40).parse().unwrap();
        let mut none = trust(VerificationMode::Head, KEYS[0], commit);
        none.good.clear();
        assert_eq!(store.turn_trust(&name, Some(none)), []);
        let with = |keys| Some(trust(VerificationMode::Head, keys, commit));
        assert_eq!(store.turn_trust(&name, with(KEYS[0])), [], "nothing was trusted before");
        assert_eq!(wanted(&store), before);
        assert_eq!(store.turn_trust(&name, with(KEYS[1])), [Key::App(web.clone())]);
        assert_eq!(store.turn_trust(&name, None), [Key::App(web.clone())]);
        assert_eq!(wanted(&store), before + 2);
        assert_eq!(store.turn_trust(&Name::new("ns", "gone"), None), []);
    }

    #[test]
    fn keys_count_no_more_from_the_moment_on_that_their_secret_changed() {
        let mut store = Store::default();
        let name = Name::new("ns", "repo");
        let mut object = source(1, &json!({"secretRef": {"name": "keys"}}));
        object.spec.secret_ref = Some(SecretRef { name: "git".into() });
        store.put_source(object);
        let part = (NamedKind::Secret, None);
        let key = Key::Source(name.clone());
        let secret = |name: &str| Named::new(NamedKind::Secret, "ns", name);
        let content = || Some(Arc::new(Content { version: 1, data: BTreeMap::new() }));
        let found = Found::from([(secret("keys"), content()), (secret("git"), content())]);
        store.note_found(&key, &Arc::new(found));
        let commit: CommitId = "1".repeat(40).parse().unwrap();
        store.turn_trust(&name, Some(trust(VerificationMode::Head, KEYS[0], commit)));
        for (changed, version, woken, trusted) in [
            ("keys", 1, false, true),
            ("git", 2, true, true),
            ("others", 2, false, true),
            ("keys", 2, true, false),
        ] {
            store.named.told(&part, Told::Changed(Name::new("ns", changed), version));
            let keys = store.wake_askers(&secret(changed));
            assert_eq!(keys.contains(&key), woken, "{changed} {version}");
            assert_eq!(store.sources[&name].trusts(&commit), trusted, "{changed} {version}");
        }
    }

    #[test]
    fn what_is_trusted_no_more_is_lost_and_what_nobody_names_is_let_go() {
        let mut store = Store::default();
        let name = Name::new("ns", "repo");
        store.put_source(source(1, &json!({"secretRef": {"name": "keys"}})));
        let commit = |digit: &str| -> CommitId { digit.repeat(40).parse().unwrap() };
        let app: plumb_api::Application = serde_json::from_value(json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "generation": 1},
            "spec": {
                "sourceRef": {"name": "repo"}, "interval": "1h",
                "revision": commit("2").to_string(),
            },
        }))
        .unwrap();
        store.put_app(app);
        let revision = Revision { name: "main".into(), commit: commit("1") };
        store.sources.get_mut(&name).unwrap().revision = Some(revision);
        let mut all = trust(VerificationMode::Head, KEYS[0], commit("1"));
        for digit in ["2", "3"] {
            let known = all.good[&commit("1")].clone();
            all.good.insert(commit(digit), known);
        }
        store.turn_trust(&name, Some(all));
        let (keys, good) = store.trusted(&name).unwrap();
        assert_eq!(good, [(commit("1"), By::Any), (commit("2"), By::Any)]);
        assert_eq!(store.lose_trust(&name, &keys, &[]), []);
        let web = [Key::App(Name::new("ns", "web"))];
        assert_eq!(store.lose_trust(&name, &keys, &[commit("2")]), web);
        let trusts = |store: &Store, digit| store.sources[&name].trusts(&commit(digit));
        assert!(trusts(&store, "1") && !trusts(&store, "2"));
        // Others came meanwhile.
        store.turn_trust(&name, Some(trust(VerificationMode::Head, KEYS[1], commit("2"))));
        assert_eq!(store.lose_trust(&name, &keys, &[commit("2")]), []);
        assert!(trusts(&store, "2"));

        let refused = |source| Err(SourceError::Unverified { what: "commit".into(), source });
        assert!(is_refused(&refused(Refusal::Unsigned)));
        assert!(!is_refused(&refused(Refusal::NoTag)));
        assert!(!is_refused(&Err(SourceError::NotInCache { commit: commit("1") })));
    }

    #[test]
    fn what_was_found_out_of_signatures_stays_said() {
        let asks = source(1, &json!({"secretRef": {"name": "keys"}}));
        let commit: CommitId = "1".repeat(40).parse().unwrap();
        let verified = trust(VerificationMode::Head, KEYS[0], commit).good[&commit].1.clone();
        let word = Word::good(&commit, &verified);
        let (type_, status, reason, message) = condition_of(&asks, Some(&word), &[]).unwrap();
        assert_eq!((type_, status, reason.as_str()), ("SourceVerified", "True", "Succeeded"));
        assert_eq!(message, "111111111111: commit signed by SSH key, ada");
        // After a restart that finds no server.
        let mut say = crate::status::Say::ready("fetched");
        say.more.push((type_, status, reason, message.clone()));
        let before = crate::status::build_conditions(&[], &say, Some(1), Timestamp::UNIX_EPOCH);
        assert_eq!(condition_of(&asks, None, &before).unwrap().3, message);
        let changed = source(2, &json!({"secretRef": {"name": "others"}}));
        assert_eq!(condition_of(&changed, None, &before).unwrap().1, "Unknown");
        assert_eq!(condition_of(&source(1, &json!(null)), Some(&word), &before), None);
        assert_eq!(condition_of(&asks, None, &[]), None);
        let bad = Word::bad("UnknownKey", "who?".into(), ErrorClass::WaitForUser);
        assert_eq!(condition_of(&asks, Some(&bad), &before).unwrap().1, "False");
        assert_eq!(bad.problem().unwrap().word().reason, "UnknownKey");
        assert_eq!(word.problem(), None);
        let resolved = |name: &str| By::Resolved(name.into(), None);
        let named = By::Named("v1".into());
        assert!(By::Any.is_met(&resolved("v1")) && named.is_met(&By::Any));
        assert!(resolved("v1").is_met(&resolved("v1")));
        assert!(!resolved("v2").is_met(&resolved("v1")), "the same tag under another name");
    }
}
