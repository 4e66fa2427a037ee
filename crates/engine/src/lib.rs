//! Makes a cluster match a list of objects, and says truthfully how far it got.
//!
//! The engine takes a client and an identity (an [`ApplySet`], with the account that acts) as
//! arguments and knows nothing of custom resources. Watches of metadata feed an index of members; a
//! run compares what is desired with that index, sends what differs, and deletes what is left over if
//! the guard agrees.
//!
//! Invariant: no answer to a list, watch, apply, patch or delete carries more than metadata, but to
//! lists and watches of kinds of which a set asks how its objects are, of the objects that somebody names
//! to be waited for or judged, which are no Secrets, and of Pods that tell why; of those a verdict is kept.
//! A caller's own kinds are whole, too.

#![forbid(unsafe_code)]

mod account;
mod apply;
mod applyset;
mod attention;
mod circuit;
mod claim;
mod claims;
mod cluster;
mod correct;
mod definitions;
mod deleting;
mod edges;
mod engine;
mod error;
mod explain;
mod facts;
mod failure;
mod farewell;
mod guard;
mod handover;
mod ignore;
mod items;
mod live;
mod marks;
mod members;
mod missing;
mod observe;
mod order;
mod plan;
mod pods;
mod policy;
mod prepare;
mod prune;
mod recreate;
mod refusals;
mod report;
mod sabotage;
mod share;
mod size;
mod stage;
mod survey;
mod sync;
mod transient;
mod validate;
mod versions;

pub use account::{Account, Presence};
pub use applyset::{
    APPLICATION, ApplySet, EPOCH, GROUP_KINDS, MANAGER_PREFIX, NAMESPACES, PARENT_ID,
    PARENT_MANAGER, PART_OF, Scope, TOOLING, is_later, mark, marked_epoch,
};
pub use attention::{Asks, Unready, Wellbeing, judge as judge_health};
pub use claims::Others;
pub use cluster::*;
pub use engine::{Engine, EngineOptions, Signal};
pub use error::EngineError;
pub use explain::{FieldChange, explain};
pub use farewell::Farewell;
pub use guard::{Approval, Candidate, Held, HoldReason, Limits, Occasion, judge};
pub use ignore::{Ignores, Pointer};
pub use live::{Entry, Live};
pub use marks::{Marks, Prune, Ssa};
pub use members::HIDDEN;
pub use observe::Difference;
pub use plumb_health::Health;
pub use pods::{Pod, PodState, Words, pod_resource, pod_selector, watch_pods};
pub use policy::{Adopt, Policy};
pub use report::{Change, Drift, Failure, Kept, Outcome, Report, Yield};
#[doc(hidden)]
pub use sabotage::{Sabotage, leaves_out};
pub use stage::Stage;
pub use survey::{Sets, Survey};
pub use sync::{Job, Parent};
pub use transient::Transient;
