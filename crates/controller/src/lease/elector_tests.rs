use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings::new(SECOND * 15, SECOND * 4)
}

fn record(version: u64, holder: &str, transitions: u64) -> Record {
    Record::parse(json!({
        "metadata": {"resourceVersion": version.to_string()},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "leaseTransitions": transitions,
        },
    }))
    .unwrap()
}

/// An elector named `me` on a clock of whole seconds.
struct Script {
    start: Instant,
    elector: Elector,
}

impl Script {
    fn new() -> Self {
        Self { start: Instant::now(), elector: Elector::new("me", settings()) }
    }

    fn at(&self, seconds: u32) -> Instant {
        self.start + SECOND * seconds
    }

    /// Sends what is to be sent at that second, and answers it in the same one.
    fn answer(&mut self, seconds: u32, answer: Answer) {
        let now = self.at(seconds);
        let action = self.elector.decide(now);
        assert!(!matches!(action, Action::Wait(_)), "{action:?}");
        self.elector.apply(now, now, &action, answer);
    }

    /// What is done at that second: `read`, `wait N` or `write HOLDER EPOCH over VERSION`.
    #[track_caller]
    fn expect(&self, seconds: u32, expected: &str) {
        let action = self.elector.decide(self.at(seconds));
        assert_eq!(told(&action, self.start), expected, "at {seconds} s");
    }

    #[track_caller]
    fn leads(&self, seconds: u32, epoch: Option<u64>) {
        let state = self.elector.state(self.at(seconds));
        let leading = match state {
            LeaderState::Leading { epoch } => Some(epoch),
            LeaderState::Standby { .. } => None,
        };
        assert_eq!(leading, epoch, "at {seconds} s");
    }
}

fn told(action: &Action, start: Instant) -> String {
    match action {
        Action::Read => "read".into(),
        Action::Wait(until) => format!("wait {}", (*until - start).as_secs_f32()),
        Action::Write(claim) => {
            let over = match &claim.replaces {
                Some(record) => record.resource_version.as_str(),
                None => "nothing",
            };
            let holder = if claim.holder.is_empty() { "nobody" } else { &claim.holder };
            format!("write {holder} {} over {over}", claim.transitions)
        }
    }
}

#[test]
fn the_first_process_creates_the_lease_and_renews_it() {
    let mut script = Script::new();
    script.expect(0, "read");
    script.answer(0, Answer::Found(None));
    script.expect(0, "write me 1 over nothing");
    script.answer(0, Answer::Written(record(10, "me", 1)));
    script.leads(0, Some(1));
    script.expect(1, "wait 5");
    script.expect(5, "write me 1 over 10");
    script.answer(5, Answer::Written(record(11, "me", 1)));
    script.leads(19, Some(1));
    script.leads(20, None);
    script.expect(9, "wait 10");
}

#[test]
fn a_lease_lasts_from_when_the_renewal_was_sent() {
    let mut script = Script::new();
    script.answer(0, Answer::Found(None));
    let action = script.elector.decide(script.at(0));
    let answer = Answer::Written(record(10, "me", 1));
    script.elector.apply(script.at(0), script.at(3), &action, answer);
    script.leads(14, Some(1));
    script.leads(15, None);

    // An answer that comes when the lease it grants is over grants nothing.
    let mut script = Script::new();
    script.answer(0, Answer::Found(None));
    let action = script.elector.decide(script.at(0));
    let answer = Answer::Written(record(10, "me", 1));
    script.elector.apply(script.at(0), script.at(40), &action, answer);
    script.leads(40, None);
    script.expect(40, "read");
    script.answer(40, Answer::Found(Some(record(10, "me", 1))));
    script.expect(40, "write me 2 over 10");
}

#[test]
fn a_standby_waits_for_the_duration_and_a_twentieth_since_the_last_change() {
    let mut script = Script::new();
    script.answer(0, Answer::Found(Some(record(10, "other", 7))));
    script.expect(0, "wait 7.5");
    // It is told that somebody wrote it.
    script.elector.changed();
    script.expect(3, "read");
    script.answer(3, Answer::Found(Some(record(11, "other", 7))));
    script.expect(11, "read");
    script.answer(11, Answer::Found(Some(record(11, "other", 7))));
    script.expect(18, "wait 18.5");
    // Seen at 3, 15 s of lease, three quarters of a second for clocks that differ.
    script.expect(24, "write me 8 over 11");
    script.leads(24, None);
    script.answer(24, Answer::Written(record(12, "me", 8)));
    script.leads(24, Some(8));
}

#[test]
fn what_the_record_says_counts_not_our_own_settings() {
    let mut script = Script::new();
    let mut long = record(10, "other", 7);
    long.duration = Some(SECOND * 60);
    script.answer(0, Answer::Found(Some(long)));
    for look in (8..60).step_by(8) {
        let mut long = record(10, "other", 7);
        long.duration = Some(SECOND * 60);
        script.answer(look, Answer::Found(Some(long)));
    }
    script.expect(59, "wait 63");
    script.expect(63, "write me 8 over 10");
}

#[test]
fn a_free_lease_and_our_own_are_taken_at_once() {
    for (holder, found) in [("", 7), ("me", 7)] {
        let mut script = Script::new();
        script.answer(0, Answer::Found(Some(record(10, holder, found))));
        script.expect(0, "write me 8 over 10");
        script.answer(0, Answer::Written(record(11, "me", 8)));
        script.leads(0, Some(8));
    }
}

#[test]
fn a_lost_race_is_a_standby() {
    let mut script = Script::new();
    script.answer(0, Answer::Found(Some(record(10, "", 7))));
    script.answer(0, Answer::Conflict);
    script.leads(0, None);
    script.expect(0, "wait 1.25");
    script.expect(2, "read");
    script.answer(2, Answer::Found(Some(record(11, "other", 8))));
    script.expect(2, "wait 9.5");
    let holder = Some("other".to_owned());
    let state = script.elector.state(script.at(2));
    assert_eq!(state, LeaderState::Standby { holder });
}

#[test]
fn a_renewal_whose_answer_is_lost_goes_on_with_the_same_epoch() {
    let mut script = Script::new();
    script.answer(0, Answer::Found(None));
    script.answer(0, Answer::Written(record(10, "me", 1)));
    script.answer(5, Answer::Failed);
    script.expect(5, "wait 6.25");
    script.expect(7, "write me 1 over 10");
    script.answer(7, Answer::Conflict);
    script.expect(7, "read");
    script.answer(7, Answer::Found(Some(record(11, "me", 1))));
    script.expect(7, "write me 1 over 11");
    script.answer(7, Answer::Written(record(12, "me", 1)));
    script.leads(21, Some(1));
}

#[test]
fn a_holder_that_cannot_renew_stands_by_and_takes_its_own_lease_again() {
    let mut script = Script::new();
    script.answer(0, Answer::Found(None));
    script.answer(0, Answer::Written(record(10, "me", 1)));
    for second in [5, 7, 9, 11, 13] {
        script.answer(second, Answer::Failed);
        script.leads(second, Some(1));
    }
    script.leads(15, None);
    script.answer(15, Answer::Failed);
    script.expect(15, "wait 20");
    script.expect(20, "read");
    script.answer(20, Answer::Found(Some(record(10, "me", 1))));
    script.expect(20, "write me 2 over 10");
}

#[test]
fn a_holder_that_stood_still_past_its_lease_reads_before_it_writes() {
    for (holder, epoch, next) in
        [("other", 2, "wait 47.5"), ("me", 1, "write me 2 over 20"), ("", 2, "write me 3 over 20")]
    {
        let mut script = Script::new();
        script.answer(0, Answer::Found(None));
        script.answer(0, Answer::Written(record(10, "me", 1)));
        script.leads(40, None);
        script.expect(40, "read");
        script.answer(40, Answer::Found(Some(record(20, holder, epoch))));
        script.leads(40, None);
        script.expect(40, next);
    }
}

#[test]
fn a_holder_that_sees_another_in_its_place_stands_by_at_once() {
    for (holder, epoch) in [("other", 2), ("me", 2), ("", 1)] {
        let mut script = Script::new();
        script.answer(0, Answer::Found(None));
        script.answer(0, Answer::Written(record(10, "me", 1)));
        script.answer(5, Answer::Conflict);
        script.leads(5, Some(1));
        script.expect(5, "read");
        script.answer(5, Answer::Found(Some(record(20, holder, epoch))));
        script.leads(5, None);
        // Somebody else who goes by our name is waited for like any other.
        let next = if holder.is_empty() { "write me 2 over 20" } else { "wait 12.5" };
        script.expect(5, next);
    }
}

#[test]
fn a_deleted_lease_is_created_by_its_holder_and_waited_for_by_others() {
    let mut script = Script::new();
    script.answer(0, Answer::Found(Some(record(10, "", 7))));
    script.answer(0, Answer::Written(record(11, "me", 8)));
    script.answer(5, Answer::Conflict);
    script.answer(5, Answer::Found(None));
    script.leads(5, Some(8));
    script.expect(5, "write me 9 over nothing");

    let mut script = Script::new();
    script.answer(0, Answer::Found(Some(record(10, "other", 7))));
    script.answer(8, Answer::Found(None));
    script.expect(8, "wait 23.75");
    script.expect(24, "write me 8 over nothing");
    script.answer(24, Answer::Conflict);
    script.expect(26, "read");
}

#[test]
fn a_release_empties_the_lease_and_only_our_own() {
    let mut script = Script::new();
    assert_eq!(script.elector.release(), None, "nothing is known");
    script.answer(0, Answer::Found(Some(record(10, "other", 7))));
    assert_eq!(script.elector.release(), None, "another holds it");

    let mut script = Script::new();
    script.answer(0, Answer::Found(None));
    script.answer(0, Answer::Written(record(10, "me", 1)));
    let (start, now) = (script.start, script.at(1));
    let release = script.elector.release().unwrap();
    assert_eq!(told(&release, start), "write nobody 1 over 10");
    script.leads(1, None);
    script.elector.apply(now, now, &release, Answer::Conflict);
    let release = script.elector.release().unwrap();
    assert_eq!(release, Action::Read);
    let found = Answer::Found(Some(record(11, "me", 1)));
    script.elector.apply(now, now, &release, found);
    let release = script.elector.release().unwrap();
    assert_eq!(told(&release, start), "write nobody 1 over 11");
    let written = Answer::Written(record(12, "", 1));
    script.elector.apply(now, now, &release, written);
    assert_eq!(script.elector.release(), None);
}

#[test]
fn a_claim_keeps_what_others_wrote() {
    let found = Record::parse(json!({
        "metadata": {"name": "plumb", "resourceVersion": "7", "labels": {"team": "a"}},
        "spec": {"holderIdentity": "other", "acquireTime": "2020-01-01T00:00:00.000000Z"},
    }))
    .unwrap();
    let mut claim = Claim {
        replaces: Some(found),
        holder: "me".into(),
        duration: SECOND * 15,
        transitions: 1,
        acquires: false,
    };
    let wall: Timestamp = "2026-01-02T03:04:05.6Z".parse().unwrap();
    let object = claim.object(wall);
    assert_eq!(
        object,
        json!({
            "metadata": {"name": "plumb", "resourceVersion": "7", "labels": {"team": "a"}},
            "spec": {
                "holderIdentity": "me",
                "leaseDurationSeconds": 15,
                "leaseTransitions": 1,
                "acquireTime": "2020-01-01T00:00:00.000000Z",
                "renewTime": "2026-01-02T03:04:05.600000Z",
            },
        })
    );
    claim.acquires = true;
    claim.replaces = None;
    let object = claim.object(wall);
    assert_eq!(object["metadata"], json!({"name": "plumb"}));
    assert_eq!(object["spec"]["acquireTime"], object["spec"]["renewTime"]);
}

#[test]
fn settings_keep_their_proportions() {
    let settings = Settings::new(Duration::from_millis(2500), SECOND * 30);
    assert_eq!(settings.duration, SECOND * 3);
    assert_eq!(settings.request_timeout, SECOND * 3 / 2);
    assert_eq!(settings.period(), SECOND);
}
