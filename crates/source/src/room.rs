//! How much of the disk all mirrors together take, and what makes room when that is too much. Pure:
//! sizes are measured, and what is decided is done, by [`crate::Mirrors`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Included, Unbounded};

/// What may lie around in one mirror, beside as much again as it needs, before its packs are made one:
/// less is not worth reading all of it.
const SLACK: u64 = 16 << 20;

/// When a mirror was last used. What this process has not used comes before all that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Used {
    /// Last changed by an earlier process, in seconds since 1970.
    Before(u64),
    /// By this one, counted.
    Now(u64),
}

/// Who is named by somebody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Mirrors.
    pub(crate) ids: BTreeSet<String>,
    /// What the ids of mirrors begin with: all that lies at one URL, whoever asks for it.
    pub(crate) places: BTreeSet<String>,
}

impl Names {
    pub(crate) fn has(&self, id: &str) -> bool {
        // The greatest that is not after it is the only one that it can begin with: all are of one
        // length.
        let place = self.places.range::<str, _>((Unbounded, Included(id))).next_back();
        self.ids.contains(id) || place.is_some_and(|place| id.starts_with(place.as_str()))
    }
}

/// What makes room next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// There is enough.
    Enough,
    /// Make the packs of this mirror one: commits were let go that still lie in them.
    Pack(String),
    /// Remove this mirror: nobody names it.
    Evict(String),
    /// Nothing is left that may go.
    Full,
}

/// One mirror.
#[derive(Debug)]
struct Held {
    bytes: u64,
    used: Used,
    /// What it took when its packs were made one last.
    packed: u64,
    /// Whether something may lie in it that was let go since.
    loose: bool,
}

/// The mirrors and what they take.
#[derive(Debug)]
pub(crate) struct Room {
    limit: Option<u64>,
    held: BTreeMap<String, Held>,
    /// The sum of all that is held.
    total: u64,
    /// What came in with fetches under way.
    incoming: u64,
    uses: u64,
    /// Unknown until somebody has said it, and found out at this count of uses: what was used since may
    /// have been named since.
    named: Option<(Names, u64)>,
}

impl Room {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, held: BTreeMap::new(), total: 0, incoming: 0, uses: 0, named: None }
    }

    /// Takes in a mirror that an earlier process has left.
    pub(crate) fn found(&mut self, id: &str, bytes: u64, changed: u64, loose: bool) {
        let used = Used::Before(changed);
        self.forget(id);
        self.total += bytes;
        self.held.insert(id.to_owned(), Held { bytes, used, packed: 0, loose });
    }

    /// A mirror is used. One that is not known takes nothing yet.
    pub(crate) fn touch(&mut self, id: &str) {
        if let Some(held) = self.held.get_mut(id) {
            self.uses += 1;
            held.used = Used::Now(self.uses);
        }
    }

    /// What a mirror takes now.
    pub(crate) fn measured(&mut self, id: &str, bytes: u64) {
        self.uses += 1;
        let used = Used::Now(self.uses);
        let held = self.held.entry(id.to_owned()).or_insert(Held {
            bytes: 0,
            used,
            packed: 0,
            loose: false,
        });
        self.total = self.total - held.bytes + bytes;
        held.bytes = bytes;
    }

    /// Commits of a mirror were let go.
    pub(crate) fn loosened(&mut self, id: &str) {
        if let Some(held) = self.held.get_mut(id) {
            held.loose = true;
        }
    }

    /// A mirror's packs were made one, after which it takes so much.
    pub(crate) fn packed(&mut self, id: &str, bytes: u64) {
        self.measured(id, bytes);
        if let Some(held) = self.held.get_mut(id) {
            held.packed = bytes;
            held.loose = false;
        }
    }

    /// A mirror is gone.
    pub(crate) fn forget(&mut self, id: &str) {
        if let Some(held) = self.held.remove(id) {
            self.total -= held.bytes;
        }
    }

    /// How often mirrors were used so far.
    pub(crate) fn uses(&self) -> u64 {
        self.uses
    }

    /// Who was named when mirrors had been used so often.
    pub(crate) fn name(&mut self, names: Names, uses: u64) {
        self.named = Some((names, uses));
    }

    /// Whether it is known that nobody names a mirror.
    pub(crate) fn is_unnamed(&self, id: &str) -> bool {
        self.named.as_ref().is_some_and(|(names, uses)| {
            let used_since = |held: &Held| held.used > Used::Now(*uses);
            !names.has(id) && !self.held.get(id).is_some_and(used_since)
        })
    }

    /// Whether it is worth making a mirror's packs one although there are few of them.
    pub(crate) fn is_wasteful(&self, id: &str) -> bool {
        let held = self.held.get(id);
        held.is_some_and(|held| held.loose && held.bytes > 2 * held.packed + SLACK)
    }

    /// How many mirrors there are.
    pub(crate) fn count(&self) -> usize {
        self.held.len()
    }

    /// What all of them take, with what is coming in.
    pub(crate) fn taken(&self) -> u64 {
        self.total + self.incoming
    }

    /// Lets so many bytes in, until they are given back. When that is too much it lets none in, and
    /// tells what is taken, and the limit.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<(), (u64, u64)> {
        match self.limit {
            Some(limit) if self.taken() + bytes > limit => Err((self.taken(), limit)),
            _ => {
                self.incoming += bytes;
                Ok(())
            }
        }
    }

    /// What came in is held and measured, or was thrown away.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.incoming -= bytes;
    }

    /// What to do for so many bytes more, or for as many as there can be, but for what was tried already. What was let go comes first,
    /// from the largest mirror on; then mirrors that nobody names, from the one on that was used longest
    /// ago. What is named stays whatever the limit is, and all of it as long as nobody has said what is.
    pub(crate) fn next(&self, bytes: Option<u64>, tried: &BTreeSet<Step>) -> Step {
        let enough =
            |bytes| self.limit.is_none_or(|limit| self.taken().saturating_add(bytes) <= limit);
        if bytes.is_some_and(enough) {
            return Step::Enough;
        }
        let left = |step: &Step| !tried.contains(step);
        let mut loose: Vec<_> = self.held.iter().filter(|(_, held)| held.loose).collect();
        loose.sort_by_key(|(_, held)| std::cmp::Reverse(held.bytes));
        let pack = loose.into_iter().map(|(id, _)| Step::Pack(id.clone())).find(left);
        if let Some(step) = pack {
            return step;
        }
        let mut free: Vec<_> = self.held.iter().filter(|(id, _)| self.is_unnamed(id)).collect();
        free.sort_by_key(|(_, held)| held.used);
        let evict = free.into_iter().map(|(id, _)| Step::Evict(id.clone())).find(left);
        evict.unwrap_or(Step::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ids: &[&str], places: &[&str]) -> Names {
        let set = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Names { ids: set(ids), places: set(places) }
    }

    /// Does what is decided, as if packing a mirror left half of it, and lists it.
    fn steps(room: &mut Room, bytes: Option<u64>) -> Vec<Step> {
        let mut tried = BTreeSet::new();
        let mut all = Vec::new();
        loop {
            let step = room.next(bytes, &tried);
            all.push(step.clone());
            match &step {
                Step::Enough | Step::Full => return all,
                Step::Pack(id) => {
                    let half = room.held[id].bytes / 2;
                    room.packed(id, half);
                }
                Step::Evict(id) => room.forget(id),
            }
            tried.insert(step);
        }
    }

    fn pack(id: &str) -> Step {
        Step::Pack(id.into())
    }

    fn evict(id: &str) -> Step {
        Step::Evict(id.into())
    }

    /// Five mirrors of 10, 20, 30, 40 and 50 bytes; `d1` and `b1` are loose; used from `e1` to `a1`.
    fn five(limit: Option<u64>) -> Room {
        let mut room = Room::new(limit);
        for (n, id) in ["a1", "b1", "c1", "d1", "e1"].into_iter().enumerate() {
            let loose = matches!(id, "b1" | "d1");
            let bytes = 10 * (n as u64 + 1);
            room.found(id, bytes, 100 - bytes, loose);
        }
        assert_eq!((room.taken(), room.count()), (150, 5));
        room
    }

    #[test]
    fn room_is_made_in_order_and_never_from_what_is_named() {
        let none = || names(&[], &[]);
        let all = || names(&["a1", "b1", "c1"], &["d", "e"]);
        let cases = [
            ("no limit", None, Some(1_000), Some(none()), vec![Step::Enough]),
            (
                "a full disk, whatever the limit",
                None,
                None,
                Some(all()),
                vec![pack("d1"), pack("b1"), Step::Full],
            ),
            ("room enough", Some(160), Some(10), Some(none()), vec![Step::Enough]),
            (
                "the largest of what was let go",
                Some(150),
                Some(20),
                Some(none()),
                vec![pack("d1"), Step::Enough],
            ),
            (
                "all that was let go before any mirror",
                Some(150),
                Some(30),
                Some(none()),
                vec![pack("d1"), pack("b1"), Step::Enough],
            ),
            (
                "what was used longest ago",
                Some(150),
                Some(40),
                Some(none()),
                vec![pack("d1"), pack("b1"), evict("e1"), Step::Enough],
            ),
            (
                "what is named stays",
                Some(150),
                Some(40),
                Some(names(&["e1"], &["d"])),
                vec![pack("d1"), pack("b1"), evict("c1"), Step::Enough],
            ),
            (
                "nothing that is named",
                Some(150),
                Some(40),
                Some(all()),
                vec![pack("d1"), pack("b1"), Step::Full],
            ),
            (
                "nothing before it is known who is named",
                Some(150),
                Some(40),
                None,
                vec![pack("d1"), pack("b1"), Step::Full],
            ),
            (
                "more than there can be",
                Some(150),
                Some(u64::MAX),
                Some(none()),
                vec![
                    pack("d1"),
                    pack("b1"),
                    evict("e1"),
                    evict("d1"),
                    evict("c1"),
                    evict("b1"),
                    evict("a1"),
                    Step::Full,
                ],
            ),
        ];
        for (what, limit, bytes, named, want) in cases {
            let mut room = five(limit);
            if let Some(named) = named {
                room.name(named, 0);
            }
            assert_eq!(steps(&mut room, bytes), want, "{what}");
        }
    }

    #[test]
    fn what_was_used_by_this_process_goes_last() {
        let mut room = five(Some(10));
        room.touch("e1");
        room.touch("d1");
        room.measured("new", 5);
        room.touch("e1");
        room.touch("gone");
        room.name(names(&[], &[]), room.uses());
        let order: Vec<Step> = steps(&mut room, Some(10));
        let evicted: Vec<Step> =
            order.into_iter().filter(|step| matches!(step, Step::Evict(_))).collect();
        assert_eq!(evicted, ["c1", "b1", "a1", "d1", "new", "e1"].map(evict));
        assert_eq!((room.taken(), room.count()), (0, 0));
    }

    #[test]
    fn what_was_used_since_it_was_asked_who_is_named_may_be_named() {
        let mut room = five(Some(10));
        room.touch("e1");
        let uses = room.uses();
        room.touch("d1");
        room.measured("new", 5);
        room.name(names(&["a1"], &[]), uses);
        let unnamed = ["a1", "b1", "c1", "d1", "e1", "new"].map(|id| room.is_unnamed(id));
        assert_eq!(unnamed, [false, true, true, false, true, false]);
        room.name(names(&[], &["a"]), room.uses());
        let unnamed = ["a1", "d1", "new", "unknown"].map(|id| room.is_unnamed(id));
        assert_eq!(unnamed, [false, true, true, true]);
    }

    #[test]
    fn what_comes_in_counts_until_it_is_measured() {
        let mut room = five(Some(200));
        assert_eq!(room.take(50), Ok(()));
        assert_eq!(room.take(1), Err((200, 200)));
        assert_eq!(room.taken(), 200);
        room.measured("f1", 45);
        room.give_back(50);
        assert_eq!(room.taken(), 195);
        assert_eq!(room.take(6), Err((195, 200)));
        room.forget("f1");
        assert_eq!(room.take(6), Ok(()));
        // Without a limit everything fits.
        assert_eq!(five(None).take(u64::MAX / 2), Ok(()));
    }

    #[test]
    fn packs_are_made_one_when_half_of_a_large_mirror_may_be_waste() {
        let mut room = Room::new(None);
        room.measured("a", 100 * SLACK);
        assert!(!room.is_wasteful("a"), "nothing was let go");
        room.loosened("a");
        assert!(room.is_wasteful("a"));
        room.packed("a", 10 * SLACK);
        room.measured("a", 21 * SLACK + 1);
        assert!(!room.is_wasteful("a"), "it only grew");
        room.loosened("a");
        assert!(room.is_wasteful("a"));
        room.measured("a", 21 * SLACK);
        assert!(!room.is_wasteful("a"));
        assert!(!room.is_wasteful("unknown"));
    }
}
