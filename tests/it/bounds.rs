//! How much the API server is asked at once.

use std::collections::BTreeSet;
use std::time::Duration;

use plumb_testkit::sample::{self, App};
use plumb_testkit::{Exchange, Fault, Match, Proxy, Rule, runtime};
use serde_json::json;

use crate::world::{World, config_map};

/// What one run has under way at most, and the lists of a start.
const WRITES: usize = 8;
const LISTS: usize = 4;

/// How much later the server sees what is counted here: long enough for all that may come at once, and
/// shorter than the agent waits for an answer.
const LATER: Duration = Duration::from_secs(2);

fn later(when: Match) -> Rule {
    Rule::new(when, Fault::Delay(LATER))
}

/// How many of these requests, each of which took that long at least, were under way at once.
fn at_once(proxy: &Proxy, of: impl Fn(&Exchange) -> bool) -> usize {
    let begun: Vec<Duration> = proxy.exchanges().iter().filter(|e| of(e)).map(|e| e.at).collect();
    let from = |first: Duration| {
        let within = begun.iter().filter(|at| first <= **at && **at < first + LATER);
        within.count()
    };
    begun.iter().map(|first| from(*first)).max().unwrap_or_default()
}

#[test]
fn objects_of_a_stage_are_applied_side_by_side_and_no_more_than_eight_at_once() {
    const COUNT: usize = 20;
    runtime().block_on(async {
        let world = World::new("side-by-side").await;
        let mut files: Vec<_> = (0..COUNT)
            .map(|n| (format!("app/m-{n}.yaml"), config_map(&format!("m-{n}"), "1")))
            .collect();
        // Of a later stage.
        files.extend(App::new("web").files("app"));
        let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), Some(t.as_str()))).collect();
        let commit = world.repo.commit(&files, "all");
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        proxy.add(later(Match::method("PATCH").path("/configmaps/m-")));
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        let of =
            |e: &Exchange, part: &str| e.request.method == "PATCH" && e.request.path.contains(part);
        assert_eq!(at_once(&proxy, |e| of(e, "/configmaps/m-")), WRITES);
        let sent = proxy.exchanges();
        let last = sent.iter().filter(|e| of(e, "/configmaps/m-")).map(|e| e.at + LATER).max();
        let next = sent.iter().find(|e| of(e, "/deployments/")).map(|e| e.at);
        assert!(next > last, "the next stage waits for all of them: {next:?} {last:?}");
    });
}

#[test]
fn no_more_than_four_lists_are_under_way_at_a_start() {
    runtime().block_on(async {
        let world = World::new("lists").await;
        let mut files = App::new("web").files("app");
        files.push(("app/config.yaml".into(), config_map("web", "1")));
        files.push(("app/secret.yaml".into(), sample::secret("web", "password", "p")));
        let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), Some(t.as_str()))).collect();
        let commit = world.repo.commit(&files, "six kinds");
        let mut agent = world.agent();
        world.sync("web", "app", &commit).await;
        assert!(agent.stop().success());

        let proxy = Proxy::to_api(&world.plane, 1).await;
        let lists = Match::method("GET")
            .query("labelSelector=")
            .when(|seen| !seen.query.contains("watch=true"));
        proxy.add(later(lists));
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.edit(&world.config_maps(), "web", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("web", "1").await;
        let is_list = |e: &Exchange| {
            let query = &e.request.query;
            query.contains("labelSelector=") && !query.contains("watch=true")
        };
        assert_eq!(at_once(&proxy, is_list), LISTS);
        let listed = proxy.exchanges().into_iter().filter(is_list).map(|e| e.request.path);
        assert_eq!(listed.collect::<BTreeSet<_>>().len(), 6);
    });
}
