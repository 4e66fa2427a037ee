//! Commits as trees.

use plumb_core::{EntryKind, RelPath, Tree, TreeError, follow};

use crate::World;

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

#[test]
fn every_kind_of_entry() {
    let world = World::new();
    let repo = &world.repo;
    let (file, script, link) = (repo.blob("text"), repo.blob("#!/bin/sh"), repo.blob("../a-b"));
    let module = "1234567890123456789012345678901234567890";
    let tree = repo.tree(&[
        ("100644", "a.yaml", &file),
        ("100644", "a-b", &file),
        ("100755", "a/run.sh", &script),
        ("120000", "a/link", &link),
        ("160000", "vendor", module),
    ]);
    let commit = repo.commit_tree(&tree, &[], "a subject\n\nand more");
    repo.point("refs/heads/main", &commit);
    world.main();
    let snapshot = world.mirrors.snapshot(&world.remote(), &commit).unwrap();

    let list = snapshot.list(&RelPath::root()).unwrap();
    let names: Vec<(&str, EntryKind)> = list.iter().map(|(n, e)| (n.as_str(), e.kind)).collect();
    // Byte order of the names; Git itself would put a-b before a.
    assert_eq!(
        names,
        [
            ("a", EntryKind::Directory),
            ("a-b", EntryKind::File),
            ("a.yaml", EntryKind::File),
            ("vendor", EntryKind::Submodule),
        ]
    );
    let kind = |text: &str| snapshot.entry(&path(text)).unwrap().map(|e| e.kind);
    assert_eq!(kind("."), Some(EntryKind::Directory));
    assert_eq!(kind("a/run.sh"), Some(EntryKind::File));
    assert_eq!(kind("a/link"), Some(EntryKind::Symlink));
    for missing in ["b", "a/b", "a.yaml/x", "vendor/x"] {
        assert_eq!(kind(missing), None, "{missing}");
    }
    assert_eq!(snapshot.read(&path("a/link"), 99).unwrap(), b"../a-b");
    assert_eq!(follow(&snapshot, &path("a/link")).unwrap(), path("a-b"));
    assert_eq!(snapshot.read(&path("a.yaml"), 4).unwrap(), b"text");
    // Equal content has equal ids.
    assert_eq!(list[1].1.id, list[2].1.id);
    let root = snapshot.entry(&RelPath::root()).unwrap().unwrap();
    assert_eq!(format!("{:?}", root.id), tree);

    assert!(matches!(
        snapshot.read(&path("a.yaml"), 3),
        Err(TreeError::TooLarge { size: 4, limit: 3, .. })
    ));
    for dir in [".", "a", "vendor"] {
        assert!(matches!(
            snapshot.read(&path(dir), 99),
            Err(TreeError::WrongKind { wanted: "file", .. })
        ));
    }
    for file in ["a.yaml", "a/link", "vendor"] {
        assert!(matches!(
            snapshot.list(&path(file)),
            Err(TreeError::WrongKind { wanted: "directory", .. })
        ));
    }
    assert!(matches!(snapshot.read(&path("b"), 9), Err(TreeError::NotFound(_))));
    assert!(matches!(snapshot.list(&path("b")), Err(TreeError::NotFound(_))));

    let info = snapshot.info().unwrap();
    assert_eq!(info.subject, "a subject");
    assert_eq!(info.author, "Ada <ada@example.com>");
    assert_eq!(info.time, 1_700_000_000);
    assert_eq!(snapshot.commit(), &commit);
}

#[test]
fn snapshots_move_between_threads() {
    let world = World::new();
    let commit = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    world.main();
    let snapshot = world.mirrors.snapshot(&world.remote(), &commit).unwrap();
    let read = std::thread::spawn(move || snapshot.read(&path("a.yaml"), 9).unwrap());
    assert_eq!(read.join().unwrap(), b"1");
}
