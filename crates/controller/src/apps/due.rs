//! Whether an Application that was called is run, and how much of a run that is.

use std::time::{Duration, Instant};

use crate::queue::Lane;

/// What keeps an Application from its next run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pause {
    /// Until when the API server asked to be left alone.
    pub(crate) rest: Option<Instant>,
    /// When what failed is tried again.
    pub(crate) retry: Option<Instant>,
    /// Whether what others changed could not be put back since it failed.
    pub(crate) in_vain: bool,
}

/// What a call comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A run as any other.
    Run,
    /// What others changed is put back. What failed is not tried before its time.
    Correct,
    /// Nothing yet.
    Later(Duration, Lane),
}

impl Pause {
    /// What a call comes to. `news` is what may end the failure: a new revision or spec, a request, the
    /// end of what was waited for. `drifted` is whether somebody changed what was applied. Whatever else
    /// called, a watch that saw a neighbour's write for instance, ends no failure.
    pub(super) fn due(self, news: bool, drifted: bool, now: Instant) -> Due {
        let left = |end: Option<Instant>| end.filter(|end| *end > now).map(|end| end - now);
        if let Some(left) = left(self.rest) {
            // What is urgent now is so then.
            return Due::Later(left, if news || drifted { Lane::Urgent } else { Lane::Routine });
        }
        match left(self.retry) {
            Some(_) if drifted && !news && !self.in_vain => Due::Correct,
            Some(left) if !news => Due::Later(left, Lane::Routine),
            _ => Due::Run,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_comes_before_the_next_try() {
        let now = Instant::now();
        let in_a_minute = Some(now + Duration::from_mins(1));
        let (minute, over) = (Duration::from_mins(1), Some(now));
        let (fresh, later) = (Pause::default(), |lane| Due::Later(minute, lane));
        let failed = Pause { retry: in_a_minute, ..fresh };
        let in_vain = Pause { in_vain: true, ..failed };
        let rests = Pause { rest: in_a_minute, ..failed };
        for (pause, news, drifted, due) in [
            (fresh, false, false, Due::Run),
            (failed, false, false, later(Lane::Routine)),
            (failed, true, false, Due::Run),
            (failed, true, true, Due::Run),
            (failed, false, true, Due::Correct),
            (in_vain, false, true, later(Lane::Routine)),
            (in_vain, true, true, Due::Run),
            (Pause { retry: over, ..in_vain }, false, false, Due::Run),
            // Nothing at all while the API server rests; what is urgent stays so.
            (rests, false, false, later(Lane::Routine)),
            (rests, true, false, later(Lane::Urgent)),
            (rests, false, true, later(Lane::Urgent)),
            (Pause { rest: in_a_minute, ..fresh }, false, false, later(Lane::Routine)),
            (Pause { rest: over, ..failed }, false, false, later(Lane::Routine)),
            (Pause { rest: over, ..fresh }, false, false, Due::Run),
        ] {
            assert_eq!(pause.due(news, drifted, now), due, "{pause:?} {news} {drifted}");
        }
    }
}
