//! What people do with Applications, drawn from the seed: they suspend and resume them, delete them,
//! make new ones for folders that have none, and rename them.

use std::fmt;

use fastrand::Rng;

use super::model::{Model, Standing};

/// Something that people do with an Application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Suspend {
        app: usize,
    },
    Resume {
        app: usize,
    },
    Delete {
        app: usize,
    },
    Create {
        app: usize,
    },
    /// The new one is there before the old one goes.
    Rename {
        from: usize,
        to: usize,
    },
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspend { app } => write!(f, "a person suspends app {app}"),
            Self::Resume { app } => write!(f, "a person resumes app {app}"),
            Self::Delete { app } => write!(f, "a person deletes app {app}"),
            Self::Create { app } => write!(f, "a person creates app {app}"),
            Self::Rename { from, to } => write!(f, "a person renames app {from}: it is app {to}"),
        }
    }
}

/// Draws one, and takes it into the model.
pub(super) fn draw(model: &mut Model, random: &mut Rng) -> Option<Turn> {
    let folder = random.usize(..model.folders);
    let what = random.u8(0..100);
    let Some(app) = model.holder(folder) else {
        let app = model.add_app(folder);
        model.turned.insert(app);
        return Some(Turn::Create { app });
    };
    // Nobody does two things with one in a moment.
    if model.turned.contains(&app) {
        return None;
    }
    let gone = |model: &Model, heir| Standing::Gone {
        orphans: model.apps[app].is_suspended() || model.apps[app].policy() == "Orphan",
        heir,
    };
    let turn = if model.apps[app].is_suspended() && what < 70 {
        model.apps[app].standing = Standing::Active;
        Turn::Resume { app }
    } else if what < 50 {
        let since = model.commits[model.apps[app].repository].len();
        model.apps[app].standing = Standing::Suspended { since };
        Turn::Suspend { app }
    } else if what < 70 {
        model.apps[app].standing = gone(model, None);
        Turn::Delete { app }
    } else {
        let to = model.add_app(folder);
        model.apps[app].standing = gone(model, Some(to));
        model.turned.insert(to);
        Turn::Rename { from: app, to }
    };
    model.turned.insert(app);
    Some(turn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::model::App;
    use std::collections::BTreeSet;

    #[test]
    fn every_folder_has_one_application_at_the_most() {
        let (mut model, mut random) = (Model::new(9), Rng::with_seed(1));
        let mut kinds = BTreeSet::new();
        for _ in 0..200 {
            let turns: Vec<Turn> = (0..3).filter_map(|_| draw(&mut model, &mut random)).collect();
            for turn in turns {
                let kind = turn.to_string().split_whitespace().nth(2).map(str::to_owned);
                kinds.extend(kind);
                if let Turn::Rename { from, to } = turn {
                    assert_eq!(model.apps[from].folder, model.apps[to].folder);
                    assert!(model.apps[from].is_gone());
                }
            }
            for folder in 0..model.folders {
                let held = model.apps.iter().filter(|app| app.folder == folder && !app.is_gone());
                assert!(held.count() <= 1);
            }
            let names: BTreeSet<_> = model.apps.iter().map(App::manager).collect();
            assert_eq!(names.len(), model.apps.len(), "no name comes twice");
            model.turned.clear();
        }
        let all = ["creates", "deletes", "renames", "resumes", "suspends"];
        assert_eq!(kinds, all.map(str::to_owned).into());
    }

    #[test]
    fn what_is_deleted_while_suspended_leaves_its_objects() {
        let mut random = Rng::with_seed(4);
        for seed in 0..50 {
            let mut model = Model::new(4);
            model.apps[1].standing = Standing::Suspended { since: 0 };
            random.seed(seed);
            while !model.apps[1].is_gone() {
                draw(&mut model, &mut random);
                if model.apps[1].is_active() {
                    model.apps[1].standing = Standing::Suspended { since: 0 };
                }
                model.turned.clear();
            }
            assert!(matches!(model.apps[1].standing, Standing::Gone { orphans: true, .. }));
        }
    }
}
