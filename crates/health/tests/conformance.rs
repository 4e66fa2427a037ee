//! Judges live objects of many kinds and compares with what people who know the kinds say. The data
//! is found at `PLUMB_CONFORMANCE_DIR`, by default beside the checkout; without it there is nothing
//! to do. `PLUMB_CONFORMANCE_CASE` picks cases by a part of their name and shows each.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]
#![expect(clippy::print_stdout, reason = "the matrix is what people look at")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plumb_health::{Basis, Health, Rules, assess, assess_unknown};
use serde_json::Value;

const STATES: [Health; 6] = [
    Health::Healthy,
    Health::Suspended,
    Health::Progressing,
    Health::Unknown,
    Health::Missing,
    Health::Degraded,
];

struct Case {
    id: String,
    expected: Health,
    object: Value,
}

fn cases() -> Option<Vec<Case>> {
    let dir = std::env::var_os("PLUMB_CONFORMANCE_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
        PathBuf::from,
    );
    let dir = dir.join("health");
    let list = std::fs::read_to_string(dir.join("cases.json")).ok()?;
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    let only = std::env::var("PLUMB_CONFORMANCE_CASE").unwrap_or_default();
    let read = |case: &Value| {
        let id = case["id"].as_str().unwrap().to_owned();
        let text = std::fs::read_to_string(dir.join(format!("{id}.yaml"))).unwrap();
        let object = serde_yaml::from_str(&text).unwrap();
        let expected = STATES.into_iter().find(|state| case["health"] == state.to_string());
        Case { id, expected: expected.unwrap(), object }
    };
    Some(list.iter().map(read).filter(|case| case.id.contains(&only)).collect())
}

#[derive(Default)]
struct Matrix {
    cells: BTreeMap<(Health, Health), usize>,
}

impl Matrix {
    fn count(&self, take: impl Fn(Health, Health) -> bool) -> usize {
        self.cells.iter().filter(|((want, got), _)| take(*want, *got)).map(|(_, count)| count).sum()
    }

    fn right(&self) -> usize {
        self.count(|want, got| want == got)
    }

    fn print(&self, title: &str) {
        let all = self.count(|_, _| true);
        let right = self.right();
        println!("{title}: {right} of {all} right; rows are what is so, columns what is said");
        print!("{:12}", "");
        for state in STATES {
            print!("{:>12}", state.to_string());
        }
        println!();
        for want in STATES {
            print!("{:12}", want.to_string());
            for got in STATES {
                print!("{:12}", self.cells.get(&(want, got)).copied().unwrap_or(0));
            }
            println!();
        }
    }
}

#[test]
fn verdicts_are_those_of_people_who_know_the_kinds() {
    let Some(cases) = cases() else {
        println!("conformance data is not there, nothing is compared");
        return;
    };
    let shows = std::env::var_os("PLUMB_CONFORMANCE_CASE").is_some();
    let (mut all, mut alone) = (Matrix::default(), Matrix::default());
    let own = Rules::default();
    let mut bases = BTreeMap::new();
    for case in &cases {
        let (verdict, basis) = assess(&case.object, &own);
        *bases.entry(basis).or_insert(0) += 1;
        *all.cells.entry((case.expected, verdict.health)).or_default() += 1;
        let guess = assess_unknown(&case.object);
        *alone.cells.entry((case.expected, guess.health)).or_default() += 1;
        if shows || verdict.health != case.expected && basis != Basis::Generic {
            let (want, got) = (case.expected, verdict.health);
            println!(
                "{} ({basis:?}): is {want}, said {got}; guessed {}: {}",
                case.id, guess.health, verdict.reason
            );
        }
    }
    println!("{bases:?}");
    alone.print("the guess alone");
    all.print("with all rules");
    let not_healthy = alone.count(|want, _| want != Health::Healthy);
    let false_healthy = alone.count(|want, got| want != Health::Healthy && got == Health::Healthy);
    println!("false Healthy of the guess: {false_healthy} of {not_healthy}");
    if shows {
        return;
    }
    let worst = all.count(|want, got| want == Health::Degraded && got == Health::Healthy);
    assert_eq!(worst, 0, "what does not work is called healthy");
    assert!(all.right() * 100 >= 97 * cases.len(), "with all rules: {}", all.right());
    assert!(alone.right() * 100 >= 60 * cases.len(), "the guess: {}", alone.right());
    assert!(false_healthy * 100 < 12 * not_healthy, "the guess: {false_healthy} false Healthy");
}
