//! Runs by turns, and what they say.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A variant: its name, and one run of it.
pub(super) struct Variant<'a> {
    pub(super) name: &'static str,
    pub(super) run: &'a mut dyn FnMut(),
}

/// Runs two variants by turns. Each gets one run first that is not counted.
pub(super) fn measure(count: usize, first: Variant<'_>, second: Variant<'_>) -> Value {
    let Variant { name: first_name, run: first } = first;
    let Variant { name: second_name, run: second } = second;
    first();
    second();
    let pairs: Vec<[Duration; 2]> = (0..count.max(1))
        .map(|number| {
            if number % 2 == 0 {
                let one = timed(first);
                [one, timed(second)]
            } else {
                let two = timed(second);
                [timed(first), two]
            }
        })
        .collect();
    summary([first_name, second_name], &pairs)
}

fn timed(run: &mut dyn FnMut()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// Medians of both, and the median, least and greatest ratio within a pair.
pub(super) fn summary(names: [&str; 2], pairs: &[[Duration; 2]]) -> Value {
    let variant = |index: usize| {
        let millis: Vec<f64> =
            pairs.iter().map(|pair| pair[index].as_secs_f64() * 1000.0).collect();
        json!({ "name": names[index], "milliseconds": spread(millis) })
    };
    let ratios =
        pairs.iter().map(|pair| pair[0].as_secs_f64() / pair[1].as_secs_f64().max(1e-9)).collect();
    json!({
        "pairs": pairs.len(),
        "variants": [variant(0), variant(1)],
        "ratio": { "of": format!("{} to {}", names[0], names[1]), "spread": spread(ratios) },
    })
}

pub(super) fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).map(|value| (value * 1000.0).round() / 1000.0);
    json!({
        "median": at(values.len() / 2),
        "least": at(0),
        "greatest": at(values.len().saturating_sub(1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_taken_within_each_pair() {
        let millis = Duration::from_millis;
        // The machine slows down by ten; the ratio does not notice.
        let pairs = [[millis(2), millis(1)], [millis(20), millis(10)], [millis(300), millis(100)]];
        let summary = summary(["a", "b"], &pairs);
        assert_eq!(summary["ratio"]["spread"]["median"], 2.0);
        assert_eq!(summary["ratio"]["spread"]["greatest"], 3.0);
        assert_eq!(summary["variants"][0]["milliseconds"]["median"], 20.0);
        assert_eq!(summary["variants"][1]["milliseconds"]["least"], 1.0);
    }

    #[test]
    fn the_order_changes_and_both_run_equally_often() {
        let order = std::cell::RefCell::new(String::new());
        let (mut a, mut b) = (|| order.borrow_mut().push('a'), || order.borrow_mut().push('b'));
        measure(3, Variant { name: "a", run: &mut a }, Variant { name: "b", run: &mut b });
        assert_eq!(*order.borrow(), "ababbaab");
    }
}
