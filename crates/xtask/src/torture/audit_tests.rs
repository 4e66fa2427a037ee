use super::*;
use crate::torture::hands::PART_OF;
use crate::torture::kinds::Object;
use crate::torture::model::tests::{map, tree};
use crate::torture::model::{Folder, Tree};
use serde_json::json;
use std::sync::Arc;

/// A round that a case fills.
struct Round {
    model: Model,
    ids: Vec<String>,
    traces: Traces,
    applied: Vec<usize>,
    stood: Vec<Standing>,
    left_alone: BTreeSet<String>,
    events: Vec<AuditEvent>,
    runs: Vec<Run>,
    /// Every version, in the order of their numbers.
    versions: Vec<Version>,
}

const ALL: u64 = u64::MAX;

fn managed(app: usize) -> Value {
    let labels = json!({ format!("f:{PART_OF}"): {} });
    json!({
        "manager": format!("plumb:{}/app-0{app}", ["one", "two"][app]), "operation": "Apply",
        "fieldsV1": { "f:metadata": { "f:labels": labels } },
    })
}

/// A version of an object that an application has applied.
fn member(app: usize, object: &Object, number: u64) -> Version {
    let mut live = object.wanted();
    live["metadata"]["uid"] = format!("uid-{}", object.key.name).into();
    live["metadata"]["labels"] = json!({ PART_OF: format!("set-{app}") });
    live["metadata"]["managedFields"] = json!([managed(app)]);
    Version { kind: object.key.kind, number, object: Arc::new(live), deleted: false }
}

fn changed(version: &Version, number: u64, change: impl FnOnce(&mut Value)) -> Version {
    let mut next = Version { number, ..version.clone() };
    change(Arc::make_mut(&mut next.object));
    next
}

fn event(verb: &str, object: &Object, uri: &str, received: &str, body: Value) -> AuditEvent {
    AuditEvent {
        verb: verb.into(),
        group: object.key.kind.group().into(),
        resource: object.key.kind.plural.into(),
        subresource: String::new(),
        namespace: object.key.namespace.clone(),
        name: object.key.name.clone(),
        user: "plumb".into(),
        impersonated: String::new(),
        user_agent: String::new(),
        uri: uri.into(),
        code: 200,
        received: received.into(),
        answered: received.into(),
        body,
        stage: "ResponseComplete".into(),
    }
}

fn patch(app: usize, object: &Object, received: &str) -> AuditEvent {
    let uri = format!("/x?fieldManager=plumb%3A{}%2Fapp-0{app}&force=true", ["one", "two"][app]);
    event("patch", object, &uri, received, object.manifest())
}

fn delete(version: &Version, object: &Object) -> AuditEvent {
    let body = json!({ "preconditions": {
        "uid": version.uid(), "resourceVersion": version.number.to_string(),
    } });
    event("delete", object, "/x", "t5", body)
}

fn end(version: &Version, number: u64) -> Version {
    Version { number, deleted: true, ..version.clone() }
}

impl Round {
    fn new(trees: Vec<Tree>) -> Self {
        let mut model = Model::new(2);
        for tree in trees {
            assert!(!model.commit(0, tree).is_empty());
        }
        let begun = |begin: &str, number| Run {
            object: "Application one/app-00".into(),
            begin: begin.into(),
            ended: true,
            number,
        };
        Self {
            model,
            ids: vec!["set-0".into(), "set-1".into()],
            traces: Traces::default(),
            applied: vec![0, 0],
            stood: vec![Standing::Active; 2],
            left_alone: BTreeSet::new(),
            events: Vec::new(),
            runs: vec![begun("t1", 1), begun("t4", 2)],
            versions: Vec::new(),
        }
    }

    fn judge(&self) -> Vec<String> {
        let at = |uid: &str, number: u64| {
            self.versions.iter().find(|v| v.uid() == uid && v.number == number).cloned()
        };
        let newest = |uid: &str, number: u64| {
            self.versions.iter().rfind(|v| v.uid() == uid && v.number <= number).cloned()
        };
        let live_at = |number: u64| -> Vec<Version> {
            let uids: BTreeSet<&str> = self.versions.iter().map(Version::uid).collect();
            uids.into_iter().filter_map(|uid| newest(uid, number)).filter(|v| !v.deleted).collect()
        };
        let pairs: Vec<_> = self
            .versions
            .iter()
            .map(|version| (newest(version.uid(), version.number - 1), version.clone()))
            .collect();
        assert!(live_at(ALL).len() <= self.versions.len());
        judge(&Evidence {
            model: &self.model,
            ids: &self.ids,
            traces: &self.traces,
            applied: &self.applied,
            stood: &self.stood,
            left_alone: &self.left_alone,
            events: &self.events,
            runs: &self.runs,
            versions: &pairs,
            at: &at,
            live_at: &live_at,
        })
    }

    #[track_caller]
    fn says(&self, part: &str) {
        let wrong = self.judge();
        assert!(wrong.len() == 1 && wrong[0].contains(part), "{part}: {wrong:?}");
    }
}

fn maps(names: std::ops::Range<u32>) -> Vec<Object> {
    names.map(|number| map(&format!("m{number:02}"), 1)).collect()
}

#[test]
fn one_run_applies_one_commit() {
    let (old, new) = (map("a", 1), Object { stamp: 2, value: 2, ..map("a", 1) });
    let other = Object { stamp: 2, ..map("b", 1) };
    let mut round = Round::new(vec![
        tree(0, &[old.clone(), map("b", 1)]),
        tree(0, &[new.clone(), other.clone()]),
    ]);
    round.events = vec![patch(0, &old, "t2"), patch(0, &map("b", 1), "t3"), patch(0, &new, "t5")];
    assert_eq!(round.judge(), [""; 0], "two runs, each of its commit");
    round.events.push(patch(0, &map("b", 1), "t6"));
    round.says("applied from two commits: ConfigMap one/a of 2, ConfigMap one/b of 1");
    round.events = vec![patch(0, &Object { stamp: 9, ..old.clone() }, "t2")];
    round.says("as no commit has it: \"9\"");
    round.events = vec![patch(1, &old, "t2")];
    round.says("as no commit has it");
}

#[test]
fn nothing_but_members_and_our_own_kinds_is_written() {
    let mut round = Round::new(vec![tree(0, &[map("a", 1)])]);
    let mut status = patch(0, &map("a", 1), "t2");
    (status.group, status.resource) = ("plumb.dev".into(), "applications".into());
    let mut refused = patch(0, &Object { stamp: 9, ..map("a", 1) }, "t2");
    refused.code = 409;
    round.events = vec![status.clone(), refused];
    assert_eq!(round.judge(), [""; 0]);
    status.verb = "delete".into();
    round.events = vec![status];
    round.says("an unexpected request: delete plumb.dev/applications");
    let mut pod = patch(0, &map("a", 1), "t2");
    pod.resource = "pods".into();
    round.events = vec![pod];
    round.says("an unexpected request: patch pods");
    let mut other = patch(0, &map("a", 1), "t2");
    other.uri = "/x?fieldManager=kubectl".into();
    round.events = vec![other];
    round.says("was written by \"kubectl\"");
}

#[test]
fn only_what_is_its_own_and_not_wanted_is_deleted() {
    let (a, b) = (map("a", 1), map("b", 1));
    let mut round =
        Round::new(vec![tree(0, &[a.clone(), b.clone()]), tree(0, std::slice::from_ref(&a))]);
    let (live_a, live_b) = (member(0, &a, 10), member(0, &b, 11));
    round.versions = vec![live_a.clone(), live_b.clone(), end(&live_b, 12)];
    round.events = vec![delete(&live_b, &b)];
    assert_eq!(round.judge(), [""; 0]);

    round.versions = vec![live_a.clone(), live_b.clone(), end(&live_a, 12)];
    round.events = vec![delete(&live_a, &a)];
    round.says("ConfigMap one/a was deleted from app-00, which wants it");

    let forged = changed(&live_b, 11, |live| {
        live["metadata"]["managedFields"] = json!([{ "manager": "by-hand" }]);
    });
    round.versions = vec![live_a.clone(), forged.clone(), end(&forged, 12)];
    round.events = vec![delete(&forged, &b)];
    round.says("was nobody's: labelled Some(\"set-0\"), managed by [\"by-hand\"]");

    round.versions = vec![live_a, live_b.clone(), end(&live_b, 12)];
    let mut blind = delete(&live_b, &b);
    blind.body = Value::Null;
    round.events = vec![blind];
    round.says("and never was there so");
}

#[test]
fn much_at_once_or_what_is_precious_needs_approval() {
    let many = maps(0..12);
    let all: Vec<Version> =
        many.iter().zip(10..).map(|(object, number)| member(0, object, number)).collect();
    let run = |after: Tree, gone: &[usize], approved: &[usize]| {
        let mut round = Round::new(vec![tree(0, &many), after]);
        round.versions.clone_from(&all);
        for (index, number) in gone.iter().zip(50..) {
            round.versions.push(end(&all[*index], number));
            round.events.push(delete(&all[*index], &many[*index]));
        }
        if !approved.is_empty() {
            let uids = approved.iter().map(|index| all[*index].uid().to_owned()).collect();
            round.traces.approved.push((0, uids));
        }
        round.judge()
    };
    let first_eleven: Vec<usize> = (0..11).collect();
    let everything: Vec<usize> = (0..12).collect();
    let last = tree(0, &many[11..]);
    let empty = Tree::from([(0, Arc::new(Folder::new()))]);
    assert_eq!(run(tree(0, &many[10..]), &first_eleven[..10], &[]), [""; 0], "ten are free");
    let wrong = run(last.clone(), &first_eleven, &[]);
    assert!(wrong[0].starts_with("app-00 deleted 11 of 12 without approval"), "{wrong:?}");
    assert_eq!(run(last.clone(), &first_eleven, &first_eleven), [""; 0]);
    assert_eq!(run(last, &first_eleven, &first_eleven[1..]).len(), 1, "of another plan");
    assert_eq!(run(empty.clone(), &[0], &[]).len(), 1, "nothing is left");
    assert_eq!(run(empty, &everything, &everything), [""; 0]);

    let mut claim = map("claim", 1);
    claim.key.kind = CLAIM;
    let version = member(0, &claim, 10);
    let mut round =
        Round::new(vec![tree(0, &[claim.clone(), map("a", 1)]), tree(0, &[map("a", 1)])]);
    round.versions = vec![member(0, &map("a", 1), 9), version.clone(), end(&version, 11)];
    round.events = vec![delete(&version, &claim)];
    round.says("without approval: PersistentVolumeClaim one/claim");
}

#[test]
fn nobody_writes_to_what_is_anothers() {
    let a = map("a", 1);
    let mut round = Round::new(vec![tree(0, std::slice::from_ref(&a))]);
    let mine = member(0, &a, 10);
    let again = changed(&mine, 11, |live| {
        live["metadata"]["managedFields"][0]["time"] = "later".into();
    });
    round.versions = vec![mine.clone(), again];
    assert_eq!(round.judge(), [""; 0]);

    let taken = changed(&mine, 11, |live| {
        let both = json!([managed(0), managed(1)]);
        live["metadata"]["managedFields"] = both;
    });
    round.versions = vec![mine.clone(), taken];
    round.says("app-01 wrote to ConfigMap one/a, which is app-00's");

    let by_hand = |fields: &str| json!({ "manager": "by-hand", "operation": "Update", "fieldsV1": { fields: {} } });
    let theirs = changed(&mine, 10, |live| {
        live["metadata"]["labels"] = json!({});
        live["metadata"]["managedFields"] = json!([by_hand("f:data")]);
    });
    let claimed = |fields: &str| {
        let fields = by_hand(fields);
        changed(&theirs, 11, |live| {
            live["metadata"]["managedFields"] = json!([fields, managed(0)]);
        })
    };
    round.versions = vec![theirs.clone(), claimed("f:data")];
    assert_eq!(round.judge(), [""; 0], "an unforced apply leaves to others what is theirs");
    round.versions = vec![theirs.clone(), claimed("f:other")];
    round.says("app-00 took fields of ConfigMap one/a from by-hand");
}

#[test]
fn what_one_lets_go_and_another_asks_for_changes_hands() {
    let a = map("a", 1);
    let mine = member(0, &a, 10);
    let renamed = changed(&mine, 11, |live| {
        live["metadata"]["managedFields"] = json!([managed(1)]);
    });
    let mut round = Round::new(vec![tree(0, std::slice::from_ref(&a)), tree(0, &[map("b", 1)])]);
    round.versions = vec![mine, renamed];
    let mut rename = patch(1, &a, "t5");
    rename.uri = "/x".into();
    rename.body = json!([
        { "op": "replace", "path": "/metadata/resourceVersion", "value": "10" },
        { "op": "replace", "path": "/metadata/managedFields", "value": [managed(1)] },
    ]);
    round.events = vec![rename.clone()];
    assert_eq!(round.judge().len(), 2, "nobody else asks for it");
    let repository = round.model.apps[1].repository;
    assert!(!round.model.commit(repository, tree(1, &[a])).is_empty());
    assert_eq!(round.judge(), [""; 0]);

    rename.body[1]["path"] = "/data".into();
    round.events = vec![rename];
    round.says("was written by \"\"");
}

/// The annotations of a version with one more.
fn annotate(name: &str, value: &str) -> impl Fn(&mut Value) {
    move |live| live["metadata"]["annotations"][name] = value.into()
}

#[test]
fn what_is_marked_to_stay_is_not_deleted() {
    let (a, b) = (map("a", 1), map("b", 1));
    for (name, value, kept) in [
        ("plumb.dev/prune", "disabled", true),
        ("plumb.dev/reconcile", "disabled", true),
        ("plumb.dev/ssa", "Ignore", true),
        ("plumb.dev/ssa", "Merge", false),
        ("plumb.dev/prune", "enabled", false),
    ] {
        let mut round =
            Round::new(vec![tree(0, &[a.clone(), b.clone()]), tree(0, std::slice::from_ref(&a))]);
        let marked = changed(&member(0, &b, 11), 11, annotate(name, value));
        round.versions = vec![member(0, &a, 10), marked.clone(), end(&marked, 12)];
        round.events = vec![delete(&marked, &b)];
        if kept {
            round.says("ConfigMap one/b was deleted, and a mark on it says that it stays");
        } else {
            assert_eq!(round.judge(), [""; 0], "{name}: {value}");
        }
    }
}

#[test]
fn what_is_marked_to_be_left_alone_is_not_written_to() {
    let a = map("a", 1);
    let mut round = Round::new(vec![tree(0, std::slice::from_ref(&a))]);
    let later = |live: &mut Value| {
        live["metadata"]["managedFields"][0]["time"] = "later".into();
    };
    let marked = changed(&member(0, &a, 10), 10, annotate("plumb.dev/reconcile", "disabled"));
    round.versions = vec![marked.clone(), changed(&marked, 11, later)];
    assert_eq!(round.judge(), [""; 0], "the mark may have come when the write was on its way");
    round.left_alone.insert(marked.uid().into());
    round.says("app-00 wrote to ConfigMap one/a, and a mark keeps all off it");
    round.traces.marked.insert(marked.uid().into());
    assert_eq!(round.judge(), [""; 0], "it was taken off and put on again in this round");
    round.traces.marked.clear();
    let fewer = |live: &mut Value| {
        live["metadata"]["managedFields"][0]["fieldsV1"]["f:data"] = json!({});
    };
    round.versions = vec![marked.clone(), changed(&marked, 11, fewer)];
    assert_eq!(round.judge(), [""; 0], "a hand took some of its fields");
    let unmarked = changed(&marked, 11, annotate("plumb.dev/reconcile", "enabled"));
    round.versions = vec![marked.clone(), unmarked.clone(), changed(&unmarked, 12, later)];
    assert_eq!(round.judge(), [""; 0]);
    let stays = changed(&member(0, &a, 10), 10, annotate("plumb.dev/prune", "disabled"));
    round.versions = vec![stays.clone(), changed(&stays, 11, later)];
    assert_eq!(round.judge(), [""; 0], "it stays, and is kept as Git has it");
}

#[test]
fn what_every_commit_gives_to_another_application_is_not_deleted() {
    let (a, b, c) = (map("a", 1), map("b", 1), map("c", 1));
    let both = |first: &[Object], second: &[Object]| {
        let mut both = tree(0, first);
        both.extend(tree(1, second));
        both
    };
    let keep = std::slice::from_ref(&a);
    let broken = || {
        let mut next = both(keep, std::slice::from_ref(&c));
        let how = crate::torture::model::Broken::Syntax;
        let file = File::Broken { how, was: vec![b.clone(), c.clone()] };
        next.insert(1, Arc::new(Folder::from([("g.yaml".to_owned(), file)])));
        next
    };
    let moved = both(keep, &[b.clone(), c.clone()]);
    let dropped = both(keep, std::slice::from_ref(&c));
    for (after, given) in [
        (vec![moved.clone()], true),
        (vec![dropped.clone(), moved.clone()], false),
        (vec![moved.clone(), dropped.clone()], false),
        (vec![dropped], false),
        // Nobody knows what it asks for, and a person may have agreed.
        (vec![broken()], false),
    ] {
        let mut trees = vec![both(&[a.clone(), b.clone()], std::slice::from_ref(&c))];
        trees.extend(after);
        let mut round = Round::new(trees);
        let (live, gone) = (member(0, &a, 10), member(0, &b, 11));
        round.versions = vec![live, gone.clone(), end(&gone, 12)];
        round.events = vec![delete(&gone, &b)];
        if given {
            round.says("ConfigMap one/b was deleted from app-00, and Git gives it to app-01");
        } else {
            assert_eq!(round.judge(), [""; 0]);
        }
    }
    // One of another repository is not looked at: its commits come in an order of their own.
    let mut round = Round::new(vec![both(&[a.clone(), b.clone()], &[]), moved]);
    round.model.apps[1].repository = 1;
    let gone = member(0, &b, 11);
    round.versions = vec![member(0, &a, 10), gone.clone(), end(&gone, 12)];
    round.events = vec![delete(&gone, &b)];
    assert_eq!(round.judge(), [""; 0]);
}

#[test]
fn the_log_tells_runs_and_panics() {
    let line = |message: &str, time: &str| {
        format!(
            r#"{{"timestamp":"{time}","level":"DEBUG","message":"{message}","span":{{"object":"Application one/a","run":3}}}}"#
        )
    };
    let log = [&line("begins", "t1"), "no JSON", &line("ends", "t2"), &line("begins", "t3")];
    let log = log.map(str::to_owned).join("\n");
    let (runs, wrong) = read_log(&log);
    assert!(wrong.is_empty());
    let ended: Vec<_> = runs.iter().map(|run| (run.begin.as_str(), run.ended)).collect();
    assert_eq!(ended, [("t1", true), ("t3", false)]);
    let (_, wrong) = read_log("thread 'main' panicked at src/x.rs:1");
    assert_eq!(wrong.len(), 1);
}

const GONE: Standing = Standing::Gone { orphans: false, heir: None };

#[test]
fn who_does_nothing_all_through_a_round_writes_and_deletes_nothing() {
    let (a, b) = (map("a", 1), map("b", 1));
    let suspended = Standing::Suspended { since: 1 };
    let orphans = Standing::Gone { orphans: true, heir: None };
    for (stood, stands, written, deleted) in [
        (Standing::Active, Standing::Active, None, None),
        (suspended, suspended, Some("which is suspended"), Some("which deletes nothing")),
        (Standing::Active, suspended, None, None),
        (suspended, Standing::Active, None, None),
        (GONE, GONE, Some("which was deleted"), None),
        (Standing::Active, GONE, None, None),
        (orphans, orphans, Some("which was deleted"), Some("which deletes nothing")),
    ] {
        let mut round =
            Round::new(vec![tree(0, &[a.clone(), b.clone()]), tree(0, std::slice::from_ref(&a))]);
        round.stood[0] = stood;
        round.model.apps[0].standing = stands;
        let (live, gone) = (member(0, &a, 10), member(0, &b, 11));
        round.versions = vec![live, gone.clone(), end(&gone, 12)];
        for (event, part) in [(patch(0, &a, "t5"), written), (delete(&gone, &b), deleted)] {
            round.events = vec![event];
            match part {
                Some(part) => round.says(part),
                None => assert_eq!(round.judge(), [""; 0], "{stood:?}, {stands:?}"),
            }
        }
    }
}

#[test]
fn an_application_that_goes_deletes_all_but_what_is_precious_unasked() {
    let many = maps(0..12);
    let mut claim = map("claim", 1);
    claim.key.kind = CLAIM;
    let all: Vec<Object> = many.iter().cloned().chain([claim]).collect();
    let versions: Vec<Version> =
        all.iter().zip(10..).map(|(object, number)| member(0, object, number)).collect();
    let run = |count: usize, approved: bool| {
        let mut round = Round::new(vec![tree(0, &all)]);
        round.model.apps[0].standing = GONE;
        round.versions.clone_from(&versions);
        for (index, number) in (0..count).zip(50..) {
            round.versions.push(end(&versions[index], number));
            round.events.push(delete(&versions[index], &all[index]));
        }
        if approved {
            let uids = versions.iter().map(|version| version.uid().to_owned()).collect();
            round.traces.approved.push((0, uids));
        }
        round.judge()
    };
    assert_eq!(run(12, false), [""; 0]);
    assert_eq!(run(13, false), ["app-00, which goes, deleted 1 claims without approval"]);
    assert_eq!(run(13, true), [""; 0]);
}

#[test]
fn a_new_name_of_an_application_deletes_nothing_that_it_wants() {
    let (a, b) = (map("a", 1), map("b", 1));
    let heir = |heir: bool| {
        let mut round =
            Round::new(vec![tree(0, &[a.clone(), b.clone()]), tree(0, std::slice::from_ref(&a))]);
        let to = round.model.add_app(0);
        round.ids.push("set-2".into());
        round.applied.push(0);
        round.model.apps[0].standing = Standing::Gone { orphans: false, heir: Some(to) };
        if !heir {
            round.model.apps[0].standing = GONE;
        }
        let (live, gone) = (member(0, &a, 10), member(0, &b, 11));
        round.versions = vec![live.clone(), gone.clone(), end(&live, 12), end(&gone, 13)];
        round.events = vec![delete(&live, &a), delete(&gone, &b)];
        round.judge()
    };
    assert_eq!(
        heir(true),
        ["ConfigMap one/a was deleted from app-00, and Git gives it to app-00-2"]
    );
    assert_eq!(heir(false), [""; 0], "the new one may have come too late");
}

#[test]
fn only_who_goes_takes_its_hands_off() {
    let a = map("a", 1);
    let mut round = Round::new(vec![tree(0, std::slice::from_ref(&a))]);
    let mine = member(0, &a, 10);
    let bare = changed(&mine, 11, |live| {
        live["metadata"]["labels"] = json!({});
        live["metadata"]["managedFields"] = json!([{ "manager": "by-hand" }]);
    });
    round.versions = vec![mine.clone(), bare];
    let mut off = patch(0, &a, "t5");
    off.uri = "/x".into();
    off.body = json!([
        { "op": "replace", "path": "/metadata/resourceVersion", "value": "10" },
        { "op": "replace", "path": "/metadata/managedFields", "value": [{}] },
        { "op": "remove", "path": "/metadata/labels/applyset.kubernetes.io~1part-of" },
        { "op": "remove", "path": "/metadata/annotations/plumb.dev~1application" },
    ]);
    round.events = vec![off.clone()];
    round.says("app-00 let go of ConfigMap one/a");
    round.model.apps[0].standing = Standing::Gone { orphans: true, heir: None };
    assert_eq!(round.judge(), [""; 0]);
    off.body[3]["path"] = "/data/value".into();
    round.events = vec![off];
    round.says("was written by \"\"");
    // A label that a hand took off, and that comes back, is no end.
    round.model.apps[0].standing = Standing::Active;
    round.events.clear();
    let unlabelled = changed(&mine, 11, |live| live["metadata"]["labels"] = json!({}));
    round.versions = vec![mine, unlabelled];
    assert_eq!(round.judge(), [""; 0]);
}

#[test]
fn what_a_suspended_application_had_stays_its_own() {
    let a = map("a", 1);
    let both = |first: &[Object], second: &[Object]| {
        let mut both = tree(0, first);
        both.extend(tree(1, second));
        both
    };
    let keep = map("keep", 1);
    let before = both(&[a.clone(), keep.clone()], &[map("c", 1)]);
    let after = both(std::slice::from_ref(&keep), &[map("c", 1), a.clone()]);
    let mut round = Round::new(vec![before, after]);
    let mine = member(0, &a, 10);
    let taken = changed(&mine, 11, |live| {
        live["metadata"]["managedFields"] = json!([managed(1)]);
        live["metadata"]["labels"] = json!({ PART_OF: "set-1" });
    });
    round.versions = vec![mine, taken];
    assert_eq!(round.judge(), [""; 0]);
    for (since, its_own) in [(1, true), (2, false)] {
        let suspended = Standing::Suspended { since };
        round.model.apps[0].standing = suspended;
        round.stood[0] = suspended;
        let wrong = round.judge();
        assert_eq!(wrong.iter().any(|w| w.contains("which is app-00's")), its_own, "{wrong:?}");
    }
}
