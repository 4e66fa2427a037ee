//! What is done in a round: steps of the script, and the process under test.

use std::time::{Duration, Instant};

use plumb_testkit::{Agent, Fault, Hold, Match, Proxy, Rule, Scratch};
use serde_json::json;

use super::{HOME, LIMIT, Stand, Violations};
use crate::torture::broken::VARIABLE;
use crate::torture::faults::{self, Side, Trouble};
use crate::torture::hands::{self, Act};
use crate::torture::kinds::{APPLICATION, Key, Object};
use crate::torture::model::NAMESPACES;
use crate::torture::moves::Push;
use crate::torture::script::Step;
use crate::torture::turns::Turn;

/// What comes at all comes within this.
const SOON: Duration = Duration::from_secs(2);
/// Short, so that one is lost now and then, and waited for no longer than that.
const LEASE: &str = "6s";
/// In the query of a watch.
pub(super) const WATCH: &str = "watch=";
/// Time in which a watch tells of a change.
const MOMENT: Duration = Duration::from_millis(100);

/// Whether what is held has come.
async fn arrived(hold: &mut Hold) -> bool {
    tokio::time::timeout(SOON, hold.arrived(LIMIT)).await.is_ok()
}

impl Stand {
    /// Does one thing.
    pub(in crate::torture) async fn step(&mut self, step: &Step) -> Result<(), Violations> {
        let now = Instant::now();
        if self.thaw.is_some_and(|at| at <= now) {
            self.go_on();
        }
        if self.heal.is_some_and(|(_, at)| at <= now) {
            self.heal();
        }
        match step {
            Step::Push(push) => self.push(push),
            Step::Pause(time) => tokio::time::sleep(*time).await,
            Step::Hand(act) => self.hand(act).await?,
            Step::Turn(turn) => self.turn(*turn).await?,
            Step::Trouble(trouble) => self.trouble(trouble)?,
            Step::Ambush { push, app, first, other } => {
                self.ambush(push, *app, first, other).await?;
            }
        }
        Ok(())
    }

    /// Holds an apply and the status after it, if they come, and does what is to be done meanwhile.
    async fn ambush(
        &mut self,
        push: &Push,
        app: usize,
        first: &Key,
        other: &Object,
    ) -> Result<(), Violations> {
        let name = &self.model.apps[app].name;
        let object = format!("/{}/{}", first.kind.plural, first.name);
        let status = format!("/applications/{name}/status");
        let apply = Match::method("PATCH").when(move |seen| seen.path.ends_with(&object));
        let mut applied = self.api.hold_answer(apply);
        self.push(push);
        self.look_at_git().await?;
        // It does not come when something else is wrong; then this is a commit like others.
        if arrived(&mut applied).await {
            self.hand(&Act::Edit { object: other.clone(), deep: true }).await?;
            // The watch tells of it, or not.
            tokio::time::sleep(MOMENT).await;
            let mut told = self.api.hold_answer(Match::method("PATCH").path(&status));
            applied.release();
            if arrived(&mut told).await {
                return self.trouble(&Trouble::Kill { keeps_cache: true });
            }
        }
        Ok(())
    }

    /// Whether there is anything to do.
    pub(in crate::torture) fn is_about_something(&self, step: &Step) -> bool {
        match step {
            Step::Hand(Act::Approve { app }) => self.held.contains_key(app),
            _ => true,
        }
    }

    async fn turn(&mut self, turn: Turn) -> Result<(), Violations> {
        let person = self.hand.named("person");
        let suspend = async |app: usize, on: bool| {
            let app = &self.model.apps[app];
            let patch = json!({ "spec": { "suspend": on } });
            person.merge(APPLICATION, app.namespace, &app.name, &patch).await.map(drop)
        };
        let delete = async |app: usize| {
            let app = &self.model.apps[app];
            person.delete(APPLICATION, app.namespace, &app.name).await
        };
        let done = match turn {
            Turn::Suspend { app } => suspend(app, true).await,
            Turn::Resume { app } => suspend(app, false).await,
            Turn::Delete { app } => delete(app).await,
            Turn::Create { app } => return self.create(app).await,
            Turn::Rename { from, to } => {
                self.create(to).await?;
                delete(from).await
            }
        };
        done.map_err(|refused| vec![format!("{turn}: {refused}")])
    }

    async fn hand(&mut self, act: &Act) -> Result<(), Violations> {
        self.learn_ids();
        let world = (&self.model, self.ids.as_slice());
        hands::act(&self.hand, act, world, &self.held, &mut self.traces)
            .await
            .map_err(|refused| vec![format!("{act}: {refused}")])
    }

    fn proxy(&self, side: Side) -> &Proxy {
        match side {
            Side::Api => &self.api,
            Side::Git => &self.way,
        }
    }

    fn trouble(&mut self, trouble: &Trouble) -> Result<(), Violations> {
        match trouble {
            Trouble::Requests { side, which, fault, share, times } => {
                faults::arm(self.proxy(*side), *which, fault.clone(), *share, *times);
            }
            Trouble::Lag { lasts } => {
                let late = Rule::new(Match::any().query(WATCH), Fault::Lag(*lasts));
                self.api.add(late);
                self.late = true;
                // Those that are there are asked for anew.
                self.api.cut_open(&Match::any().query(WATCH));
            }
            Trouble::Cut(side) => {
                self.proxy(*side).cut_open(&Match::any());
            }
            Trouble::Partition { side, lasts } => {
                self.heal();
                self.proxy(*side).partition();
                self.heal = Some((*side, Instant::now() + *lasts));
            }
            Trouble::Kill { keeps_cache } | Trouble::Down { keeps_cache } => {
                self.alive()?;
                if let Some(mut agent) = self.agent.take() {
                    agent.kill9();
                    self.keep_log(&agent);
                }
                self.forget_cache |= !keeps_cache;
                if matches!(trouble, Trouble::Kill { .. }) {
                    self.start();
                }
            }
            Trouble::Stop { keeps_cache } => {
                self.go_on();
                self.alive()?;
                if let Some(mut agent) = self.agent.take() {
                    agent.sigterm();
                    let status = agent.wait(Duration::from_secs(30));
                    // Before its first line it does not listen to signals yet.
                    let awake = agent.logs().contains("\"starting\"");
                    self.keep_log(&agent);
                    if awake && !status.is_some_and(|status| status.success()) {
                        return Err(vec![format!("after SIGTERM it ended with {status:?}")]);
                    }
                }
                self.forget_cache |= !keeps_cache;
                self.start();
            }
            Trouble::Freeze { lasts } => {
                if let Some(agent) = &mut self.agent {
                    agent.sigstop();
                    self.thaw = Some(Instant::now() + *lasts);
                }
            }
        }
        Ok(())
    }

    /// It must not end by itself.
    pub(super) fn alive(&mut self) -> Result<(), Violations> {
        match self.agent.as_mut().and_then(Agent::ended) {
            Some(status) => Err(vec![format!("it ended by itself with {status}")]),
            None => Ok(()),
        }
    }

    fn keep_log(&mut self, agent: &Agent) {
        let log = agent.logs();
        self.log.push_str(log.get(self.read..).unwrap_or_default());
        self.read = 0;
        self.thaw = None;
    }

    pub(super) fn start(&mut self) {
        if std::mem::take(&mut self.forget_cache) {
            self.cache = Scratch::new("torture");
        }
        let cache = self.cache.path().join("cache").display().to_string();
        let mut builder = Agent::builder(&self.binary)
            .kubeconfig(&self.kubeconfig)
            .env("POD_NAMESPACE", HOME)
            .env("PLUMB_NAMESPACES", NAMESPACES.join(","))
            .env("PLUMB_METRICS_ADDR", "127.0.0.1:0")
            .env("PLUMB_LOG_FORMAT", "json")
            .env("PLUMB_LOG_LEVEL", "info,plumb_controller=debug")
            // Always the same pod: it may take its own lease at once.
            .args(["controller", "--identity", "torture", "--cache-dir", &cache])
            .args(["--lease-duration", LEASE]);
        if let Some(name) = &self.broken {
            builder = builder.env(VARIABLE, name);
        }
        self.agent = Some(builder.start());
        self.read = 0;
    }

    fn go_on(&mut self) {
        self.thaw = None;
        if let Some(agent) = &mut self.agent {
            agent.sigcont();
        }
    }

    fn heal(&mut self) {
        self.heal = None;
        self.api.heal();
        self.way.heal();
    }

    /// Nothing goes wrong any more.
    pub(super) fn calm(&mut self) {
        self.api.clear();
        self.way.clear();
        self.heal();
        self.go_on();
        if std::mem::take(&mut self.late) {
            self.api.cut_open(&Match::any().query(WATCH));
        }
        if self.agent.is_none() {
            self.start();
        }
    }
}
