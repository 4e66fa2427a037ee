//! What a status records of objects that go by themselves once they are done.

use std::collections::BTreeMap;

use plumb_api::{ApplicationStatus, MAX_TRANSIENT};
use plumb_core::Digest;
use plumb_engine::{Report, Transient};

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

/// What a status records of them, by their names.
pub(crate) fn recorded_transient(status: &ApplicationStatus) -> BTreeMap<String, Transient> {
    let known = status.transient.iter().map(|known| {
        let cluster = known.cluster_digest.as_deref().and_then(Digest::parse);
        (known.object.clone(), Transient { digest: known.digest.clone(), cluster })
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_of_what_goes_by_itself_is_read_as_it_was_written() {
        let one = |cluster| Transient { digest: "1".into(), cluster };
        let known = BTreeMap::from([
            ("Job.batch ns/a".to_owned(), one(Some(Digest::of(b"live")))),
            ("Job.batch ns/b".to_owned(), one(None)),
        ]);
        let mut status = ApplicationStatus::default();
        let report = Report { transient: Some(known.clone()), ..Report::default() };
        list_transient(&mut status, &report);
        assert_eq!(recorded_transient(&status), known);
        // A run that did not come so far says nothing of them.
        list_transient(&mut status, &Report::default());
        assert_eq!(recorded_transient(&status), known);
        let many = (0..MAX_TRANSIENT + 1).map(|n| (format!("{n:03}"), one(None)));
        let report = Report { transient: Some(many.collect()), ..Report::default() };
        list_transient(&mut status, &report);
        assert_eq!((status.transient.len(), &*status.transient[0].object), (MAX_TRANSIENT, "000"));
    }
}
