//! Submodules of real repositories.

use plumb_core::{EntryKind, Inputs, Recorder, RelPath, Tree as _, TreeError};
use plumb_source::{Cancel, CommitId, Credentials, Limits, Mirrors, Remote, Snapshot, SourceError};

use crate::failures::whole;
use crate::programs::{Nginx, users};
use crate::repo::Repo;
use crate::server::Server;
use crate::{World, branch, remote};

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

/// Makes a commit with files and with submodules at these paths, and `main` of it.
fn commit(
    repo: &Repo,
    files: &[(&str, &str)],
    gitlinks: &[(&str, &CommitId)],
    gitmodules: &str,
) -> CommitId {
    let mut files = files.to_vec();
    if !gitmodules.is_empty() {
        files.push((".gitmodules", gitmodules));
    }
    let blobs: Vec<String> = files.iter().map(|(_, text)| repo.blob(text)).collect();
    let ids: Vec<String> = gitlinks.iter().map(|(_, id)| id.to_string()).collect();
    let mut entries: Vec<(&str, &str, &str)> =
        files.iter().zip(&blobs).map(|((path, _), id)| ("100644", *path, id.as_str())).collect();
    entries.extend(gitlinks.iter().zip(&ids).map(|((path, _), id)| ("160000", *path, id.as_str())));
    let tree = repo.tree(&entries);
    let old = repo.git(&["for-each-ref", "--format=%(objectname)", "refs/heads/main"]);
    let parents: Vec<&str> = old.lines().collect();
    let commit = repo.commit_tree(&tree, &parents, "a commit");
    repo.point("refs/heads/main", &commit);
    commit
}

/// What `git submodule add` writes.
fn module(path: &str, url: &str) -> String {
    format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n")
}

impl World {
    fn with_submodules(&self) -> Remote {
        Remote { submodules: true, ..self.remote() }
    }

    fn other(&self, name: &str) -> Repo {
        Repo::init(&self.dir.path().join("git").join(name))
    }

    /// Brings what `main` of the first repository is, with its submodules.
    fn take(&self) -> Result<Snapshot, SourceError> {
        take(&self.mirrors, &self.with_submodules())
    }

    fn mirrors_on_disk(&self) -> usize {
        std::fs::read_dir(self.cache().join("mirrors")).unwrap().count()
    }
}

fn take(mirrors: &Mirrors, remote: &Remote) -> Result<Snapshot, SourceError> {
    let commit = mirrors.resolve(remote, &branch("main"), &Cancel::new())?.commit;
    mirrors.fetch_submodules(remote, &commit, &Cancel::new(), &|_, fetch| fetch())?;
    assert!(mirrors.has(remote, &commit)?);
    mirrors.snapshot(remote, &commit)
}

fn names(snapshot: &Snapshot, dir: &str) -> Vec<(String, EntryKind)> {
    let list = snapshot.list(&path(dir)).unwrap();
    list.into_iter().map(|(name, entry)| (name, entry.kind)).collect()
}

fn read(snapshot: &Snapshot, file: &str) -> String {
    String::from_utf8(snapshot.read(&path(file), 1 << 20).unwrap()).unwrap()
}

#[test]
fn trees_of_submodules_stand_in_their_places() {
    use EntryKind::{Directory, File, Submodule};
    let world = World::new();
    let (lib, deep) = (world.other("lib.git"), world.other("deep.git"));
    let inner = deep.commit("refs/heads/main", &[("z/c.yaml", "c")]);
    let middle = commit(
        &lib,
        &[("b.yaml", "b"), ("deeper/b.yaml", "bb")],
        &[("deeper/deep", &inner)],
        &module("deeper/deep", "../deep.git"),
    );
    // A commit that no branch leads to any more is fetched by its id.
    lib.commit("refs/heads/main", &[("b.yaml", "newer")]);
    lib.git(&["update-ref", "-d", "refs/heads/main"]);
    lib.commit("refs/heads/main", &[("b.yaml", "other")]);
    let lost = "1234567890123456789012345678901234567890".parse().unwrap();
    let top = commit(
        &world.repo,
        &[("a.yaml", "a"), ("libs/a.yaml", "aa"), ("libs/lib-2", "x")],
        &[("libs/lib", &middle), ("vendor", &lost)],
        // Neither what is no submodule nor what is a file has a place.
        &[module("libs/lib", "../lib.git"), module("gone", "../gone.git")]
            .into_iter()
            .chain([module("a.yaml", "../gone.git"), module("../out", "../gone.git")])
            .collect::<String>(),
    );
    let snapshot = world.take().unwrap();
    assert_eq!(*snapshot.commit(), top);
    assert_eq!(world.mirrors_on_disk(), 3);
    for (file, text) in [
        ("a.yaml", "a"),
        ("libs/a.yaml", "aa"),
        ("libs/lib/b.yaml", "b"),
        ("libs/lib/deeper/b.yaml", "bb"),
        ("libs/lib/deeper/deep/z/c.yaml", "c"),
    ] {
        assert_eq!(read(&snapshot, file), text, "{file}");
    }
    let own = |names: &[(&str, EntryKind)]| {
        names.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect::<Vec<_>>()
    };
    let root = [(".gitmodules", File), ("a.yaml", File), ("libs", Directory)];
    let root = [&root[..], &[("vendor", Submodule)]].concat();
    assert_eq!(names(&snapshot, "."), own(&root));
    let libs = [("a.yaml", File), ("lib", Directory), ("lib-2", File)];
    assert_eq!(names(&snapshot, "libs"), own(&libs));
    let lib_names = [(".gitmodules", File), ("b.yaml", File), ("deeper", Directory)];
    assert_eq!(names(&snapshot, "libs/lib"), own(&lib_names));
    assert_eq!(names(&snapshot, "libs/lib/deeper"), own(&[("b.yaml", File), ("deep", Directory)]));
    assert_eq!(names(&snapshot, "libs/lib/deeper/deep"), own(&[("z", Directory)]));
    assert!(snapshot.entry(&path("libs/lib/x")).unwrap().is_none());
    assert!(snapshot.entry(&path("vendor/x")).unwrap().is_none());
    let wrong = snapshot.read(&path("libs/lib"), 9).unwrap_err();
    assert!(matches!(wrong, TreeError::WrongKind { wanted: "file", .. }));
    // What a listing says of an entry is what the entry says.
    for dir in [".", "libs", "libs/lib", "libs/lib/deeper", "libs/lib/deeper/deep"] {
        for (name, entry) in snapshot.list(&path(dir)).unwrap() {
            let found = snapshot.entry(&path(&format!("{dir}/{name}"))).unwrap().unwrap();
            assert_eq!(found, entry, "{dir}/{name}");
        }
    }

    // All of it is here, also for who comes after a restart: nobody is asked.
    world.server.take_log();
    world
        .mirrors
        .fetch_submodules(&world.with_submodules(), &top, &Cancel::new(), &|_, fetch| fetch())
        .unwrap();
    let World { dir, server, mirrors, .. } = world;
    drop(mirrors);
    let mirrors = Mirrors::open(&dir.path().join("cache"), Limits::default()).unwrap();
    let with = Remote { submodules: true, ..remote(&server.url("app.git")) };
    assert!(mirrors.has(&with, &top).unwrap());
    let again = mirrors.snapshot(&with, &top).unwrap();
    assert_eq!(read(&again, "libs/lib/deeper/deep/z/c.yaml"), "c");
    assert!(server.take_log().is_empty());

    // Who does not ask for them has none.
    let without = Remote { submodules: false, ..with };
    let snapshot = mirrors.snapshot(&without, &top).unwrap();
    let libs = [("a.yaml", File), ("lib", Submodule), ("lib-2", File)];
    assert_eq!(names(&snapshot, "libs"), own(&libs));
}

/// What a render of these directories would have read.
fn inputs(snapshot: &Snapshot, dirs: &[&str]) -> Inputs {
    let recorder = Recorder::new(snapshot);
    for dir in dirs {
        recorder.list(&path(dir)).unwrap();
    }
    recorder.finish()
}

#[test]
fn a_new_commit_of_a_submodule_is_news_below_it_only() {
    let world = World::new();
    let (one, two) = (world.other("one.git"), world.other("two.git"));
    let first = one.commit("refs/heads/main", &[("a.yaml", "1"), ("dir/b.yaml", "1")]);
    let second = two.commit("refs/heads/main", &[("a.yaml", "2")]);
    let modules = [module("m/one", "../one.git"), module("m/two", "../two.git")].concat();
    let make = |first: &CommitId| {
        let links = [("m/one", first), ("m/two", &second)];
        commit(&world.repo, &[("app/a.yaml", "a")], &links, &modules)
    };
    let before = make(&first);
    let old = world.take().unwrap();
    let reads = [
        ("app", vec!["app"]),
        ("m/two", vec!["m/two"]),
        ("m/one/dir", vec!["m/one/dir"]),
        ("m/one", vec!["m/one"]),
        ("m", vec!["m", "m/one", "m/two"]),
        ("all", vec![".", "app", "m", "m/one", "m/one/dir", "m/two"]),
    ];
    let seen: Vec<_> = reads.iter().map(|(what, dirs)| (*what, inputs(&old, dirs))).collect();
    let changed = |snapshot: &Snapshot| {
        let same = |inputs: &Inputs| inputs.unchanged_in(snapshot).unwrap();
        seen.iter().filter(|(_, inputs)| !same(inputs)).map(|(what, _)| *what).collect::<Vec<_>>()
    };
    // A file that nobody read.
    make(&one.commit("refs/heads/main", &[("a.yaml", "2"), ("dir/b.yaml", "1")]));
    assert_eq!(changed(&world.take().unwrap()), [] as [&str; 0]);
    make(&one.commit("refs/heads/main", &[("a.yaml", "2"), ("dir/c.yaml", "1")]));
    assert_eq!(changed(&world.take().unwrap()), ["m/one/dir", "all"]);
    make(&one.commit("refs/heads/main", &[("c.yaml", "2"), ("dir/b.yaml", "1")]));
    assert_eq!(changed(&world.take().unwrap()), ["m/one", "m", "all"]);
    // The same commit without submodules is another tree.
    let without = world.mirrors.snapshot(&world.remote(), &before).unwrap();
    assert_eq!(changed(&without), ["m/two", "m/one/dir", "m/one", "m", "all"]);
}

#[test]
fn credentials_go_to_submodules_of_the_same_origin_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("git");
    let (app, private) = (Repo::init(&root.join("app.git")), Repo::init(&root.join("lib.git")));
    let (_dir, file) = users("ada", "hunter2");
    let login = format!("auth_basic git; auth_basic_user_file {file};");
    let nginx = Nginx::new(&root, None, &login);
    // Another port is another origin, which says what it was sent.
    let other = Server::backend(&root);
    let open = private.commit("refs/heads/main", &[("a.yaml", "1")]);
    let credentials = Credentials::Basic { username: "ada".into(), password: "hunter2".into() };
    let with = Remote { credentials, submodules: true, ..remote(&nginx.url("app.git")) };
    let mirrors = Mirrors::open(&dir.path().join("cache"), Limits::default()).unwrap();

    for url in ["../lib.git", &nginx.url("lib.git"), &other.url("lib.git")] {
        commit(&app, &[], &[("lib", &open)], &module("lib", url));
        assert_eq!(read(&take(&mirrors, &with).unwrap(), "lib/a.yaml"), "1", "{url}");
    }
    let log = other.take_log();
    assert!(!log.is_empty());
    assert!(log.iter().all(|request| request.header("authorization").is_none()));

    // What is named by a repository of another origin gets none, wherever it is.
    let far = Repo::init(&root.join("far.git"));
    let back = commit(&far, &[], &[("lib", &open)], &module("lib", &nginx.url("lib.git")));
    commit(&app, &[], &[("far", &back)], &module("far", &other.url("far.git")));
    let error = take(&mirrors, &with).unwrap_err();
    assert_eq!(error.reason(), "SubmoduleFailed");
    let text = whole(&error);
    assert!(
        text.contains("submodule far/lib") && text.contains("credentials are needed"),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("same scheme, host and port"), "{error:?}");

    // A key is for one host, and who has none has nothing to log in with.
    commit(&app, &[], &[("lib", &open)], &module("lib", "git@127.0.0.1:lib.git"));
    let error = take(&mirrors, &with).unwrap_err();
    let text = whole(&error);
    assert!(text.contains("an ssh url needs a private key"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn what_cannot_be_a_submodule_refuses_the_commit() {
    let world = World::new();
    let lib = world.other("lib.git");
    let good = lib.commit("refs/heads/main", &[("a.yaml", "1")]);
    let lost: CommitId = "1234567890123456789012345678901234567890".parse().unwrap();
    let told = |id: &CommitId, gitmodules: &str| {
        commit(&world.repo, &[], &[("libs/lib", id)], gitmodules);
        let error = world.take().unwrap_err();
        (error.reason(), whole(&error), error.hint().unwrap_or_default())
    };
    let url = world.server.url("lib.git");
    let at = |url: &str| module("libs/lib", url);
    for (id, gitmodules, reason, parts) in [
        (&lost, at("../lib.git"), "SubmoduleFailed", ["libs/lib", &url, "commit 1234567890"]),
        (&good, at("../none.git"), "SubmoduleFailed", ["libs/lib", "none.git", "was not found"]),
        (&good, at("../../../x"), "SubmoduleFailed", ["libs/lib", "above the root", ""]),
        (&good, at("-u./payload"), "SubmoduleFailed", ["libs/lib", "like an option", ""]),
        (
            &good,
            at("file:///etc"),
            "SubmoduleFailed",
            ["libs/lib", "\"file\" is not supported", ""],
        ),
        (&good, at("/srv/lib.git"), "SubmoduleFailed", ["libs/lib", "has no scheme", ""]),
        (&good, at("ext::sh -c id"), "SubmoduleFailed", ["libs/lib", "\"ext\"", ""]),
        (&good, at("https://ada:hunter2@h/x"), "SubmoduleFailed", ["https://h/x", "carries", ""]),
        (&good, at("https://h/x?t=hunter2"), "SubmoduleFailed", ["https://h/x", "a query", ""]),
        (&good, at("ada:hunter2@h/x?t=hunter2"), "SubmoduleFailed", ["libs/lib", "", ""]),
        (&good, "[submodule\n".into(), "SubmodulesInvalid", [".gitmodules", "line 1", ""]),
        (&good, " ".repeat(300_000), "SubmodulesInvalid", [".gitmodules", "300000 bytes", ""]),
    ] {
        let (told_reason, text, hint) = told(id, &gitmodules);
        assert_eq!(told_reason, reason, "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains("hunter2") && !hint.contains("hunter2"), "{text}");
        assert!(!hint.is_empty(), "{text}");
    }
    // The next one that is right is taken.
    commit(&world.repo, &[], &[("libs/lib", &good)], &at("../lib.git"));
    assert_eq!(read(&world.take().unwrap(), "libs/lib/a.yaml"), "1");
}

#[test]
fn submodules_are_bounded_in_number_depth_and_size() {
    let world = World::new();
    // Two repositories that have one another, each commit the last one of the other.
    let other = world.other("other.git");
    let mut last = other.commit("refs/heads/main", &[("a.yaml", "1")]);
    for level in 0..9 {
        let (repo, url) = match level % 2 {
            0 => (&world.repo, "../other.git"),
            _ => (&other, "../app.git"),
        };
        last = commit(repo, &[], &[("m", &last)], &module("m", url));
        if level == 6 {
            let snapshot = world.take().unwrap();
            assert_eq!(read(&snapshot, "m/m/m/m/m/m/m/a.yaml"), "1");
        }
    }
    let error = world.take().unwrap_err();
    let text = whole(&error);
    assert_eq!(error.reason(), "SubmodulesInvalid", "{text}");
    assert!(text.contains("m/m/.gitmodules") && text.contains("contains itself"), "{text}");

    let World { dir, server, mirrors, repo } = world;
    drop(mirrors);
    let bounded = |limits: Limits| {
        let cache = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::open(cache.path(), limits).unwrap();
        let with = Remote { submodules: true, ..remote(&server.url("app.git")) };
        take(&mirrors, &with).map(drop)
    };
    let numbers: Vec<String> =
        (0_u32..20_000).map(|i| format!("{:x}", i.wrapping_mul(2_654_435_761))).collect();
    let noise = numbers.concat();
    let two = Repo::init(&dir.path().join("git/two.git"));
    let (one, two) = (
        other.commit("refs/heads/main", &[("a.yaml", &noise)]),
        two.commit("refs/heads/main", &[("b.yaml", &noise)]),
    );
    let modules = [module("one", "../other.git"), module("two", "../two.git")].concat();
    commit(&repo, &[], &[("one", &one), ("two", &two)], &modules);
    bounded(Limits::default()).unwrap();
    let error = bounded(Limits { submodules: 1, ..Limits::default() }).unwrap_err();
    assert_eq!(error.to_string(), "submodules of the repository exceed the limit of 1");
    // Each of them is below it, and both are not.
    bounded(Limits { pack_bytes: 200_000, ..Limits::default() }).unwrap();
    let error = bounded(Limits { pack_bytes: 100_000, ..Limits::default() }).unwrap_err();
    let want = "bytes of the submodules of the repository exceed the limit of 100000";
    assert_eq!(error.to_string(), want);
}

#[test]
fn commits_of_submodules_stay_as_long_as_those_that_have_them() {
    let world = World::new();
    let lib = world.other("lib.git");
    let gitmodules = module("lib", "../lib.git");
    let make = |text: &str| {
        let part = lib.commit("refs/heads/main", &[("a.yaml", text)]);
        (commit(&world.repo, &[], &[("lib", &part)], &gitmodules), part)
    };
    let with = world.with_submodules();
    let alone = remote(&world.server.url("lib.git"));
    let here = |part: &CommitId| world.mirrors.snapshot(&alone, part).is_ok();
    let (first, one) = make("1");
    drop(world.take().unwrap());
    let (second, two) = make("2");
    drop(world.take().unwrap());
    // Nobody names the submodule's repository itself, and it stays.
    world.mirrors.retain(world.mirrors.moment(), std::slice::from_ref(&with), &[]).unwrap();
    assert_eq!(world.mirrors_on_disk(), 2);
    let keep = |commits: &[CommitId]| {
        // What was handed out stays for one more.
        for _ in 0..2 {
            world.mirrors.keep(&with, commits).unwrap();
        }
    };
    keep(&[first, second]);
    assert!(here(&one) && here(&two));
    // What somebody names who has the repository itself is not all that is kept.
    for _ in 0..2 {
        world.mirrors.keep(&alone, &[two]).unwrap();
    }
    assert!(here(&one) && here(&two));
    assert!(world.mirrors.has(&with, &first).unwrap());

    keep(&[second]);
    world.mirrors.keep(&alone, &[two]).unwrap();
    assert!(!here(&one) && here(&two));
    assert!(world.mirrors.has(&with, &second).unwrap());
    assert!(!world.mirrors.has(&with, &first).unwrap());
    // The next commit of the submodule lets go of the one before.
    world.mirrors.retain(world.mirrors.moment(), std::slice::from_ref(&with), &[]).unwrap();
    let (third, three) = make("3");
    drop(world.take().unwrap());
    keep(&[second, third]);
    assert!(here(&two) && here(&three));
    keep(&[third]);
    let (fourth, _) = make("4");
    drop(world.take().unwrap());
    keep(&[fourth]);
    assert!(!here(&two), "it was let go when another one was");

    // With the last commit that has submodules their mirrors go.
    let plain = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    drop(world.take().unwrap());
    keep(&[plain]);
    keep(&[plain]);
    assert_eq!(world.mirrors_on_disk(), 1);
    drop(world.take().unwrap());
    world.mirrors.retain(world.mirrors.moment(), &[], &[]).unwrap();
    assert_eq!(world.mirrors_on_disk(), 0);
}

#[test]
fn a_submodule_that_was_lost_is_fetched_again() {
    let world = World::new();
    let lib = world.other("lib.git");
    let part = lib.commit("refs/heads/main", &[("a.yaml", "1")]);
    let top = commit(&world.repo, &[], &[("lib", &part)], &module("lib", "../lib.git"));
    drop(world.take().unwrap());
    let with = world.with_submodules();
    // Somebody lets go of it, whoever that is.
    let alone = remote(&world.server.url("lib.git"));
    let directory = world.cache().join("mirrors");
    let before: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
    let of_lib = before.iter().find(|dir| !dir.join("plumb-modules").exists()).unwrap();
    std::fs::remove_dir_all(of_lib).unwrap();
    assert!(!world.mirrors.has(&with, &top).unwrap());
    let missing = world.mirrors.snapshot(&with, &top).unwrap_err();
    assert!(matches!(missing, SourceError::NotInCache { commit } if commit == top));
    assert_eq!(read(&world.take().unwrap(), "lib/a.yaml"), "1");
    assert!(world.mirrors.has(&alone, &part).unwrap());
}

/// Where it is recorded which submodules a commit has.
fn record(world: &World, commit: &CommitId) -> std::path::PathBuf {
    let mirrors = std::fs::read_dir(world.cache().join("mirrors")).unwrap();
    let mut records = mirrors
        .map(|mirror| mirror.unwrap().path().join("plumb-modules").join(commit.to_string()))
        .filter(|record| record.exists());
    records.next().unwrap()
}

/// A power loss may leave a file empty or cut off: without what it said a commit would be read without its
/// submodules, and what was applied of them pruned.
#[test]
fn a_record_that_is_not_whole_says_nothing_and_is_written_anew() {
    let mut world = World::new();
    let [one, two] = ["one", "two"].map(|name| {
        world.other(&format!("{name}.git")).commit("refs/heads/main", &[("a.yaml", name)])
    });
    let modules = [module("m/one", "../one.git"), module("m/two", "../two.git")].concat();
    let links = [("m/one", &one), ("m/two", &two)];
    let top = commit(&world.repo, &[("a.yaml", "a")], &links, &modules);
    let with = world.with_submodules();
    world.take().unwrap();
    let whole = std::fs::read_to_string(record(&world, &top)).unwrap();
    let first = whole.find('\n').unwrap() + 1;
    for restarted in [false, true] {
        for left in ["", &whole[..first], &whole[..whole.len() - 1], "nonsense\n", "a directory"] {
            let file = record(&world, &top);
            std::fs::remove_file(&file).unwrap();
            match left {
                "a directory" => std::fs::create_dir(&file).unwrap(),
                left => std::fs::write(&file, left).unwrap(),
            }
            if restarted {
                let other = tempfile::tempdir().unwrap();
                world.mirrors = Mirrors::open(other.path(), Limits::default()).unwrap();
                world.mirrors = Mirrors::open(&world.cache(), Limits::default()).unwrap();
            }
            assert!(!world.mirrors.has(&with, &top).unwrap(), "{left:?}");
            let error = world.mirrors.snapshot(&with, &top).unwrap_err();
            assert!(matches!(error, SourceError::NotInCache { .. }), "{left:?}: {error:?}");
            // Nobody else's mirror is the worse for it.
            world.mirrors.keep(&with, &[top]).unwrap();
            assert_eq!(read(&world.take().unwrap(), "m/two/a.yaml"), "two", "{left:?}");
            assert_eq!(std::fs::read_to_string(record(&world, &top)).unwrap(), whole);
        }
    }
}

#[test]
fn a_path_of_a_submodule_has_an_end() {
    let world = World::new();
    let lib = world.other("lib.git").commit("refs/heads/main", &[("a.yaml", "a")]);
    let name = "n".repeat(200);
    for (levels, fits) in [(20, true), (21, false)] {
        let (mut id, mut mode, mut at) = (lib.to_string(), "160000", name.clone());
        for _ in 1..levels {
            id = world.repo.directory(&[(mode, &name, &id)]);
            mode = "040000";
            at = format!("{name}/{at}");
        }
        let modules = world.repo.blob(&module(&at, "../lib.git"));
        let root = [("100644", ".gitmodules", modules.as_str()), (mode, &name, &id)];
        let tree = world.repo.directory(&root);
        let commit = world.repo.commit_tree(&tree, &[], "deep");
        world.repo.point("refs/heads/main", &commit);
        match world.take() {
            Ok(snapshot) => {
                assert!(fits);
                assert_eq!(read(&snapshot, &format!("{at}/a.yaml")), "a");
            }
            Err(error) => {
                assert!(!fits && error.to_string().contains("4096 bytes"), "{levels}: {error}");
                assert_eq!(error.reason(), "SubmodulesInvalid");
            }
        }
    }
}

/// What came with tries that failed is there, and counts.
#[test]
fn all_that_is_fetched_for_one_commit_counts_over_all_tries() {
    let mut world = World::new();
    let cache = world.dir.path().join("small");
    let limits = Limits { pack_bytes: 100_000, ..Limits::default() };
    world.mirrors = Mirrors::open(&cache, limits).unwrap();
    let mut links = Vec::new();
    for name in ["one", "two", "three"] {
        let repo = world.other(&format!("{name}.git"));
        let text = crate::room::noise(name.len() as u64 + u64::from(name.as_bytes()[0]), 80_000);
        links.push((name, repo.commit("refs/heads/main", &[("a.yaml", &text)])));
    }
    let modules: String =
        links.iter().map(|(name, _)| module(name, &format!("../{name}.git"))).collect();
    let links: Vec<(&str, &CommitId)> = links.iter().map(|(name, id)| (*name, id)).collect();
    commit(&world.repo, &[], &links, &modules);
    for _ in 0..4 {
        let error = world.take().unwrap_err();
        assert!(error.to_string().contains("bytes of the submodules"), "{error}");
    }
    // It is another commit that has fewer.
    commit(&world.repo, &[], &links[..1], &modules);
    world.take().unwrap();
}
