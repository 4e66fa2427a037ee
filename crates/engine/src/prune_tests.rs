use super::*;
use crate::cluster::script::{Says, Script};
use crate::engine::EngineOptions;
use crate::live::Entry;
use crate::marks::Marks;
use plumb_core::Gvk;

fn applications() -> Resource {
    Resource::known(Gvk::new("plumb.dev/v1alpha1", "Application"), "applications", true)
}

fn engine(script: &Script) -> Engine {
    in_slices(script, usize::MAX)
}

/// One that gives others their turn after so many deletions.
pub(crate) fn in_slices(script: &Script, of: usize) -> Engine {
    let slice = (of, std::time::Duration::from_hours(1));
    let options = EngineOptions { concurrency: 1, slice, ..EngineOptions::default() };
    Engine::new(script.cluster(), options).0
}

/// An object as its set applied it.
pub(crate) fn member(set: &ApplySet, uid: &str) -> Live {
    Live {
        uid: uid.into(),
        resource_version: 5,
        generation: 1,
        terminating: false,
        owners: 0,
        marks: Marks::default(),
        scaled: false,
        part_of: Some(set.id.as_str().into()),
        entries: Box::new([Entry {
            manager: set.manager.as_str().into(),
            fields: 7,
            time: 100,
            owns_part_of: true,
            owners: 0,
        }]),
        others: 3,
        others_time: 0,
    }
}

#[tokio::test]
async fn an_inner_application_is_precious_while_it_has_members_whatever_its_annotations_say() {
    let bare = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"inner","namespace":"ns",
        "uid":"u","resourceVersion":"5"}}"#;
    let script = Script::new([Says::ok(bare), Says::ok(bare)]);
    let engine = engine(&script);
    let applications = applications();
    let inner = applications.key("ns", "inner");
    let outer = ApplySet::new(inner.group_kind.clone(), "ns", "outer");
    let precious = engine.precious_object(&outer, &applications, &inner).await.unwrap();
    assert_eq!(precious, None);

    let set = ApplySet::new(inner.group_kind.clone(), "ns", "inner");
    let key = ObjectKey::new(GroupKind::new("", "ConfigMap"), "ns", "a");
    engine.members().changed(key, member(&set, "u1"));
    let precious = engine.precious_object(&outer, &applications, &inner).await.unwrap();
    assert!(precious.is_some());
}

#[tokio::test]
async fn a_stateful_set_is_precious_when_its_claims_go_with_it() {
    let spec = |policy: &str| {
        let policy = format!(r#""persistentVolumeClaimRetentionPolicy":{{{policy}}}"#);
        Says::ok(format!(r#"{{"metadata":{{"name":"db"}},"spec":{{{policy}}}}}"#))
    };
    let answers = [
        spec(r#""whenDeleted":"Delete","whenScaled":"Retain""#),
        spec(r#""whenDeleted":"Retain","whenScaled":"Delete""#),
        spec(""),
    ];
    let engine = engine(&Script::new(answers));
    let sets = Resource::known(Gvk::new("apps/v1", "StatefulSet"), "statefulsets", true);
    let outer = ApplySet::new(applications().gvk.group_kind(), "ns", "app");
    let mut found = Vec::new();
    for _ in 0..3 {
        found.push(engine.precious_object(&outer, &sets, &sets.key("ns", "db")).await.unwrap());
    }
    assert_eq!(found, [Some("its volume claims go with it"), None, None]);
}

/// Others who say nothing, and whether they may take what they want for some time yet.
pub(crate) struct Others {
    pub(crate) patient: bool,
}

impl crate::claims::Others for Others {
    fn spoken(&self) {}
    fn is_silent(&self, _: &str) -> bool {
        false
    }
    fn any_silent(&self) -> bool {
        false
    }
    fn broken(&self) -> Option<String> {
        None
    }
    fn is_patient(&self) -> bool {
        self.patient
    }
}

/// Runs a test with a job of a set.
pub(crate) async fn with_job<T>(test: impl AsyncFnOnce(&Job<'_>) -> T) -> T {
    let set = ApplySet::new(applications().gvk.group_kind(), "ns", "app");
    let policy = crate::policy::Policy {
        observe: false,
        prune: true,
        farewell: crate::farewell::Farewell::Delete,
        limits: guard::Limits::default(),
        validate: false,
        force: false,
        adopt: crate::policy::Adopt::default(),
    };
    let parent = crate::sync::Parent {
        resource: applications(),
        uid: "p".into(),
        resource_version: 5,
        has_facts: true,
        hints: crate::applyset::Scope::default(),
        recorded: crate::applyset::Scope::default(),
        epoch: None,
        finalizer: "f",
        created: None,
        settled: BTreeSet::new(),
    };
    let job = Job {
        set: &set,
        parent,
        objects: Vec::new(),
        policy: &policy,
        ignores: &crate::ignore::Ignores::default(),
        approved: None,
        origin: plumb_core::Digest::of(&[]),
        recorded: None,
        transient: &std::collections::BTreeMap::new(),
        only_drift: false,
        keeps_scope: false,
        asked: false,
        longest_pause: std::time::Duration::ZERO,
        epoch: 1,
        superseded: &|| false,
        others: &Others { patient: false },
    };
    test(&job).await
}

/// One that got no answer says nothing about the others, if the API server answers.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_ends_a_run_of_deletions_with_one_word() {
    let bare = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"app","namespace":"ns",
        "uid":"p","resourceVersion":"5"}}"#;
    let gone = r#"{"kind":"Status","status":"Success"}"#;
    let hanging = [Says::Hangs, Says::Hangs];
    let slow = [Says::Hangs, Says::ok(bare), Says::ok(gone), Says::ok(gone)];
    for (script, asked, ended) in [(Script::new(hanging), 2, true), (Script::new(slow), 4, false)] {
        let engine = engine(&script);
        let maps = Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true);
        let mut report = Report::default();
        let result = with_job(async |job| {
            let members = ["a", "b", "c"].map(|name| Member {
                resource: maps.clone(),
                key: maps.key("ns", name),
                live: member(job.set, name),
                after: None,
            });
            let batch: Vec<_> = members.iter().enumerate().collect();
            let slice = engine.slice();
            engine.delete_turn(job, &batch, &slice, &mut report).await.map(|deleted| deleted.len())
        })
        .await;
        assert_eq!(script.asked().len(), asked);
        let (done, failed) = (report.pruned.len(), report.failures.len());
        if ended {
            let error = result.unwrap_err();
            assert!(matches!(error.api(), Some(ApiError::Timeout { .. })), "{error}");
            assert_eq!((done, failed), (0, 0));
        } else {
            assert_eq!((result.unwrap(), done, failed), (2, 2, 1));
        }
    }
}

#[tokio::test]
async fn a_kind_that_cannot_be_listed_is_unknown_and_not_empty() {
    let script = Script::new([Says::Status(403, None, String::new())]);
    let engine = engine(&script);
    let applications = applications();
    let mut report = Report::default();
    let listed = with_job(async |job| engine.list_members(job, &applications, &mut report).await);
    let listed = listed.await.unwrap();
    assert!(listed.is_empty() && !report.is_complete());
    assert_eq!(report.failures[0].reason, "PruneFailed");
}

/// Objects that cannot be deleted take their place in one turn, not in each.
#[tokio::test]
async fn what_cannot_be_deleted_is_tried_once_in_all_turns() {
    let refused = || Says::Status(403, None, String::new());
    let gone = || Says::ok(r#"{"kind":"Status","status":"Success"}"#);
    // Two are refused in the first turn, and once more when all were tried.
    let script = Script::new([refused(), refused(), gone(), gone(), refused(), refused()]);
    let engine = in_slices(&script, 2);
    let maps = Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true);
    with_job(async |job| {
        let mut left = vec!["a", "b", "c", "d"];
        let mut turns = Vec::new();
        for _ in 0..3 {
            let mut report = Report::default();
            let members = left.iter().map(|name| Member {
                resource: maps.clone(),
                key: maps.key("ns", name),
                live: member(job.set, name),
                after: None,
            });
            let members: Vec<_> = members.collect();
            let batch: Vec<_> = members.iter().enumerate().collect();
            let slice = engine.slice();
            engine.delete_turn(job, &batch, &slice, &mut report).await.unwrap();
            engine.end_turn(&job.set.id, &report, false);
            left.retain(|name| !report.pruned.contains(&maps.key("ns", name)));
            turns.push((report.pruned.len(), report.failures.len(), report.undeleted));
        }
        assert_eq!(turns, [(0, 2, 2), (2, 2, 0), (0, 2, 0)]);
    })
    .await;
    assert_eq!(script.asked().len(), 6);
}

/// A list of objects as this set applied them: name and uid are the same.
fn listed(set: &ApplySet, names: &[&str]) -> Says {
    let item = |name: &&str| {
        json!({"metadata": {
            "name": name, "namespace": "ns", "uid": name, "resourceVersion": "5",
            "labels": {PART_OF: set.id},
            "managedFields": [{
                "manager": set.manager, "operation": "Apply", "apiVersion": "v1",
                "time": "2024-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {format!("f:{PART_OF}"): {}}}},
            }],
        }})
    };
    let items: Vec<Value> = names.iter().map(item).collect();
    let list = json!({
        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "9"}, "items": items,
    });
    Says::ok(list.to_string())
}

/// What a person approved is partly done, and the next turn cannot see all that is left, or another commit
/// asks for some of it again. Only the second makes it another plan.
#[tokio::test]
async fn an_approval_outlives_a_look_that_fails_and_not_a_change_of_its_plan() {
    let gone = || Says::ok(r#"{"kind":"Status","status":"Success"}"#);
    let refused = || Says::Status(403, None, String::new());
    for (is_whole, begins_anew) in [(false, false), (true, true)] {
        with_job(async |job| {
            let list = |names: &[&str]| listed(job.set, names);
            let second = if is_whole { list(&[]) } else { refused() };
            let script = Script::new([
                list(&["a", "b"]),
                list(&["s"]),
                list(&["a", "b"]),
                list(&["s"]),
                gone(),
                list(&["b"]),
                second,
                list(&["b"]),
                list(&["s"]),
                gone(),
            ]);
            let engine = in_slices(&script, 1);
            let kinds = [("ConfigMap", "configmaps"), ("Service", "services")];
            let kinds =
                kinds.map(|(kind, plural)| Resource::known(Gvk::new("v1", kind), plural, true));
            let names = kinds.iter().map(|kind| kind.gvk.group_kind()).collect();
            let discovery = crate::cluster::Discovery::of(kinds);
            *engine.discovery.lock().await = Some((discovery.into(), tokio::time::Instant::now()));
            let none = HashMap::new();
            let turn = async |approved: Option<String>| {
                let job = Job {
                    set: job.set,
                    parent: job.parent.clone(),
                    objects: Vec::new(),
                    approved,
                    superseded: &|| false,
                    others: &Others { patient: false },
                    ..*job
                };
                let occasion = Occasion::Sync { desired: 0, members: 3 };
                let mut report = Report::default();
                let wanted = (&none, occasion);
                engine
                    .delete_members(&job, &names, wanted, &engine.slice(), &mut report)
                    .await
                    .unwrap();
                engine.end_turn(&job.set.id, &report, false);
                report
            };
            let digest = turn(None).await.held.unwrap().digest.to_string();
            let report = turn(Some(digest.clone())).await;
            assert!(report.released && report.undeleted == 2 && report.pruned.len() == 1);
            let report = turn(Some(digest.clone())).await;
            assert!(!report.released && report.pruned.is_empty());
            // Where not all is seen, that is what there is to tell: the plan is the one that was approved.
            assert_eq!(
                (report.held.is_some(), report.failures.len()),
                (is_whole, usize::from(!is_whole))
            );
            assert_eq!(turn(Some(digest)).await.held.is_some(), begins_anew);
        })
        .await;
    }
}

/// An approval whose plan was done in part, and then was no plan any more, is nobody's word for what is
/// left over of it one day.
#[tokio::test]
async fn an_approval_ends_with_its_plan() {
    let engine = engine(&Script::new([]));
    let key = applications().key("ns", "a");
    let digest = "sha256:1";
    let begun = engine.approval("set", Some(digest)).unwrap();
    engine.note_deleted("set", &key, "u", true);
    assert_ne!(engine.approval("set", Some(digest)), Some(begun.clone()), "it is remembered");
    engine.void_plan("set");
    assert_eq!(engine.approval("set", Some(digest)), Some(begun));
    assert_eq!(engine.approval("set", None), None);
}

/// Between two turns something came that keeps the rest back: what failed before is no news by then.
#[tokio::test]
async fn what_failed_in_a_turn_is_tried_again_when_no_other_one_followed_it() {
    let maps = Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true);
    let key = maps.key("ns", "a");
    with_job(async |job| {
        for (blocked, keeps) in [(true, false), (false, true), (false, false)] {
            let set = job.set;
            let engine = in_slices(&Script::new([]), 1);
            engine.members().expect(&key.group_kind);
            engine.members().changed(key.clone(), member(set, "a"));
            let failure = unlisted(&key.group_kind, "403", ErrorClass::Retry);
            let failure = Failure { key: key.clone(), ..failure };
            engine.note_undeleted(&set.id, failure, &mut Report::default());
            let policy = crate::policy::Policy { prune: !keeps, ..job.policy.clone() };
            let job = Job {
                parent: job.parent.clone(),
                objects: Vec::new(),
                approved: None,
                policy: &policy,
                ..*job
            };
            let mut report = Report::default();
            let result =
                engine.prune(&HashMap::new(), &job, blocked, &engine.slice(), &mut report).await;
            // Nobody answers: what is deleted is not even listed.
            assert_eq!(result.is_ok(), blocked || keeps);
            assert!(engine.undeleted(&set.id, &key).is_none(), "{blocked} {keeps}");
        }
    })
    .await;
}
