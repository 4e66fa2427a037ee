//! Several electors, a store, and a network and processes that misbehave, in virtual time.

use super::*;

const PROCESSES: usize = 3;
const STEPS: usize = 10_000;

fn settings() -> Settings {
    Settings::new(Duration::from_secs(15), Duration::from_secs(5))
}

/// A request on its way.
#[derive(Debug, Clone)]
struct Request {
    sent: Instant,
    action: Action,
    /// When it reaches the store; `None` when it is lost before.
    arrives: Option<Duration>,
    /// How long its answer takes; `None` when it is lost.
    answer_takes: Option<Duration>,
    answer: Option<(Duration, Answer)>,
}

/// One replica with a monotonic clock of its own.
struct Process {
    name: String,
    elector: Elector,
    origin: Instant,
    /// How fast its clock runs, in thousandths. No machine is 2 % off; the margin must stand it.
    rate: u32,
    paused_until: Duration,
    /// Until then it does not reach the Lease, while its other requests go through.
    cut_off_until: Duration,
    request: Option<Request>,
    /// Its clients gave up on these, but they can still arrive.
    abandoned: Vec<Request>,
    /// When the last write that passed its gate ends.
    writing_until: Duration,
    writes: u32,
}

impl Process {
    fn new(name: &str, random: &mut fastrand::Rng) -> Self {
        Self {
            name: name.into(),
            elector: Elector::new(name, settings()),
            origin: Instant::now() + Duration::from_secs(random.u64(0..1_000_000)),
            rate: random.u32(980..=1020),
            paused_until: Duration::ZERO,
            cut_off_until: Duration::ZERO,
            request: None,
            abandoned: Vec::new(),
            writing_until: Duration::ZERO,
            writes: 0,
        }
    }

    /// What its clock shows at a moment of the simulation.
    fn clock(&self, now: Duration) -> Instant {
        self.origin + now * self.rate / 1000
    }
}

#[derive(Default)]
struct Store {
    lease: Option<Value>,
    version: u64,
}

impl Store {
    fn serve(&mut self, action: &Action) -> Answer {
        let Action::Write(claim) = action else {
            return Answer::Found(self.lease.clone().map(|lease| Record::parse(lease).unwrap()));
        };
        let known = self.lease.as_ref().map(|lease| &lease["metadata"]["resourceVersion"]);
        let expected = claim.replaces.as_ref().map(|record| json!(record.resource_version));
        if known != expected.as_ref() {
            return Answer::Conflict;
        }
        self.version += 1;
        let mut lease = claim.object(Timestamp::UNIX_EPOCH);
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease.clone());
        Answer::Written(Record::parse(lease).unwrap())
    }
}

struct World {
    random: fastrand::Rng,
    now: Duration,
    calm: bool,
    /// How often things go wrong, as a factor.
    chaos: f64,
    store: Store,
    processes: Vec<Process>,
    takeovers: u32,
    last_writer: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let processes = (0..PROCESSES)
            .map(|index| Process::new(&format!("pod-{index}"), &mut random))
            .collect();
        let chaos = 1.0 + 3.0 * random.f64();
        Self {
            random,
            now: Duration::ZERO,
            calm: false,
            chaos,
            store: Store::default(),
            processes,
            takeovers: 0,
            last_writer: 0,
        }
    }

    fn chance(&mut self, percent: f64) -> bool {
        !self.calm && self.random.f64() * 100.0 < percent * self.chaos
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.random.u64(1..=most))
    }

    fn step(&mut self) {
        let tick = self.millis(400);
        self.now += tick;
        for index in 0..self.processes.len() {
            self.deliver(index);
        }
        // In no fixed order, as on real machines.
        let first = self.random.usize(0..PROCESSES);
        for offset in 0..PROCESSES {
            let index = (first + offset) % PROCESSES;
            self.misbehave(index);
            if self.processes[index].paused_until <= self.now {
                self.elect(index);
                self.write(index);
            }
        }
    }

    /// Lets what has arrived by now reach the store.
    fn deliver(&mut self, index: usize) {
        let now = self.now;
        let process = &mut self.processes[index];
        let due = |request: &Request| {
            request.answer.is_none() && request.arrives.is_some_and(|arrives| arrives <= now)
        };
        for request in process.abandoned.iter().filter(|request| due(request)) {
            self.store.serve(&request.action);
        }
        process.abandoned.retain(|request| !due(request));
        if let Some(request) = process.request.as_mut().filter(|request| due(request)) {
            let answer = self.store.serve(&request.action);
            let (Some(arrived), Some(takes)) = (request.arrives, request.answer_takes) else {
                request.arrives = None;
                return;
            };
            request.answer = Some((arrived + takes, answer));
        }
    }

    /// Stops, kills, replaces or drains a process now and then.
    fn misbehave(&mut self, index: usize) {
        if self.chance(0.8) {
            // As SIGSTOP does, up to three times the lease.
            self.processes[index].paused_until = self.now + self.millis(45_000);
        }
        if self.chance(0.8) {
            self.processes[index].cut_off_until = self.now + self.millis(45_000);
        }
        if self.chance(0.1) {
            // The kubelet restarts the container: the same pod, the same name.
            let name = self.processes[index].name.clone();
            self.replace(index, &name);
        }
        if self.chance(0.1) {
            let name = format!("pod-{}", self.random.u32(100..));
            self.replace(index, &name);
        }
        let idle = self.processes[index].request.is_none()
            && self.processes[index].writing_until <= self.now
            && self.processes[index].paused_until <= self.now;
        if idle && self.chance(0.1) {
            // A graceful end: the lease is released when the last write has ended.
            if let Some(action @ Action::Write(_)) = self.processes[index].elector.release() {
                self.store.serve(&action);
            }
            let name = format!("pod-{}", self.random.u32(100..));
            self.replace(index, &name);
        }
    }

    /// Puts a new process in the place of one that was killed; what that had sent still arrives.
    fn replace(&mut self, index: usize, name: &str) {
        let mut new = Process::new(name, &mut self.random);
        let old = &mut self.processes[index];
        new.abandoned = std::mem::take(&mut old.abandoned);
        new.abandoned.extend(old.request.take());
        new.abandoned.retain(|request| request.answer.is_none());
        new.writes = old.writes;
        // The writes of a killed process end by themselves before the kubelet has started another.
        new.writing_until = old.writing_until;
        new.paused_until = old.writing_until;
        self.processes[index] = new;
    }

    fn elect(&mut self, index: usize) {
        let now = self.now;
        let process = &mut self.processes[index];
        let clock = process.clock(now);
        if let Some(request) = &process.request {
            let answer = match &request.answer {
                Some((at, answer)) if *at <= now => answer.clone(),
                _ if clock >= request.sent + settings().lease_timeout() => Answer::Failed,
                _ => return,
            };
            let (sent, action) = (request.sent, request.action.clone());
            let request = process.request.take();
            process.abandoned.extend(request.filter(|request| request.answer.is_none()));
            process.elector.apply(sent, clock, &action, answer);
        }
        let action = process.elector.decide(clock);
        if matches!(action, Action::Wait(_)) {
            return;
        }
        let slow = if self.chance(5.0) { 20_000 } else { 300 };
        let arrives = now + self.millis(slow);
        let takes = self.millis(slow);
        let cut_off = self.processes[index].cut_off_until > now;
        let (lost, unanswered) = (cut_off || self.chance(5.0), self.chance(5.0));
        self.processes[index].request = Some(Request {
            sent: clock,
            action,
            arrives: (!lost).then_some(arrives),
            answer_takes: (!unanswered).then_some(takes),
            answer: None,
        });
    }

    /// Writes to the cluster whenever the gate lets it.
    fn write(&mut self, index: usize) {
        let needs = settings().request_timeout;
        let takes = self.millis(u64::try_from(needs.as_millis()).unwrap());
        let process = &mut self.processes[index];
        let clock = process.clock(self.now);
        if process.elector.valid_until().is_none_or(|end| clock + needs > end) {
            return;
        }
        // The deadline is kept by the process's own clock.
        let end = self.now + takes * 1000 / process.rate;
        process.writing_until = process.writing_until.max(end);
        process.writes += 1;
        if self.last_writer != index {
            self.last_writer = index;
            self.takeovers += 1;
        }
        for (other, process) in self.processes.iter().enumerate() {
            assert!(
                other == index || process.writing_until <= self.now,
                "{} writes at {:?} while a write of {} is on its way until {:?}",
                self.processes[index].name,
                self.now,
                process.name,
                process.writing_until,
            );
        }
    }

    /// After a while without faults exactly one process leads.
    fn settle(&mut self) {
        self.calm = true;
        for process in &mut self.processes {
            process.paused_until = process.paused_until.min(self.now);
            process.cut_off_until = process.cut_off_until.min(self.now);
        }
        // A request hangs until its time-out, then the lease expires, then somebody looks.
        let settings = settings();
        let end = self.now
            + settings.lease_timeout()
            + 2 * (settings.duration + settings.duration / MARGIN + settings.period());
        while self.now < end {
            self.step();
        }
        let leading: Vec<&str> = self
            .processes
            .iter()
            .filter(|process| {
                let state = process.elector.state(process.clock(self.now));
                matches!(state, LeaderState::Leading { .. })
            })
            .map(|process| process.name.as_str())
            .collect();
        assert_eq!(leading.len(), 1, "{leading:?} lead at {:?}", self.now);
        self.calm = false;
    }
}

#[test]
fn two_never_write_at_once_and_one_always_leads_in_the_end() {
    let (mut writes, mut takeovers) = (0, 0);
    for seed in 0..12 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for step in 0..STEPS {
            world.step();
            if step % 500 == 499 {
                world.settle();
            }
        }
        writes += world.processes.iter().map(|it| it.writes).sum::<u32>();
        takeovers += world.takeovers;
    }
    println!("{writes} writes, {takeovers} takeovers");
    assert!(writes > 50_000, "hardly anything was put to the test");
    assert!(takeovers > 100, "hardly anything was put to the test");
}

/// With every fault off but the death of the leader, a standby leads within the lease's duration, the
/// margin and two looks.
#[test]
fn a_standby_takes_over_in_time() {
    for seed in 0..50 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.calm = true;
        world.settle();
        world.calm = true;
        let clock = |process: &Process, now| process.elector.state(process.clock(now));
        let leader = world
            .processes
            .iter()
            .position(|process| matches!(clock(process, world.now), LeaderState::Leading { .. }))
            .unwrap();
        world.processes[leader].paused_until = Duration::MAX;
        let died = world.now;
        let settings = settings();
        let limit = settings.duration + settings.duration / MARGIN + 2 * settings.look();
        while !world.processes.iter().enumerate().any(|(index, process)| {
            index != leader && matches!(clock(process, world.now), LeaderState::Leading { .. })
        }) {
            world.step();
            assert!(world.now < died + limit, "nobody leads {limit:?} later");
        }
    }
}
