//! What happens in a round, drawn from the seed before any of it is done.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::faults::{self, Trouble};
use super::hands::{self, Act};
use super::kinds::{Key, Object};
use super::model::Model;
use super::moves::{self, Push};
use super::turns::{self, Turn};

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Push(Push),
    Hand(Act),
    Turn(Turn),
    Trouble(Trouble),
    /// A commit changes one object of an application, a hand another one while the first is being
    /// applied, and once the status is written the process is killed.
    Ambush {
        push: Push,
        app: usize,
        first: Key,
        other: Object,
    },
    /// Time in which the one under test may get on.
    Pause(Duration),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Push(push) => write!(f, "repo-{}: {}", push.repository, push.what),
            Self::Hand(act) => act.fmt(f),
            Self::Turn(turn) => turn.fmt(f),
            Self::Trouble(trouble) => trouble.fmt(f),
            Self::Ambush { push, other, .. } => {
                let (repository, what) = (push.repository, &push.what);
                write!(f, "repo-{repository}: {what}; meanwhile a hand changes {}", other.key)?;
                write!(f, ", and after the status it is killed")
            }
            Self::Pause(time) => write!(f, "a pause of {time:?}"),
        }
    }
}

/// Draws a round. A calm one has no faults, and what is said of it can be counted.
pub(super) fn draw(model: &mut Model, random: &mut Rng, calm: bool) -> Vec<Step> {
    let mut plan = Vec::new();
    let mut add = |what: u8, times: usize| plan.extend(std::iter::repeat_n(what, times));
    add(0, random.usize(1..6));
    add(1, random.usize(0..7));
    add(2, if calm { usize::from(random.bool()) } else { random.usize(0..5) });
    add(3, usize::from(!calm && random.u8(0..3) == 0));
    add(4, usize::from(random.u8(0..2) == 0));
    random.shuffle(&mut plan);
    // What is held is approved, or not, before anything else.
    let approvals = (0..model.apps.len()).filter(|_| random.bool());
    let mut steps: Vec<Step> = approvals.map(|app| Step::Hand(Act::Approve { app })).collect();
    for what in plan {
        match what {
            0 => {
                for push in moves::next(model, random) {
                    steps.push(Step::Push(push));
                    steps.extend(pause(random));
                }
            }
            1 => steps.extend(hands::draw(model, random).map(Step::Hand)),
            2 if calm => steps.push(Step::Trouble(faults::draw_calm(random))),
            2 => steps.push(Step::Trouble(faults::draw(random))),
            4 => steps.extend(turns::draw(model, random).map(Step::Turn)),
            _ => steps.extend(ambush(model, random)),
        }
        steps.extend(pause(random));
    }
    steps
}

fn ambush(model: &mut Model, random: &mut Rng) -> Option<Step> {
    let folder = random.usize(..model.folders);
    let app = model.holder(folder).filter(|app| model.apps[*app].is_active())?;
    let wanted = model.wanted(app);
    let mut objects: Vec<Object> = wanted.objects()?.values().cloned().collect();
    random.shuffle(&mut objects);
    let (first, other) = (objects.pop()?.key, objects.pop()?);
    let push = moves::edit(model, random, folder, &first)?;
    Some(Step::Ambush { push, app, first, other })
}

fn pause(random: &mut Rng) -> Option<Step> {
    let time = Duration::from_millis(random.u64(1..400));
    random.bool().then_some(Step::Pause(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_round_has_no_trouble_and_the_same_seed_gives_the_same_round() {
        let rounds = |seed| {
            let (mut model, mut random) = (Model::new(12), Rng::with_seed(seed));
            moves::first(&mut model, &mut random);
            (0..40)
                .map(|round| {
                    let steps = draw(&mut model, &mut random, round % 2 == 0);
                    let calm = steps.iter().all(|step| match step {
                        Step::Trouble(trouble) => matches!(trouble, Trouble::Lag { .. }),
                        Step::Ambush { .. } => false,
                        _ => true,
                    });
                    assert!(calm || round % 2 == 1);
                    steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(rounds(8), rounds(8));
        assert_ne!(rounds(8), rounds(9));
    }
}
