//! The order of keys in output: letters as they are, digits by the number that they form, so that
//! `f9` stands before `f10`.

use std::cmp::Ordering;

/// Sorts keys as the Go emitter does.
///
/// The order is no total order in every corner (digits after zeros), which the standard library's
/// sort may answer with a panic; this merge sort takes any order.
pub(crate) fn sort<T>(keys: &mut Vec<(&str, T)>) {
    if keys.len() < 2 {
        return;
    }
    let mut right = keys.split_off(keys.len() / 2);
    sort(keys);
    sort(&mut right);
    let mut left = std::mem::take(keys).into_iter().peekable();
    let mut right = right.into_iter().peekable();
    loop {
        let take_right = match (left.peek(), right.peek()) {
            (Some((a, _)), Some((b, _))) => less(b, a),
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => return,
        };
        keys.extend(if take_right { right.next() } else { left.next() });
    }
}

/// Whether keys are in order for certain: they have letters and signs only, among which the order
/// is a total one, and each stands behind the one before it.
pub(crate) fn is_sorted<'k>(keys: impl Iterator<Item = &'k String>) -> bool {
    let rank = |byte: &u8| (byte.is_ascii_alphabetic(), *byte);
    let mut before: &[u8] = &[];
    keys.map(String::as_bytes).all(|key| {
        let clear = key.iter().all(|byte| byte.is_ascii() && !byte.is_ascii_digit());
        let before = std::mem::replace(&mut before, key);
        clear && before.iter().map(rank).le(key.iter().map(rank))
    })
}

fn less(a: &str, b: &str) -> bool {
    // Most keys differ where plain comparison says enough.
    if a.is_ascii() && b.is_ascii() {
        compare(a.as_bytes(), b.as_bytes(), |byte| char::from(*byte))
    } else {
        let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        compare(&a, &b, |c| *c)
    }
}

fn compare<T>(a: &[T], b: &[T], char: impl Fn(&T) -> char) -> bool {
    let (a_at, b_at) = (|i: usize| char(&a[i]), |i: usize| char(&b[i]));
    let Some(i) = (0..a.len().min(b.len())).find(|i| a_at(*i) != b_at(*i)) else {
        return a.len() < b.len();
    };
    match (a_at(i).is_alphabetic(), b_at(i).is_alphabetic()) {
        (true, true) => return a_at(i) < b_at(i),
        (a_letter, b_letter) if a_letter || b_letter => return b_letter,
        _ => {}
    }
    let number = |at: &dyn Fn(usize) -> char, len: usize, start: i64| {
        let mut value = start;
        let mut end = i;
        while let Some(digit) = (end < len).then(|| at(end)).and_then(|c| c.to_digit(10)) {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
            end += 1;
        }
        (value, end)
    };
    // A zero inside a number counts by its position, a leading one does not.
    let inside = (a_at(i) == '0' || b_at(i) == '0')
        && (0..i).rev().map(a_at).take_while(char::is_ascii_digit).any(|c| c != '0');
    let start = i64::from(inside);
    let (a_number, a_end) = number(&a_at, a.len(), start);
    let (b_number, b_end) = number(&b_at, b.len(), start);
    let order = a_number.cmp(&b_number).then(a_end.cmp(&b_end));
    order.then(a_at(i).cmp(&b_at(i))) == Ordering::Less
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_sort_as_numbers() {
        let cases = [
            "f10 f9 f1",
            "b a B A",
            "a1 a01 a001",
            "a-b a_b a.b ab",
            "1 10 2 a1",
            "é e z",
            "x y1 y10 y2",
        ];
        let want = [
            "f1 f9 f10",
            "A B a b",
            "a1 a01 a001",
            "a-b a.b a_b ab",
            "1 2 10 a1",
            "e z é",
            "x y1 y2 y10",
        ];
        for (keys, want) in cases.iter().zip(want) {
            let mut keys: Vec<(&str, ())> = keys.split(' ').map(|key| (key, ())).collect();
            sort(&mut keys);
            let got: Vec<&str> = keys.into_iter().map(|(key, ())| key).collect();
            assert_eq!(got.join(" "), want);
        }
    }

    #[test]
    fn keys_in_order_stay_as_they_are() {
        let seed = 9;
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut found = 0;
        for _ in 0..20_000 {
            let keys: Vec<String> = (0..random.usize(0..5))
                .map(|_| {
                    (0..random.usize(0..4))
                        .map(|_| random.choice(['a', 'B', '-', '_', '/', 'c', '1', 'é']).unwrap())
                        .collect()
                })
                .collect();
            if is_sorted(keys.iter()) {
                let mut sorted: Vec<(&str, ())> = keys.iter().map(|key| (&**key, ())).collect();
                sort(&mut sorted);
                assert!(sorted.iter().map(|(key, ())| *key).eq(keys.iter()), "{keys:?}");
                found += 1;
            }
        }
        assert!(found > 1000, "{found}");
    }

    #[test]
    fn random_keys_never_panic() {
        let seed = 7;
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let keys: Vec<String> = (0..random.usize(0..60))
                .map(|_| {
                    (0..random.usize(0..6))
                        .map(|_| random.choice(['0', '9', 'a', '1', '-', 'é']).unwrap())
                        .collect()
                })
                .collect();
            let mut sorted: Vec<(&str, ())> = keys.iter().map(|key| (key.as_str(), ())).collect();
            sort(&mut sorted);
            assert_eq!(sorted.len(), keys.len());
        }
    }
}
