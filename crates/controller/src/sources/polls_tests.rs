use plumb_core::ErrorClass;

use super::*;

/// `host/repository`, or with who asks for it `host/repository@who`.
fn way(text: &str) -> Way {
    let (host, mirror) = text.split_once('/').unwrap();
    let place = mirror.split('@').next().unwrap();
    Way { host: host.into(), mirror: mirror.into(), place: place.into() }
}

fn problem(text: &str) -> Problem {
    Problem { reason: "Timeout".into(), message: text.into(), class: ErrorClass::Retry }
}

/// A machine, and a clock that counts seconds.
struct Stand {
    polls: Polls,
    start: Instant,
    now: u64,
}

impl Stand {
    fn new() -> Self {
        Self { polls: Polls::default(), start: Instant::now(), now: 1000 }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    /// A look of an object, which counts news from `since` on. What is told is its message.
    fn enter(&mut self, who: &str, way_of: &str, since: u64) -> Result<bool, String> {
        self.enter_in(Lane::Routine, who, way_of, since)
    }

    fn enter_in(
        &mut self,
        lane: Lane,
        who: &str,
        way_of: &str,
        since: u64,
    ) -> Result<bool, String> {
        let (who, way) = (Name::new("ns", who), way(way_of));
        let ask = Ask { who: &who, way: &way, since: self.at(since), lane };
        let now = self.at(self.now);
        match self.polls.enter(&ask, now) {
            Turn::Go => Ok(true),
            Turn::Park => Ok(false),
            Turn::Told(told) => Err(told.problem.message),
        }
    }

    /// The look that began at a second leaves; those that are called then.
    fn leave(&mut self, way_of: &str, began: u64, verdict: Verdict) -> Vec<String> {
        let (began, now) = (self.at(began), self.at(self.now));
        self.polls.leave(&way(way_of), began, verdict, now);
        self.called()
    }

    fn called(&mut self) -> Vec<String> {
        self.polls.take_called().into_iter().map(|(name, _)| name.name.to_string()).collect()
    }

    fn waited_for(&mut self) -> usize {
        let now = self.at(self.now);
        self.polls.waited_for(now)
    }
}

const GO: Result<bool, String> = Ok(true);
const PARK: Result<bool, String> = Ok(false);

#[test]
fn a_repository_is_looked_at_by_one_at_a_time_and_a_server_by_few() {
    let mut stand = Stand::new();
    assert_eq!(stand.enter("a", "host/1", 0), GO);
    assert_eq!(stand.enter("b", "host/1", 0), PARK);
    assert_eq!(stand.enter("b", "host/1", 0), PARK, "asked for again: still one");
    for mirror in 2..=PLACES {
        assert_eq!(stand.enter(&format!("m{mirror}"), &format!("host/{mirror}"), 0), GO);
    }
    assert_eq!(stand.enter("c", "host/more", 0), PARK);
    assert_eq!(stand.enter("d", "other/1", 0), GO, "another server is not held up");
    assert_eq!(stand.leave("host/2", 1000, Verdict::Answered), ["c"], "b's is still looked at");
    assert_eq!(stand.enter("e", "host/3", 0), PARK);
    assert_eq!(stand.enter("f", "host/many", 0), PARK, "the place is c's");
    assert_eq!(stand.enter("c", "host/more", 0), GO);
    assert_eq!(stand.leave("host/1", 1000, Verdict::Answered), ["b"], "the longest waiting first");
    assert_eq!(stand.enter("b", "host/1", 0), GO);
    assert_eq!(stand.leave("host/1", 1000, Verdict::Answered), ["f"]);
    assert_eq!(stand.leave("host/3", 1000, Verdict::Answered), ["e"]);
}

#[test]
fn what_is_asked_for_comes_before_what_is_due() {
    let mut stand = Stand::new();
    assert_eq!(stand.enter("a", "host/1", 0), GO);
    assert_eq!(stand.enter("due", "host/1", 0), PARK);
    assert_eq!(stand.enter("other", "host/1", 0), PARK);
    assert_eq!(stand.enter_in(Lane::Urgent, "asked", "host/1", 0), PARK);
    assert_eq!(stand.enter_in(Lane::Urgent, "other", "host/1", 0), PARK, "it is asked for now");
    for next in ["other", "asked", "due"] {
        assert_eq!(stand.leave("host/1", 1000, Verdict::Answered), [next]);
        assert_eq!(stand.enter(next, "host/1", 0), GO);
    }
}

#[test]
fn a_place_that_is_not_taken_up_goes_to_the_next() {
    let mut stand = Stand::new();
    assert_eq!(stand.enter("a", "host/1", 0), GO);
    for who in ["gone", "moved", "parked", "b"] {
        assert_eq!(stand.enter(who, "host/1", 0), PARK);
    }
    let now = stand.at(1000);
    stand.polls.withdraw(&Name::new("ns", "parked"), now);
    assert_eq!(stand.leave("host/1", 1000, Verdict::Answered), ["gone"]);
    stand.polls.give_back(&Name::new("ns", "gone"), now);
    assert_eq!(stand.called(), ["moved"]);
    assert_eq!(stand.enter("moved", "host/2", 0), GO, "its url is another one now");
    assert_eq!(stand.called(), ["b"]);
    assert_eq!(stand.enter("later", "host/1", 0), PARK);
    stand.polls.give_back(&Name::new("ns", "later"), now);
    assert_eq!(stand.called(), [""; 0], "it was not called, and waits on");
    // After a change of leaders all look anew, and those that are under way still are.
    stand.polls.clear();
    assert_eq!(stand.enter("c", "host/1", 0), GO);
    assert_eq!(stand.enter("d", "host/2", 0), PARK);
}

#[test]
fn one_repository_that_is_silent_speaks_for_itself_and_two_for_the_server() {
    let mut stand = Stand::new();
    for (who, mirror) in [("a", "host/1"), ("b", "host/2"), ("c", "host/3")] {
        assert_eq!(stand.enter(who, mirror, 0), GO);
    }
    for (who, mirror) in [("a2", "host/1"), ("d", "host/4"), ("e", "host/5")] {
        assert_eq!(stand.enter(who, mirror, 0), if mirror == "host/4" { GO } else { PARK });
    }
    stand.now = 1060;
    let silent = || Verdict::Silent(problem("no answer"));
    // Those of the repository are told. Nobody else comes in while three are still under way.
    assert_eq!(stand.leave("host/1", 1000, silent()), ["a2"]);
    assert_eq!(stand.enter("a2", "host/1", 900), Err("no answer".into()));
    assert_eq!(stand.waited_for(), 1);
    assert_eq!(stand.enter("f", "host/6", 900), PARK);
    // A second one is no accident: all are told that asked before.
    assert_eq!(stand.leave("host/2", 1000, silent()), ["e", "f"]);
    for (who, mirror) in [("e", "host/5"), ("f", "host/6"), ("g", "host/7")] {
        assert_eq!(stand.enter(who, mirror, 900), Err("no answer".into()), "{who}");
    }
    for mirror in ["host/3", "host/4"] {
        assert_eq!(stand.leave(mirror, 1000, silent()), [""; 0]);
    }
    // Who asks later tries, one at a time.
    stand.now = 1070;
    assert_eq!(stand.enter("e", "host/5", 1001), GO);
    assert_eq!(stand.enter("f", "host/6", 1001), PARK);
    assert_eq!(stand.enter("g", "host/7", 1001), PARK);
    stand.now = 1080;
    assert_eq!(stand.leave("host/5", 1070, silent()), ["f", "g"], "nor do they get an answer");
    assert_eq!(stand.enter("f", "host/6", 1001), Err("no answer".into()));
    // A person asks, and it is there again: so is everything else.
    assert_eq!(stand.enter("f", "host/6", 1080), GO);
    for mirror in ["1", "2", "3"] {
        assert_eq!(stand.enter(mirror, &format!("host/{mirror}"), 1080), PARK);
    }
    assert_eq!(stand.leave("host/6", 1080, Verdict::Answered), ["1", "2", "3"]);
    assert_eq!(stand.waited_for(), 0);
}

#[test]
fn a_slow_repository_holds_no_other_one_back() {
    let mut stand = Stand::new();
    for round in 0..3 {
        let began = 1000 + 100 * round;
        stand.now = began;
        assert_eq!(stand.enter("slow", "host/slow", began), GO);
        stand.now += 60;
        let verdict = Verdict::Silent(problem("no answer"));
        assert_eq!(stand.leave("host/slow", began, verdict), [""; 0]);
        assert_eq!(stand.enter("good", "host/good", began), GO, "not told what is another's");
        assert_eq!(stand.leave("host/good", began + 60, Verdict::Answered), [""; 0]);
        assert_eq!(stand.waited_for(), 0);
    }
}

#[test]
fn what_nobody_gets_through_to_is_told_to_all_for_a_while() {
    let mut stand = Stand::new();
    assert_eq!(stand.enter("a", "host/1", 0), GO);
    assert_eq!(stand.leave("host/1", 1000, Verdict::Unreachable(problem("refused"))), [""; 0]);
    assert_eq!(stand.enter("b", "host/2", 1000), Err("refused".into()));
    assert_eq!(stand.enter("c", "other/2", 1000), GO);
    stand.now += FRESH.as_secs();
    assert_eq!(stand.enter("b", "host/2", 1000), GO, "that was long ago");
    assert_eq!(stand.leave("host/2", 1000, Verdict::Nothing), [""; 0]);
    assert_eq!(stand.waited_for(), 1, "still");
    stand.now += FORGOTTEN.as_secs();
    assert_eq!(stand.waited_for(), 0, "nobody asks it any more");
}

#[test]
fn what_a_repository_is_refused_for_is_told_to_those_of_it() {
    let mut stand = Stand::new();
    assert_eq!(stand.enter("a", "host/1", 1000), GO);
    assert_eq!(stand.enter("b", "host/1", 1000), PARK);
    let verdict = Verdict::Refused(problem("wrong password"));
    assert_eq!(stand.leave("host/1", 1000, verdict), ["b"]);
    assert_eq!(stand.enter("b", "host/1", 1000), Err("wrong password".into()));
    assert_eq!(stand.enter("c", "host/2", 1000), GO, "the server answers");
    assert_eq!(stand.waited_for(), 0);
    assert_eq!(stand.enter("b", "host/1", 1001), GO, "its next try");
    assert_eq!(stand.leave("host/1", 1001, Verdict::Answered), [""; 0]);
    assert_eq!(stand.enter("c", "host/1", 1000), GO);
}

#[test]
fn a_server_that_asks_to_wait_is_asked_by_nobody_until_then_and_by_one_first() {
    let mut stand = Stand::new();
    for (who, mirror) in [("a", "host/1"), ("b", "host/2")] {
        assert_eq!(stand.enter(who, mirror, 0), GO);
    }
    assert_eq!(stand.enter("a2", "host/1", 0), PARK);
    let pause = |stand: &Stand, until| Verdict::Pause(problem("wait"), stand.at(until));
    let verdict = pause(&stand, 1100);
    assert_eq!(stand.leave("host/1", 1000, verdict), ["a2"]);
    assert_eq!(stand.enter("a2", "host/1", 0), Err("wait".into()));
    // One that was under way got its answer: what the server said stands all the same. So it does when
    // another one is told a shorter time.
    let verdict = pause(&stand, 1050);
    for verdict in [Verdict::Answered, verdict] {
        assert_eq!(stand.leave("host/2", 1000, verdict), [""; 0]);
        stand.now = 1099;
        assert_eq!(stand.enter_in(Lane::Urgent, "b", "host/2", 1099), Err("wait".into()));
        stand.now = 1000;
    }
    assert_eq!(stand.waited_for(), 1);
    stand.now = 1100;
    assert_eq!(stand.enter("a", "host/1", 1050), GO);
    assert_eq!(stand.enter("b", "host/2", 1050), PARK);
    assert_eq!(stand.leave("host/1", 1100, Verdict::Answered), ["b"]);
    assert_eq!(stand.enter("b", "host/2", 1050), GO);
    assert_eq!(stand.enter("a", "host/1", 1050), GO);
    assert_eq!(stand.waited_for(), 0);
}

#[test]
fn those_who_are_asked_for_again_and_again_leave_some_turns_to_those_that_are_due() {
    let mut stand = Stand::new();
    assert_eq!(stand.enter("a", "host/1", 0), GO);
    assert_eq!(stand.enter("due", "host/1", 0), PARK);
    let mut turns = Vec::new();
    for round in 0..5 {
        let asked = format!("asked-{round}");
        assert_eq!(stand.enter_in(Lane::Urgent, &asked, "host/1", 0), PARK);
        let next = stand.leave("host/1", 1000, Verdict::Answered);
        assert_eq!(stand.enter(&next[0], "host/1", 0), GO);
        turns.extend(next);
    }
    assert_eq!(turns, ["asked-0", "asked-1", "asked-2", "due", "asked-3"]);
}

#[test]
fn one_slow_repository_that_two_ask_for_does_not_speak_for_the_server() {
    let mut stand = Stand::new();
    for who in ["ada", "bob"] {
        assert_eq!(stand.enter(who, &format!("host/slow@{who}"), 1000), GO);
        let verdict = Verdict::Silent(problem("no answer"));
        assert_eq!(stand.leave(&format!("host/slow@{who}"), 1000, verdict), [""; 0]);
    }
    assert_eq!(stand.enter("other", "host/other", 1000), GO);
}

#[test]
fn who_asks_too_often_is_put_off_and_nobody_else() {
    let mut stand = Stand::new();
    assert_eq!(stand.enter("a", "host/1@ada", 1000), GO);
    let verdict = Verdict::PauseOne(problem("too many requests"), stand.at(4000));
    assert_eq!(stand.leave("host/1@ada", 1000, verdict), [""; 0]);
    stand.now = 3999;
    // Also when a person asks, and however long ago it was that anybody did.
    assert_eq!(stand.waited_for(), 0);
    let told = stand.enter_in(Lane::Urgent, "a", "host/1@ada", 3999);
    assert_eq!(told, Err("too many requests".into()));
    assert_eq!(stand.enter("b", "host/1@bob", 3999), GO);
    assert_eq!(stand.enter("c", "host/2@ada", 3999), GO);
    stand.now = 4000;
    assert_eq!(stand.enter("a", "host/1@ada", 3999), GO);
}
