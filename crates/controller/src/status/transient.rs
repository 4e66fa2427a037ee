//! What a status records of objects that go by themselves once they are done.

use std::collections::BTreeMap;

use plumb_api::conditions::{HEALTHY, READY};
use plumb_api::{ApplicationStatus, MAX_TRANSIENT, MAX_UNREADY};
use plumb_core::Digest;
use plumb_engine::{Health, Report, Transient};

/// Records what a run came to know of them.
pub(crate) fn list_transient(status: &mut ApplicationStatus, report: &Report) {
    let Some(transient) = &report.transient else { return };
    let listed = transient.iter().take(MAX_TRANSIENT).map(|(object, known)| plumb_api::Transient {
        object: object.clone(),
        digest: known.digest.clone(),
        cluster_digest: known.cluster.map(|digest| digest.to_string()),
    });
    status.transient = listed.collect();
}

/// What a status records of them, by their names. With `asks` how they are matters.
pub(crate) fn recorded_transient(
    status: &ApplicationStatus,
    asks: bool,
) -> BTreeMap<String, Transient> {
    let known = status.transient.iter().map(|known| {
        let cluster = known.cluster_digest.as_deref().and_then(Digest::parse);
        let unready = if asks { unready(status, &known.object) } else { None };
        (known.object.clone(), Transient { digest: known.digest.clone(), cluster, unready })
    });
    known.collect()
}

/// How an object was that was not ready when a status was written. Where that does not say so, and does
/// not say either that it was, nobody knows how it ended.
fn unready(status: &ApplicationStatus, object: &str) -> Option<(Health, String)> {
    let is = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).map(|c| &*c.status);
    // Before anybody asked for health, what was in place counted as done.
    if is(HEALTHY).or(is(READY)) == Some("True") {
        return None;
    }
    let unknown = (Health::Unknown, "it is gone, and nothing tells how it ended".to_owned());
    let Some(waiting) = &status.waiting else { return Some(unknown) };
    match waiting.objects.iter().find(|unready| unready.object == object) {
        Some(told) if told.health == Health::Degraded.to_string() => {
            Some((Health::Degraded, told.message.clone().unwrap_or_default()))
        }
        None if waiting.objects.len() < MAX_UNREADY => None,
        _ => Some(unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_of_what_goes_by_itself_is_read_as_it_was_written() {
        let one = |cluster| Transient { digest: "1".into(), cluster, unready: None };
        let known = BTreeMap::from([
            ("Job.batch ns/a".to_owned(), one(Some(Digest::of(b"live")))),
            ("Job.batch ns/b".to_owned(), one(None)),
        ]);
        let mut status = ApplicationStatus::default();
        let report = Report { transient: Some(known.clone()), ..Report::default() };
        list_transient(&mut status, &report);
        assert_eq!(recorded_transient(&status, false), known);
        // A run that did not come so far says nothing of them.
        list_transient(&mut status, &Report::default());
        assert_eq!(recorded_transient(&status, false), known);
        let many = (0..=MAX_TRANSIENT).map(|n| (format!("{n:03}"), one(None)));
        let report = Report { transient: Some(many.collect()), ..Report::default() };
        list_transient(&mut status, &report);
        assert_eq!((status.transient.len(), &*status.transient[0].object), (MAX_TRANSIENT, "000"));
    }
    /// What a status says of its objects: Ready, Healthy, and what is waited for with how many more.
    type Said<'a> = (&'a str, Option<&'a str>, Option<(&'a [(&'a str, Health)], usize)>);

    #[test]
    fn what_was_not_told_as_ready_before_it_went_is_not_taken_for_done() {
        use Health::{Degraded, Progressing, Unknown};
        let job = "Job.batch ns/a";
        let of = |(ready, healthy, waiting): Said<'_>| {
            let healthy = healthy.map(|status| (HEALTHY, status));
            let conditions = [Some((READY, ready)), healthy].into_iter().flatten();
            let condition = |(type_, status): (&str, &str)| plumb_api::Condition {
                type_: type_.into(),
                status: status.into(),
                reason: "X".into(),
                message: String::new(),
                observed_generation: None,
                last_transition_time: plumb_api::Time(jiff::Timestamp::UNIX_EPOCH),
            };
            let waiting = waiting.map(|(listed, more)| {
                let listed = listed.iter().copied();
                let more = std::iter::repeat_n(("Pod ns/b", Degraded), more);
                let one = |(object, health): (&str, Health)| plumb_api::Unready {
                    object: object.into(),
                    health: health.to_string(),
                    message: Some("because".into()),
                };
                plumb_api::Waiting {
                    since: plumb_api::Time(jiff::Timestamp::UNIX_EPOCH),
                    ready: 0,
                    total: 1,
                    objects: listed.chain(more).map(one).collect(),
                }
            });
            let transient = vec![plumb_api::Transient { object: job.into(), ..Default::default() }];
            ApplicationStatus {
                conditions: conditions.map(condition).collect(),
                waiting,
                transient,
                ..ApplicationStatus::default()
            }
        };
        let cases: [(Said<'_>, Option<Health>); 9] = [
            (("True", Some("True"), None), None),
            // Something else keeps it from being ready.
            (("False", Some("True"), None), None),
            // It waits since a moment ago.
            (("True", None, None), None),
            (("False", None, None), Some(Unknown)),
            (("False", Some("False"), None), Some(Unknown)),
            (("False", Some("False"), Some((&[], 1))), None),
            (("False", Some("False"), Some((&[], MAX_UNREADY))), Some(Unknown)),
            (("False", Some("False"), Some((&[(job, Progressing)], 0))), Some(Unknown)),
            (("False", Some("False"), Some((&[(job, Degraded)], 1))), Some(Degraded)),
        ];
        for (said, unready) in cases {
            let status = of(said);
            let found = recorded_transient(&status, true)[job].unready.clone();
            assert_eq!(found.as_ref().map(|(health, _)| *health), unready, "{said:?}");
            let reason = found.filter(|(health, _)| *health == Degraded).map(|(_, why)| why);
            assert!(reason.is_none_or(|reason| reason == "because"));
            assert_eq!(recorded_transient(&status, false)[job].unready, None, "{said:?}");
        }
    }
}
