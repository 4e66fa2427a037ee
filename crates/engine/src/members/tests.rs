use plumb_core::Digest;

use super::*;
use crate::live::Entry;
use crate::marks::Marks;

pub(super) const SET: &str = "set-1";
pub(super) const MANAGER: &str = "plumb:ns/app";

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new(GroupKind::new("", "ConfigMap"), "ns", name)
}

pub(super) fn live(version: u64) -> Live {
    Live {
        uid: "u1".into(),
        resource_version: version,
        generation: 1,
        terminating: false,
        owners: 0,
        marks: Marks::default(),
        scaled: false,
        part_of: Some(SET.into()),
        entries: Box::new([Entry {
            manager: MANAGER.into(),
            fields: 7,
            time: 100,
            owns_part_of: true,
            owners: 0,
        }]),
        others: 3,
        others_time: 0,
    }
}

pub(super) fn with(version: u64, change: impl FnOnce(&mut Live)) -> Live {
    let mut live = live(version);
    change(&mut live);
    live
}

fn verified() -> Members {
    let mut members = Members::default();
    members.expect(&key("a").group_kind);
    members.verified(SET, MANAGER, &key("a"), live(10), 42);
    members
}

#[test]
fn standings_after_one_event() {
    type Change = fn(&mut Live);
    let cases: [(&str, Change, Standing, bool); 9] = [
        ("only the version moved", |_| {}, Standing::Same(42), false),
        ("our fields changed", |l| l.entries[0].fields = 8, Standing::Drifted(42), true),
        ("applied in our name", |l| l.entries[0].time = 101, Standing::Drifted(42), true),
        ("our entry went", |l| l.entries = Box::default(), Standing::Drifted(42), true),
        ("relabelled", |l| l.part_of = Some("set-2".into()), Standing::Drifted(42), true),
        ("generation moved", |l| l.generation = 2, Standing::Suspect(42), true),
        ("another manager wrote", |l| l.others = 4, Standing::Suspect(42), true),
        ("another object", |l| l.uid = "u2".into(), Standing::Replaced, true),
        ("deletion began", |l| l.terminating = true, Standing::Terminating, true),
    ];
    for (what, change, standing, signal) in cases {
        let mut members = verified();
        let sets = members.changed(key("a"), with(11, change));
        assert_eq!(members.standing(&key("a"), SET, MANAGER), standing, "{what}");
        assert_eq!(sets.contains(SET), signal, "{what}");
        assert_eq!(members.in_sync(SET, MANAGER, Instant::now()), !signal, "{what}");
    }
}

#[test]
fn what_stays_although_nothing_asks_for_it_is_at_rest() {
    type Change = fn(&mut Live);
    let cases: [(&str, Change, bool); 4] = [
        ("one too many", |_| {}, false),
        ("marked to stay", |l| l.marks.prune = crate::marks::Prune::Disabled, true),
        ("not to be touched", |l| l.marks.leave = true, true),
        ("owned by another object", |l| l.owners = 1, true),
    ];
    for (what, change, rests) in cases {
        let mut members = verified();
        assert!(members.in_sync(SET, MANAGER, Instant::now()));
        members.changed(key("b"), with(11, change));
        assert_eq!(members.in_sync(SET, MANAGER, Instant::now()), rests, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_only_observed_is_looked_at_less_and_less_often() {
    let now = Instant::now();
    let mut members = verified();
    members.changed(key("a"), with(11, |l| l.entries[0].fields = 8));
    let waits = |members: &Members| {
        members.waits(&key("a"), members.standing(&key("a"), SET, MANAGER), now).is_some()
    };
    assert_eq!(members.seen(&key("a"), 42), None);
    let found = Some(Difference::Changed(Vec::new()));
    for _ in 0..4 {
        members.looked(&key("a"), 42, found.clone(), now);
        assert!(!waits(&members));
    }
    members.looked(&key("a"), 42, found.clone(), now);
    assert!(waits(&members) && members.next_due(SET, MANAGER, now).is_some());
    assert_eq!(members.seen(&key("a"), 42), found.as_ref());
    assert!(members.was_seen(&key("a"), 42) && !members.was_seen(&key("a"), 43));
    assert_eq!(members.seen(&key("a"), 43), None, "Git asks for something else");
    members.looked(&key("a"), 43, None, now);
    assert!(!waits(&members), "which is looked at at once");
    for _ in 0..5 {
        members.looked(&key("a"), 43, None, now);
    }
    assert!(waits(&members));
    // As soon as it is enforced, looks hold nothing up.
    members.forget_looks(SET);
    assert!(!waits(&members));
}

#[test]
fn events_older_than_our_answer_tell_nothing() {
    let mut members = verified();
    assert!(members.changed(key("a"), with(9, |l| l.entries = Box::default())).is_empty());
    assert!(members.changed(key("a"), with(10, |l| l.entries = Box::default())).is_empty());
    assert!(members.deleted(&key("a"), &live(9)).is_empty());
    assert!(members.in_sync(SET, MANAGER, Instant::now()));
}

#[test]
fn a_member_out_of_step_calls_its_set_once_for_each_state() {
    let mut members = verified();
    assert!(members.changed(key("a"), with(11, |l| l.entries = Box::default())).contains(SET));
    assert!(members.changed(key("a"), with(12, |l| l.entries = Box::default())).is_empty());
    assert_eq!(members.live(&key("a")).map(|live| live.resource_version), Some(12));
    let more = with(13, |l| {
        l.entries = Box::default();
        l.generation = 2;
    });
    assert!(members.changed(key("a"), more).contains(SET));
    assert!(members.changed(key("extra"), live(14)).contains(SET));
    assert!(members.changed(key("extra"), live(15)).is_empty());
}

#[test]
fn a_mark_to_be_left_alone_calls_its_set_once_and_nothing_after_it() {
    let mut members = verified();
    let left = |version, generation| {
        with(version, |l| (l.marks.leave, l.generation, l.others) = (true, generation, version))
    };
    assert!(members.changed(key("a"), left(11, 1)).contains(SET));
    assert!(members.changed(key("a"), left(12, 2)).is_empty(), "whatever is done to it then");
    assert!(members.changed(key("a"), with(13, |l| l.generation = 2)).contains(SET));
}

#[test]
fn a_deletion_of_a_verified_object_is_drift() {
    let mut members = verified();
    assert!(members.deleted(&key("a"), &live(12)).contains(SET));
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Gone);
    assert!(!members.in_sync(SET, MANAGER, Instant::now()));
    members.gone(&key("a"), "u1");
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Unknown);
    assert!(members.in_sync(SET, MANAGER, Instant::now()) && members.sets.is_empty());
}

/// The answer to an apply comes after the watch told of its deletion. Nobody told of that again.
#[test]
fn what_is_gone_before_our_answer_comes_stays_gone() {
    let kind = key("a").group_kind;
    let answered = |members: &mut Members, version| {
        members.verified(SET, MANAGER, &key("a"), live(version), 43)
    };
    let gone = |members: &Members| {
        members.standing(&key("a"), SET, MANAGER) == Standing::Gone
            && !members.in_sync(SET, MANAGER, Instant::now())
    };
    // Told by events, of one that was there and of one that is new.
    for mut members in [verified(), Members::default()] {
        members.expect(&kind);
        members.listed(
            &kind,
            (
                members.live(&key("a")).cloned().map(|live| (key("a"), live)).into_iter().collect(),
                10,
            ),
            &[],
        );
        members.watched(&kind, 11);
        members.changed(key("a"), live(11));
        members.watched(&kind, 12);
        assert!(members.deleted(&key("a"), &live(12)).contains(SET));
        assert!(!answered(&mut members, 11) && gone(&members));
        assert!(members.answered(key("a"), live(11)).is_empty() && gone(&members));
        // What came after is there.
        assert!(answered(&mut members, 13) && !gone(&members));
    }
    // Told by a list, before the answer or after it.
    for first in [true, false] {
        let mut members = verified();
        members.restarted(&kind);
        if first {
            assert!(answered(&mut members, 11));
        }
        members.listed(&kind, (Vec::new(), 12), &[]);
        assert!(first || !answered(&mut members, 11));
        assert!(gone(&members), "{first}");
        // What a list cannot know of is there.
        members.restarted(&kind);
        assert!(answered(&mut members, 15));
        members.listed(&kind, (Vec::new(), 14), &[]);
        assert!(!gone(&members), "{first}");
    }
    // While nothing is known of a kind, answers are all there is.
    let mut members = Members::default();
    members.expect(&kind);
    members.watched(&kind, 12);
    assert!(answered(&mut members, 11));
}

#[test]
fn what_another_one_took_by_half_is_told_whether_it_was_applied_since_or_not() {
    fn with_other(live: &mut Live, owns_part_of: bool) {
        let entry = live.entries[0].clone();
        let other = Entry { manager: OTHER.into(), owns_part_of, ..entry };
        live.entries = live.entries.iter().cloned().chain([other]).collect();
    }
    const OTHER: &str = "plumb:ns/other";
    let half_taken = |change: fn(&mut Live)| {
        let mut members = verified();
        members.changed(key("a"), with(11, change));
        members.half_taken(SET, MANAGER)
    };
    let taken = [(key("a"), OTHER.to_owned())];
    assert_eq!(half_taken(|_| {}), []);
    assert_eq!(half_taken(|l| l.entries[0].manager = OTHER.into()), taken);
    assert_eq!(half_taken(|l| with_other(l, true)), taken);
    assert_eq!(half_taken(|l| with_other(l, false)), [], "a field that both have");
    let wholly = half_taken(|l| {
        with_other(l, true);
        l.part_of = Some("set-2".into());
    });
    assert_eq!(wholly, [], "it is wholly taken");
}

#[test]
fn an_extra_member_calls_its_set() {
    let mut members = verified();
    assert!(members.changed(key("b"), live(11)).contains(SET));
    assert_eq!(members.standing(&key("b"), SET, MANAGER), Standing::Unverified);
    assert_eq!(members.applied(SET, MANAGER).len(), 2);
    assert!(!members.in_sync(SET, MANAGER, Instant::now()));
    let unclaimed = with(12, |l| l.entries = Box::default());
    members.changed(key("b"), unclaimed);
    assert_eq!(members.standing(&key("b"), SET, MANAGER), Standing::Unclaimed);
    assert_eq!(members.applied(SET, MANAGER).len(), 1);
    assert!(members.in_sync(SET, MANAGER, Instant::now()), "a copy of the label is no member");
}

#[test]
fn a_list_removes_what_it_does_not_hold_but_not_what_came_after_it_began() {
    let mut members = verified();
    let kind = key("a").group_kind;
    members.changed(key("old"), live(5));
    members.restarted(&kind);
    members.verified(SET, MANAGER, &key("new"), live(20), 1);
    let sets = members.listed(&kind, (vec![(key("a"), live(10))], 0), &[]);
    assert!(sets.contains(SET), "the old one went");
    assert_eq!(members.standing(&key("old"), SET, MANAGER), Standing::Unknown);
    assert_eq!(members.standing(&key("new"), SET, MANAGER), Standing::Same(1));
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Same(42));
    assert_eq!(members.kind(&kind), Some(&KindState::Synced));
}

#[test]
fn a_list_counts_also_when_its_versions_are_lower_than_before() {
    let kind = key("a").group_kind;
    let reverted = || with(5, |l| l.entries[0].fields = 6);
    let mut members = verified();
    members.restarted(&kind);
    assert!(members.listed(&kind, (vec![(key("a"), reverted())], 0), &[]).contains(SET));
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Drifted(42));
    members.verified(SET, MANAGER, &key("a"), live(6), 42);
    assert_eq!(members.live(&key("a")).map(|live| live.resource_version), Some(6));

    // An answer that came after the LIST began is not from before the restore.
    members.restarted(&kind);
    members.verified(SET, MANAGER, &key("a"), live(9), 42);
    assert!(members.listed(&kind, (vec![(key("a"), reverted())], 0), &[]).is_empty());
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Same(42));
}

#[test]
fn a_failed_kind_is_unknown_not_empty() {
    let mut members = verified();
    let kind = key("a").group_kind;
    assert!(members.failed(&kind, "403".into(), Trouble::Refused));
    assert!(!members.failed(&kind, "403".into(), Trouble::Refused));
    assert_eq!(members.kind(&kind), Some(&KindState::Failed("403".into())));
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Same(42));
}

#[test]
fn a_kind_that_is_refused_again_and_again_is_out_of_sight_until_it_is_listed() {
    let kind = key("a").group_kind;
    let mut members = verified();
    for _ in 0..20 {
        members.failed(&kind, "no connection".into(), Trouble::Passing);
    }
    for _ in 1..REFUSALS {
        members.failed(&kind, "500".into(), Trouble::Refused);
    }
    assert_eq!(members.blind(&kind), None);
    members.failed(&kind, "port 1".into(), Trouble::Refused);
    members.failed(&kind, "port 2".into(), Trouble::Refused);
    assert_eq!(members.blind(&kind), Some("port 1"), "what is told stays");
    members.restarted(&kind);
    members.listed(&kind, (Vec::new(), 0), &[]);
    assert_eq!(members.blind(&kind), None);
    members.failed(&kind, "403".into(), Trouble::Lasting);
    assert_eq!(members.blind(&kind), Some("403"), "what does not pass by itself at once");
    members.listed(&kind, (Vec::new(), 0), &[key("b")]);
    assert_eq!(members.blind(&kind), Some("ConfigMap ns/b cannot be read"));
}

#[test]
fn what_a_list_cannot_read_is_not_gone() {
    let mut members = verified();
    let kind = key("a").group_kind;
    members.restarted(&kind);
    members.listed(&kind, (Vec::new(), 0), &[key("a")]);
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Same(42));
    assert!(matches!(members.kind(&kind), Some(KindState::Failed(_))), "not fully known");
    members.restarted(&kind);
    members.listed(&kind, (Vec::new(), 0), &[]);
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Gone);
    assert_eq!(members.kind(&kind), Some(&KindState::Synced));
}

#[test]
fn a_kind_names_the_sets_that_have_members_of_it() {
    let mut members = verified();
    members.changed(key("b"), with(11, |l| l.part_of = Some("set-2".into())));
    let sets = members.sets_with(&key("a").group_kind);
    assert_eq!(sets.iter().map(|set| &**set).collect::<Vec<_>>(), [SET, "set-2"]);
    assert!(members.sets_with(&GroupKind::new("apps", "Deployment")).is_empty());
}

#[test]
fn the_cluster_digest_sees_our_side_only() {
    let desired = HashMap::from([(key("a"), 42)]);
    let digest = |members: &Members| members.cluster_digest(SET, MANAGER, &desired);
    let mut members = verified();
    let before = digest(&members);
    assert!(before.is_some());
    members.changed(key("a"), with(11, |l| l.others = 9));
    assert_eq!(digest(&members), before);
    members.changed(key("a"), with(12, |l| l.entries[0].fields = 9));
    assert_ne!(digest(&members), before);
    members.deleted(&key("a"), &live(13));
    assert_eq!(digest(&members), None);
}

#[test]
fn the_effect_of_a_write_without_an_answer_is_not_drift() {
    let mut members = verified();
    members.doubt("set-2", &key("a"));
    assert!(members.in_sync(SET, MANAGER, Instant::now()), "another set's write is not ours");
    members.doubt(SET, &key("a"));
    members.changed(key("a"), with(11, |l| l.entries[0].fields = 8));
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Unverified);
    assert!(!members.in_sync(SET, MANAGER, Instant::now()));
    members.verified(SET, MANAGER, &key("a"), with(11, |l| l.entries[0].fields = 8), 42);
    members.deleted(&key("a"), &live(12));
    members.doubt(SET, &key("a"));
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Gone, "still missed");
}

#[test]
fn objects_go_with_their_kind_also_when_no_watch_tells() {
    let mut members = verified();
    assert!(members.in_sync(SET, MANAGER, Instant::now()));
    let kind = key("a").group_kind;
    assert_eq!(members.vanished(&kind), BTreeSet::from([SET.into()]));
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Gone);
    assert!(!members.in_sync(SET, MANAGER, Instant::now()));
    assert_eq!(members.vanished(&kind), BTreeSet::new(), "told once");
}

#[test]
fn what_another_leader_may_have_changed_is_not_verified() {
    let mut members = verified();
    members.verified(SET, MANAGER, &key("gone"), live(11), 1);
    members.deleted(&key("gone"), &live(12));
    members.forget_verified();
    assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Unverified);
    assert_eq!(members.standing(&key("gone"), SET, MANAGER), Standing::Unknown);
    assert_eq!(members.applied(SET, MANAGER).len(), 1);
    members.deleted(&key("a"), &live(13));
    assert!(members.objects.is_empty() && members.sets.is_empty());
}

#[test]
fn a_change_that_came_after_the_answer_is_not_recorded_as_equal() {
    let desired = HashMap::from([(key("a"), 42)]);
    let mut members = verified();
    let equal = members.cluster_digest(SET, MANAGER, &desired);
    assert!(equal.is_some());
    assert_eq!(members.verified_digest(SET, &desired), equal);
    members.changed(key("a"), with(11, |l| l.entries[0].fields = 9));
    assert_eq!(members.verified_digest(SET, &desired), equal);
    assert_ne!(members.cluster_digest(SET, MANAGER, &desired), equal);
    let other = HashMap::from([(key("a"), 43)]);
    assert_eq!(members.verified_digest(SET, &other), None, "verified against something else");
    let more = HashMap::from([(key("a"), 42), (key("b"), 1)]);
    assert_eq!(members.verified_digest(SET, &more), None, "one was never verified");
}

#[test]
fn our_late_answer_about_an_object_says_nothing_of_the_next_of_its_name() {
    let mut members = verified();
    members.changed(key("a"), with(13, |l| l.uid = "u2".into()));
    members.gone(&key("a"), "u1");
    assert_eq!(members.live(&key("a")).map(|live| &*live.uid), Some("u2"));
}

#[test]
fn what_a_set_no_longer_wants_is_forgotten() {
    let mut members = verified();
    members.verified(SET, MANAGER, &key("b"), live(11), 1);
    members.retain_verified(SET, &HashMap::from([(key("a"), 42)]));
    assert_eq!(members.standing(&key("b"), SET, MANAGER), Standing::Unverified);
    members.deleted(&key("b"), &live(12));
    assert!(members.in_sync(SET, MANAGER, Instant::now()));
    members.gone(&key("a"), "u1");
    assert!(members.objects.is_empty() && members.sets.is_empty());
}

#[test]
fn nothing_is_kept_of_a_kind_whose_watch_has_ended() {
    let mut members = verified();
    members.changed(key("b"), with(11, |l| l.part_of = Some("set-2".into())));
    let kind = key("a").group_kind;
    assert_eq!(members.of_kind(&kind).count(), 2);
    members.forget_kind(&kind);
    assert!(members.objects.is_empty() && members.sets.is_empty() && members.kinds.is_empty());
    assert_eq!(members.kind(&kind), None);
}

#[test]
fn a_standby_knows_which_member_changed_since_all_were_as_recorded() {
    let named = |name: &str, version: u64| with(version, |live| live.uid = name.into());
    let mut members = Members::default();
    members.expect(&key("a").group_kind);
    for name in ["a", "b", "c"] {
        members.changed(key(name), named(name, 10));
    }
    // A leader recorded what it verified.
    let desired: HashMap<_, _> = ["a", "b", "c"].map(|name| (key(name), 1)).into();
    let recorded = members.cluster_digest(SET, MANAGER, &desired).unwrap();
    let other = Digest::of(b"other");
    let known = |members: &Members, recorded| {
        ["a", "b", "c"].map(|name| members.is_witnessed(&key(name), SET, MANAGER, recorded))
    };
    members.witness(SET, MANAGER, other);
    assert_eq!(known(&members, other), [false; 3], "they are not as that says");
    members.witness(SET, MANAGER, recorded);
    assert_eq!(known(&members, recorded), [true; 3]);
    // What is not Git's says nothing; what is gone, or another one, or written by us, is not as it was.
    members.changed(key("a"), with(11, |live| (live.uid, live.others) = ("a".into(), 9)));
    members.changed(key("b"), with(12, |live| (live.uid, live.generation) = ("b".into(), 2)));
    members.changed(key("c"), named("d", 13));
    assert_eq!(known(&members, recorded), [true, false, false]);
    members.witness(SET, MANAGER, recorded);
    assert_eq!(known(&members, recorded), [true, false, false], "it is as it was then");
    assert_eq!(known(&members, other), [false; 3]);
    members.forget_verified();
    assert_eq!(known(&members, recorded), [true, false, false], "a term begins with that");
    members.forget_witness(SET);
    assert_eq!(known(&members, recorded), [false; 3]);
}
