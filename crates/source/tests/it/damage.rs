//! Damage of a mirror is found, at the start and by whoever reads; nothing wrong is served; what can be
//! read stays in use while the server is away; and the mirror is made anew once it answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plumb_core::{RelPath, Tree as _};
use plumb_source::{Cancel, CommitId, Limits, Mirrors, Question, Reference, Remote, SourceError};

use crate::repo::Repo;
use crate::server::{Reply, Server, backend};
use crate::{World, branch, count};

/// A cache with one mirror, to be copied, and its server.
///
/// Two commits lie in two packs; they share a file, and each has one of its own. The history before the
/// first is not there, and the first has an annotated tag.
struct Stand {
    world: World,
    down: Arc<AtomicBool>,
    remote: Remote,
    commits: [CommitId; 2],
    texts: [String; 2],
}

impl Stand {
    fn new() -> Self {
        let mut world = World::new();
        let root = world.dir.path().join("git");
        let down = Arc::new(AtomicBool::new(false));
        let is_down = Arc::clone(&down);
        world.server = Server::with(move |request| {
            if is_down.load(Ordering::SeqCst) {
                Reply::status(503)
            } else {
                backend(&root, request)
            }
        });
        // Text that stays long when it is compressed.
        let text = |seed: u64| {
            let numbers = (0..2000).map(|i| (i * seed % 1009).to_string());
            numbers.collect::<Vec<_>>().join("\n")
        };
        let texts = [text(7919), text(6421)];
        let commit = |text: &str| {
            let long = "same\n".repeat(5000) + &texts[0];
            world.repo.commit("refs/heads/main", &[("a.yaml", text), ("same.yaml", &long)])
        };
        commit("before");
        let first = commit(&texts[0]);
        world.repo.git(&["tag", "-a", "-m", "one", "v1", &first.to_string()]);
        let tag = Reference::Tag("v1".into());
        world.mirrors.resolve_tag(&world.remote(), &tag, &Cancel::new()).unwrap();
        let last = commit(&texts[1]);
        world.main();
        assert_eq!(world.packs(), 2);
        let remote = world.remote();
        Self { world, down, remote, commits: [first, last], texts }
    }

    /// A copy of the cache.
    fn copy(&self) -> Copy<'_> {
        let dir = tempfile::tempdir_in(self.world.dir.path()).unwrap();
        copy_dir(&self.world.cache().join("mirrors"), &dir.path().join("mirrors"));
        Copy { stand: self, dir }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy_dir(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

struct Copy<'s> {
    stand: &'s Stand,
    dir: tempfile::TempDir,
}

impl Copy<'_> {
    fn open(&self) -> Mirrors {
        Mirrors::open(self.dir.path(), Limits::default()).unwrap()
    }

    fn mirror(&self) -> PathBuf {
        fs::read_dir(self.dir.path().join("mirrors")).unwrap().next().unwrap().unwrap().path()
    }

    /// The files of one kind among the packs, that of the last commit first: it has one new file, and the
    /// pack of the first has two.
    fn packed(&self, extension: &str) -> Vec<PathBuf> {
        let all = fs::read_dir(self.mirror().join("objects/pack")).unwrap();
        let mut all: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).collect();
        all.retain(|file| file.extension().unwrap() == extension);
        all.sort_by_key(|file| fs::metadata(file).unwrap().len());
        all
    }

    fn anchor(&self, commit: usize) -> PathBuf {
        self.mirror().join(format!("refs/plumb/{}", self.stand.commits[commit]))
    }

    /// Which of the two commits can be read. Whatever can is as it was committed.
    fn readable(&self, mirrors: &Mirrors) -> [bool; 2] {
        [0, 1].map(|n| {
            let Ok(snapshot) = mirrors.snapshot(&self.stand.remote, &self.stand.commits[n]) else {
                return false;
            };
            let Ok(found) = snapshot.read(&RelPath::parse("a.yaml").unwrap(), 1 << 20) else {
                return false;
            };
            assert_eq!(found, self.stand.texts[n].as_bytes());
            snapshot.read(&RelPath::parse("same.yaml").unwrap(), 1 << 20).is_ok()
        })
    }
}

/// What a damage leaves.
struct Case {
    what: &'static str,
    damage: fn(&Copy<'_>),
    /// Which commits can be read while the process goes on that had the mirror before.
    running: [bool; 2],
    /// Which after another one has taken it, and may have mended something.
    started: [bool; 2],
    /// Whether a start can see it without reading everything.
    seen: bool,
}

/// Changes a file that may be read-only. Whoever has the old one open keeps that.
fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

#[expect(clippy::ptr_arg, reason = "all that change a file have one form")]
fn zero(bytes: &mut Vec<u8>) {
    bytes.fill(0);
}

fn halve(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() / 2);
}

#[expect(clippy::ptr_arg, reason = "all that change a file have one form")]
fn flip(bytes: &mut Vec<u8>) {
    // In the compressed data of the last file.
    let at = bytes.len() - 40;
    bytes[at] ^= 0xff;
}

const NONE: [bool; 2] = [false, false];
const FIRST: [bool; 2] = [true, false];
const BOTH: [bool; 2] = [true, true];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what, (running, started, seen), damage| {
        cases.push(Case { what, damage, running, started, seen });
    };
    add("no packs", (NONE, NONE, true), |m| {
        fs::remove_dir_all(m.mirror().join("objects/pack")).unwrap();
    });
    add("no objects", (NONE, NONE, true), |m| {
        fs::remove_dir_all(m.mirror().join("objects")).unwrap();
    });
    add("a pack that is gone", (FIRST, FIRST, true), |m| {
        fs::remove_file(&m.packed("pack")[0]).unwrap();
    });
    add("an empty pack", (FIRST, FIRST, true), |m| change(&m.packed("pack")[0], Vec::clear));
    add("half a pack", (FIRST, FIRST, true), |m| change(&m.packed("pack")[0], halve));
    add("a pack of zeros", (FIRST, FIRST, true), |m| change(&m.packed("pack")[0], zero));
    add("packs of zeros", (NONE, NONE, true), |m| {
        m.packed("pack").iter().for_each(|file| change(file, zero));
    });
    add("a flipped byte", (FIRST, FIRST, false), |m| change(&m.packed("pack")[0], flip));
    add("an index that is gone", (FIRST, FIRST, true), |m| {
        fs::remove_file(&m.packed("idx")[0]).unwrap();
    });
    add("an empty index", (FIRST, FIRST, true), |m| change(&m.packed("idx")[0], Vec::clear));
    add("half an index", (FIRST, FIRST, true), |m| change(&m.packed("idx")[0], halve));
    add("an index of zeros", (FIRST, FIRST, true), |m| change(&m.packed("idx")[0], zero));
    // The name of an anchor says what it holds.
    add("an empty anchor", (FIRST, BOTH, true), |m| change(&m.anchor(1), Vec::clear));
    add("an anchor of zeros", (FIRST, BOTH, true), |m| change(&m.anchor(1), zero));
    add("an anchor of another commit", (FIRST, BOTH, true), |m| {
        fs::copy(m.anchor(0), m.anchor(1)).unwrap();
    });
    add("an anchor that is gone", (FIRST, FIRST, true), |m| {
        fs::remove_file(m.anchor(1)).unwrap();
    });
    add("no anchors", (NONE, NONE, true), |m| {
        fs::remove_dir_all(m.mirror().join("refs")).unwrap();
    });
    add("packed anchors that nobody wrote", (BOTH, BOTH, true), |m| {
        fs::write(m.mirror().join("packed-refs"), "garbage\n").unwrap();
    });
    // What nothing is kept in is written again by whoever misses it.
    for (what, damage) in [
        ("no HEAD", (|m| fs::remove_file(m.mirror().join("HEAD")).unwrap()) as fn(&Copy<'_>)),
        ("an empty HEAD", |m| change(&m.mirror().join("HEAD"), Vec::clear)),
        ("no config", |m| fs::remove_file(m.mirror().join("config")).unwrap()),
        ("a config of zeros", |m| change(&m.mirror().join("config"), zero)),
        ("half a config", |m| change(&m.mirror().join("config"), halve)),
        ("a shallow file of zeros", |m| change(&m.mirror().join("shallow"), zero)),
        ("no shallow file", |m| fs::remove_file(m.mirror().join("shallow")).unwrap()),
    ] {
        add(what, (BOTH, BOTH, true), damage);
    }
    cases
}

/// Nothing helps as long as the server is away, and nothing is lost by trying; then everything is there
/// again.
fn lives_on(copy: &Copy<'_>, mirrors: &Mirrors, readable: [bool; 2], what: &str) {
    let Stand { world, down, remote, commits, .. } = copy.stand;
    down.store(true, Ordering::SeqCst);
    assert_eq!(copy.readable(mirrors), readable, "{what}");
    for _ in 0..2 {
        let before = copy.readable(mirrors);
        let tried = mirrors.resolve(remote, &branch("main"), &Cancel::new()).unwrap_err();
        assert!(matches!(tried, SourceError::HttpStatus { .. }), "{what}: {tried}");
        let brought = commits.each_ref().map(|commit| {
            let brought = mirrors.fetch_commit(remote, commit, &Cancel::new()).is_ok();
            assert_eq!(mirrors.is_whole(remote, commit).unwrap(), brought, "{what}");
            brought
        });
        let after = copy.readable(mirrors);
        assert_eq!(after, brought, "{what}");
        assert!((0..2).all(|n| after[n] || !before[n]), "{what}: {before:?}, then {after:?}");
    }
    down.store(false, Ordering::SeqCst);
    is_made_good(copy, mirrors, what);
    // It polls as if nothing had been.
    world.server.take_log();
    mirrors.resolve(remote, &branch("main"), &Cancel::new()).unwrap();
    assert_eq!(world.server.take_log().len(), 1, "{what}");
}

fn is_made_good(copy: &Copy<'_>, mirrors: &Mirrors, what: &str) {
    let Stand { remote, commits, .. } = copy.stand;
    for _ in 0..2 {
        let main = mirrors.resolve(remote, &branch("main"), &Cancel::new()).unwrap();
        assert_eq!(main.commit, commits[1], "{what}");
        mirrors.fetch_commit(remote, &commits[0], &Cancel::new()).unwrap();
        assert_eq!(copy.readable(mirrors), BOTH, "{what}");
        // Whoever tidies meets what readers do not.
        let _ = mirrors.keep(remote, commits);
    }
    mirrors.keep(remote, commits).unwrap();
    // Nothing is left of the work, and git itself agrees.
    assert_eq!(count(&copy.dir.path().join("mirrors"), ""), 1, "{what}");
    Repo { path: copy.mirror() }.git(&["fsck", "--full", "--connectivity-only"]);
}

#[test]
fn while_it_runs() {
    let stand = Stand::new();
    for case in cases() {
        let copy = stand.copy();
        let mirrors = copy.open();
        (case.damage)(&copy);
        lives_on(&copy, &mirrors, case.running, case.what);
    }
}

#[test]
fn before_it_starts() {
    let stand = Stand::new();
    for case in cases() {
        let copy = stand.copy();
        (case.damage)(&copy);
        let mirrors = copy.open();
        lives_on(&copy, &mirrors, case.started, case.what);
        drop(mirrors);
        // Another start finds nothing.
        let mirrors = copy.open();
        assert_eq!(copy.readable(&mirrors), BOTH, "{}", case.what);
        let rebuilt = mirrors.usage().rebuilt;
        mirrors.resolve(&stand.remote, &branch("main"), &Cancel::new()).unwrap();
        assert_eq!(mirrors.usage().rebuilt, rebuilt, "{}", case.what);
    }
}

/// What can be seen at a start is made good by the first look, and no reader has to meet it.
#[test]
fn a_start_sees_what_can_be_seen() {
    let stand = Stand::new();
    for case in cases().into_iter().filter(|case| case.seen) {
        let copy = stand.copy();
        (case.damage)(&copy);
        let mirrors = copy.open();
        mirrors.resolve(&stand.remote, &branch("main"), &Cancel::new()).unwrap();
        for commit in &stand.commits {
            mirrors.fetch_commit(&stand.remote, commit, &Cancel::new()).unwrap();
        }
        assert_eq!(copy.readable(&mirrors), BOTH, "{}", case.what);
    }
}

/// A new mirror takes over what can be read, and asks the server for the rest alone.
#[test]
fn what_can_be_read_is_not_fetched_again() {
    let stand = Stand::new();
    let copy = stand.copy();
    change(&copy.packed("pack")[0], zero);
    let mirrors = copy.open();
    stand.world.server.take_log();
    mirrors.resolve(&stand.remote, &branch("main"), &Cancel::new()).unwrap();
    assert_eq!(mirrors.usage().rebuilt, 1);
    let log = stand.world.server.take_log();
    let fetched: Vec<usize> = log.iter().filter(|r| r.is_fetch()).map(|r| r.answered).collect();
    let last =
        usize::try_from(fs::metadata(&stand.copy().packed("pack")[0]).unwrap().len()).unwrap();
    assert!(fetched.len() == 1 && fetched[0] < last + 500, "{fetched:?} for {last}");
    assert_eq!(copy.readable(&mirrors), BOTH);
    // The tag of the first is there, too.
    let tag = Reference::Tag("v1".into());
    let resolved = mirrors.resolve_tag(&stand.remote, &tag, &Cancel::new()).unwrap();
    assert!(resolved.tag.is_some());
    assert!(stand.world.server.take_log().iter().all(|request| !request.is_fetch()));
}

/// Of a mirror in which no commit is whole any more others may still read what they need, until there is
/// another one.
#[test]
fn what_is_damaged_everywhere_stays_until_there_is_another_one() {
    let stand = Stand::new();
    let copy = stand.copy();
    let mirrors = copy.open();
    // The file that both commits have: it is the longest, and its pack that of the first.
    let pack = copy.packed("pack").pop().unwrap();
    let own = |mirrors: &Mirrors| {
        let snapshot = mirrors.snapshot(&stand.remote, &stand.commits[1]).unwrap();
        snapshot.read(&RelPath::parse("a.yaml").unwrap(), 1 << 20).is_ok()
    };
    change(&pack, zero);
    drop(mirrors);
    let mirrors = copy.open();
    assert_eq!((copy.readable(&mirrors), own(&mirrors)), (NONE, true));
    stand.down.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        mirrors.resolve(&stand.remote, &branch("main"), &Cancel::new()).unwrap_err();
        for commit in &stand.commits {
            mirrors.fetch_commit(&stand.remote, commit, &Cancel::new()).unwrap_err();
        }
        assert!(own(&mirrors), "what can be read is not taken away");
    }
    stand.down.store(false, Ordering::SeqCst);
    is_made_good(&copy, &mirrors, "the file of both");
    assert_eq!(mirrors.usage().rebuilt, 1);
}

/// Where nobody lists anything, as with a commit by its id, doubts would never end.
#[test]
fn a_mirror_that_was_looked_through_is_not_doubted_any_more() {
    let stand = Stand::new();
    let copy = stand.copy();
    fs::remove_file(copy.mirror().join("HEAD")).unwrap();
    let mirrors = copy.open();
    stand.down.store(true, Ordering::SeqCst);
    stand.world.server.take_log();
    let reference = Reference::Commit { id: stand.commits[1].to_string(), branch: None };
    let since = std::time::Instant::now();
    let question = Question { reference: &reference, with_tag: false, others: &[], since };
    assert!(matches!(mirrors.known(&stand.remote, &question), Some(Ok(_))));
    mirrors.fetch_commit(&stand.remote, &stand.commits[1], &Cancel::new()).unwrap();
    // It is sound, so nobody reads all of it once more: what is damaged now is not met.
    let pack = copy.packed("pack").pop().unwrap();
    change(&pack, flip);
    assert!(mirrors.is_sound(&stand.remote, &stand.commits[1]).unwrap());
    assert!(stand.world.server.take_log().is_empty());
}
